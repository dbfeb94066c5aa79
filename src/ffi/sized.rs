//! Structs that begin with `struct_size`: how the ABI grows without a break.
//!
//! The library reads the part of a caller's struct that both know. A caller from the future may
//! pass more, as long as what this release does not know is zero.

use std::ops::Deref;
use std::ptr;

use crate::error::{Error, Result};

/// A struct of the C API that begins with `uint32_t struct_size`.
///
/// # Safety
/// The type is `repr(C)`, begins with `struct_size: u32`, and every bit pattern is valid for it.
pub(super) unsafe trait SizedStruct: Copy + Default {
    /// Its size in the first release that had it.
    const FIRST_SIZE: usize;
}

/// A struct that a caller set.
///
/// WHY: most callers are of this release, and theirs can be read where it lies.
#[derive(Debug)]
pub(super) enum Given<'a, T> {
    InPlace(&'a T),
    Copied(T),
}

impl<T> Deref for Given<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self {
            Given::InPlace(given) => given,
            Given::Copied(copy) => copy,
        }
    }
}

/// What a caller set: the defaults if `given` is NULL.
///
/// # Safety
/// `given` is NULL, or readable for the `struct_size` bytes that it begins with, and unchanged as
/// long as the answer is used.
#[inline(always)]
pub(super) unsafe fn read_sized<'a, T: SizedStruct>(given: *const T) -> Result<Given<'a, T>> {
    if given.is_null() {
        return Ok(Given::Copied(T::default()));
    }
    // SAFETY: not NULL, and at least `struct_size` itself is readable.
    let size = unsafe { ptr::read_unaligned(given.cast::<u32>()) } as usize;
    if size == size_of::<T>() && given.is_aligned() {
        // SAFETY: not NULL, aligned, readable by the contract above, and any bits are a `T`.
        return Ok(Given::InPlace(unsafe { &*given }));
    }
    // SAFETY: the contract above, for a caller of another release.
    unsafe { copy_sized(given, size) }.map(Given::Copied)
}

/// The part of a caller's struct that both know.
///
/// # Safety
/// `given` is readable for `size` bytes.
#[cold]
unsafe fn copy_sized<T: SizedStruct>(given: *const T, size: usize) -> Result<T> {
    let mut known = T::default();
    if size < T::FIRST_SIZE {
        return Err(Error::StructSize);
    }
    let given = given.cast::<u8>();
    for offset in size_of::<T>()..size {
        // SAFETY: below `size`.
        let byte = unsafe { given.add(offset) };
        // SAFETY: readable by the contract above.
        if unsafe { byte.read() } != 0 {
            return Err(Error::StructSize);
        }
    }
    // SAFETY: both sides hold that many bytes, and every bit pattern is a valid `T`.
    unsafe {
        ptr::copy_nonoverlapping(given, (&raw mut known).cast::<u8>(), size.min(size_of::<T>()))
    };
    Ok(known)
}

/// Writes the defaults of the part that the caller's `size` covers, and zeroes the rest. NULL or
/// a size without room for `struct_size` changes nothing.
///
/// # Safety
/// `place` is NULL, or writable for `size` bytes.
pub(super) unsafe fn write_defaults<T: SizedStruct>(place: *mut T, size: usize) {
    let Ok(size_written) = u32::try_from(size) else { return };
    if place.is_null() || size < size_of::<u32>() {
        return;
    }
    let defaults = T::default();
    let known = size.min(size_of::<T>());
    // SAFETY: the contract above, with `known` bytes readable in `defaults`.
    unsafe {
        ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), place.cast::<u8>(), known)
    };
    // SAFETY: `known` is at most `size`.
    let tail = unsafe { place.cast::<u8>().add(known) };
    // SAFETY: the rest of the caller's `size` bytes.
    unsafe { ptr::write_bytes(tail, 0, size - known) };
    // SAFETY: `size` has room for the first field.
    unsafe { ptr::write_unaligned(place.cast::<u32>(), size_written) };
}

/// Answers into a caller's struct, no further than it reaches; `struct_size` stays.
///
/// # Safety
/// `place` is NULL, or writable for the `struct_size` bytes that it begins with.
pub(super) unsafe fn fill_sized<T: SizedStruct>(
    place: *mut T,
    make: impl FnOnce() -> Result<T>,
) -> Result<()> {
    if place.is_null() {
        return Err(Error::Null);
    }
    // SAFETY: not NULL, and at least `struct_size` itself is readable.
    let size = unsafe { ptr::read_unaligned(place.cast::<u32>()) };
    if (size as usize) < T::FIRST_SIZE {
        return Err(Error::StructSize);
    }
    let answer = make()?;
    let known = (size as usize).min(size_of::<T>());
    // SAFETY: the contract above, with `known` bytes readable in `answer`.
    unsafe {
        ptr::copy_nonoverlapping((&raw const answer).cast::<u8>(), place.cast::<u8>(), known)
    };
    // SAFETY: room for the first field was checked above.
    unsafe { ptr::write_unaligned(place.cast::<u32>(), size) };
    Ok(())
}
