//! Memory that may be refused: what goes to the heap here is a status when there is none (C-24).
//!
//! The standard library's own types abort instead. These do what their names say, and no more.
//!
//! Invariants
//! I1. A `Shared` counts its owners; the last one drops the value and frees the block.
//! I2. The bytes of a `SharedBytes` follow its header in one block, and never change.

#![expect(unsafe_code, reason = "the standard library has no allocation that can fail")]

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::slice;

use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::error::{Error, Result};

/// A block of this layout, whose size is not 0.
fn block<T>(layout: Layout) -> Result<NonNull<T>> {
    // SAFETY: no caller asks for nothing.
    NonNull::new(unsafe { alloc(layout) }.cast()).ok_or(Error::NoMemory)
}

/// `value` on the heap.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>> {
    const { assert!(size_of::<T>() > 0) };
    let place = block::<T>(Layout::new::<T>())?;
    // SAFETY: a fresh block of a `T`'s layout.
    unsafe { place.write(value) };
    // SAFETY: from the allocator that a box frees to, with a value in it.
    Ok(unsafe { Box::from_raw(place.as_ptr()) })
}

/// Whether `size` bytes are to be had at once. They are given back: whoever asks for them next, in
/// pieces and with no way to fail, most likely gets them.
pub(crate) fn check_room_for(size: usize) -> Result<()> {
    Vec::<u8>::new().try_reserve_exact(size).map_err(|_| Error::NoMemory)
}

/// Whether blocks of these sizes are to be had together. They are given back: this thread, which asks
/// for the same ones next, gets them.
pub(crate) fn check_room_for_blocks<const N: usize>(sizes: [usize; N]) -> Result<()> {
    let blocks = sizes.map(|size| list::<u64>(size.div_ceil(size_of::<u64>())));
    blocks.into_iter().try_for_each(|block| block.map(drop))
}

/// An empty list with room for `len` items.
pub(crate) fn list<T>(len: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    Ok(list)
}

/// Appends to a list.
pub(crate) fn push<T>(list: &mut Vec<T>, item: T) -> Result<()> {
    list.try_reserve(1).map_err(|_| Error::NoMemory)?;
    list.push(item);
    Ok(())
}

/// A value with several owners.
pub(crate) struct Shared<T> {
    block: NonNull<Counted<T>>,
    owns: PhantomData<Counted<T>>,
}

struct Counted<T> {
    owners: AtomicUsize,
    value: T,
}

// SAFETY: as for the standard library's: owners on several threads read the value, and any may drop it.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// `Error::NoMemory` if there is no room for it.
    pub(crate) fn new(value: T) -> Result<Self> {
        let counted = boxed(Counted { owners: AtomicUsize::new(1), value })?;
        Ok(Self { block: NonNull::from(Box::leak(counted)), owns: PhantomData })
    }

    /// Whether it is the same one, not an equal one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.block == other.block
    }

    /// As a number, which owns what it owned.
    pub(crate) fn into_raw(self) -> u64 {
        let raw = self.block.as_ptr().expose_provenance() as u64;
        std::mem::forget(self);
        raw
    }

    /// # Safety
    /// From `into_raw`; what the number owned is owned by the answer.
    pub(crate) unsafe fn from_raw(raw: u64) -> Self {
        let block = std::ptr::with_exposed_provenance_mut(raw as usize);
        // SAFETY: the contract above: it came from a block.
        Self { block: unsafe { NonNull::new_unchecked(block) }, owns: PhantomData }
    }

    /// # Safety
    /// From `into_raw`, and what the number owns stays owned during the call.
    pub(crate) unsafe fn clone_raw(raw: u64) -> Self {
        // SAFETY: the contract above; the owner is not dropped here.
        let owner = std::mem::ManuallyDrop::new(unsafe { Self::from_raw(raw) });
        Self::clone(&owner)
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: an owner keeps the block (I1).
        unsafe { self.block.as_ref() }
    }
}

impl<T> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        // ORDERING: whoever clones is an owner; nothing is published by it.
        self.counted().owners.fetch_add(1, Relaxed);
        Self { block: self.block, owns: PhantomData }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // ORDERING: Release for what this owner did, Acquire for what the others did before.
        if self.counted().owners.fetch_sub(1, Release) == 1 {
            self.counted().owners.load(Acquire);
            // SAFETY: made from a box, and this was the last owner (I1).
            drop(unsafe { Box::from_raw(self.block.as_ptr()) });
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// An immutable byte string with several owners, in one block (I2).
pub(crate) struct SharedBytes {
    block: NonNull<Header>,
}

#[repr(C)]
struct Header {
    owners: AtomicUsize,
    len: usize,
}

// SAFETY: the bytes never change, and the count is atomic.
unsafe impl Send for SharedBytes {}
// SAFETY: as above.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// `Error::NoMemory` if memory of that size cannot be had.
    pub(crate) fn copy_of(source: &[u8]) -> Result<Self> {
        let block = block::<Header>(Self::layout(source.len())?)?;
        // SAFETY: a fresh block that begins with a header.
        unsafe { block.write(Header { owners: AtomicUsize::new(1), len: source.len() }) };
        // SAFETY: the header lies within the block.
        let bytes = unsafe { block.add(1) }.cast::<u8>();
        // SAFETY: the block has room for as many bytes behind its header, and is fresh.
        unsafe { bytes.copy_from_nonoverlapping(NonNull::from(source).cast(), source.len()) };
        Ok(Self { block })
    }

    fn layout(len: usize) -> Result<Layout> {
        let size = len.checked_add(size_of::<Header>()).ok_or(Error::NoMemory)?;
        Layout::from_size_align(size, align_of::<Header>()).map_err(|_| Error::NoMemory)
    }

    fn header(&self) -> &Header {
        // SAFETY: an owner keeps the block (I1).
        unsafe { self.block.as_ref() }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: within the block (I2).
        let bytes = unsafe { self.block.add(1) }.cast::<u8>();
        // SAFETY: `len` bytes follow the header, and never change (I2).
        unsafe { slice::from_raw_parts(bytes.as_ptr(), self.header().len) }
    }
}

impl Clone for SharedBytes {
    fn clone(&self) -> Self {
        self.header().owners.fetch_add(1, Relaxed); // ORDERING: as for `Shared`.
        Self { block: self.block }
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        // ORDERING: as for `Shared`.
        if self.header().owners.fetch_sub(1, Release) == 1 {
            self.header().owners.load(Acquire);
            let size = size_of::<Header>() + self.header().len;
            // SAFETY: the layout of a block that there is was valid.
            let layout = unsafe { Layout::from_size_align_unchecked(size, align_of::<Header>()) };
            // SAFETY: allocated with this layout, and this was the last owner (I1).
            unsafe { dealloc(self.block.as_ptr().cast(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_last_owner_drops_the_value() {
        let value = Arc::new(());
        let first = Shared::new(Arc::clone(&value)).unwrap();
        let second = first.clone();
        assert!(first.is(&second));
        drop(first);
        assert_eq!(Arc::strong_count(&value), 2);
        // SAFETY: from `into_raw`, owned by `second` and its number.
        let third = unsafe { Shared::<Arc<()>>::from_raw(second.into_raw()) };
        drop(third);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn bytes_are_shared_in_one_block() {
        let bytes = SharedBytes::copy_of(&[7; 100]).unwrap();
        let other = bytes.clone();
        drop(bytes);
        assert_eq!(other.as_slice(), [7; 100]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(list::<u8>(isize::MAX as usize).is_err());
        assert!(check_room_for(isize::MAX as usize).is_err());
    }
}
