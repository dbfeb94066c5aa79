//! Every cast between a C pointer and a Rust value. A function here states what its caller, an
//! export with a documented contract, must have been promised by the C program.

use std::ffi::c_void;
use std::slice;

use crate::error::{Error, Result};
use crate::process::{self, Generation};

/// A value behind an opaque pointer, with the process it was born in (C-16).
#[derive(Debug)]
pub(super) struct Live<T> {
    value: T,
    born: Generation,
}

impl<T> Live<T> {
    /// `Error::NoMemory` if forks cannot be seen.
    pub(super) fn new(value: T) -> Result<Self> {
        super::fork::watch()?;
        Ok(Self { value, born: process::handle_is_made() })
    }
}

/// An opaque type of the C API.
pub(super) trait Handle {
    type Inner;

    /// What the handle stands for; `Error::Forked` in a child of the process that made it.
    fn enter(&self) -> Result<&Self::Inner>;
}

impl<T> Live<T> {
    pub(super) fn enter(&self) -> Result<&T> {
        if self.born.is_current() { Ok(&self.value) } else { Err(Error::Forked) }
    }
}

/// The value behind a handle.
///
/// # Safety
/// `handle` is NULL or a live handle of its type, and stays live during the call.
pub(super) unsafe fn borrow<'a, H: Handle + 'a>(handle: *const H) -> Result<&'a H::Inner> {
    // SAFETY: the contract above.
    let handle = unsafe { handle.as_ref() }.ok_or(Error::Null)?;
    handle.enter()
}

/// A plain struct or snapshot that C may read whatever the process.
///
/// # Safety
/// `pointer` is NULL, or readable as `T` and unchanged during the call.
pub(super) unsafe fn read<'a, T>(pointer: *const T) -> Result<&'a T> {
    // SAFETY: the contract above.
    unsafe { pointer.as_ref() }.ok_or(Error::Null)
}

/// A byte string given by C.
///
/// # Safety
/// `data` is readable for `len` bytes during the call; it may be NULL when `len` is 0.
pub(super) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8]> {
    // SAFETY: the contract above.
    unsafe { array(data.cast::<u8>(), len) }
}

/// An array given by C.
///
/// # Safety
/// `data` is readable for `len` elements during the call; it may be NULL when `len` is 0.
pub(super) unsafe fn array<'a, T>(data: *const T, len: usize) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Error::Null);
    }
    let size = len.checked_mul(size_of::<T>()).ok_or(Error::Invalid)?;
    if size > isize::MAX as usize {
        return Err(Error::Invalid);
    }
    // SAFETY: not NULL, the size fits, and the contract above.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// Where an answer goes. Made before anything else, so that a NULL is found before any effect.
#[derive(Debug)]
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `place` is NULL, or writable and used by this thread alone during the call.
    pub(super) unsafe fn new(place: *mut T) -> Result<Self> {
        if place.is_null() { Err(Error::Null) } else { Ok(Self(place)) }
    }

    pub(super) fn set(self, value: T) {
        // SAFETY: not NULL by `new`, and writable by its contract.
        unsafe { self.0.write(value) }
    }
}

impl<T> Out<*mut T> {
    /// An output handle: NULL until the call succeeds.
    ///
    /// # Safety
    /// As for `new`.
    pub(super) unsafe fn handle(place: *mut *mut T) -> Result<Self> {
        // SAFETY: the contract above.
        let out = unsafe { Self::new(place) }?;
        // SAFETY: not NULL, and writable by the contract above.
        unsafe { out.0.write(std::ptr::null_mut()) };
        Ok(out)
    }

    /// Hands `value` over to C.
    pub(super) fn give(self, value: Box<T>) {
        self.set(Box::into_raw(value));
    }
}

/// Ends a handle that `give` handed out. NULL is fine; in a forked child nothing happens (C-16).
///
/// # Safety
/// `handle` is NULL or a live handle, and nobody uses it afterwards.
pub(super) unsafe fn free<H: Handle>(handle: *mut H) {
    // SAFETY: the contract above.
    if unsafe { borrow(handle) }.is_ok() {
        // SAFETY: it came from `give`, and the contract above passes it back.
        drop(unsafe { Box::from_raw(handle) });
    }
}
