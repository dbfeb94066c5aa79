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
//! Invariants
//! I1. Every step is a compare-exchange from the one state it may leave, by the one side that may.
//! I2. The work belongs to the caller in IDLE, FINISHED and CANCELLED, and to the worker in
//!     ABANDONED; in between nobody takes it away. So it is let go exactly once.
//! I3. What one side wrote before a step is seen by the other side after it.

use crate::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire},
};

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const FINISHED: u8 = 3;
const CANCELLED: u8 = 4;
const ABANDONED: u8 = 5;

/// How work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It returned.
    Returned(i32),
    /// It ended its thread: `pthread_exit`, or cancellation.
    ThreadEnded,
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

/// What a worker finds when it is woken.
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
    /// The caller is to be woken, and lets the work go.
    Finished,
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

    /// Caller: posts the work that it has put in place.
    pub(super) fn post(&self) {
        let posted = self.step(IDLE, QUEUED);
        debug_assert!(posted, "a job is posted by the one caller that took its worker");
    }

    /// Worker: looks for work, and begins it.
    pub(super) fn begin(&self) -> Found {
        if self.step(QUEUED, RUNNING) {
            Found::Work
        } else if self.step(CANCELLED, IDLE) {
            Found::Cancelled
        } else {
            Found::Nothing
        }
    }

    /// Worker: the work has ended.
    pub(super) fn end(&self) -> Ended {
        if self.step(RUNNING, FINISHED) {
            Ended::Finished
        } else if self.step(ABANDONED, IDLE) {
            Ended::Abandoned
        } else {
            Ended::Idle
        }
    }

    /// Caller: whether the work has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.0.load(Acquire) == FINISHED // ORDERING: pairs with `end` (I3).
    }

    /// Worker: whether anything happened to it that `begin` should see.
    pub(super) fn is_posted(&self) -> bool {
        self.0.load(Acquire) != IDLE // ORDERING: pairs with `post` (I3).
    }

    /// Caller: gives up.
    pub(super) fn give_up(&self) -> GaveUp {
        if self.cancel() {
            GaveUp::Cancelled
        } else if self.step(RUNNING, ABANDONED) {
            GaveUp::Abandoned
        } else {
            // Only the worker could have moved it, and it moves RUNNING to FINISHED only.
            GaveUp::TooLate
        }
    }

    /// Caller: takes the work back before it has begun. `false`: it has begun.
    pub(super) fn cancel(&self) -> bool {
        self.step(QUEUED, CANCELLED)
    }

    /// Caller: takes the job back after FINISHED.
    pub(super) fn collect(&self) {
        let collected = self.step(FINISHED, IDLE);
        debug_assert!(collected, "a job is collected once, after it finished");
    }

    /// ORDERING: Release shows the other side what was written before the step, Acquire shows this
    /// side what the other wrote before its own (I3).
    fn step(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }
}

/// Model: every interleaving of one worker and one caller.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use loom::thread;

    /// The work is let go exactly once, by the side that owns it at the end (I2), and the caller
    /// sees what the worker wrote before it finished (I3).
    #[test]
    fn giving_up_races_with_the_end() {
        loom::model(|| {
            let shared = Arc::new((Job::new(), AtomicUsize::new(0), AtomicUsize::new(0)));
            shared.0.post();
            let worker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let (job, result, let_go) = &*shared;
                    if job.begin() == Found::Work {
                        result.store(7, Relaxed);
                        if job.end() == Ended::Abandoned {
                            let_go.fetch_add(1, Relaxed);
                        }
                    }
                })
            };
            let (job, result, let_go) = &*shared;
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
}
