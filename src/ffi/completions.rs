//! Completions: waiting for locks without a thread.

use std::ffi::c_void;
use std::ptr;

use super::across::{self, etslock_table_key};
use super::boundary::{boundary, boundary_of, boundary_or};
use super::guard::{self, etslock_guard};
use super::handle::{Handle, Live, Out, borrow, bytes, free};
use super::options::etslock_options;
use super::sized::read_sized;
use super::status::etslock_status;
use super::status::etslock_status_code::{self, ETSLOCK_OK, ETSLOCK_PENDING};
use super::table::etslock_table;
use super::with_lock::{etslock_key, key_list};
use crate::begin::{Begin, Completions};
use crate::clock::Timeout;
use crate::completions::Completion;
use crate::error::{Error, Result};
use crate::guard::Guard;

/// A queue of completions: where acquires that were begun say how they ended (C-19).
///
/// An event loop has one. Any number of acquires may be pending in one queue, of any tables; none
/// of them needs a thread, or a descriptor of its own. A pending acquire stands in the queue of its
/// key like a blocked thread: with the same order, the same wait deadline, and the duty to delete a
/// lock at its release time. There is no timer thread: all that is seen to by whoever calls
/// etslock_completions_wait. So call it, with a timeout of 0 if need be, whenever the descriptor is
/// readable: who does not holds up those that are pending behind it, though never a thread that is
/// blocked behind it for longer than the locks it is handed may be held.
///
///     int fd = etslock_completions_fd(queue);             // add it to your loop, for reading
///     status = etslock_acquire_begin(table, key, key_len, NULL, queue, task, &ticket, &guard);
///     if (status == ETSLOCK_OK) ...                       // the guard is yours already
///     else if (status == ETSLOCK_PENDING) ...             // a completion will tell
///
///     // when the descriptor is readable:
///     etslock_completion done[64];
///     size_t count;
///     while (etslock_completions_wait(queue, done, 64, 0, &count) == ETSLOCK_OK)
///         for (size_t i = 0; i < count; i++)
///             resume(done[i].user_data, done[i].status, done[i].guard);
///
/// It comes from etslock_completions_new and lives until etslock_completions_free. Any number of
/// threads may use it at once. In a forked child every call answers ETSLOCK_ERR_FORKED, and the
/// descriptor is never readable (C-16).
///
/// Methods:   etslock_completions_new - makes one.
///            etslock_completions_fd - a descriptor for an event loop.
///            etslock_completions_wait - fetches completions.
///            etslock_completions_withdraw - ends a pending acquire early.
///            etslock_completions_free - ends it, and all that is pending.
///            etslock_acquire_begin - acquires a lock, or begins to wait for it.
///            etslock_acquire_locks_begin - the same for several keys.
///            etslock_acquire_locks_across_begin - the same for keys of several tables.
/// Since:     0.2
#[derive(Debug)]
pub struct etslock_completions(Live<Completions>);

impl Handle for etslock_completions {
    type Inner = Completions;
    fn enter(&self) -> Result<&Completions> {
        self.0.enter()
    }
}

/// How an acquire ended that was pending.
///
/// It never grows.
///
/// Since:     0.2
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_completion {
    /// Which one: the number that its beginning gave.
    pub ticket: u64,
    /// What its beginning was given.
    pub user_data: *mut c_void,
    /// With ETSLOCK_OK a guard, yours until etslock_guard_release or etslock_guard_cancel; else NULL.
    /// Its exec deadline counts from the grant, not from the fetch.
    pub guard: *mut etslock_guard,
    /// ETSLOCK_OK, or how its wait ended: ETSLOCK_WAIT_TIMEOUT, ETSLOCK_STOPPED, ETSLOCK_DEADLOCK,
    /// ETSLOCK_REVOKED, ETSLOCK_CLOSED; ETSLOCK_ERR_NO_MEMORY.
    pub status: i32,
    /// 0.
    pub reserved: u32,
}

/// Makes a queue of completions.
///
/// Ownership: `*out_completions` is yours until etslock_completions_free; NULL on failure.
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_NULL - `out_completions` is NULL.
/// Since:     0.2
///
/// # Safety
/// The contract `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_completions_new(
    out_completions: *mut *mut etslock_completions,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::handle(out_completions) }?;
        out.give(Box::new(etslock_completions(Live::new(Completions::new())?)));
        Ok(())
    })
}

/// Frees a queue of completions.
///
/// What is pending is withdrawn, guards that were not fetched are cancelled, and threads that wait in
/// etslock_completions_wait get ETSLOCK_CLOSED. The descriptor is closed.
///
/// Ownership: `completions` is gone; guards that were fetched live on. NULL is fine; in a forked child
///            nothing happens.
/// Threads:   any thread, not while another call with it is about to begin.
/// Blocks:    no.
/// Since:     0.2
///
/// # Safety
/// The contract `free` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_completions_free(completions: *mut etslock_completions) {
    // SAFETY: contract `free`.
    boundary_or((), || unsafe { free(completions) });
}

/// A file descriptor that is readable while there is something to fetch, or a deadline to see to.
///
/// For epoll, poll, select, libuv, asyncio and their like: level-triggered. When it is readable, call
/// etslock_completions_wait with a timeout of 0; there may be nothing to fetch then. It is not
/// readable while there is nothing to do. It is made when it is first asked for; a queue that only
/// threads wait in needs none.
///
/// -1 for NULL, in a forked child, or when no descriptor can be had; everything else works on then,
/// and a later call tries again. In a forked child the number stands for a descriptor that is never
/// readable.
///
/// Ownership: the library's: never read it, write to it or close it. It is closed on exec.
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.2
///
/// # Safety
/// The contract `completions` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_completions_fd(completions: *mut etslock_completions) -> i32 {
    boundary_or(-1, || {
        // SAFETY: contract `completions`.
        let completions = unsafe { borrow(completions) };
        completions.ok().and_then(Completions::descriptor).unwrap_or(-1)
    })
}

/// Fetches completions, and sees to the deadlines of what is pending.
///
/// Waits until there is one, then fetches up to `capacity` of those that are there. Each completion is
/// fetched once, by one thread.
///
/// Ownership: each guard in `out_completions` is yours.
/// Threads:   any thread, several at once.
/// Blocks:    until there is a completion, at most `timeout_ms`; with 0 not at all.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - there was none in time.
///            ETSLOCK_CLOSED - `completions` was freed meanwhile.
///            ETSLOCK_ERR_NULL - `completions`, `out_completions` or `out_count` is NULL.
///            ETSLOCK_ERR_INVALID - `capacity` is 0, or `timeout_ms` below ETSLOCK_INFINITE.
/// Since:     0.2
///
/// # Safety
/// The contracts `completions` and `out` at the top of the header; `out_completions` is writable for
/// `capacity` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_completions_wait(
    completions: *mut etslock_completions,
    out_completions: *mut etslock_completion,
    capacity: usize,
    timeout_ms: i64,
    out_count: *mut usize,
) -> etslock_status {
    boundary(|| {
        // SAFETY: contract `out`.
        let out = unsafe { Out::new(out_count) }?;
        // SAFETY: contract `completions`.
        let waiting = unsafe { borrow(completions) }?.enter();
        if out_completions.is_null() {
            return Err(Error::Null);
        }
        let timeout = Timeout::from_millis(timeout_ms)?;
        if capacity == 0 {
            return Err(Error::Invalid);
        }
        let mut place = out_completions;
        let count = waiting.wait(capacity, timeout, |completion| {
            // SAFETY: contract `out`: there is room for `capacity` of them.
            unsafe { place.write(etslock_completion::of(completion)) };
            // SAFETY: as above.
            place = unsafe { place.add(1) };
        })?;
        out.set(count);
        Ok(())
    })
}

impl etslock_completion {
    fn of(completion: Completion<Box<Guard>>) -> Self {
        let Completion { ticket, user_data, end } = completion;
        let (guard, status) = match end {
            Ok(guard) => (etslock_guard::from_box(guard), ETSLOCK_OK),
            Err(error) => (ptr::null_mut(), etslock_status_code::from(error)),
        };
        let user_data = ptr::with_exposed_provenance_mut(user_data);
        Self { ticket, user_data, guard, status: status as i32, reserved: 0 }
    }
}

/// Ends a pending acquire early: its completion will say ETSLOCK_STOPPED.
///
/// Either that, or ETSLOCK_NOT_FOUND: it has its completion already, fetched or not, and that says
/// what it would have said. However it races with the grant, it is one of the two.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_NOT_FOUND - `ticket` has its completion, or is none of this queue.
///            ETSLOCK_ERR_NULL - `completions` is NULL.
/// Since:     0.2
///
/// # Safety
/// The contract `completions` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_completions_withdraw(
    completions: *mut etslock_completions,
    ticket: u64,
) -> etslock_status {
    // SAFETY: contract `completions`.
    boundary(|| unsafe { borrow(completions) }?.withdraw(ticket))
}

/// Acquires the lock of `key`, or begins to wait for it without a thread.
///
/// ETSLOCK_OK: the lock was got at once; the guard is yours, and no completion follows.
/// ETSLOCK_PENDING: the ticket is set, and exactly one completion follows in `completions`, whatever
/// happens (C-19); where other threads fetch, it may be fetched before this returns. Every other
/// status: nothing follows.
///
/// As etslock_acquire, but for this: it never blocks; options.owner 0 is ETSLOCK_OWNER_NONE, for tasks
/// of an event loop share a thread, and a task that can wait for itself needs a number of its own;
/// ETSLOCK_QUEUE_POLLING is ETSLOCK_ERR_INVALID. With wait_timeout_ms 0 a lock that is held is
/// ETSLOCK_WAIT_TIMEOUT at once.
///
/// Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel; NULL unless
///            ETSLOCK_OK. `*out_ticket` is written on ETSLOCK_PENDING only. `key` is copied.
///            `user_data` is given back with the completion, and not looked at.
/// Threads:   any thread, also from a callback.
/// Blocks:    no.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - the lock is held, and wait_timeout_ms is 0.
///            ETSLOCK_PENDING - a completion will tell.
///            ETSLOCK_STOPPED - the lock is held, and options.stop was requested.
///            ETSLOCK_REVOKED - the lock was taken away by force in the moment it was got.
///            ETSLOCK_DEADLOCK - the owner holds the key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - `table`, the lock table or `completions` was freed meanwhile.
///            ETSLOCK_ERR_NULL - `table`, `completions`, `out_ticket` or `out_guard` is NULL, or `key`
///            with a length above 0.
///            ETSLOCK_ERR_INVALID - an option is out of range or ETSLOCK_QUEUE_POLLING, or `key_len`
///            is past PTRDIFF_MAX.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the key.
/// Since:     0.2
///
/// # Safety
/// The contracts `table`, `key`, `options`, `completions` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_acquire_begin(
    table: *mut etslock_table,
    key: *const c_void,
    key_len: usize,
    options: *const etslock_options,
    completions: *mut etslock_completions,
    user_data: *mut c_void,
    out_ticket: *mut u64,
    out_guard: *mut *mut etslock_guard,
) -> etslock_status {
    boundary_of(|| {
        // SAFETY: contract `out`.
        let out_guard = unsafe { Out::handle(out_guard) }?;
        // SAFETY: contract `out`.
        let out_ticket = unsafe { Out::new(out_ticket) }?;
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        // SAFETY: contract `completions`.
        let completions = unsafe { borrow(completions) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `key`.
        let key = unsafe { bytes(key, key_len) }?;
        // SAFETY: contract `options`: its handles are NULL or live.
        let options = unsafe { options.validate() }?;
        let user_data = user_data.expose_provenance();
        let begun = completions.begin(table, &[key], &options, user_data)?;
        Ok(answer(begun, out_ticket, out_guard))
    })
}

/// Acquires the locks of several keys of one table, or begins to wait for them without a thread.
///
/// As etslock_acquire_begin, for 1 to ETSLOCK_MAX_KEYS keys, which are taken as in
/// etslock_acquire_locks: in one global order, duplicates once, within one wait deadline, all or none
/// (C-18). Keys already taken stay locked while the rest are waited for.
///
/// Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel; NULL unless
///            ETSLOCK_OK. `*out_ticket` is written on ETSLOCK_PENDING only. `keys` are copied.
///            `user_data` is given back with the completion, and not looked at.
/// Threads:   any thread, also from a callback.
/// Blocks:    no.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - a lock is held, and wait_timeout_ms is 0.
///            ETSLOCK_PENDING - a completion will tell.
///            ETSLOCK_STOPPED - a lock is held, and options.stop was requested.
///            ETSLOCK_REVOKED - a lock was taken away by force meanwhile.
///            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - `table`, the lock table or `completions` was freed meanwhile.
///            ETSLOCK_ERR_NULL - `table`, `keys`, `completions`, `out_ticket` or `out_guard` is NULL,
///            or a key that has a length.
///            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range, or the
///            queue is ETSLOCK_QUEUE_POLLING.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
/// Since:     0.2
///
/// # Safety
/// The contracts `table`, `keys`, `options`, `completions` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_acquire_locks_begin(
    table: *mut etslock_table,
    keys: *const etslock_key,
    key_count: usize,
    options: *const etslock_options,
    completions: *mut etslock_completions,
    user_data: *mut c_void,
    out_ticket: *mut u64,
    out_guard: *mut *mut etslock_guard,
) -> etslock_status {
    boundary_of(|| {
        // SAFETY: contract `out`.
        let out_guard = unsafe { Out::handle(out_guard) }?;
        // SAFETY: contract `out`.
        let out_ticket = unsafe { Out::new(out_ticket) }?;
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        // SAFETY: contract `completions`.
        let completions = unsafe { borrow(completions) }?;
        // SAFETY: contract `table`.
        let table = unsafe { borrow(table) }?.enter();
        // SAFETY: contract `keys`.
        let keys = unsafe { key_list(keys, key_count) }?;
        // SAFETY: contract `options`: its handles are NULL or live.
        let options = unsafe { options.validate() }?;
        let user_data = user_data.expose_provenance();
        let begun = completions.begin(table, &keys, &options, user_data)?;
        Ok(answer(begun, out_ticket, out_guard))
    })
}

/// Acquires the locks of keys of several tables, or begins to wait for them without a thread.
///
/// As etslock_acquire_locks_begin, for keys that are named with their tables, as in
/// etslock_acquire_locks_across (C-20).
///
/// Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel; NULL unless
///            ETSLOCK_OK. `*out_ticket` is written on ETSLOCK_PENDING only. `keys` are copied.
///            `user_data` is given back with the completion, and not looked at.
/// Threads:   any thread, also from a callback.
/// Blocks:    no.
/// Errors:    ETSLOCK_WAIT_TIMEOUT - a lock is held, and wait_timeout_ms is 0.
///            ETSLOCK_PENDING - a completion will tell.
///            ETSLOCK_STOPPED - a lock is held, and options.stop was requested.
///            ETSLOCK_REVOKED - a lock was taken away by force meanwhile.
///            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
///            ETSLOCK_CLOSED - a table, the lock table or `completions` was freed meanwhile.
///            ETSLOCK_ERR_NULL - `keys`, a table, `completions`, `out_ticket` or `out_guard` is NULL,
///            or a key that has a length.
///            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range, or the
///            queue is ETSLOCK_QUEUE_POLLING.
///            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
///            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
/// Since:     0.2
///
/// # Safety
/// The contracts `table`, `keys`, `options`, `completions` and `out` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_acquire_locks_across_begin(
    keys: *const etslock_table_key,
    key_count: usize,
    options: *const etslock_options,
    completions: *mut etslock_completions,
    user_data: *mut c_void,
    out_ticket: *mut u64,
    out_guard: *mut *mut etslock_guard,
) -> etslock_status {
    boundary_of(|| {
        // SAFETY: contract `out`.
        let out_guard = unsafe { Out::handle(out_guard) }?;
        // SAFETY: contract `out`.
        let out_ticket = unsafe { Out::new(out_ticket) }?;
        // SAFETY: contract `options`.
        let options = unsafe { read_sized(options) }?;
        // SAFETY: contract `completions`.
        let completions = unsafe { borrow(completions) }?;
        // SAFETY: contracts `keys` and `table`.
        let keys = unsafe { across::key_list(keys, key_count) }?;
        // SAFETY: contract `options`: its handles are NULL or live.
        let options = unsafe { options.validate() }?;
        let begun = completions.begin_across(&keys, &options, user_data.expose_provenance())?;
        Ok(answer(begun, out_ticket, out_guard))
    })
}

/// What a beginning came to, told to C.
fn answer(
    begun: Begin,
    out_ticket: Out<u64>,
    out_guard: Out<*mut etslock_guard>,
) -> etslock_status_code {
    match begun {
        Begin::Held(guard) => {
            guard::give(out_guard, guard);
            ETSLOCK_OK
        }
        Begin::Pending(ticket) => {
            out_ticket.set(ticket);
            ETSLOCK_PENDING
        }
    }
}
