//! Stops: what ends waits early.

use super::boundary::{boundary, boundary_or};
use super::handle::{Handle, Live, Out, borrow, free};
use super::status::etslock_status;
use crate::error::Result;
use crate::lock::Stop;

/// Ends waits early: from a signal's handler thread, a cancelled task, a closing connection.
///
/// Expect one per task or request that may be cancelled; give it to any number of calls in
/// options.stop. It acts on waits only: a callback that runs, or a lock that is held, is left alone.
/// It comes from etslock_stop_new and lives until etslock_stop_free. Any number of threads may use it
/// at once.
///
/// Methods:   etslock_stop_new - makes one.
///            etslock_stop_request - ends the waits under it.
///            etslock_stop_free - frees it.
/// Since:     0.2
#[derive(Debug)]
pub struct etslock_stop(Live<Stop>);

impl Handle for etslock_stop {
    type Inner = Stop;
    fn enter(&self) -> Result<&Stop> {
        self.0.enter()
    }
}

/// Makes a stop that was not requested.
///
/// Ownership: `*out_stop` is yours until etslock_stop_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `out_stop` is NULL.
/// Since:     0.2
///
/// # Safety
/// The contract `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_stop_new(out_stop: *mut *mut etslock_stop) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_stop) }?;
        out.give(Box::new(etslock_stop(Live::new(Stop::new())?)));
        Ok(())
    })
}

/// Ends every wait under `stop`, for ever: with ETSLOCK_STOPPED.
///
/// The waits of calls that have it in options.stop end, blocked or begun, for one key or for several;
/// of several keys, none stays locked. A wait that was granted its lock first is not undone. Calls
/// that come later still make their one attempt (C-2): they get a lock that is free, and
/// ETSLOCK_STOPPED where they would have to wait. To begin anew, make a new stop.
///
/// Threads:   any thread, any number of times; not in a signal handler.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `stop` is NULL.
/// Since:     0.2
///
/// # Safety
/// The contract `stop` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_stop_request(stop: *mut etslock_stop) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `stop`.
        unsafe { borrow(stop) }?.request();
        Ok(())
    })
}

/// Frees a stop, without requesting it.
///
/// Calls under way, and acquires that are pending, keep what they need of it: they wait on, and
/// nothing can stop them any more, if it was not requested before.
///
/// Ownership: `stop` is gone. NULL is fine; in a forked child nothing happens.
/// Threads:   any thread, not while another call with it is about to begin.
/// Blocks:    no.
/// Since:     0.2
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_stop_free(stop: *mut etslock_stop) {
    // SAFETY: contract `free`.
    boundary_or((), || unsafe { free(stop) });
}
