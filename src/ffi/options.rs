//! Options of a lock call, and their limits.

use std::ffi::c_void;

use super::handle::borrow;
use super::lock_table::etslock_lock_table;
use super::sized::SizedStruct;
use super::stop::etslock_stop;
use crate::clock::Timeout;
use crate::error::{Error, Result};
use crate::lock::Owner;
use crate::lock::WaitMode;
use crate::options::{OnExecTimeout, Options, RunOn};

/// Limits that fit an int.
///
/// Since:     0.1
#[expect(dead_code, reason = "made for the header")]
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum etslock_limit_code {
    /// For a time in milliseconds: for ever.
    ETSLOCK_INFINITE = -1,
    /// The most keys that one call can lock (C-18).
    ETSLOCK_MAX_KEYS = 65536,
}

/// For etslock_options.owner: this call takes no part in deadlock detection (C-13).
///
/// Since:     0.1
pub const ETSLOCK_OWNER_NONE: u64 = 0xFFFF_FFFF_FFFF_FFFF;

/// ETSLOCK_OWNER_NONE, for languages that read no macros.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.2
#[unsafe(no_mangle)]
pub extern "C" fn etslock_owner_none() -> u64 {
    ETSLOCK_OWNER_NONE
}

/// Where the callback runs: for etslock_options.run_on (C-10).
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum etslock_run_on {
    /// On an internal thread: the call can return at the exec deadline.
    ETSLOCK_RUN_ON_WORKER = 0,
    /// On the calling thread: cheaper, but nothing can return early. A late callback is found out
    /// when it returns: its writes are refused and the status is ETSLOCK_EXEC_TIMEOUT, even if a
    /// waiter has taken the lock at the release time.
    ETSLOCK_RUN_ON_CALLER = 1,
}

/// How to wait for a held lock: for etslock_options.queue (C-3).
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum etslock_queue {
    /// In a queue, woken by the release. A running thread may take a free lock before the woken
    /// head of the queue, but once a waiter has been head for 2 ms, the next release hands it the
    /// lock.
    ETSLOCK_QUEUE_FAIR = 0,
    /// In a queue, in strict order of arrival: while such a waiter is queued on a key, every
    /// release hands the lock to the head. Much slower than fair on a key that many want.
    ETSLOCK_QUEUE_FIFO = 1,
    /// By an attempt every spin_delay_ms, with no place in the queue: gets the lock only when it is
    /// free.
    ETSLOCK_QUEUE_POLLING = 2,
}

/// What happens to a callback that outlived its time: for etslock_options.on_exec_timeout (C-11).
///
/// On an internal thread its guard is revoked in each case, and its lock goes to the next waiter at
/// once. With ETSLOCK_RUN_ON_CALLER the lock stays held until the callback returns, or a waiter
/// takes it at the release time; ETSLOCK_ABANDON and ETSLOCK_JOIN mean the same then.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum etslock_on_exec_timeout {
    /// The call returns at once. The callback runs on until it returns by itself: it may still use
    /// user_data, and its writes through the guard are refused.
    ETSLOCK_ABANDON = 0,
    /// The call returns when the callback has returned: for user_data on the caller's stack.
    ETSLOCK_JOIN = 1,
    /// As ETSLOCK_ABANDON, and the callback's thread gets a POSIX deferred cancellation, which acts
    /// at its next cancellation point outside the library; a loop without one runs on. With the
    /// asynchronous type a callback must not call the library (see THREADS). With
    /// ETSLOCK_RUN_ON_CALLER it is ETSLOCK_ERR_INVALID. Never use it with a callback that belongs
    /// to a managed runtime, that holds locks or memory without cleanup handlers, or whose C++
    /// frames catch everything or are noexcept.
    ETSLOCK_KILL = 2,
}

/// Options of a lock call.
///
/// Make it with etslock_options_init, then change what you need; NULL in a call means the defaults.
/// It is read during the call only. For etslock_acquire and etslock_acquire_locks, begun or not,
/// run_on, on_exec_timeout and user_data_free have no effect.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct etslock_options {
    /// `sizeof(etslock_options)`, written by init.
    pub struct_size: u32,
    /// Must be 0.
    pub reserved: u32,
    /// How long to wait for the lock, in milliseconds from the call. Default 5000. 0: one attempt,
    /// a try-lock, which answers ETSLOCK_WAIT_TIMEOUT where a wait would be ETSLOCK_DEADLOCK.
    /// ETSLOCK_INFINITE: until it is free (C-2).
    pub wait_timeout_ms: i64,
    /// How long the lock may be held, in milliseconds from the acquisition. Default 5000. 0: the
    /// lock is got and given back, and no callback runs; an acquired guard is late at once.
    /// ETSLOCK_INFINITE: no exec deadline, and the lock is never deleted by a waiter (C-4, C-5).
    pub exec_timeout_ms: i64,
    /// How long after the exec deadline a waiter may forcibly delete a lock that is still held, in
    /// milliseconds. Default 1000. 0: at the exec deadline. ETSLOCK_INFINITE: never (C-5).
    pub fail_timeout_ms: i64,
    /// Pause between the attempts of a waiter with ETSLOCK_QUEUE_POLLING, in milliseconds; no
    /// effect otherwise. Default 2. 0: yields only. ETSLOCK_INFINITE is ETSLOCK_ERR_INVALID.
    pub spin_delay_ms: i64,
    /// Where the lock lives. Default NULL: the lock table of the process. Locks of different lock
    /// tables know nothing of each other.
    pub lock_table: *mut etslock_lock_table,
    /// One of etslock_run_on. Default ETSLOCK_RUN_ON_WORKER (0).
    pub run_on: i32,
    /// One of etslock_queue. Default ETSLOCK_QUEUE_FAIR (0).
    pub queue: i32,
    /// One of etslock_on_exec_timeout. Default ETSLOCK_ABANDON (0).
    pub on_exec_timeout: i32,
    /// What the callback returns to have its writes published; anything else drops them and is
    /// ETSLOCK_CALLBACK_FAILED. Default 0. Use 1 where the callback is a thunk into another language:
    /// one that raised, or forgot to return, gives 0 there, and 0 then publishes nothing. Since 0.2;
    /// a reserved field before, which was 0.
    pub commit_code: i32,
    /// Who holds and waits, for the detection of deadlocks (C-13). Default 0: the calling thread,
    /// or the callback that runs on it. ETSLOCK_OWNER_NONE: takes no part. Else a number of your
    /// own, such as a task's: for event loops, fibers and goroutines.
    pub owner: u64,
    /// NULL, the default; or called exactly once with user_data, on any thread, never while the
    /// callback may still run, with no lock of the library held. When the callback ended in time,
    /// before the call returns. It is called whatever the call returns, except after
    /// ETSLOCK_ERR_STRUCT_SIZE; not at process exit, and not in the child of a fork (C-12). Neither
    /// an exception nor longjmp may leave it.
    pub user_data_free: Option<unsafe extern "C-unwind" fn(user_data: *mut c_void)>,
    /* Since 0.2 */
    /// Since 0.2. NULL, the default; or what ends the wait of this call early, with ETSLOCK_STOPPED. It must be
    /// live when the call begins. Once it was requested a call still gets a lock that is free.
    pub stop: *mut etslock_stop,
}

impl Default for etslock_options {
    fn default() -> Self {
        let defaults = Options::default();
        Self {
            struct_size: size_of::<Self>() as u32,
            reserved: 0,
            wait_timeout_ms: defaults.wait.as_millis(),
            exec_timeout_ms: defaults.exec.as_millis(),
            fail_timeout_ms: defaults.fail.as_millis(),
            spin_delay_ms: defaults.spin_delay.as_millis() as i64,
            lock_table: std::ptr::null_mut(),
            run_on: etslock_run_on::ETSLOCK_RUN_ON_WORKER as i32,
            queue: etslock_queue::ETSLOCK_QUEUE_FAIR as i32,
            on_exec_timeout: etslock_on_exec_timeout::ETSLOCK_ABANDON as i32,
            commit_code: 0,
            owner: 0,
            user_data_free: None,
            stop: std::ptr::null_mut(),
        }
    }
}

// SAFETY: plain old data that begins with `struct_size`.
unsafe impl SizedStruct for etslock_options {
    const FIRST_SIZE: usize = std::mem::offset_of!(Self, stop);
}

impl etslock_options {
    /// The options in Rust terms.
    ///
    /// # Safety
    /// `lock_table` and `stop` are NULL or live handles.
    #[inline(always)] // See `with_lock::empty_handed`.
    pub(super) unsafe fn validate(&self) -> Result<Options> {
        if self.reserved != 0 {
            return Err(Error::Invalid);
        }
        let run_on = match self.run_on {
            r if r == etslock_run_on::ETSLOCK_RUN_ON_WORKER as i32 => RunOn::Worker,
            r if r == etslock_run_on::ETSLOCK_RUN_ON_CALLER as i32 => RunOn::Caller,
            _ => return Err(Error::Invalid),
        };
        let queue = match self.queue {
            q if q == etslock_queue::ETSLOCK_QUEUE_FAIR as i32 => WaitMode::Fair,
            q if q == etslock_queue::ETSLOCK_QUEUE_FIFO as i32 => WaitMode::Fifo,
            q if q == etslock_queue::ETSLOCK_QUEUE_POLLING as i32 => WaitMode::Polling,
            _ => return Err(Error::Invalid),
        };
        let on_exec_timeout = match self.on_exec_timeout {
            o if o == etslock_on_exec_timeout::ETSLOCK_ABANDON as i32 => OnExecTimeout::Abandon,
            o if o == etslock_on_exec_timeout::ETSLOCK_JOIN as i32 => OnExecTimeout::Join,
            o if o == etslock_on_exec_timeout::ETSLOCK_KILL as i32 => OnExecTimeout::Kill,
            _ => return Err(Error::Invalid),
        };
        // SAFETY: the contract above.
        let lock_table = match unsafe { borrow(self.lock_table) } {
            Ok(lock_table) => Some(lock_table.clone()),
            Err(Error::Null) => None,
            Err(error) => return Err(error),
        };
        // SAFETY: the contract above.
        let stop = match unsafe { borrow(self.stop) } {
            Ok(stop) => Some(stop.clone()),
            Err(Error::Null) => None,
            Err(error) => return Err(error),
        };
        let wait = Timeout::from_millis(self.wait_timeout_ms)?;
        let exec = Timeout::from_millis(self.exec_timeout_ms)?;
        let fail = Timeout::from_millis(self.fail_timeout_ms)?;
        let spin_delay =
            Timeout::from_millis(self.spin_delay_ms)?.finite().ok_or(Error::Invalid)?;
        Ok(Options {
            wait,
            exec,
            fail,
            spin_delay,
            lock_table,
            run_on,
            queue,
            commit_code: self.commit_code,
            on_exec_timeout,
            owner: match self.owner {
                0 => Owner::Current,
                ETSLOCK_OWNER_NONE => Owner::None,
                id => Owner::Logical(id),
            },
            stop,
        })
    }
}

/// Writes the defaults of etslock_options.
///
/// Call it as `etslock_options_init(&options, sizeof options)`. With NULL, or a size without room
/// for struct_size, it does nothing.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.1
///
/// # Safety
/// The contract `options` at the top of the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn etslock_options_init(options: *mut etslock_options, size: usize) {
    // SAFETY: contract `options`: NULL, or writable for `size` bytes.
    unsafe { super::sized::write_defaults(options, size) }
}
