//! How a thread sleeps until another wakes it.
//!
//! WHY: not std's. Its handle of a thread needs one of the process's few thread-specific keys, and
//! std ends the process when there is none (C-24).
//!
//! | State  | Meaning                      | Left by, to                       |
//! |--------|------------------------------|-----------------------------------|
//! | AWAKE  | the thread runs              | itself: ASLEEP; another: WOKEN    |
//! | ASLEEP | it sleeps, or is about to    | itself: AWAKE; another: WOKEN     |
//! | WOKEN  | somebody woke it             | itself: AWAKE                     |
//!
//! Invariants
//! I1. Who wakes a thread that is ASLEEP wakes it in the kernel too; the kernel puts a thread to
//!     sleep only as long as it is ASLEEP. So no wake-up is lost.
//! I2. What was done before a wake-up is seen by the thread that finds itself WOKEN.
//! I3. A sleep may end early: for a signal, or for a wake-up that was meant for an earlier one.

#![expect(unsafe_code, reason = "the system calls that put threads to sleep")]

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const WOKEN: u32 = 2;

/// A thread, as others know it.
#[derive(Debug, Clone)]
pub(crate) struct Thread(Arc<Word>);

/// WHY: aligned. It is written by whoever wakes the thread, and what lies beside it is not theirs.
#[derive(Debug)]
#[repr(align(64))]
struct Word(AtomicU32);

thread_local! {
    static OWN: Thread = Thread::new();
}

/// The calling thread. One whose thread-locals have ended is nobody, whom nobody can wake.
pub(crate) fn current() -> Thread {
    OWN.try_with(Thread::clone).unwrap_or_else(|_| Thread::new())
}

/// Sleeps until somebody wakes this thread (I3).
pub(crate) fn park() {
    sleep(None);
}

/// As `park`, for at most `left`.
pub(crate) fn park_timeout(left: Duration) {
    sleep(Some(left));
}

fn sleep(left: Option<Duration>) {
    // Nobody could wake a thread whose thread-locals have ended.
    if OWN.try_with(|own| own.sleep(left)).is_err() {
        crate::sync::nap();
    }
}

impl Thread {
    fn new() -> Self {
        Self(Arc::new(Word(AtomicU32::new(AWAKE))))
    }

    /// A number that no other living thread has.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Ends its sleep, or else its next one.
    pub(crate) fn unpark(&self) {
        // ORDERING: pairs with `sleep` (I2).
        let Word(word) = &*self.0;
        if word.swap(WOKEN, Release) == ASLEEP {
            futex(word, libc::FUTEX_WAKE, 1, None);
        }
    }

    fn sleep(&self, left: Option<Duration>) {
        // ORDERING of both: Acquire pairs with `unpark` (I2); going to sleep shows nothing.
        let Word(word) = &*self.0;
        if word.compare_exchange(AWAKE, ASLEEP, Relaxed, Relaxed).is_ok() {
            futex(word, libc::FUTEX_WAIT, ASLEEP, left);
        }
        word.swap(AWAKE, Acquire);
    }
}

/// Not a cancellation point. However it ends, its callers look again.
fn futex(word: &AtomicU32, operation: libc::c_int, value: u32, timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let operation = operation | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a live word, and NULL or a live time.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Moment, Timeout};
    use std::sync::mpsc;

    #[test]
    fn a_wake_up_that_comes_first_is_not_lost() {
        current().unpark();
        park();
    }

    #[test]
    fn a_sleep_ends_with_its_time() {
        let end = Moment::now().after(Timeout::millis(20));
        while !end.is_past(Moment::now()) {
            park_timeout(end.remaining(Moment::now()).unwrap());
        }
    }

    /// Each waits for the other's turn, and neither misses one.
    #[test]
    fn no_wake_up_is_lost() {
        let turn = AtomicU32::new(0);
        let play = |me: u32, other: Thread, turn: &AtomicU32| {
            for round in 0..2_000 {
                while turn.load(Acquire) != 2 * round + me {
                    park();
                }
                turn.store(2 * round + me + 1, Release);
                other.unpark();
            }
        };
        let (to_main, from_other) = mpsc::channel();
        let main = current();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                to_main.send(current()).unwrap();
                play(1, main, &turn);
            });
            play(0, from_other.recv().unwrap(), &turn);
        });
        assert_eq!(turn.load(Relaxed), 4_000);
    }
}
