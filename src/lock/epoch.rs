//! Pins, which keep what others retire in memory. The only file that knows crossbeam-epoch.
//!
//! Invariants
//! I1. What is retired is run once, by some thread, when every pin that was there then has ended.
//! I2. A process of a line of forks pins and retires by a collector of its own. WHY: a forked child
//!     inherits the pins of threads that it does not have, and would never reclaim anything again
//!     (C-15, C-16). What its parent had retired stays as it is.
//! I3. A thread that retires goes on to collect now and then. WHY: crossbeam collects on every 128th
//!     pin, and keeps up to 64 retired things in each thread. After a peak there may be no more pins.

#[cfg(not(loom))]
pub(super) use collector::{Pin, begin_thread, collect, pin};
#[cfg(loom)]
#[cfg(test)]
pub(crate) use model::reclaim_all;
#[cfg(loom)]
pub(super) use model::{Pin, begin_thread, collect, pin};

#[cfg(not(loom))]
mod collector {
    use std::cell::{Cell, RefCell};
    use std::mem;

    use crossbeam_epoch::{Collector, Guard, LocalHandle};

    use crate::process::{Generation, PerProcess};

    /// How much a thread retires for good reasons before it collects by itself (I3).
    const ENOUGH: u32 = 16;

    thread_local! {
        static HANDLE: RefCell<Option<(Generation, LocalHandle)>> = const { RefCell::new(None) };
        static RETIRED: Cell<u32> = const { Cell::new(0) };
    }

    /// Until it is dropped, what could be reached when it was made stays in memory.
    pub(in crate::lock) struct Pin(Guard);

    #[inline]
    pub(in crate::lock) fn pin() -> Pin {
        let by_handle = HANDLE.try_with(|handle| {
            let mut handle = handle.borrow_mut();
            match &*handle {
                Some((born, handle)) if born.is_current() => handle.pin(),
                _ => {
                    let new = register();
                    let guard = new.pin();
                    // A handle of the parent's is not touched (I2).
                    mem::forget(handle.replace((Generation::current(), new)));
                    guard
                }
            }
        });
        // A thread whose locals are gone registers for this one time.
        Pin(by_handle.unwrap_or_else(|_| register().pin()))
    }

    #[cold]
    fn register() -> LocalHandle {
        static COLLECTOR: PerProcess<Collector> = PerProcess::new();
        COLLECTOR.get(Collector::new).register()
    }

    /// Runs what was retired, as far as no pin is in the way. For what is large: the rest waits for
    /// its turn (I3).
    #[cold]
    pub(in crate::lock) fn collect() {
        /// An epoch ends when all have seen it, and what was retired in it runs two epochs later.
        const EPOCHS: usize = 4;
        for _ in 0..EPOCHS {
            pin().0.flush();
        }
    }

    /// Makes the thread-local of `pin`.
    pub(in crate::lock) fn begin_thread() {
        drop(pin());
    }

    impl Pin {
        /// Runs `reclaim` when every pin that is there now has ended.
        pub(in crate::lock) fn retire(&self, reclaim: impl FnOnce() + Send + 'static) {
            self.0.defer(reclaim);
        }

        /// Collects, every few times (I3).
        pub(in crate::lock) fn collect_now_and_then(&self) {
            let retired = RETIRED.get() + 1;
            RETIRED.set(retired % ENOUGH);
            if retired == ENOUGH {
                self.0.flush();
            }
        }
    }
}

/// In a model what is retired is run when all threads have ended.
#[cfg(loom)]
mod model {
    use std::cell::RefCell;

    pub(in crate::lock) struct Pin;

    std::thread_local! {
        // A model's threads take turns on one thread of the system.
        static RETIRED: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
    }

    pub(in crate::lock) fn collect() {}

    pub(in crate::lock) fn pin() -> Pin {
        Pin
    }

    pub(in crate::lock) fn begin_thread() {}

    impl Pin {
        pub(in crate::lock) fn retire(&self, reclaim: impl FnOnce() + 'static) {
            RETIRED.with_borrow_mut(|retired| retired.push(Box::new(reclaim)));
        }

        pub(in crate::lock) fn collect_now_and_then(&self) {}
    }

    /// Runs all that was retired.
    pub(crate) fn reclaim_all() {
        for reclaim in RETIRED.take() {
            reclaim();
        }
    }
}
