//! Guards: the handle that stands for a held lock.

use std::ffi::c_void;

use super::boundary::{boundary, brief, brief_or};
use super::handle::{Handle, Out, borrow, bytes};
use super::status::etslock_status;
use super::tuples::etslock_tuples;
use crate::clock::Timeout;
use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::table::Snapshot;

/// The handle that stands for a held lock: reads and writes of its keys, until its deadline.
///
/// One for each lock that is held, or set of locks. A callback is given one, which is valid until the callback returns,
/// also when it was abandoned; the callback cannot end it. etslock_acquire returns one, which lives
/// until etslock_guard_release or etslock_guard_cancel: losing its lock, the end of its thread or
/// etslock_table_free does not end it (C-5, C-14). Any thread may use a guard, one at a time; the
/// functions that take it as const may be called from any thread meanwhile.
///
/// Writes are staged: nobody else sees them before they are committed, and then those of a key come
/// in one step (C-7). No write through a revoked guard lands, however late (C-8).
///
/// A guard's answers:
///
/// | call                                            | live | late                  | revoked |
/// |-------------------------------------------------|------|-----------------------|---------|
/// | lookup, insert, delete, delete_tuple, commit,   |      |                       |         |
/// | rollback, set_result, extend, sleep, status     | OK   | EXEC_TIMEOUT          | REVOKED |
/// | release                                         | OK   | EXEC_TIMEOUT, unlocks | REVOKED |
/// | cancel                                          | OK   | OK                    | OK      |
///
/// Late is past the exec deadline with the lock still held; revoked is without the lock, for ever.
/// A worker's guard goes from live to revoked at its deadline; acquired guards, and those of
/// callbacks on the caller's thread, are late in between.
///
/// Methods:   etslock_guard_lookup - the tuples of a key, staged writes applied.
///            etslock_guard_insert - stages an insert.
///            etslock_guard_delete - stages the removal of a key's tuples.
///            etslock_guard_delete_tuple - stages the removal of one tuple.
///            etslock_guard_lookup_in, _insert_in, _delete_in, _delete_tuple_in - the same of a key
///            of a table that is named, for guards of several tables.
///            etslock_guard_commit - publishes the staged writes, keeps the lock.
///            etslock_guard_rollback - forgets the staged writes, keeps the lock.
///            etslock_guard_release - commits, unlocks, ends an acquired guard.
///            etslock_guard_cancel - rolls back, unlocks, ends an acquired guard.
///            etslock_guard_set_result - what the call hands to its caller.
///            etslock_guard_extend - moves the exec deadline away.
///            etslock_guard_sleep - sleeps, and wakes when the lock is lost.
///            etslock_guard_status - whether it is live, late or revoked.
///            etslock_guard_remaining_ms - time to the exec deadline.
///            etslock_guard_token - the fencing token of the lock.
/// Since:     0.1
// WHY: `cfg_attr`. cbindgen would print a plain `repr(transparent)` as an alias of `Guard`.
#[cfg_attr(all(), repr(transparent))]
#[derive(Debug)]
pub struct etslock_guard(Guard);

impl Handle for etslock_guard {
    type Inner = Guard;
    fn enter(&self) -> Result<&Guard> {
        self.0.enter()?;
        Ok(&self.0)
    }
}

impl etslock_guard {
    /// An acquired guard, on its way to C.
    pub(super) fn new(guard: Guard) -> Box<Self> {
        Box::new(Self(guard))
    }

    /// The same, for one that lies in a box already.
    pub(super) fn from_box(guard: Box<Guard>) -> *mut Self {
        Box::into_raw(guard).cast() // `repr(transparent)`
    }

    /// A callback's guard, lent to C while the callback runs.
    pub(super) fn lend(guard: &Guard) -> *mut etslock_guard {
        // C passes it back as `*mut`, but every use here is shared.
        std::ptr::from_ref(guard).cast_mut().cast()
    }
}

/// The current tuples of a locked key, with the guard's staged writes applied.
///
/// The snapshot does not follow later writes.
///
/// Ownership: `*out_tuples` is yours until etslock_tuples_free, and outlives the guard; NULL on
///            failure.
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_NOT_FOUND - the key has no tuple.
///            ETSLOCK_ERR_NULL - `guard` or `out_tuples` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX; the guard's keys are of several
///            tables: see etslock_guard_lookup_in.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `guard`, `key` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_lookup(
    guard: *mut etslock_guard,
    key: *const c_void,
    key_len: usize,
    out_tuples: *mut *mut etslock_tuples,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_tuples) }?;
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        out.give(etslock_tuples::new(Snapshot::One(guard.lookup(key)?))?);
        Ok(())
    })
}

/// Stages the insertion of a tuple under a locked key.
///
/// Commit replays the staged writes in order on the tuples of that moment: in a set the guard's
/// write wins, in bags the unguarded inserts of others survive (C-7). Works on every table,
/// ETSLOCK_GUARDED ones included.
///
/// Ownership: key and value are copied.
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` is NULL, or `key` or `value` with a length above 0.
///            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX; the guard's keys are of several
///            tables.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
/// Since:     0.1
///
/// # Safety
/// The contracts `guard`, `key` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_insert(
    guard: *mut etslock_guard,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `value`.
        let value = unsafe { bytes(value, value_len) }?;
        guard.insert(key, value)
    })
}

/// Stages the removal of all tuples of a locked key.
///
/// A key without a tuple is fine. At the commit every tuple goes that the key has then (C-7).
///
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX; the guard's keys are of several
///            tables.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key; earlier writes stay staged.
/// Since:     0.1
///
/// # Safety
/// The contracts `guard` and `key` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_delete(
    guard: *mut etslock_guard,
    key: *const c_void,
    key_len: usize,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        guard.delete(key)
    })
}

/// Stages the removal of every instance of one tuple under a locked key.
///
/// No such tuple is fine; other tuples of the key stay, in their order.
///
/// Ownership: key and value are copied.
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` is NULL, or `key` or `value` with a length above 0.
///            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX; the guard's keys are of several
///            tables.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
/// Since:     0.1
///
/// # Safety
/// The contracts `guard`, `key` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_delete_tuple(
    guard: *mut etslock_guard,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `value`.
        let value = unsafe { bytes(value, value_len) }?;
        guard.delete_tuple(key, value)
    })
}

/// Publishes the staged writes now and keeps the lock.
///
/// What is published stays, whatever becomes of the guard. A commit that is under way when the
/// deadline passes is finished, and is then a success (C-8). The writes of each key become visible
/// in one step, those of several keys do not (C-7).
///
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late; nothing was published.
///            ETSLOCK_REVOKED - the guard is revoked; nothing was published.
///            ETSLOCK_ERR_NULL - `guard` is NULL.
///            ETSLOCK_ERR_NO_MEMORY - nothing was published, all stays staged: try again.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_commit(guard: *mut etslock_guard) -> etslock_status {
    // SAFETY: contract `guard`.
    boundary(|| unsafe { borrow(guard) }?.commit())
}

/// Forgets the unpublished writes and keeps the lock.
///
/// What was committed before stays.
///
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late; its writes will never be published.
///            ETSLOCK_REVOKED - the guard is revoked; its writes will never be published.
///            ETSLOCK_ERR_NULL - `guard` is NULL.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_rollback(guard: *mut etslock_guard) -> etslock_status {
    // SAFETY: contract `guard`.
    brief(|| unsafe { borrow(guard) }?.rollback())
}

/// Publishes the staged writes, unlocks, and ends an acquired guard.
///
/// It ends the guard whatever it returns, except ETSLOCK_ERR_NULL and ETSLOCK_ERR_INVALID: never
/// call it again. To be able to try a failed write again, call etslock_guard_commit first. A guard
/// that lost its lock publishes nothing and cannot free a successor's lock (C-6).
///
/// Ownership: the guard is gone.
/// Threads:   any thread, not while another uses the guard; not for a callback's guard.
/// Blocks:    no; a write of the same key that is being made is waited for.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard was late; nothing was published, the lock is free.
///            ETSLOCK_REVOKED - the guard was revoked; nothing was published.
///            ETSLOCK_ERR_NULL - `guard` is NULL.
///            ETSLOCK_ERR_INVALID - the guard is a callback's; it stays as it was.
///            ETSLOCK_ERR_NO_MEMORY - nothing was published, the lock is free.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_release(guard: *mut etslock_guard) -> etslock_status {
    // SAFETY: contract `guard`.
    boundary(|| unsafe { reclaim(guard) }?.release())
}

/// Forgets the staged writes, unlocks, and ends an acquired guard.
///
/// ETSLOCK_OK also when the guard was late or revoked; what was committed before stays. It ends the
/// guard whatever it returns, except ETSLOCK_ERR_NULL and ETSLOCK_ERR_INVALID.
///
/// Ownership: the guard is gone.
/// Threads:   any thread, not while another uses the guard; not for a callback's guard.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `guard` is NULL.
///            ETSLOCK_ERR_INVALID - the guard is a callback's; it stays as it was.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_cancel(guard: *mut etslock_guard) -> etslock_status {
    // SAFETY: contract `guard`.
    boundary(|| unsafe { reclaim(guard) }?.cancel())
}

/// Takes an acquired guard back from C, to end it.
///
/// # Safety
/// `guard` is NULL or live; if it was acquired, nobody uses it afterwards.
unsafe fn reclaim(guard: *mut etslock_guard) -> Result<Guard> {
    // SAFETY: the contract above.
    if !unsafe { borrow(guard) }?.is_acquired() {
        return Err(Error::Invalid);
    }
    // SAFETY: acquired guards come from a `Box` given to C, and the contract passes it back.
    Ok(unsafe { Box::from_raw(guard) }.0)
}

/// Sets the bytes that the call hands to its caller in etslock_result.data.
///
/// The last success wins. They arrive only if the call returns ETSLOCK_OK.
///
/// Ownership: `data` is copied.
/// Threads:   one thread at a time per `guard`; only for a callback's guard.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` is NULL, or `data` with a length above 0.
///            ETSLOCK_ERR_INVALID - the guard was acquired, or `data_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the copy; an earlier result stays.
/// Since:     0.1
///
/// # Safety
/// The contracts `guard` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_set_result(
    guard: *mut etslock_guard,
    data: *const c_void,
    data_len: usize,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `value`.
        let data = unsafe { bytes(data, data_len) }?;
        guard.set_result(data)
    })
}

/// Moves the exec deadline to at least `exec_timeout_ms` from now.
///
/// It never shortens the time and never revives a guard. The caller that waits for the callback
/// waits longer too, and the release time moves along (C-4). ETSLOCK_INFINITE: no deadline any
/// more; 0 changes nothing.
///
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` is NULL.
///            ETSLOCK_ERR_INVALID - `exec_timeout_ms` is negative and not ETSLOCK_INFINITE.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_extend(
    guard: *mut etslock_guard,
    exec_timeout_ms: i64,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        guard.extend(Timeout::from_millis(exec_timeout_ms)?)
    })
}

/// Sleeps for `ms` milliseconds, unless the guard is late or revoked before.
///
/// It wakes early then, and says so. The lock stays held, and the exec deadline stays where it is.
/// ETSLOCK_INFINITE sleeps until the lock is lost.
///
/// Threads:   one thread at a time per `guard`.
/// Blocks:    at most `ms`.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` is NULL.
///            ETSLOCK_ERR_INVALID - `ms` is negative and not ETSLOCK_INFINITE.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_sleep(guard: *mut etslock_guard, ms: i64) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        guard.sleep(Timeout::from_millis(ms)?)
    })
}

/// Whether a guard is live, late or revoked: ETSLOCK_OK, ETSLOCK_EXEC_TIMEOUT or ETSLOCK_REVOKED.
///
/// Cheap, one atomic load and a look at the clock: a callback that works for long calls it in its
/// loop. ETSLOCK_OK may be over by the time you read it; the writes are checked again by
/// themselves.
///
/// Threads:   any thread, any number at once, while the guard lives.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` is NULL.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_status(guard: *const etslock_guard) -> etslock_status {
    // SAFETY: contract `guard`.
    brief(|| unsafe { borrow(guard) }?.status())
}

/// Milliseconds to the exec deadline of a guard.
///
/// 0 when it is late, revoked or NULL, or was made before a fork; ETSLOCK_INFINITE when it has no
/// deadline. A part of a millisecond counts as one.
///
/// Threads:   any thread, any number at once, while the guard lives.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_remaining_ms(guard: *const etslock_guard) -> i64 {
    // SAFETY: contract `guard`.
    brief_or(0, || unsafe { borrow(guard) }.map_or(0, |guard| guard.remaining().as_millis()))
}

/// The fencing token of a guard's lock.
///
/// Larger than that of every earlier lock of the same key, and unique in this process; one for all
/// keys of a guard. Hand it to other systems with what you write there: they refuse a token below
/// one that they have seen. Larger too than those of earlier processes on this machine, as long as
/// its clock was not set back (C-21); see etslock_token_raise. It stays the same when the lock is lost. 0 for NULL, and for a guard
/// from before a fork.
///
/// Threads:   any thread, any number at once, while the guard lives.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `guard` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_token(guard: *const etslock_guard) -> u64 {
    // SAFETY: contract `guard`.
    brief_or(0, || unsafe { borrow(guard) }.map_or(0, Guard::token))
}

/// Where an acquired guard goes.
pub(super) fn give(out: Out<*mut etslock_guard>, guard: Guard) {
    out.give(etslock_guard::new(guard));
}
