//! Calls from a thread that is ending: from the destructor of thread-specific data, say, or when
//! `user_data_free` is called for a callback that ended its thread.
//!
//! Rust's thread-locals are gone by then, those of flurry too, which cannot work without them. So
//! the call is carried out by a short-lived thread, while this one waits.

use std::thread;

use crate::error::{Error, Result};
use crate::lock;
use crate::sync::current;
use crate::table;

/// Lives as long as the thread-locals that calls need, and not longer.
struct Alive;

impl Drop for Alive {
    // Only a type that needs dropping has an end that can be seen.
    fn drop(&mut self) {}
}

thread_local! {
    /// WHY: begun after the others. Thread-locals end in reverse order, this one first.
    static ALIVE: Alive = {
        drop(current());
        table::begin_thread();
        lock::begin_thread();
        Alive
    };
}

/// Whether this thread can carry out calls by itself.
pub(super) fn is_alive() -> bool {
    ALIVE.try_with(|_| ()).is_ok()
}

/// Carries out `body` on a thread of its own, in the name of this one.
pub(super) fn on_fresh_thread<T>(body: impl FnOnce() -> T) -> Result<T> {
    let number = lock::thread_number();
    let mut answer = None;
    let lent = Lent((body, &mut answer));
    let run = move || {
        lock::set_thread_number(number);
        let (body, answer) = lent.into_inner();
        *answer = Some(body());
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, run);
        thread.map_err(|_| Error::NoThread)?.join().map_err(|_| Error::NoThread)
    })?;
    answer.ok_or(Error::NoThread)
}

/// What a waiting thread lends to the one that works for it.
struct Lent<T>(T);

// SAFETY: the lender does nothing but wait until the borrower has ended, so only one of the two
// ever uses it at a time.
unsafe impl<T> Send for Lent<T> {}

impl<T> Lent<T> {
    fn into_inner(self) -> T {
        self.0
    }
}
