//! A job: one piece of work, seen by the worker that runs it and by the caller that waits for it.
//!
//! | State     | Meaning                               | Left by, to                               |
//! |-----------|---------------------------------------|-------------------------------------------|
//! | IDLE      | no work                               | caller: QUEUED                            |
//! | QUEUED    | posted; the worker has not begun      | worker: RUNNING; caller: CANCELLED        |
//! | RUNNING   | the work is executing                 | worker: FINISHED; caller: ABANDONED       |
//! | FINISHED  | the work has ended in time            | caller: IDLE                              |
//! | CANCELLED | gave up in time; it never runs        | worker: IDLE                              |
//! | ABANDONED | gave up; still executing              | worker: IDLE                              |
//!
//! Two more bits of the word say that a side sleeps: the worker's beside IDLE and FINISHED, the
//! caller's beside QUEUED and RUNNING.
//!
//! Invariants
//! I1. Every step is a compare-exchange from the one state it may leave, by the one side that may.
//! I2. The work belongs to the caller in IDLE, FINISHED and CANCELLED, and to the worker in
//!     ABANDONED; in between nobody takes it away. So it is let go exactly once.
//! I3. What one side wrote before a step is seen by the other side after it.
//! I4. A side sets its bit before it sleeps, in a state that it would wait out. Whoever ends the
//!     wait takes the bit away and wakes the sleeper. So no wake-up is lost, and none is paid for
//!     without a sleeper.

use crate::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire, Relaxed},
};

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const FINISHED: u8 = 3;
const CANCELLED: u8 = 4;
const ABANDONED: u8 = 5;

const STATE: u8 = 0b0111;
const CALLER_SLEEPS: u8 = 0b0_1000;
const WORKER_SLEEPS: u8 = 0b1_0000;

/// How work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It returned.
    Returned(i32),
    /// It ended its thread: `pthread_exit`, or cancellation.
    ThreadEnded,
    /// Its thread could run nothing.
    NeverBegan,
}

/// What giving up came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GaveUp {
    /// It never runs; the work is the caller's.
    Cancelled,
    /// It still runs; the work is the worker's.
    Abandoned,
    /// It had finished; the work is the caller's.
    TooLate,
}

/// What a worker finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Work to run.
    Work,
    /// Work that was cancelled; the job is idle again.
    Cancelled,
}

/// What a worker finds when its work has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The caller lets the work go.
    Finished,
    /// The caller sleeps: try again with its thread at hand, which is the caller's once it knows.
    CallerSleeps,
    /// Nobody waits; the worker lets the work go.
    Abandoned,
    /// There was no work.
    Idle,
}

#[derive(Debug)]
pub(super) struct Job(AtomicU8);

impl Job {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(IDLE))
    }

    /// Caller: posts the work that it has put in place. Whether the worker must be woken.
    pub(super) fn post(&self) -> bool {
        let before = self.leave(IDLE, QUEUED, 0);
        debug_assert!(before.is_some(), "a job is posted by the one caller that took its worker");
        before.is_some_and(|before| before & WORKER_SLEEPS != 0)
    }

    /// Worker: looks for work, and begins it.
    pub(super) fn begin(&self) -> Found {
        if self.leave(QUEUED, RUNNING, CALLER_SLEEPS).is_some() {
            Found::Work
        } else if self.leave(CANCELLED, IDLE, 0).is_some() {
            Found::Cancelled
        } else {
            Found::Nothing
        }
    }

    /// Worker: the work has ended; the caller is awake and will see it.
    pub(super) fn end(&self) -> Ended {
        let mut word = RUNNING;
        loop {
            let (to, ended) = match word {
                RUNNING => (FINISHED, Ended::Finished),
                ABANDONED => (IDLE, Ended::Abandoned),
                _ if word & STATE == RUNNING => return Ended::CallerSleeps,
                _ => return Ended::Idle,
            };
            match self.exchange(word, to) {
                Ok(()) => return ended,
                Err(seen) => word = seen,
            }
        }
    }

    /// Worker: as `end`, with the caller's thread at hand to wake it. `None`: it gave up meanwhile.
    pub(super) fn end_and_wake(&self) -> Option<()> {
        self.leave(RUNNING, FINISHED, 0).map(drop)
    }

    /// Caller: whether the work has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.0.load(Acquire) & STATE == FINISHED // ORDERING: pairs with `end` (I3).
    }

    /// Worker: whether there is something for `begin` to find.
    pub(super) fn is_posted(&self) -> bool {
        // ORDERING: pairs with `post` (I3).
        matches!(self.0.load(Acquire) & STATE, QUEUED | CANCELLED)
    }

    /// Worker: is about to sleep. `false`: there is something to do.
    pub(super) fn worker_sleeps(&self) -> bool {
        self.step(IDLE, IDLE | WORKER_SLEEPS)
            || self.step(FINISHED, FINISHED | WORKER_SLEEPS)
            || self.step(IDLE, IDLE | WORKER_SLEEPS)
    }

    /// Caller: is about to sleep. `false`: the work has ended.
    pub(super) fn caller_sleeps(&self) -> bool {
        self.step(RUNNING, RUNNING | CALLER_SLEEPS)
            || self.step(QUEUED, QUEUED | CALLER_SLEEPS)
            || self.step(RUNNING, RUNNING | CALLER_SLEEPS)
    }

    /// Worker: is awake.
    pub(super) fn worker_awake(&self) {
        self.0.fetch_and(!WORKER_SLEEPS, Relaxed); // ORDERING: says nothing of anything else.
    }

    /// Caller: is awake.
    pub(super) fn caller_awake(&self) {
        self.0.fetch_and(!CALLER_SLEEPS, Relaxed); // ORDERING: as above.
    }

    /// Caller: gives up.
    pub(super) fn give_up(&self) -> GaveUp {
        if self.cancel() {
            GaveUp::Cancelled
        } else if self.leave(RUNNING, ABANDONED, 0).is_some() {
            GaveUp::Abandoned
        } else {
            // Only the worker could have moved it, and it moves RUNNING to FINISHED only.
            GaveUp::TooLate
        }
    }

    /// Caller: takes the work back before it has begun. `false`: it has begun.
    pub(super) fn cancel(&self) -> bool {
        self.leave(QUEUED, CANCELLED, 0).is_some()
    }

    /// Caller: takes the job back after FINISHED.
    pub(super) fn collect(&self) {
        let collected = self.leave(FINISHED, IDLE, WORKER_SLEEPS);
        debug_assert!(collected.is_some(), "a job is collected once, after it finished");
    }

    /// From state `from`, whoever sleeps, to `to`; keeps the bits of `keep`. The word that was
    /// left, or `None` if the state was another.
    fn leave(&self, from: u8, to: u8, keep: u8) -> Option<u8> {
        let mut word = from;
        loop {
            match self.exchange(word, to | word & keep) {
                Ok(()) => return Some(word),
                Err(seen) if seen & STATE == from => word = seen,
                Err(_) => return None,
            }
        }
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.exchange(from, to).is_ok()
    }

    /// ORDERING: Release shows the other side what was written before the step, Acquire shows this
    /// side what the other wrote before its own (I3).
    fn exchange(&self, from: u8, to: u8) -> Result<(), u8> {
        self.0.compare_exchange(from, to, AcqRel, Acquire).map(drop)
    }
}

/// Models: every interleaving of one worker and one caller.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::Arc;
    use loom::sync::Notify;
    use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use loom::thread;

    /// Ends the work as a worker does. Whether the work is the worker's to let go.
    fn end(job: &Job, caller: &Notify) -> bool {
        match job.end() {
            Ended::Finished | Ended::Idle => false,
            Ended::Abandoned => true,
            Ended::CallerSleeps => match job.end_and_wake() {
                Some(()) => {
                    caller.notify();
                    false
                }
                None => end(job, caller),
            },
        }
    }

    /// The work is let go exactly once, by the side that owns it at the end (I2), and the caller
    /// sees what the worker wrote before it finished (I3).
    #[test]
    fn giving_up_races_with_the_end() {
        loom::model(|| {
            let shared =
                Arc::new((Job::new(), AtomicUsize::new(0), AtomicUsize::new(0), Notify::new()));
            shared.0.post();
            let worker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (job, result, let_go, caller) = &*shared;
                    if job.begin() == Found::Work {
                        result.store(7, Relaxed);
                        if end(job, caller) {
                            let_go.fetch_add(1, Relaxed);
                        }
                    }
                })
            };
            let (job, result, let_go, _) = &*shared;
            // A deadline that passes at once: it goes to sleep, and wakes by itself.
            if job.caller_sleeps() {
                job.caller_awake();
            }
            match job.give_up() {
                GaveUp::Cancelled => {
                    let_go.fetch_add(1, Relaxed);
                }
                GaveUp::TooLate => {
                    assert!(job.is_finished());
                    assert_eq!(result.load(Relaxed), 7);
                    job.collect();
                    let_go.fetch_add(1, Relaxed);
                }
                GaveUp::Abandoned => {}
            }
            worker.join().unwrap();
            assert_eq!(let_go.load(Relaxed), 1);
        });
    }

    /// Both sides sleep whenever they may, without a deadline, and both are woken (I4): a lost
    /// wake-up is a deadlock, which the model reports.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Arc::new((Job::new(), Notify::new(), Notify::new()));
            let worker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (job, to_worker, to_caller) = &*shared;
                    while job.begin() == Found::Nothing {
                        if job.worker_sleeps() {
                            to_worker.wait();
                            job.worker_awake();
                        }
                    }
                    end(job, to_caller);
                    // It goes to sleep whether the caller has come for the work or not.
                    job.worker_sleeps();
                })
            };
            let (job, to_worker, to_caller) = &*shared;
            if job.post() {
                to_worker.notify();
            }
            while !job.is_finished() {
                if job.caller_sleeps() {
                    to_caller.wait();
                    job.caller_awake();
                }
            }
            job.collect();
            worker.join().unwrap();
            assert!(job.post(), "the worker sleeps, and the next caller knows");
        });
    }
}
