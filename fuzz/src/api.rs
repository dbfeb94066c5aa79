//! The C API, as include/etslock.h declares it.
//!
//! WHY: `safe`, although pointers are. What these functions must be promised, the programs that are
//! made here keep by construction; where they do not, that is a bug of the harness.

use std::ffi::{CStr, c_char, c_void};

/// What a call answers.
pub type Status = i32;

pub const OK: Status = 0;
pub const WAIT_TIMEOUT: Status = 1;
pub const EXEC_TIMEOUT: Status = 2;
pub const CALLBACK_FAILED: Status = 3;
pub const REVOKED: Status = 4;
pub const DEADLOCK: Status = 5;
pub const NOT_FOUND: Status = 6;
pub const EXISTS: Status = 7;
pub const CLOSED: Status = 8;
pub const PENDING: Status = 9;
pub const STOPPED: Status = 10;
pub const ERR_NULL: Status = 20;
pub const ERR_INVALID: Status = 21;
pub const ERR_STRUCT_SIZE: Status = 22;
pub const ERR_NOT_COVERED: Status = 23;
pub const ERR_TYPE: Status = 24;
pub const ERR_GUARDED: Status = 25;

pub const INFINITE: i64 = -1;
pub const MAX_KEYS: usize = 65_536;
pub const OWNER_NONE: u64 = u64::MAX;

pub const SET: i32 = 0;
pub const BAG: i32 = 1;
pub const DUPLICATE_BAG: i32 = 2;
pub const PUBLIC: i32 = 0;
pub const GUARDED: i32 = 1;
pub const RUN_ON_WORKER: i32 = 0;
pub const RUN_ON_CALLER: i32 = 1;
pub const QUEUE_FAIR: i32 = 0;
pub const QUEUE_FIFO: i32 = 1;
pub const QUEUE_POLLING: i32 = 2;
pub const ABANDON: i32 = 0;
pub const JOIN: i32 = 1;
pub const KILL: i32 = 2;

macro_rules! opaque {
    ($($name:ident)*) => { $(
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name {
            _opaque: [u8; 0],
        }
    )* };
}
opaque!(Table Tuples Cursor Guard LockTable Locks Stop Completions);

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct TableOptions {
    pub struct_size: u32,
    pub r#type: i32,
    pub access: i32,
    pub reserved: u32,
    pub name: *const c_char,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Tuple {
    pub key: *const u8,
    pub key_len: usize,
    pub value: *const u8,
    pub value_len: usize,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub struct_size: u32,
    pub reserved: u32,
    pub wait_timeout_ms: i64,
    pub exec_timeout_ms: i64,
    pub fail_timeout_ms: i64,
    pub spin_delay_ms: i64,
    pub lock_table: *mut LockTable,
    pub run_on: i32,
    pub queue: i32,
    pub on_exec_timeout: i32,
    pub commit_code: i32,
    pub owner: u64,
    pub user_data_free: Option<extern "C-unwind" fn(*mut c_void)>,
    pub stop: *mut Stop,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CallResult {
    pub code: i32,
    pub reserved: u32,
    pub data: *mut u8,
    pub data_len: usize,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub key: *const u8,
    pub key_len: usize,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct TableKey {
    pub table: *mut Table,
    pub key: *const u8,
    pub key_len: usize,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    pub ticket: u64,
    pub user_data: *mut c_void,
    pub guard: *mut Guard,
    pub status: Status,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LockInfo {
    pub struct_size: u32,
    pub late: i32,
    pub key: *const u8,
    pub key_len: usize,
    pub table_name: *const c_char,
    pub token: u64,
    pub held_ms: i64,
    pub exec_remaining_ms: i64,
    pub waiters: u64,
    pub owner: u64,
    pub thread_id: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Stats {
    pub struct_size: u32,
    pub reserved: u32,
    pub acquired: u64,
    pub contended: u64,
    pub wait_timeouts: u64,
    pub exec_timeouts: u64,
    pub forced_releases: u64,
    pub deadlocks: u64,
    pub held: u64,
    pub waiting: u64,
    pub workers: u64,
    pub abandoned: u64,
}

pub type Callback =
    Option<extern "C-unwind" fn(*mut Guard, *const Tuple, usize, *mut c_void) -> i32>;

#[rustfmt::skip]
unsafe extern "C" {
    pub safe fn etslock_status_name(status: Status) -> *const c_char;
    pub safe fn etslock_status_text(status: Status) -> *const c_char;
    pub safe fn etslock_version() -> *const c_char;

    pub safe fn etslock_table_options_init(options: *mut TableOptions, size: usize);
    pub safe fn etslock_table_new(options: *const TableOptions, out: *mut *mut Table) -> Status;
    pub safe fn etslock_table_open(name: *const c_char, out: *mut *mut Table) -> Status;
    pub safe fn etslock_table_free(table: *mut Table);
    pub safe fn etslock_table_insert(table: *mut Table, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> Status;
    pub safe fn etslock_table_insert_new(table: *mut Table, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> Status;
    pub safe fn etslock_table_lookup(table: *mut Table, key: *const u8, key_len: usize, out: *mut *mut Tuples) -> Status;
    pub safe fn etslock_table_member(table: *mut Table, key: *const u8, key_len: usize) -> Status;
    pub safe fn etslock_table_take(table: *mut Table, key: *const u8, key_len: usize, out: *mut *mut Tuples) -> Status;
    pub safe fn etslock_table_delete(table: *mut Table, key: *const u8, key_len: usize) -> Status;
    pub safe fn etslock_table_delete_tuple(table: *mut Table, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> Status;
    pub safe fn etslock_table_clear(table: *mut Table) -> Status;
    pub safe fn etslock_table_update_counter(table: *mut Table, key: *const u8, key_len: usize, add: i64, initial: i64, out: *mut i64) -> Status;
    pub safe fn etslock_table_count(table: *mut Table, out: *mut usize) -> Status;
    pub safe fn etslock_tuples_data(tuples: *const Tuples, out_count: *mut usize) -> *const Tuple;
    pub safe fn etslock_tuples_free(tuples: *mut Tuples);
    pub safe fn etslock_table_cursor(table: *mut Table, out: *mut *mut Cursor) -> Status;
    pub safe fn etslock_cursor_next(cursor: *mut Cursor, out: *mut *mut Tuples) -> Status;
    pub safe fn etslock_cursor_free(cursor: *mut Cursor);

    pub safe fn etslock_options_init(options: *mut Options, size: usize);
    pub safe fn etslock_with_lock(table: *mut Table, key: *const u8, key_len: usize, callback: Callback, user_data: *mut c_void, options: *const Options, out: *mut CallResult) -> Status;
    pub safe fn etslock_with_locks(table: *mut Table, keys: *const Key, key_count: usize, callback: Callback, user_data: *mut c_void, options: *const Options, out: *mut CallResult) -> Status;
    pub safe fn etslock_acquire(table: *mut Table, key: *const u8, key_len: usize, options: *const Options, out: *mut *mut Guard) -> Status;
    pub safe fn etslock_acquire_locks(table: *mut Table, keys: *const Key, key_count: usize, options: *const Options, out: *mut *mut Guard) -> Status;
    pub safe fn etslock_with_locks_across(keys: *const TableKey, key_count: usize, callback: Callback, user_data: *mut c_void, options: *const Options, out: *mut CallResult) -> Status;
    pub safe fn etslock_acquire_locks_across(keys: *const TableKey, key_count: usize, options: *const Options, out: *mut *mut Guard) -> Status;
    pub safe fn etslock_result_free(result: *mut CallResult);

    pub safe fn etslock_guard_lookup(guard: *mut Guard, key: *const u8, key_len: usize, out: *mut *mut Tuples) -> Status;
    pub safe fn etslock_guard_insert(guard: *mut Guard, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> Status;
    pub safe fn etslock_guard_delete(guard: *mut Guard, key: *const u8, key_len: usize) -> Status;
    pub safe fn etslock_guard_delete_tuple(guard: *mut Guard, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> Status;
    pub safe fn etslock_guard_commit(guard: *mut Guard) -> Status;
    pub safe fn etslock_guard_rollback(guard: *mut Guard) -> Status;
    pub safe fn etslock_guard_release(guard: *mut Guard) -> Status;
    pub safe fn etslock_guard_cancel(guard: *mut Guard) -> Status;
    pub safe fn etslock_guard_set_result(guard: *mut Guard, data: *const u8, data_len: usize) -> Status;
    pub safe fn etslock_guard_extend(guard: *mut Guard, exec_timeout_ms: i64) -> Status;
    pub safe fn etslock_guard_sleep(guard: *mut Guard, ms: i64) -> Status;
    pub safe fn etslock_guard_status(guard: *const Guard) -> Status;
    pub safe fn etslock_guard_remaining_ms(guard: *const Guard) -> i64;
    pub safe fn etslock_guard_token(guard: *const Guard) -> u64;

    pub safe fn etslock_guard_lookup_in(guard: *mut Guard, table: *mut Table, key: *const u8, key_len: usize, out: *mut *mut Tuples) -> Status;
    pub safe fn etslock_guard_insert_in(guard: *mut Guard, table: *mut Table, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> Status;
    pub safe fn etslock_guard_delete_in(guard: *mut Guard, table: *mut Table, key: *const u8, key_len: usize) -> Status;
    pub safe fn etslock_guard_delete_tuple_in(guard: *mut Guard, table: *mut Table, key: *const u8, key_len: usize, value: *const u8, value_len: usize) -> Status;

    pub safe fn etslock_stop_new(out: *mut *mut Stop) -> Status;
    pub safe fn etslock_stop_request(stop: *mut Stop) -> Status;
    pub safe fn etslock_stop_free(stop: *mut Stop);
    pub safe fn etslock_completions_new(out: *mut *mut Completions) -> Status;
    pub safe fn etslock_completions_free(completions: *mut Completions);
    pub safe fn etslock_completions_fd(completions: *mut Completions) -> i32;
    pub safe fn etslock_completions_wait(completions: *mut Completions, out: *mut Completion, capacity: usize, timeout_ms: i64, out_count: *mut usize) -> Status;
    pub safe fn etslock_completions_withdraw(completions: *mut Completions, ticket: u64) -> Status;
    pub safe fn etslock_acquire_begin(table: *mut Table, key: *const u8, key_len: usize, options: *const Options, completions: *mut Completions, user_data: *mut c_void, out_ticket: *mut u64, out_guard: *mut *mut Guard) -> Status;
    pub safe fn etslock_acquire_locks_begin(table: *mut Table, keys: *const Key, key_count: usize, options: *const Options, completions: *mut Completions, user_data: *mut c_void, out_ticket: *mut u64, out_guard: *mut *mut Guard) -> Status;
    pub safe fn etslock_acquire_locks_across_begin(keys: *const TableKey, key_count: usize, options: *const Options, completions: *mut Completions, user_data: *mut c_void, out_ticket: *mut u64, out_guard: *mut *mut Guard) -> Status;
    pub safe fn etslock_owner_none() -> u64;
    pub safe fn etslock_token_raise(above: u64) -> Status;

    pub safe fn etslock_lock_table_new(out: *mut *mut LockTable) -> Status;
    pub safe fn etslock_lock_table_free(lock_table: *mut LockTable);
    pub safe fn etslock_lock_table_locks(lock_table: *mut LockTable, table: *mut Table, out: *mut *mut Locks) -> Status;
    pub safe fn etslock_locks_count(locks: *const Locks) -> usize;
    pub safe fn etslock_locks_get(locks: *const Locks, index: usize, out: *mut LockInfo) -> Status;
    pub safe fn etslock_locks_free(locks: *mut Locks);
    pub safe fn etslock_stats_init(stats: *mut Stats, size: usize);
    pub safe fn etslock_lock_table_stats(lock_table: *mut LockTable, out: *mut Stats) -> Status;
    pub safe fn etslock_lock_table_force_release(lock_table: *mut LockTable, table: *mut Table, key: *const u8, key_len: usize) -> Status;
    pub safe fn etslock_lock_table_force_release_token(lock_table: *mut LockTable, table: *mut Table, key: *const u8, key_len: usize, token: u64) -> Status;
}

/// A C string that the library gave, as long as what it belongs to.
pub fn text<'a>(string: *const c_char) -> &'a str {
    assert!(!string.is_null(), "no text");
    // SAFETY: NUL-terminated, and alive by the contract above.
    unsafe { CStr::from_ptr(string) }.to_str().expect("texts are UTF-8")
}

pub fn name(status: Status) -> &'static str {
    text(etslock_status_name(status))
}
