//! Work on a worker, as its caller sees it: posted, waited for, taken back or given up.

#![expect(unsafe_code, reason = "a thread is asked to end while it is known to live")]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Work;
use super::job::GaveUp;
use super::pool::Threads;
use super::spin::most_spins;
use super::thread;
use super::worker::{Slot, Worker, pool};
use crate::clock::{Deadline, Moment};
use crate::error::Result;
use crate::sync::{Arc, Thread, current, park, park_timeout};

/// How many threads there are at this moment.
pub(crate) fn threads() -> Threads {
    pool().threads()
}

/// Work on a worker, as its caller sees it.
pub(crate) struct Running(Arc<Worker>);

/// Posts `work` to a worker of its own. `Error::NoThread` if there is none and none can be started.
pub(crate) fn start(work: Arc<dyn Work>) -> Result<Running> {
    let warm = pool().take();
    let worker = warm.clone().unwrap_or_else(Worker::new);
    *worker.slot.work.lock() = Some((work, current()));
    let most_spins = most_spins(pool().call_begins());
    worker.slot.most_spins.store(most_spins, Relaxed); // ORDERING: a hint.
    let sleeps = worker.slot.job.post();
    let running = Running(worker);
    match warm {
        Some(_) if sleeps => {
            running.0.wake();
            // WHY: the worker may have been woken on this core, where it would have to wait until the
            // caller has stopped spinning.
            std::thread::yield_now();
        }
        Some(_) => {}
        // Work that was posted before its thread began is seen by it without a wake-up.
        None => {
            if let Err(error) = Worker::spawn(&running.0) {
                running.abandon(false);
                return Err(error);
            }
        }
    }
    Ok(running)
}

impl Running {
    /// Looks for a moment, awake. Whether the work has ended.
    pub(crate) fn spin(&self) -> bool {
        let Slot { job, caller_patience, .. } = &self.0.slot;
        self.0.slot.spin_until(caller_patience, || job.is_finished())
    }

    /// Sleeps until the work has ended, until `deadline`, or until this thread is woken. Whether
    /// the work has ended.
    pub(crate) fn sleep(&self, deadline: Deadline) -> bool {
        let Slot { job, .. } = &self.0.slot;
        let left = deadline.remaining(Moment::now());
        if !left.is_some_and(|left| left.is_zero()) && job.caller_sleeps() {
            left.map_or_else(park, park_timeout);
            job.caller_awake();
        }
        job.is_finished()
    }

    /// After `spin` or `sleep` said that the work has ended: lets it go, and the worker is idle again.
    pub(crate) fn collect(self) {
        let work = self.take_back();
        self.0.slot.job.collect();
        if !self.0.ends.load(Acquire) {
            pool().put(self.0);
        }
        drop(work);
    }

    /// Stops waiting: work that has not begun never runs, other work runs out on its own, with its
    /// thread asked to end if `cancel`.
    pub(crate) fn abandon(self, cancel: bool) {
        // Held over the step: whoever ends the abandoned work comes here afterwards (I3).
        let place = cancel.then(|| self.0.cancellable.lock());
        // Counted before the step: the worker may end the work, and count it off, right after it.
        pool().is_abandoned();
        let gave_up = self.0.slot.job.give_up();
        if gave_up != GaveUp::Abandoned {
            pool().is_not_abandoned();
        }
        match gave_up {
            GaveUp::TooLate => {
                drop(place);
                self.collect();
            }
            GaveUp::Cancelled => {
                drop(place);
                drop(self.take_back());
            }
            GaveUp::Abandoned => {
                pool().call_ends();
                if let Some(Some(thread)) = place.as_deref() {
                    self.0.ends.store(true, Release); // ORDERING: under the mutex.
                    // The threads of a model are not the system's, and never act on it.
                    if !cfg!(loom) {
                        // SAFETY: it is alive: it clears its place under this mutex before it ends.
                        unsafe { thread::cancel(*thread) };
                    }
                }
            }
        }
    }

    /// Waits until the work has ended, however long it takes; work that has not begun never does.
    pub(crate) fn join(self) {
        if self.0.slot.job.cancel() {
            drop(self.take_back());
            return;
        }
        while !self.spin() && !self.sleep(Deadline::NEVER) {}
        self.collect();
    }

    /// The work is the caller's again.
    fn take_back(&self) -> Option<(Arc<dyn Work>, Thread)> {
        pool().call_ends();
        self.0.slot.work.lock().take()
    }
}

/// Models: every interleaving of callers and the workers that they start, up to a few preemptions.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::exec::Ending;
    use crate::sync::Mutex;
    use loom::thread;
    use std::sync::atomic::AtomicU32;

    /// Work that counts how often it ran and ended.
    #[derive(Default)]
    struct Task {
        runs: AtomicU32,
        ends: AtomicU32,
    }

    impl Work for Task {
        fn run(&self) -> i32 {
            self.runs.fetch_add(1, Relaxed) as i32
        }

        fn ended(&self, ending: Ending) {
            assert_eq!(ending, Ending::Returned(0), "it runs once");
            self.ends.fetch_add(1, Relaxed);
        }
    }

    fn post(task: &Arc<Task>) -> Running {
        let running = start(Arc::clone(task) as Arc<dyn Work>).unwrap();
        assert!(!running.0.ends.load(Relaxed), "posted to a worker that was asked to end (I3)");
        running
    }

    /// Posts a task and waits for its end.
    fn call() {
        let task = Arc::new(Task::default());
        let running = post(&task);
        while !running.spin() && !running.sleep(Deadline::NEVER) {}
        running.collect();
        assert_eq!(task.ends.load(Relaxed), 1);
        assert_eq!(Arc::strong_count(&task), 1, "somebody still has the work");
    }

    /// No worker is left, and nothing that one did not give back.
    fn assert_at_rest() {
        while threads().workers > 0 {
            thread::yield_now();
        }
        pool().assert_at_rest();
    }

    fn check(model: impl Fn() + Send + Sync + 'static) {
        // All models have one pool.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            model();
            assert_at_rest();
        });
    }

    /// A worker retires while the next call may have taken it out of the pool already (I2, I4).
    #[test]
    fn retiring_races_with_the_next_call() {
        check(|| {
            call();
            call();
        });
    }

    /// A caller stops waiting and asks the thread to end: the work is let go once, by whoever has it,
    /// and the next call does not meet that worker (I3).
    #[test]
    fn the_next_call_does_not_meet_a_worker_that_ends() {
        check(|| {
            let task = Arc::new(Task::default());
            let running = post(&task);
            running.abandon(true);
            call();
            assert_at_rest();
            assert_eq!(task.runs.load(Relaxed), task.ends.load(Relaxed));
            assert_eq!(Arc::strong_count(&task), 1, "somebody still has the work");
        });
    }
}
