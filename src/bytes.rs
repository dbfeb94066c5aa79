//! Byte strings: keys and values. Immutable, and cheap to clone.
//!
//! WHY: short ones are kept in place. A pointer hop to one byte string among a million costs a
//! cache miss, which is more than copying three words.

use std::fmt;

use crate::error::Result;
use crate::memory::{self, SharedBytes};

/// The longest byte string that is kept in place.
const INLINE: usize = 16;

/// The longest one that fits into a word.
pub(crate) const WORD: usize = 8;

/// An immutable byte string.
#[derive(Clone)]
pub(crate) struct Bytes(Repr);

/// WHY: whole words. A load that spans several stores in flight waits for all of them, and byte
/// strings are moved right after they were made.
#[derive(Clone)]
enum Repr {
    Inline(Len, Words),
    Shared(SharedBytes),
}

/// Zero behind the length.
#[derive(Clone, Copy, PartialEq)]
#[repr(align(8))]
struct Words([u8; INLINE]);

impl Words {
    /// WHY: numbers apart. One is a load and two stores of words; most short keys and values are.
    #[inline(always)] // See `Staged::push`.
    fn of(source: &[u8]) -> Self {
        match source.first_chunk::<8>() {
            Some(number) if source.len() == 8 => {
                Self(u128::from(u64::from_le_bytes(*number)).to_le_bytes())
            }
            _ => Self::padded(source),
        }
    }

    #[inline(never)]
    fn padded(source: &[u8]) -> Self {
        let mut words = [0; INLINE];
        words[..source.len()].copy_from_slice(source);
        Self(words)
    }
}

/// A length up to `INLINE`, in a word that leaves room for the tag of `Repr`.
///
/// WHY: not a byte beside the tag. Byte strings are copied by words right after they were made, and a
/// word that was stored in pieces is waited for (B1, a call on one key: 304 ns, 217 with a word).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[rustfmt::skip]
enum Len { L0, L1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L11, L12, L13, L14, L15, L16 }

impl Len {
    /// `None` past `INLINE`.
    fn of(source: &[u8]) -> Option<Self> {
        ALL.get(source.len()).copied()
    }
}

const ALL: [Len; INLINE + 1] = {
    use Len::*;
    [L0, L1, L2, L3, L4, L5, L6, L7, L8, L9, L10, L11, L12, L13, L14, L15, L16]
};

impl Bytes {
    /// A copy of `source`; `Error::NoMemory` if memory of that size cannot be had.
    #[inline(always)] // See `Staged::push`.
    pub(crate) fn copy_of(source: &[u8]) -> Result<Self> {
        match Len::of(source) {
            Some(len) => Ok(Self(Repr::Inline(len, Words::of(source)))),
            None => Self::shared_copy_of(source),
        }
    }

    #[cold]
    fn shared_copy_of(source: &[u8]) -> Result<Self> {
        Ok(Self(Repr::Shared(SharedBytes::copy_of(source)?)))
    }

    /// What they are, and how many, if they fit into a word.
    #[inline]
    pub(crate) fn word(&self) -> Option<(usize, u64)> {
        match self.0 {
            Repr::Inline(len, Words(words)) if len as usize <= WORD => {
                Some((len as usize, u128::from_le_bytes(words) as u64))
            }
            _ => None,
        }
    }

    /// What `word` was asked for.
    #[inline]
    pub(crate) fn of_word(len: usize, word: u64) -> Self {
        Self(Repr::Inline(ALL[len], Words(u128::from(word).to_le_bytes())))
    }

    /// How many bytes they keep on the heap.
    pub(crate) fn heap(&self) -> usize {
        match &self.0 {
            Repr::Inline(..) => 0,
            Repr::Shared(data) => data.as_slice().len(),
        }
    }

    /// Whether they take no memory of their own.
    pub(crate) fn are_in_place(&self) -> bool {
        !matches!(self.0, Repr::Shared(..))
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, words) => &words.0[..*len as usize],
            Repr::Shared(data) => data.as_slice(),
        }
    }
}

/// `Error::NoMemory` if there is no room for a copy of so many bytes.
#[inline]
pub(crate) fn check_room_for(len: usize) -> Result<()> {
    /// Fewer than these are there for anyone who could pass them.
    const MANY: usize = 1 << 20;
    if len < MANY { Ok(()) } else { memory::check_room_for(len) }
}

/// A copy of `source` on the heap; `Error::NoMemory` if memory of that size cannot be had.
pub(crate) fn boxed_copy(source: &[u8]) -> Result<Box<[u8]>> {
    let mut copy = memory::list(source.len())?;
    copy.extend_from_slice(source);
    Ok(copy.into_boxed_slice())
}

impl Bytes {
    /// Whether they are these bytes.
    #[inline]
    pub(crate) fn is(&self, other: &[u8]) -> bool {
        match (&self.0, other.first_chunk::<8>()) {
            // WHY: apart, as in `Words::of`.
            (Repr::Inline(Len::L8, words), Some(number)) if other.len() == 8 => {
                words.0.starts_with(number)
            }
            _ => self.as_slice() == other,
        }
    }
}

impl PartialEq for Bytes {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Inline(len, words), Repr::Inline(other_len, other_words)) => {
                len == other_len && words == other_words
            }
            (Repr::Shared(data), Repr::Shared(other_data)) => {
                data.as_slice() == other_data.as_slice()
            }
            _ => false,
        }
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
    fn a_byte_string_is_itself_and_nothing_else() {
        let source: Vec<u8> = (0..40).collect();
        for len in 0..source.len() {
            let bytes = Bytes::copy_of(&source[..len]).unwrap();
            for other_len in 0..source.len() {
                let mut other = source[..other_len].to_vec();
                let copy = Bytes::copy_of(&other).unwrap();
                assert_eq!(bytes.is(&other), len == other_len, "{len}, {other_len} bytes");
                assert_eq!(bytes == copy, len == other_len, "{len}, {other_len} bytes");
                for place in 0..other_len {
                    other[place] ^= 0x80;
                    assert!(!bytes.is(&other), "{len}, {other_len} bytes, one different");
                    assert!(bytes != Bytes::copy_of(&other).unwrap());
                    other[place] ^= 0x80;
                }
            }
        }
    }

    #[test]
    fn what_is_behind_the_end_counts_for_nothing_but_the_length() {
        let [short, long] = [&b"k"[..], &b"k\0"[..]].map(|bytes| Bytes::copy_of(bytes).unwrap());
        assert!(short != long && !short.is(b"k\0") && !long.is(b"k"));
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
