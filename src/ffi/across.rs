//! Keys of several tables: one lock step, one guard, one commit.

use std::ffi::c_void;

use super::boundary::{boundary, brief};
use super::guard::{self, etslock_guard};
use super::handle::{Out, borrow, bytes};
use super::options::etslock_options;
use super::sized::read_sized;
use super::status::etslock_status;
use super::table::etslock_table;
use super::tuples::etslock_tuples;
use super::with_lock::{CCallback, answer, etslock_callback, etslock_result, result_place, some};
use crate::error::{self, Result};
use crate::table::Snapshot;
use crate::tables::TableKey;
use crate::with_lock::{acquire_across, with_locks_across};

/// One key of several, and the table that it is a key of. Never grows.
///
/// Since:     0.2
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_table_key {
    /// The table: any handle to it.
    pub table: *mut etslock_table,
    /// The key; readable for key_len bytes during the call. May be NULL if key_len is 0.
    pub key: *const c_void,
    /// Bytes in the key; may be 0.
    pub key_len: usize,
}

/// The keys of a call.
///
/// # Safety
/// `keys` is readable for `key_count` elements; each key for its length, and each table is NULL or
/// live, during the call.
pub(super) unsafe fn key_list<'a>(
    keys: *const etslock_table_key,
    key_count: usize,
) -> Result<Vec<TableKey<'a>>> {
    // SAFETY: the contract above.
    let keys = unsafe { some(keys, key_count) }?;
    error::list(keys.iter().map(|named| {
        // SAFETY: the contract above.
        let table = unsafe { borrow(named.table) }?;
        // SAFETY: the contract above.
        let key = unsafe { bytes(named.key, named.key_len) }?;
        Ok((table, key))
    }))
}

/// Runs `callback` while holding the locks of several keys, of one table or several.
///
/// As etslock_with_locks, and each key says its table. The tables may be of different types and
/// access. Two handles to one named table are one table; a key that is named twice in a table counts
/// once, and the same key in two tables is two. All keys are taken in the one order of C-18, whoever
/// else takes several. The callback's tuples are grouped in the order given; they say their key, not
/// their table. Its guard is used through the functions that name a table, such as
/// etslock_guard_lookup_in; if all keys are of one table, the others work too. All writes to all
/// tables are published together or none is; for readers without a lock each key is one step (C-20).
///
/// Ownership: `user_data` belongs to the library from here on if user_data_free is set, which is
///            called exactly once, whatever this returns but ETSLOCK_ERR_STRUCT_SIZE (C-12). `keys`
///            are copied. `*out_result` is always written; end it with etslock_result_free.
/// Threads:   any thread, also from a callback; a key that the owner itself holds is
///            ETSLOCK_DEADLOCK.
/// Blocks:    at most wait_timeout_ms + exec_timeout_ms and extensions; with ETSLOCK_JOIN or
///            ETSLOCK_RUN_ON_CALLER until the callback has returned.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
///            ETSLOCK_EXEC_TIMEOUT - the callback outlived its time, or no thread began it in time.
///            ETSLOCK_CALLBACK_FAILED - the callback returned another code, or ended its thread.
///            ETSLOCK_REVOKED - one of the locks was taken away.
///            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - one of the tables or the lock table was freed during the wait; nothing
///            stays locked.
///            ETSLOCK_ERR_NULL - `keys`, `callback`, a table, or a key that has a length, is NULL.
///            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the keys, or to publish the writes.
///            ETSLOCK_ERR_NO_THREAD - no thread could be started for the callback.
/// Since:     0.2
///
/// # Safety
/// The contracts `keys`, `table`, `callback`, `user_data`, `options` and `out` at the top of the
/// header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_with_locks_across(
    keys: *const etslock_table_key,
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
        // SAFETY: contracts `keys` and `table`.
        let keys = unsafe { key_list(keys, key_count) }?;
        // SAFETY: contract `options`: `lock_table` is NULL or live.
        let options = unsafe { options.validate() }?;
        answer(out, with_locks_across(&keys, &options, callback.checked()?))
    })
}

/// Acquires the locks of several keys, of one table or several, and returns one guard for them.
///
/// As etslock_acquire_locks, and each key says its table, as in etslock_with_locks_across (C-20).
///
/// Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel, also when
///            its locks were lost, and when tables were freed; NULL on failure. `keys` are copied.
/// Threads:   any thread, also from a callback.
/// Blocks:    until all locks are got, at most wait_timeout_ms.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
///            ETSLOCK_REVOKED - a lock was taken away while the rest were waited for.
///            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - one of the tables or the lock table was freed during the wait; nothing
///            stays locked.
///            ETSLOCK_ERR_NULL - `keys`, `out_guard`, a table, or a key that has a length, is NULL.
///            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
/// Since:     0.2
///
/// # Safety
/// The contracts `keys`, `table`, `options` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_acquire_locks_across(
    keys: *const etslock_table_key,
    key_count: usize,
    options: *const etslock_options,
    out_guard: *mut *mut etslock_guard,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_guard) }?;
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        // SAFETY: contracts `keys` and `table`.
        let keys = unsafe { key_list(keys, key_count) }?;
        // SAFETY: contract `options`: `lock_table` is NULL or live.
        let options = unsafe { options.validate() }?;
        guard::give(out, acquire_across(&keys, &options)?);
        Ok(())
    })
}

/// The current tuples of a locked key of `table`, with the guard's staged writes applied.
///
/// As etslock_guard_lookup, for every guard: also one of a single table, which `table` must be then.
/// Any handle to the table will do, not only the one that was given for the lock.
///
/// Ownership: `*out_tuples` is yours until etslock_tuples_free, and outlives the guard; NULL on
///            failure.
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_NOT_FOUND - the key has no tuple.
///            ETSLOCK_ERR_NULL - `guard`, `table` or `out_tuples` is NULL, or `key` with a length
///            above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.2
///
/// # Safety
/// The contracts `guard`, `table`, `key` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_lookup_in(
    guard: *mut etslock_guard,
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    out_tuples: *mut *mut etslock_tuples,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_tuples) }?;
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        out.give(etslock_tuples::new(Snapshot::One(guard.lookup_in(table, key)?))?);
        Ok(())
    })
}

/// Stages the insertion of a tuple under a locked key of `table`.
///
/// As etslock_guard_insert, for every guard.
///
/// Ownership: key and value are copied.
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` or `table` is NULL, or `key` or `value` with a length above
///            0.
///            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
/// Since:     0.2
///
/// # Safety
/// The contracts `guard`, `table`, `key` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_insert_in(
    guard: *mut etslock_guard,
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `value`.
        let value = unsafe { bytes(value, value_len) }?;
        guard.insert_in(table, key, value)
    })
}

/// Stages the removal of all tuples of a locked key of `table`.
///
/// As etslock_guard_delete, for every guard.
///
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` or `table` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key; earlier writes stay staged.
/// Since:     0.2
///
/// # Safety
/// The contracts `guard`, `table` and `key` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_delete_in(
    guard: *mut etslock_guard,
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        guard.delete_in(table, key)
    })
}

/// Stages the removal of every instance of one tuple under a locked key of `table`.
///
/// As etslock_guard_delete_tuple, for every guard.
///
/// Ownership: key and value are copied.
/// Threads:   one thread at a time per `guard`.
/// Blocks:    no.
/// Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
///            ETSLOCK_REVOKED - the guard is revoked.
///            ETSLOCK_ERR_NULL - `guard` or `table` is NULL, or `key` or `value` with a length above
///            0.
///            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
/// Since:     0.2
///
/// # Safety
/// The contracts `guard`, `table`, `key` and `value` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_guard_delete_tuple_in(
    guard: *mut etslock_guard,
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `guard`.
        let guard = unsafe { borrow(guard) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?;
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `value`.
        let value = unsafe { bytes(value, value_len) }?;
        guard.delete_tuple_in(table, key, value)
    })
}
