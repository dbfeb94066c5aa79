//! What stands around every exported function: no panic leaves it (C-17), and no thread is
//! cancelled inside it (C-5).
//!
//! WHY: every one, save those that touch nothing but memory of ours. Crates below read files and ask
//! for random bytes at times that we do not know, and those are cancellation points.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ending;
use super::status::{etslock_status, etslock_status_code};
use crate::error::{Error, Result};

/// Runs the body of an exported function and turns its answer into a status.
pub(super) fn boundary(body: impl FnOnce() -> Result<()>) -> etslock_status {
    status(guarded(|| Err(Error::NoThread), body))
}

/// As `boundary`, for a body that has more than one status for what went well.
pub(super) fn boundary_of(body: impl FnOnce() -> Result<etslock_status_code>) -> etslock_status {
    match guarded(|| Err(Error::NoThread), body) {
        Some(Ok(code)) => code as etslock_status,
        Some(Err(error)) => status(Some(Err(error))),
        None => status(None),
    }
}

/// As `boundary`, for a body that meets no cancellation point and makes no thread-local: one that
/// touches the library's own memory, the clock, and at most wakes a thread.
pub(super) fn brief(body: impl FnOnce() -> Result<()>) -> etslock_status {
    status(caught(body))
}

fn status(answer: Option<Result<()>>) -> etslock_status {
    let code = match answer {
        Some(Ok(())) => etslock_status_code::ETSLOCK_OK,
        Some(Err(error)) => error.into(),
        None => etslock_status_code::ETSLOCK_ERR_PANIC,
    };
    code as etslock_status
}

/// Runs the body of an exported function that has no status; `fallback` answers for a panic.
pub(super) fn boundary_or<T: Copy>(fallback: T, body: impl FnOnce() -> T) -> T {
    guarded(|| fallback, body).unwrap_or(fallback)
}

/// As `brief`, for a function that has no status.
pub(super) fn brief_or<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    caught(body).unwrap_or(fallback)
}

/// `None` when `body` panicked. `no_thread`: the answer when it needed a thread, and got none.
fn guarded<T>(no_thread: impl FnOnce() -> T, body: impl FnOnce() -> T) -> Option<T> {
    let _uncancelled = Uncancelled::enter();
    if ending::is_alive() {
        return caught(body);
    }
    ending::on_fresh_thread(|| caught(body)).unwrap_or_else(|_| Some(no_thread()))
}

fn caught<T>(body: impl FnOnce() -> T) -> Option<T> {
    // WHY: unwind safety. What a panic may leave half done is behind mutexes whose poison every
    // user of them decides about, or is dropped with the frame.
    catch_unwind(AssertUnwindSafe(body)).ok()
}

/// While it lives, a cancellation request for this thread stays pending.
pub(super) struct Uncancelled {
    before: libc::c_int,
}

unsafe extern "C" {
    // `libc` does not declare it for Linux.
    fn pthread_setcancelstate(state: libc::c_int, before: *mut libc::c_int) -> libc::c_int;
}

const PTHREAD_CANCEL_DISABLE: libc::c_int = 1;

impl Uncancelled {
    pub(super) fn enter() -> Self {
        let mut before = 0;
        // SAFETY: a plain call with a valid place for the old state.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &mut before) };
        Self { before }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        let mut ignored = 0;
        // SAFETY: restores the state that `enter` found. Not a cancellation point.
        unsafe { pthread_setcancelstate(self.before, &mut ignored) };
    }
}
