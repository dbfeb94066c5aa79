//! The idle workers of a process, and how many there are besides.
//!
//! Invariants
//! I1. What is in the pool is idle; who takes it out is the only one to use it.
//! I2. A worker leaves the pool under its mutex, so none retires that somebody has taken out.
//! I3. There is a place for every worker before it begins: putting one back needs no memory.
//! I4. The mutex is held over no callback and no wait.

use std::collections::VecDeque;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

pub(super) struct Pool<W> {
    /// The warmest last.
    idle: Mutex<VecDeque<Arc<W>>>,
    workers: AtomicU64,
    abandoned: AtomicU64,
    /// Calls under way, but for those that were abandoned.
    in_flight: AtomicUsize,
}

impl<W> Default for Pool<W> {
    fn default() -> Self {
        Self {
            idle: Mutex::default(),
            workers: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }
}

/// How many threads there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Threads {
    /// Internal threads.
    pub(crate) workers: u64,
    /// Abandoned callbacks that still run.
    pub(crate) abandoned: u64,
}

impl<W> Pool<W> {
    /// More places than workers, and no more of them than this many times as many.
    const ROOM: usize = 4;

    /// Takes out the warmest.
    pub(super) fn take(&self) -> Option<Arc<W>> {
        self.idle.lock().pop_back()
    }

    pub(super) fn put(&self, worker: Arc<W>) {
        self.idle.lock().push_back(worker);
    }

    /// Takes out this one; `false` if somebody has (I2). Those that are idle for the longest, who
    /// come here, are the first in line.
    pub(super) fn remove(&self, worker: *const W) -> bool {
        let mut idle = self.idle.lock();
        let place = idle.iter().position(|other| Arc::as_ptr(other) == worker);
        place.and_then(|place| idle.remove(place)).is_some()
    }

    /// One more worker begins (I3).
    pub(super) fn worker_begins(&self) -> Result<()> {
        let mut idle = self.idle.lock();
        let workers = self.workers.load(Relaxed) as usize + 1;
        let more = workers.saturating_sub(idle.len());
        idle.try_reserve(more).map_err(|_| Error::NoMemory)?;
        self.workers.fetch_add(1, Relaxed); // ORDERING: under the mutex.
        Ok(())
    }

    pub(super) fn worker_ends(&self) {
        let mut idle = self.idle.lock();
        let workers = self.workers.fetch_sub(1, Relaxed) as usize - 1;
        // What a crowd needed goes with it (C-23).
        if idle.capacity() / Self::ROOM > workers + Self::ROOM {
            idle.shrink_to(2 * workers);
        }
    }

    /// A call begins; how many there are with it.
    pub(super) fn call_begins(&self) -> usize {
        self.in_flight.fetch_add(1, Relaxed) + 1
    }

    pub(super) fn call_ends(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(super) fn is_abandoned(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    pub(super) fn is_not_abandoned(&self) {
        // ORDERING: pairs with `threads`: who sees none left sees all they did.
        self.abandoned.fetch_sub(1, Release);
    }

    /// How many threads there are at this moment.
    pub(super) fn threads(&self) -> Threads {
        Threads {
            workers: self.workers.load(Relaxed),
            abandoned: self.abandoned.load(Acquire), // ORDERING: pairs with `is_not_abandoned`.
        }
    }

    #[cfg(all(test, loom))]
    pub(super) fn assert_at_rest(&self) {
        assert_eq!(self.threads().abandoned, 0);
        assert_eq!(self.in_flight.load(Relaxed), 0);
        assert!(self.idle.lock().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_taken_out_once() {
        let pool = Pool::default();
        let workers: Vec<_> = (0..3).map(Arc::new).collect();
        for worker in &workers {
            pool.put(Arc::clone(worker));
        }
        assert_eq!(pool.take().as_deref(), Some(&2), "the warmest");
        assert!(!pool.remove(Arc::as_ptr(&workers[2])));
        assert!(pool.remove(Arc::as_ptr(&workers[0])));
        assert_eq!(pool.take().as_deref(), Some(&1));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn there_is_a_place_for_every_worker_and_little_more() {
        const CROWD: usize = 1_000;
        let pool = Pool::<usize>::default();
        for _ in 0..CROWD {
            pool.worker_begins().unwrap();
        }
        let places = pool.idle.lock().capacity();
        assert!(places >= CROWD);
        for worker in 0..CROWD {
            pool.put(Arc::new(worker));
        }
        assert_eq!(pool.idle.lock().capacity(), places);
        for _ in 0..CROWD {
            pool.take();
            pool.worker_ends();
        }
        assert!(pool.idle.lock().capacity() < 100);
        assert_eq!(pool.threads().workers, 0);
    }
}
