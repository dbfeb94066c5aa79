//! A file descriptor that says that there is something to do: for epoll, poll, select and whatever
//! is built on them.
//!
//! An epoll descriptor over an eventfd, which is readable while there is something to do, and a
//! timerfd, which becomes so at a deadline. WHY: nobody has to write a deadline's wake-up, and an
//! event loop sees one descriptor.
//!
//! A forked child shares the three open files with its parent, and would see its parent's news. So
//! the child gets an epoll descriptor in the same place that nothing is registered in, and closes
//! the other two, which the parent does not notice (C-16).
//!
//! Invariants
//! I1. What the eventfd and the timerfd say changes under the mutex of their owner, together with
//!     what they say it of: the descriptor is not readable when there is nothing to do.
//! I2. `OPEN` is touched while no thread forks. So a child finds it whole.

#![expect(unsafe_code, reason = "descriptors are the system's")]

use std::collections::BTreeSet;
use std::mem;
use std::ptr;

use crate::clock::Deadline;
use crate::process;
use crate::sync::Mutex;

/// Descriptors by the numbers of their parts.
static OPEN: Mutex<BTreeSet<Parts>> = Mutex::new(BTreeSet::new());

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Parts {
    epoll: libc::c_int,
    event: libc::c_int,
    timer: libc::c_int,
}

/// One descriptor.
#[derive(Debug)]
pub(crate) struct Descriptor {
    parts: Parts,
    is_readable: bool,
    /// When the timer goes off.
    at: Deadline,
}

impl Descriptor {
    /// `None`: none can be had.
    pub(crate) fn open() -> Option<Self> {
        let parts = process::while_nobody_forks(|| {
            let parts = Parts::open()?;
            OPEN.lock().insert(parts);
            Some(parts)
        })?;
        Some(Self { parts, is_readable: false, at: Deadline::NEVER })
    }

    pub(crate) fn number(&self) -> i32 {
        self.parts.epoll
    }

    /// Readable now, or from `at` on.
    pub(crate) fn set(&mut self, is_readable: bool, at: Deadline) {
        if self.is_readable != is_readable {
            self.is_readable = is_readable;
            self.parts.set_event(is_readable);
        }
        if self.at != at {
            self.at = at;
            self.parts.set_timer(at);
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        process::while_nobody_forks(|| {
            OPEN.lock().remove(&self.parts);
            self.parts.close();
        });
    }
}

impl Parts {
    fn open() -> Option<Self> {
        // SAFETY: plain calls.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        // SAFETY: as above.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: as above.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        let parts = Self { epoll, event, timer };
        if !parts.register(event) || !parts.register(timer) {
            parts.close();
            return None;
        }
        Some(parts)
    }

    fn register(&self, part: libc::c_int) -> bool {
        let mut wanted = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: a valid place for what is wanted; a number that is none is refused.
        unsafe { libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, part, &mut wanted) == 0 }
    }

    fn set_event(&self, is_readable: bool) {
        let mut count: u64 = 1;
        let place = (&raw mut count).cast();
        if is_readable {
            // SAFETY: eight bytes, as an eventfd wants them. It never gets near its limit.
            unsafe { libc::write(self.event, place, size_of::<u64>()) };
        } else {
            // SAFETY: room for eight bytes.
            unsafe { libc::read(self.event, place, size_of::<u64>()) };
        }
    }

    fn set_timer(&self, at: Deadline) {
        // All zero: never.
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if at != Deadline::NEVER {
            let (seconds, nanos) = at.since_start();
            // At 0 it would be never.
            time = libc::timespec { tv_sec: seconds as i64, tv_nsec: nanos.max(1) as i64 };
        }
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::itimerspec { it_interval: once, it_value: time };
        // SAFETY: a valid time. Whatever it was set to before, or said, is over.
        unsafe {
            libc::timerfd_settime(self.timer, libc::TFD_TIMER_ABSTIME, &value, ptr::null_mut())
        };
    }

    fn close(&self) {
        for part in [self.epoll, self.event, self.timer] {
            if part >= 0 {
                // SAFETY: made by `open`, and closed once.
                unsafe { libc::close(part) };
            }
        }
    }
}

/// In a forked child, before anything else: what it inherited is never readable.
pub(crate) fn after_fork_in_child() {
    // WHY: not `lock`. A thread whose locals are gone forks without a gate.
    let Some(mut open) = OPEN.try_lock() else { return };
    for Parts { epoll, event, timer } in mem::take(&mut *open) {
        for part in [event, timer] {
            // SAFETY: inherited, and used by nobody here.
            unsafe { libc::close(part) };
        }
        // SAFETY: a plain call. Two numbers are free again.
        let silent = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        // SAFETY: takes the place of the inherited one, whose number the program may still use.
        let replaced = unsafe { libc::dup3(silent, epoll, libc::O_CLOEXEC) } == epoll;
        if !replaced {
            // SAFETY: a number that is none is not readable.
            unsafe { libc::close(epoll) };
        }
        if silent >= 0 {
            // SAFETY: made above.
            unsafe { libc::close(silent) };
        }
    }
}
