//! Calls from a thread that is ending: from the destructor of thread-specific data, say, or when
//! `user_data_free` is called for a callback that ended its thread.
//!
//! Rust's thread-locals are gone by then, those of flurry too, which cannot work without them. So
//! the call is carried out by a short-lived thread, while this one waits.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;

use super::boundary::Uncancelled;
use crate::lock;
use crate::process;
use crate::sync::current;
use crate::table;

/// What is known of the thread-locals that calls need.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    Unknown,
    Alive,
    Ended,
}

/// Lives as long as the thread-locals that calls need, and not longer.
struct Alive;

impl Drop for Alive {
    fn drop(&mut self) {
        LIFE.set(Life::Ended);
    }
}

thread_local! {
    /// Never destroyed itself.
    static LIFE: Cell<Life> = const { Cell::new(Life::Unknown) };
    /// WHY: begun after the others. Thread-locals end in reverse order, this one first.
    static ALIVE: Alive = {
        drop(current());
        table::begin_thread();
        lock::begin_thread();
        LIFE.set(Life::Alive);
        Alive
    };
}

/// Whether this thread can carry out calls by itself.
#[inline]
pub(super) fn is_alive() -> bool {
    match LIFE.get() {
        Life::Alive => true,
        Life::Ended => false,
        Life::Unknown => begin(),
    }
}

/// WHY: nothing is made while no handle can be live. A forked child whose parent's threads were in
/// the middle of anything answers for what it inherited, and touches nothing of theirs (C-16).
#[cold]
fn begin() -> bool {
    !process::has_handles() || ALIVE.try_with(|_| ()).is_ok()
}

/// Makes the thread-locals that calls need, while the thread can still end them. To be called
/// before a callback may end its thread: made afterwards, they would never be freed.
pub(super) fn begin_thread() {
    is_alive();
}

/// A call, and the place of its answer.
struct Errand<F, T> {
    body: Option<F>,
    answer: Option<T>,
    /// In whose name it is done.
    identity: lock::Identity,
}

/// No thread could be started.
pub(super) struct NoThread;

/// Carries out `body`, which does not panic but answers `None` instead, on a thread of its own, in
/// the name of this one and of the call whose callback it runs. If there is none to be had, on this one: it lets go of what it was given,
/// and most often gets no further.
///
/// WHY: not a thread of std's. Starting one makes thread-locals here, which nobody ends any more.
pub(super) fn on_fresh_thread<F, T>(body: F) -> Result<Option<T>, NoThread>
where
    F: FnOnce() -> Option<T>,
{
    let mut errand = Errand { body: Some(body), answer: None, identity: lock::identity() };
    let mut thread = MaybeUninit::uninit();
    // SAFETY: a valid place for the thread; `errand` outlives it because it is joined below, and
    // is not touched here until then.
    let status = unsafe {
        libc::pthread_create(
            thread.as_mut_ptr(),
            ptr::null(),
            run_errand::<F, T>,
            (&raw mut errand).cast(),
        )
    };
    if status != 0 {
        let answer = errand.body.take().and_then(|body| body());
        return answer.map(Some).ok_or(NoThread);
    }
    // SAFETY: written by `pthread_create`, which succeeded.
    let thread = unsafe { thread.assume_init() };
    // SAFETY: a joinable thread that nobody else knows.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    Ok(errand.answer)
}

extern "C" fn run_errand<F: FnOnce() -> Option<T>, T>(errand: *mut c_void) -> *mut c_void {
    // SAFETY: `on_fresh_thread` lends it to this thread alone until it has ended.
    let errand = unsafe { &mut *errand.cast::<Errand<F, T>>() };
    // As on the ending thread: nobody means this one, but a callback may give its name away.
    let _uncancelled = Uncancelled::enter();
    // SAFETY: the ending thread waits for the end of this one.
    unsafe { lock::assume_identity(errand.identity) };
    errand.answer = errand.body.take().and_then(|body| body());
    ptr::null_mut()
}
