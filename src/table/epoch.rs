//! Epochs: what readers may still see stays in memory until they have gone.
//!
//! A reader pins; what is retired while it is pinned is dropped after it. Nobody waits while pinned.

#![expect(unsafe_code, reason = "what is retired must be out of reach; its retirer says so")]

use std::cell::RefCell;
use std::mem;

use crossbeam_epoch::{Collector, Guard, LocalHandle};

use crate::process::{Generation, PerProcess};

thread_local! {
    static HANDLE: RefCell<Option<(Generation, LocalHandle)>> = const { RefCell::new(None) };
}

/// Keeps what is in reach now in memory, until it is dropped.
pub(super) struct Pin(Guard);

/// Pins.
///
/// WHY: not the crate's own collector. A forked child inherits the pins of threads that it does not
/// have, and would never reclaim anything again (C-15, C-16).
#[inline]
pub(super) fn pin() -> Pin {
    let by_handle = HANDLE.try_with(|handle| match &*handle.borrow() {
        Some((born, handle)) if born.is_current() => Some(handle.pin()),
        _ => None,
    });
    Pin(match by_handle {
        Ok(Some(guard)) => guard,
        Ok(None) => HANDLE.with(|handle| {
            let new = register();
            let guard = new.pin();
            // A handle of the parent's is not touched.
            mem::forget(handle.replace(Some((Generation::current(), new))));
            guard
        }),
        // A thread whose locals are gone registers for this one time.
        Err(_) => register().pin(),
    })
}

#[cold]
fn register() -> LocalHandle {
    static COLLECTOR: PerProcess<Collector> = PerProcess::new();
    COLLECTOR.get(Collector::new).register()
}

impl Pin {
    /// Drops `garbage` when all have gone who may see it.
    ///
    /// # Safety
    /// Whoever pins from here on has no way to it, and any thread may drop it.
    pub(super) unsafe fn retire<T>(&self, garbage: T) {
        // SAFETY: the contract above. Who is pinned now is waited for.
        unsafe { self.0.defer_unchecked(move || drop(garbage)) };
    }

    /// Sees to it that what was retired is dropped soon, whatever this thread does next.
    pub(super) fn flush(&self) {
        self.0.flush();
    }
}

/// Drops what was retired, as far as nobody is pinned who may see it.
#[cold]
pub(super) fn collect() {
    /// An epoch ends when all have seen it, and what was retired in it goes two epochs later.
    const EPOCHS: usize = 4;
    for _ in 0..EPOCHS {
        pin().flush();
    }
}
