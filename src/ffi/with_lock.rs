//! The lock calls: run a callback while holding the lock of a key, or acquire a guard.

use std::ffi::c_void;
use std::ptr;

use super::boundary::{boundary, boundary_or};
use super::ending;
use super::guard::{self, etslock_guard};
use super::handle::{Out, array, borrow, bytes};
use super::options::etslock_options;
use super::sized::read_sized;
use super::status::etslock_status;
use super::table::etslock_table;
use super::tuples::{etslock_tuple, etslock_tuples};
use crate::error::{self, Error, Result};
use crate::guard::Guard;
use crate::process::Generation;
use crate::table::{Snapshot, Tuples};
use crate::with_lock::{Answer, Callback, acquire, with_lock};

/// What runs while a lock is held; 0 commits its writes, anything else drops them, unless
/// options.commit_code says otherwise.
///
/// `tuples` are those of the locked keys as of the acquisition, NULL if there are none; for several
/// keys they are grouped in the order given. `guard` and `tuples` are valid until the callback
/// returns, also when it was abandoned. What it returns comes back in etslock_result.code.
///
/// Thread: an internal one, or the calling one with ETSLOCK_RUN_ON_CALLER (C-10). Held: the locks
/// of the named keys, and no lock inside the library. It may call everything in this header, other
/// locks and other tables included; a wait that could never end answers ETSLOCK_DEADLOCK (C-13). A
/// nested call is otherwise independent: losing the outer lock neither ends its wait nor revokes
/// its guard. The callback's own guard is not its own to end: etslock_guard_release and
/// etslock_guard_cancel refuse it.
///
/// An internal thread is a citizen of the process (C-22). A callback finds on it what a fresh thread
/// of the main thread would find: the signals that the main thread blocks, its processors and, as
/// far as the system lets it, its priority; the floating-point environment of a program that
/// begins, errno 0, cancellation on and deferred. Signals to the thread reach it, and programs that
/// it starts can be ended. It finds nothing of the thread that made the internal one start, and
/// nothing that an earlier callback left, but for one thing: processors and priority that it sets
/// for its thread are put right before the callback of another calling thread, and when the internal
/// thread was idle for some milliseconds; a callback of the same caller that comes sooner may find
/// them. The system may not let a priority be raised: then the thread ends when it is idle.
///
/// Time: at the exec deadline the lock goes, not the callback (C-4, C-11). One that works for long
/// asks etslock_guard_status now and then and returns when that is not ETSLOCK_OK, or asks for more
/// time with etslock_guard_extend. A callback that never returns costs one thread; it is counted,
/// and never starves other calls.
///
/// `user_data` must live until the callback has returned, which may be after the call: free it in
/// etslock_options.user_data_free, or choose ETSLOCK_JOIN (C-11, C-12).
///
/// Neither an exception nor longjmp may leave it (C-17); etslock.hpp sees to that for C++. On an
/// internal thread it may end its thread with pthread_exit or by cancellation: the call answers
/// ETSLOCK_CALLBACK_FAILED; destructors of its thread-specific data are still part of it. On the
/// calling thread it must not; cancellation is off while it runs.
///
/// From other languages, where the callback is a thunk into a runtime:
///
/// - Keep the thunk alive until the callback has returned, which may be after the call, and never
///   free it inside user_data_free.
/// - Node: call the library asynchronously; the thread of JavaScript must be free to run the thunk.
/// - Go: `keys` and the bytes they point to must be C memory or pinned; `user_data` may be an
///   integer, such as a cgo.Handle.
/// - Never ETSLOCK_KILL: a managed runtime does not survive the cancellation of a thread in it.
/// - Where foreign threads may not enter the runtime, use ETSLOCK_RUN_ON_CALLER, or no callback at
///   all: etslock_acquire and etslock_guard_release.
///
/// Since:     0.1
pub type etslock_callback = Option<
    unsafe extern "C-unwind" fn(
        guard: *mut etslock_guard,
        tuples: *const etslock_tuple,
        tuple_count: usize,
        user_data: *mut c_void,
    ) -> i32,
>;

/// What a callback hands to the caller of its call. Never grows.
///
/// Written by every call that is given one: zeroed first, then filled on ETSLOCK_OK and
/// ETSLOCK_CALLBACK_FAILED. End it with etslock_result_free.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug)]
pub struct etslock_result {
    /// On ETSLOCK_OK and ETSLOCK_CALLBACK_FAILED: what the callback returned. Else 0.
    pub code: i32,
    /// 0.
    pub reserved: u32,
    /// On ETSLOCK_OK: what the callback set with etslock_guard_set_result. NULL if that was nothing
    /// or 0 bytes, and on every other status.
    pub data: *mut u8,
    /// Bytes in data.
    pub data_len: usize,
}

impl etslock_result {
    const EMPTY: Self = Self { code: 0, reserved: 0, data: ptr::null_mut(), data_len: 0 };
}

/// One key of several. Never grows.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_key {
    /// The key; readable for key_len bytes during the call. May be NULL if key_len is 0.
    pub key: *const c_void,
    /// Bytes in the key; may be 0.
    pub key_len: usize,
}

/// The user's data, freed exactly once: when this is dropped (C-12).
#[derive(Debug)]
struct UserData {
    data: *mut c_void,
    free: Option<unsafe extern "C-unwind" fn(*mut c_void)>,
    born: Generation,
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let Some(free) = self.free
            && self.born.is_current()
        {
            // SAFETY: contract `user_data`: valid once, on any thread, after the callback.
            unsafe { free(self.data) };
        }
    }
}

/// A C callback and its data.
#[derive(Debug)]
pub(super) struct CCallback {
    callback: etslock_callback,
    user_data: UserData,
}

/// What the callback is shown.
#[derive(Debug)]
pub(super) enum Shown {
    Nothing,
    /// WHY: one tuple without a list; most keys have one.
    One(Tuples),
    Many(Box<etslock_tuples>),
}

// SAFETY: contract `user_data`: callback and data may be used from another thread.
unsafe impl Send for CCallback {}
// SAFETY: as above; only `run` reads it while it is shared.
unsafe impl Sync for CCallback {}

impl CCallback {
    /// Takes over `user_data`. Comes before everything else that can fail, so that every early
    /// return frees it.
    pub(super) fn adopt(
        callback: etslock_callback,
        user_data: *mut c_void,
        options: &etslock_options,
    ) -> Self {
        let user_data =
            UserData { data: user_data, free: options.user_data_free, born: Generation::current() };
        Self { callback, user_data }
    }

    pub(super) fn checked(self) -> Result<Self> {
        if self.callback.is_some() { Ok(self) } else { Err(Error::Null) }
    }
}

impl Callback for CCallback {
    type View = Shown;

    #[inline(always)] // See `with_lock::take`.
    fn arrange(&self, tuples: Snapshot) -> Result<Shown> {
        Ok(match tuples {
            Snapshot::One(tuples) if tuples.is_empty() => Shown::Nothing,
            Snapshot::One(tuples) if tuples.len() == 1 => Shown::One(tuples),
            tuples => Shown::Many(etslock_tuples::new(tuples)?),
        })
    }

    // WHY: owns nothing. Cancellation and `pthread_exit` unwind this frame (C-17).
    fn run(&self, guard: &Guard, shown: &Shown) -> i32 {
        let only;
        let (data, count) = match shown {
            Shown::Nothing => (ptr::null(), 0),
            Shown::One(tuples) => {
                only = etslock_tuple::first_of(tuples);
                (&raw const only, 1)
            }
            Shown::Many(tuples) => (tuples.as_ptr(), tuples.len()),
        };
        let Some(callback) = self.callback else { return -1 };
        ending::begin_thread();
        // SAFETY: contract `callback`: it takes these, on any thread; they live until it returns.
        unsafe { callback(etslock_guard::lend(guard), data, count, self.user_data.data) }
    }
}

/// Zeroes the caller's result, whatever happens next.
///
/// # Safety
/// `place` is NULL, or writable by this thread alone during the call.
pub(super) unsafe fn result_place<'a>(
    place: *mut etslock_result,
) -> Option<&'a mut etslock_result> {
    if !place.is_null() {
        // SAFETY: not NULL, and the contract above.
        unsafe { place.write(etslock_result::EMPTY) };
    }
    // SAFETY: the contract above.
    unsafe { place.as_mut() }
}

/// Writes what the callback left, and says how the call ended.
pub(super) fn answer(out: Option<&mut etslock_result>, answer: Answer) -> Result<()> {
    if let Some(out) = out {
        out.code = answer.code;
        if let Some(data) = answer.data.filter(|data| !data.is_empty()) {
            out.data_len = data.len();
            out.data = Box::into_raw(data).cast();
        }
    }
    answer.end
}

/// Runs `callback` while holding the lock of `key`.
///
/// Waits for the lock, then for the callback. When the callback returns 0 in time, or what
/// options.commit_code says, its writes are published and the status is ETSLOCK_OK; in every other
/// case none of its unpublished writes happen (C-7). When exec_timeout_ms passes first, the lock is
/// taken back and the call returns, while the callback runs on with a revoked guard (C-4, C-8, C-11).
/// NULL for `options` means the defaults; `out_result` may be NULL. Status and callback's code are
/// two things: look at both.
///
/// Ownership: `user_data` belongs to the library from here on if user_data_free is set, which is
///            called exactly once, whatever this returns but ETSLOCK_ERR_STRUCT_SIZE (C-12). `key`
///            is copied. `*out_result` is always written; end it with etslock_result_free.
/// Threads:   any thread, also from a callback; a key that the owner itself holds is
///            ETSLOCK_DEADLOCK.
/// Blocks:    at most wait_timeout_ms + exec_timeout_ms and extensions; with ETSLOCK_JOIN or
///            ETSLOCK_RUN_ON_CALLER until the callback has returned.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - the lock was not free in time; the callback never ran.
///            ETSLOCK_STOPPED - options.stop was requested during the wait; the callback never ran.
///            ETSLOCK_EXEC_TIMEOUT - the callback outlived its time, or no thread began it in time.
///            ETSLOCK_CALLBACK_FAILED - the callback returned another code, or ended its thread.
///            ETSLOCK_REVOKED - the lock was taken away by etslock_lock_table_force_release.
///            ETSLOCK_DEADLOCK - the owner holds the key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
///            ETSLOCK_ERR_NULL - `table` or `callback` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - an option is out of range, or `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the key, or to publish the writes.
///            ETSLOCK_ERR_NO_THREAD - no thread could be started for the callback, or no
///                                    thread-specific key was left by which its end is noticed.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key`, `callback`, `user_data`, `options` and `out` at the top of the
/// header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_with_lock(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    callback: etslock_callback,
    user_data: *mut c_void,
    options: *const etslock_options,
    out_result: *mut etslock_result,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { result_place(out_result) };
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        let callback = CCallback::adopt(callback, user_data, &options);
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `options`: its handles are NULL or live.
        let options = unsafe { options.validate() }?;
        answer(out, with_lock(table, &[key], &options, callback.checked()?))
    })
}

/// Runs `callback` while holding the locks of several keys of one table.
///
/// As etslock_with_lock, for 1 to ETSLOCK_MAX_KEYS keys; duplicates count once. Keys are taken in
/// one global order, so that calls of this kind do not deadlock each other; those already taken
/// stay locked while the rest are waited for, within the one wait deadline. One token, one exec
/// deadline, counted from the last grant. Losing one key revokes the guard for all (C-18). The
/// writes of each key are published in one step, those of all keys are not (C-7).
///
/// Ownership: `user_data` belongs to the library from here on if user_data_free is set, which is
///            called exactly once, whatever this returns but ETSLOCK_ERR_STRUCT_SIZE (C-12). `keys`
///            are copied. `*out_result` is always written; end it with etslock_result_free.
/// Threads:   any thread, also from a callback; a key that the owner itself holds is
///            ETSLOCK_DEADLOCK.
/// Blocks:    at most wait_timeout_ms + exec_timeout_ms and extensions; with ETSLOCK_JOIN or
///            ETSLOCK_RUN_ON_CALLER until the callback has returned.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
///            ETSLOCK_STOPPED - options.stop was requested during the wait; nothing stays locked.
///            ETSLOCK_EXEC_TIMEOUT - the callback outlived its time, or no thread began it in time.
///            ETSLOCK_CALLBACK_FAILED - the callback returned another code, or ended its thread.
///            ETSLOCK_REVOKED - one of the locks was taken away.
///            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
///            ETSLOCK_ERR_NULL - `table`, `keys`, `callback`, or a key that has a length, is NULL.
///            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the keys, or to publish the writes.
///            ETSLOCK_ERR_NO_THREAD - no thread could be started for the callback, or no
///                                    thread-specific key was left by which its end is noticed.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `keys`, `callback`, `user_data`, `options` and `out` at the top of the
/// header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_with_locks(
    table: *mut etslock_table,
    keys: *const etslock_key,
    key_count: usize,
    callback: etslock_callback,
    user_data: *mut c_void,
    options: *const etslock_options,
    out_result: *mut etslock_result,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { result_place(out_result) };
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        let callback = CCallback::adopt(callback, user_data, &options);
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `keys`.
        let keys = unsafe { key_list(keys, key_count) }?;
        // SAFETY: contract `options`: its handles are NULL or live.
        let options = unsafe { options.validate() }?;
        answer(out, with_lock(table, &keys, &options, callback.checked()?))
    })
}

/// Acquires the lock of `key` and returns a guard for it: no callback, for FFI and event loops.
///
/// The guard is held until etslock_guard_release or etslock_guard_cancel, on any thread; it does
/// not end with its thread. Past its exec deadline it is late: its writes are refused, and from the
/// release time on a waiter takes its lock (C-5). The owner is the calling thread unless
/// options.owner says otherwise, also when another thread uses the guard: a second acquire of the
/// same key by that owner is ETSLOCK_DEADLOCK (C-13). With short times a waiter may take the lock
/// before this returns: ETSLOCK_OK, and the guard is revoked.
///
/// Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel, also when
///            its lock was lost; NULL on failure. `key` is copied.
/// Threads:   any thread, also from a callback.
/// Blocks:    until the lock is free, at most wait_timeout_ms.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - the lock was not free in time.
///            ETSLOCK_STOPPED - options.stop was requested during the wait.
///            ETSLOCK_REVOKED - the lock was taken away by force in the moment it was got.
///            ETSLOCK_DEADLOCK - the owner holds the key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
///            ETSLOCK_ERR_NULL - `table` or `out_guard` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - an option is out of range, or `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `key`, `options` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_acquire(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    options: *const etslock_options,
    out_guard: *mut *mut etslock_guard,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_guard) }?;
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `options`: its handles are NULL or live.
        let options = unsafe { options.validate() }?;
        guard::give(out, acquire(table, &[key], &options)?);
        Ok(())
    })
}

/// Acquires the locks of several keys of one table and returns one guard for them.
///
/// As etslock_acquire, for 1 to ETSLOCK_MAX_KEYS keys, which are taken as in etslock_with_locks: in
/// one global order, duplicates once, within one wait deadline, all or none (C-18).
///
/// Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel, also when
///            its locks were lost; NULL on failure. `keys` are copied.
/// Threads:   any thread, also from a callback.
/// Blocks:    until all locks are got, at most wait_timeout_ms.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
///            ETSLOCK_STOPPED - options.stop was requested during the wait; nothing stays locked.
///            ETSLOCK_REVOKED - a lock was taken away while the rest were waited for.
///            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
///            ETSLOCK_ERR_NULL - `table`, `keys`, `out_guard`, or a key that has a length, is NULL.
///            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
/// Since:     0.1
///
/// # Safety
/// The contracts `table`, `keys`, `options` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_acquire_locks(
    table: *mut etslock_table,
    keys: *const etslock_key,
    key_count: usize,
    options: *const etslock_options,
    out_guard: *mut *mut etslock_guard,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_guard) }?;
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `keys`.
        let keys = unsafe { key_list(keys, key_count) }?;
        // SAFETY: contract `options`: its handles are NULL or live.
        let options = unsafe { options.validate() }?;
        guard::give(out, acquire(table, &keys, &options)?);
        Ok(())
    })
}

/// An array of as many keys as a call can take.
///
/// # Safety
/// `keys` is readable for `key_count` elements during the call.
pub(super) unsafe fn some<'a, T>(keys: *const T, key_count: usize) -> Result<&'a [T]> {
    if key_count == 0 || key_count > super::options::etslock_limit_code::ETSLOCK_MAX_KEYS as usize {
        return Err(Error::Invalid);
    }
    // SAFETY: the contract above.
    unsafe { array(keys, key_count) }
}

/// The keys of a call that takes several.
///
/// # Safety
/// `keys` is readable for `key_count` elements, and each key for its length, during the call.
pub(super) unsafe fn key_list<'a>(
    keys: *const etslock_key,
    key_count: usize,
) -> Result<Vec<&'a [u8]>> {
    // SAFETY: the contract above.
    let keys = unsafe { some(keys, key_count) }?;
    // SAFETY: the contract above.
    error::list(keys.iter().map(|key| unsafe { bytes(key.key, key.key_len) }))
}

/// Frees what a result holds and zeroes it.
///
/// Safe after every status of the call that wrote it, and again on a zeroed result.
///
/// Ownership: data is gone; the struct itself stays yours. NULL is fine.
/// Threads:   any thread, not while another uses the result.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_result_free(result: *mut etslock_result) {
    boundary_or((), || {
        // SAFETY: contract `free`: NULL, or a result that this library wrote, used by no one else.
        let Some(result) = (unsafe { result.as_mut() }) else { return };
        if !result.data.is_null() {
            let data = ptr::slice_from_raw_parts_mut(result.data, result.data_len);
            // SAFETY: `answer` made it from a box of that length, and it is forgotten below.
            drop(unsafe { Box::from_raw(data) });
        }
        *result = etslock_result::EMPTY;
    })
}
