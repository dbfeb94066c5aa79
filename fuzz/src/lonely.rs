//! Callbacks that touch nothing but their guard: they may outlive their call, or be cancelled.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::api::{self, Status};
use crate::locks::{LONG, Named, default_options};
use crate::model::{Attempt, Kind};
use crate::world::{World, at};

/// How a callback ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    /// It outlives its time, and is refused everything.
    ReturnsLate,
    /// The same, and is cancelled.
    IsKilled,
    /// It ends its thread.
    ExitsThread,
}

impl Ending {
    fn exec_timeout_ms(self) -> i64 {
        if self == Ending::ExitsThread { LONG } else { 1 }
    }

    /// What its call answers if it gets the lock and nobody takes it away.
    pub fn status(self) -> Status {
        if self == Ending::ExitsThread { api::CALLBACK_FAILED } else { api::EXEC_TIMEOUT }
    }
}

/// The user's data.
#[derive(Debug)]
struct Lonely {
    ending: Ending,
    freed: Arc<AtomicUsize>,
}

unsafe extern "C-unwind" {
    safe fn pthread_testcancel();
    safe fn pthread_exit(value: *mut c_void) -> !;
}

/// Makes the call. Tells its status, and how often the data was freed.
pub fn call(
    ending: Ending,
    table: *mut api::Table,
    key: &[u8],
    lock_table: *mut api::LockTable,
    wait_timeout_ms: i64,
) -> (Status, Arc<AtomicUsize>) {
    let options = api::Options {
        wait_timeout_ms,
        exec_timeout_ms: ending.exec_timeout_ms(),
        on_exec_timeout: if ending == Ending::IsKilled { api::KILL } else { api::ABANDON },
        lock_table,
        user_data_free: Some(free_data),
        ..default_options()
    };
    let freed = Arc::new(AtomicUsize::new(0));
    let data = Box::into_raw(Box::new(Lonely { ending, freed: Arc::clone(&freed) })).cast();
    let run = Some(callback as extern "C-unwind" fn(_, _, _, _) -> _);
    let (key, len, out) = (at(key), key.len(), ptr::null_mut());
    let status = api::etslock_with_lock(table, key, len, run, data, &options, out);
    (status, freed)
}

/// Owns nothing on its stack: it may be unwound.
extern "C-unwind" fn callback(
    guard: *mut api::Guard,
    _: *const api::Tuple,
    _: usize,
    data: *mut c_void,
) -> i32 {
    // SAFETY: alive until this callback has returned.
    let ending = unsafe { &*data.cast::<Lonely>() }.ending;
    let (key, value) = (c"a".as_ptr().cast(), c"never".as_ptr().cast());
    if ending == Ending::ExitsThread {
        api::etslock_guard_insert(guard, key, 1, value, 5);
        pthread_exit(ptr::null_mut());
    }
    assert_eq!(api::etslock_guard_sleep(guard, api::INFINITE), api::REVOKED);
    let status = api::etslock_guard_insert(guard, key, 1, value, 5);
    assert!(matches!(status, api::REVOKED | api::ERR_NOT_COVERED));
    assert_eq!(api::etslock_guard_commit(guard), api::REVOKED);
    assert_eq!(api::etslock_guard_extend(guard, api::INFINITE), api::REVOKED);
    if ending == Ending::IsKilled {
        pthread_testcancel();
    }
    0
}

extern "C-unwind" fn free_data(data: *mut c_void) {
    // SAFETY: passed to one call, which frees it once.
    let data = unsafe { Box::from_raw(data.cast::<Lonely>()) };
    assert_eq!(data.freed.fetch_add(1, SeqCst), 0, "data was freed twice");
}

impl World {
    pub fn lonely_step(&mut self) {
        let endings = [Ending::ExitsThread, Ending::ReturnsLate, Ending::IsKilled];
        let ending = self.input.of(&endings);
        if ending != Ending::ExitsThread && !self.wait_a_moment() {
            return;
        }
        let mut ask = self.ask(Kind::OnWorker, Named::One);
        if ask.flaw.take().is_some() {
            ask.options.known.wait_timeout_ms = LONG;
        }
        ask.request.exec = Some(ending.exec_timeout_ms());
        (ask.request.owner, ask.request.party) = (0, self.me());
        (ask.request.commit_code, ask.request.stopped) = (0, false);
        let (mut allowed, attempt) = self.forecast(&mut ask);
        let granted = matches!(attempt, Attempt::Granted);
        if granted {
            let hold = self.model.grant(ask.request.clone());
            if ending != Ending::ExitsThread {
                self.model.is_late(hold);
            }
            self.model.callback_returned(hold, -1);
            allowed = vec![ending.status()];
        }
        let ((_, key), known) = (&ask.request.keys[0], &ask.options.known);
        let what = format_args!("with_lock({ask}) that {ending:?}");
        let mut freed = Arc::default();
        let with_lock = || {
            let (table, lock_table) = (ask.table(), known.lock_table);
            let (status, count) = call(ending, table, key, lock_table, known.wait_timeout_ms);
            freed = count;
            status
        };
        let status = self.call(what, with_lock, &allowed);
        if !granted {
            self.refused(&ask, attempt, status);
        }
        if !granted || ending == Ending::ExitsThread {
            assert_eq!(freed.load(SeqCst), 1, "the call is over, and the data not freed");
        }
        self.freed.push(freed);
    }
}
