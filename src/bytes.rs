//! Byte strings: keys and values. Immutable, and cheap to clone.
//!
//! WHY: short ones are kept in place. A pointer hop to one byte string among a million costs a
//! cache miss, which is more than copying three words.

use std::fmt;

use crate::error::{Error, Result};
use crate::sync::Arc;

/// The longest byte string that is kept in place.
const INLINE: usize = 16;

/// An immutable byte string.
#[derive(Clone)]
pub(crate) struct Bytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, data: Words },
    // WHY: boxed inside. Only a `Vec` can say that memory cannot be had (C-17).
    Shared(Arc<Box<[u8]>>),
}

/// WHY: aligned. Odd offsets are copied in odd pieces, and a load that spans two stores in flight
/// waits for both.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Words([u8; INLINE]);

impl Bytes {
    /// A copy of `source`; `Error::NoMemory` if memory of that size cannot be had.
    pub(crate) fn copy_of(source: &[u8]) -> Result<Self> {
        if source.len() <= INLINE {
            let mut data = [0; INLINE];
            data[..source.len()].copy_from_slice(source);
            Ok(Self(Repr::Inline { len: source.len() as u8, data: Words(data) }))
        } else {
            Ok(Self(Repr::Shared(Arc::new(boxed_copy(source)?))))
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, data } => &data.0[..usize::from(*len)],
            Repr::Shared(data) => data,
        }
    }
}

/// A copy of `source` on the heap; `Error::NoMemory` if memory of that size cannot be had.
pub(crate) fn boxed_copy(source: &[u8]) -> Result<Box<[u8]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(source.len()).map_err(|_| Error::NoMemory)?;
    copy.extend_from_slice(source);
    Ok(copy.into_boxed_slice())
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.as_slice().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back() {
        let source: Vec<u8> = (0..100).collect();
        for len in 0..source.len() {
            assert_eq!(Bytes::copy_of(&source[..len]).unwrap().as_slice(), &source[..len]);
        }
    }

    #[test]
    fn long_strings_are_shared_by_clones() {
        let bytes = Bytes::copy_of(&[7; INLINE + 1]).unwrap();
        assert_eq!(bytes.as_slice().as_ptr(), bytes.clone().as_slice().as_ptr());
    }

    #[test]
    fn a_byte_string_is_three_words() {
        assert_eq!(size_of::<Bytes>(), 24);
    }
}
