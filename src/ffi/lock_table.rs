//! Lock tables: where locks live, and who holds what.

use std::ffi::{CString, c_char, c_void};
use std::ptr;

use super::boundary::{boundary, boundary_or, brief, brief_or};
use super::handle::{Handle, Live, Out, borrow, bytes, free, read};
use super::sized::{SizedStruct, fill_sized, write_defaults};
use super::status::etslock_status;
use super::table::etslock_table;
use crate::error::{Error, Result};
use crate::lock::{LockInfo, LockTable};
use crate::with_lock::{force_release, force_release_token, locks};

/// A place where locks live, apart from the data.
///
/// Most programs make none and pass NULL, which stands for the one that every process has and that
/// never ends. Another comes from etslock_lock_table_new and lives until etslock_lock_table_free.
/// Locks of different lock tables know nothing of each other: all who want to exclude each other
/// must use the same one (C-1). A key that nobody holds or waits for costs it no memory (C-15). Any
/// number of threads may use it at once.
///
/// Methods:   etslock_lock_table_new - makes one.
///            etslock_lock_table_free - closes it.
///            etslock_lock_table_locks - who holds what.
///            etslock_lock_table_stats - counters.
///            etslock_lock_table_force_release - takes a lock away from its holder.
///            etslock_lock_table_force_release_token - the same, if it is still that holder.
/// Since:     0.1
#[derive(Debug)]
pub struct etslock_lock_table(Live<LockTable>);

impl Handle for etslock_lock_table {
    type Inner = LockTable;
    fn enter(&self) -> Result<&LockTable> {
        self.0.enter()
    }
}

/// A snapshot of the locks that were held at one time.
///
/// Made by each look, and short-lived. It comes from etslock_lock_table_locks and lives until
/// etslock_locks_free, whatever happens to the locks. It never changes: any number of threads may
/// read it at once. It stays readable in a forked child (C-16).
///
/// Methods:   etslock_locks_count - how many locks.
///            etslock_locks_get - one of them.
///            etslock_locks_free - frees it.
/// Since:     0.1
#[derive(Debug)]
pub struct etslock_locks {
    locks: Vec<(LockInfo, Option<CString>)>,
}

/// One lock of a snapshot.
///
/// Set struct_size to `sizeof(etslock_lock_info)` before the call that fills it. Times are those of
/// the snapshot.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_lock_info {
    /// `sizeof(etslock_lock_info)`, set by you.
    pub struct_size: u32,
    /// 1 if the holder was past its exec deadline, else 0.
    pub late: i32,
    /// The key; lives as long as the snapshot.
    pub key: *const u8,
    /// Bytes in the key; may be 0.
    pub key_len: usize,
    /// The table's name, or NULL if it has none; lives as long as the snapshot.
    pub table_name: *const c_char,
    /// The token of the holder's guard, which all its locks share; 0 while the holder still waits
    /// for more keys.
    pub token: u64,
    /// For how long the lock had been held, in milliseconds; 0 while the holder still waits for
    /// more keys.
    pub held_ms: i64,
    /// Milliseconds to the exec deadline; 0 when late; ETSLOCK_INFINITE without one, also while the
    /// holder still waits for more keys.
    pub exec_remaining_ms: i64,
    /// How many callers stood in the key's queue; polling ones have no place in it.
    pub waiters: u64,
    /// The owner as given in etslock_options.owner: a number of your own, ETSLOCK_OWNER_NONE, or 0.
    pub owner: u64,
    /// The thread that acquired the lock, by the number that the operating system gives it.
    pub thread_id: u64,
}

impl Default for etslock_lock_info {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            late: 0,
            key: ptr::null(),
            key_len: 0,
            table_name: ptr::null(),
            token: 0,
            held_ms: 0,
            exec_remaining_ms: 0,
            waiters: 0,
            owner: 0,
            thread_id: 0,
        }
    }
}

// SAFETY: plain old data that begins with `struct_size`; no field was added since 0.1.
unsafe impl SizedStruct for etslock_lock_info {
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Counters of a lock table: what happened since it was made, and what is the case now.
///
/// Make it with etslock_stats_init. Each counter is right by itself; together they are no snapshot.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_stats {
    /// `sizeof(etslock_stats)`, written by init.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Locks acquired, counted per key.
    pub acquired: u64,
    /// Acquisitions that had to wait.
    pub contended: u64,
    /// Waits that ended with ETSLOCK_WAIT_TIMEOUT.
    pub wait_timeouts: u64,
    /// Holders that outlived their time.
    pub exec_timeouts: u64,
    /// Locks deleted by a waiter at the release time, or by etslock_lock_table_force_release.
    pub forced_releases: u64,
    /// Waits answered with ETSLOCK_DEADLOCK.
    pub deadlocks: u64,
    /// Locks held now.
    pub held: u64,
    /// Callers waiting now.
    pub waiting: u64,
    /// Internal threads now, in the whole process.
    pub workers: u64,
    /// Abandoned callbacks that still run, each on a thread, in the whole process.
    pub abandoned: u64,
}

impl Default for etslock_stats {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>() as u32,
            reserved: 0,
            acquired: 0,
            contended: 0,
            wait_timeouts: 0,
            exec_timeouts: 0,
            forced_releases: 0,
            deadlocks: 0,
            held: 0,
            waiting: 0,
            workers: 0,
            abandoned: 0,
        }
    }
}

// SAFETY: plain old data that begins with `struct_size`; no field was added since 0.1.
unsafe impl SizedStruct for etslock_stats {
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// The lock table behind a handle; NULL is the process's default one.
///
/// # Safety
/// `lock_table` is NULL or a live handle.
unsafe fn lock_table_or_default(lock_table: *mut etslock_lock_table) -> Result<LockTable> {
    // SAFETY: the contract above.
    match unsafe { borrow(lock_table) } {
        Ok(lock_table) => Ok(lock_table.clone()),
        Err(Error::Null) => Ok(LockTable::default_of_process()),
        Err(error) => Err(error),
    }
}

/// Makes a lock table.
///
/// For parts of a program that must not meet, or that want counters of their own; everybody else
/// passes NULL and shares the one of the process.
///
/// Ownership: `*out_lock_table` is yours until etslock_lock_table_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `out_lock_table` is NULL.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a handle that forks can find.
/// Since:     0.1
///
/// # Safety
/// The contract `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_lock_table_new(
    out_lock_table: *mut *mut etslock_lock_table,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_lock_table) }?;
        out.give(Box::new(etslock_lock_table(Live::new(LockTable::new())?)));
        Ok(())
    })
}

/// Closes a lock table.
///
/// Calls that wait for one of its locks return ETSLOCK_CLOSED. Running callbacks, acquired guards
/// and snapshots live on (C-14).
///
/// Ownership: the handle is gone; NULL is fine, and does not touch the lock table of the process.
/// Threads:   any thread, also while calls that use it are under way, but none may begin.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_lock_table_free(lock_table: *mut etslock_lock_table) {
    boundary_or((), || {
        // SAFETY: contract `free`.
        if let Ok(lock_table) = unsafe { borrow(lock_table) } {
            lock_table.close();
        }
        // SAFETY: contract `free`.
        unsafe { free(lock_table) }
    })
}

/// A snapshot of the locks held now: of one table, or of all with NULL for `table`.
///
/// For people and monitors, not for decisions: a lock may be gone when you read of it. The snapshot
/// is not taken in one step while others lock and unlock.
///
/// Ownership: `*out_locks` is yours until etslock_locks_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no; takes time in proportion to the number of held locks.
/// Errors:    ETSLOCK_ERR_NULL - `out_locks` is NULL.
/// Since:     0.1
///
/// # Safety
/// The contracts `lock_table`, `table` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_lock_table_locks(
    lock_table: *mut etslock_lock_table,
    table: *mut etslock_table,
    out_locks: *mut *mut etslock_locks,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_locks) }?;
        // SAFETY: contract `lock_table`.
        let lock_table = unsafe { lock_table_or_default(lock_table) }?;
        // SAFETY: contract `table`.
        let table = match unsafe { borrow(table) } {
            Ok(table) => Some(table.enter()),
            Err(Error::Null) => None,
            Err(error) => return Err(error),
        };
        let locks = locks(&lock_table, table.as_deref())?
            .into_iter()
            // A name given by C has no NUL inside; one given by Rust may, and then shows none.
            .map(|(lock, name)| (lock, name.and_then(|name| CString::new(&*name).ok())))
            .collect();
        out.give(Box::new(etslock_locks { locks }));
        Ok(())
    })
}

/// How many locks a snapshot has; 0 for NULL.
///
/// Threads:   any thread, any number at once.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `locks` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_locks_count(locks: *const etslock_locks) -> usize {
    // SAFETY: contract `locks`: NULL or a live snapshot, immutable.
    brief_or(0, || unsafe { read(locks) }.map_or(0, |snapshot| snapshot.locks.len()))
}

/// One lock of a snapshot.
///
/// Set `out_info->struct_size` first; bytes that this release does not know stay as they are. The
/// order of the locks is any, but stays the same.
///
/// Ownership: the pointers in `*out_info` belong to the snapshot, and live until
///            etslock_locks_free.
/// Threads:   any thread, any number at once.
/// Blocks:    no.
/// Errors:    ETSLOCK_NOT_FOUND - `index` is not below etslock_locks_count.
///            ETSLOCK_ERR_NULL - `locks` or `out_info` is NULL.
///            ETSLOCK_ERR_STRUCT_SIZE - `out_info->struct_size` is too small.
/// Since:     0.1
///
/// # Safety
/// The contracts `locks` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_locks_get(
    locks: *const etslock_locks,
    index: usize,
    out_info: *mut etslock_lock_info,
) -> etslock_status {
    brief(|| {
        // SAFETY: contract `locks`: NULL or a live snapshot, immutable.
        let snapshot = unsafe { read(locks) }?;
        let info = || {
            let (lock, name) = snapshot.locks.get(index).ok_or(Error::NotFound)?;
            let key = lock.key.as_bytes();
            Ok(etslock_lock_info {
                late: i32::from(lock.late),
                key: key.as_ptr(),
                key_len: key.len(),
                table_name: name.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
                token: lock.token,
                held_ms: lock.held_ms,
                exec_remaining_ms: lock.exec_remaining.as_millis(),
                waiters: lock.waiters,
                owner: lock.owner,
                thread_id: lock.thread_id,
                ..etslock_lock_info::default()
            })
        };
        // SAFETY: contract `out`: NULL, or writable for its own `struct_size` bytes.
        unsafe { fill_sized(out_info, info) }
    })
}

/// Frees a snapshot of locks.
///
/// Ownership: the snapshot and every pointer into it are gone; NULL is fine.
/// Threads:   any thread, not while another reads the snapshot.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_locks_free(locks: *mut etslock_locks) {
    brief_or((), || {
        if !locks.is_null() {
            // SAFETY: contract `free`: it came from this library and nobody uses it afterwards.
            drop(unsafe { Box::from_raw(locks) });
        }
    })
}

/// Zeroes the counters of an etslock_stats and writes its struct_size.
///
/// Call it as `etslock_stats_init(&stats, sizeof stats)`. With NULL, or a size without room for
/// struct_size, it does nothing.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `options` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_stats_init(stats: *mut etslock_stats, size: usize) {
    // SAFETY: contract `options`: NULL, or writable for `size` bytes.
    unsafe { write_defaults(stats, size) }
}

/// The counters of a lock table, NULL being the one of the process.
///
/// Bytes of `out_stats` that this release does not know stay as they are: zero, after
/// etslock_stats_init.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `out_stats` is NULL.
///            ETSLOCK_ERR_STRUCT_SIZE - `out_stats->struct_size` is too small.
/// Since:     0.1
///
/// # Safety
/// The contracts `lock_table` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_lock_table_stats(
    lock_table: *mut etslock_lock_table,
    out_stats: *mut etslock_stats,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `lock_table`.
        let lock_table = unsafe { lock_table_or_default(lock_table) }?;
        let stats = || {
            let stats = lock_table.stats();
            let threads = crate::exec::threads();
            Ok(etslock_stats {
                acquired: stats.acquired,
                contended: stats.contended,
                wait_timeouts: stats.wait_timeouts,
                exec_timeouts: stats.exec_timeouts,
                forced_releases: stats.forced_releases,
                deadlocks: stats.deadlocks,
                held: stats.held,
                waiting: stats.waiting,
                workers: threads.workers,
                abandoned: threads.abandoned,
                ..etslock_stats::default()
            })
        };
        // SAFETY: contract `out`: NULL, or writable for its own `struct_size` bytes.
        unsafe { fill_sized(out_stats, stats) }
    })
}

/// Takes the lock of a key away from its holder.
///
/// The holder's guard is revoked, for all its keys: its writes are refused from here on, its call
/// returns ETSLOCK_REVOKED, and the next waiter gets the lock. A commit of the holder that is under
/// way is waited for, and stands (C-8). The holder itself is not stopped.
///
/// Threads:   any thread.
/// Blocks:    until a commit under way is finished, which runs no code of yours.
/// Errors:    ETSLOCK_NOT_FOUND - the key is not locked.
///            ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.1
///
/// # Safety
/// The contracts `lock_table`, `table` and `key` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_lock_table_force_release(
    lock_table: *mut etslock_lock_table,
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `lock_table`.
        let lock_table = unsafe { lock_table_or_default(lock_table) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        force_release(&lock_table, &table, key)
    })
}

/// Takes the lock of a key away from the holder that has `token`, and from nobody else.
///
/// As etslock_lock_table_force_release, for monitors: what was decided about a holder, by its token
/// in a snapshot, never hits a successor that got the key in between. Whether it is still the holder
/// is decided in one step with taking the lock away. A holder that waits for more keys has no token
/// yet.
///
/// Threads:   any thread.
/// Blocks:    until a commit under way is finished, which runs no code of yours.
/// Errors:    ETSLOCK_NOT_FOUND - the key is not locked, or its holder has another token; `token` is
///            0.
///            ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
///            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
///            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
/// Since:     0.2
///
/// # Safety
/// The contracts `lock_table`, `table` and `key` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_lock_table_force_release_token(
    lock_table: *mut etslock_lock_table,
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    token: u64,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `lock_table`.
        let lock_table = unsafe { lock_table_or_default(lock_table) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        force_release_token(&lock_table, &table, key, token)
    })
}
