//! The only import of std's, loom's or shuttle's primitives, and of our own parking.
//!
//! When a model runs, what the state machines are made of comes from loom, which tries every
//! interleaving, or from shuttle, which tries many of a larger story: atomics, parking, and the
//! mutexes of `machine`. The rest is always std's.

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use crate::parking::{Thread, current, park, park_timeout};
#[cfg(loom)]
pub(crate) use parking::{Thread, current, park};
#[cfg(shuttle)]
pub(crate) use shuttle::thread::{Thread, current, park};

pub(crate) use std::sync::{Arc, MutexGuard, OnceLock};

use std::sync::TryLockError;

/// In a model time stands still, and every sleep may end at once.
#[cfg(any(loom, shuttle))]
pub(crate) fn park_timeout(_: std::time::Duration) {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
}

/// Sleeps for a moment, in which another thread ends a step of its own. Nobody is woken for that.
///
/// WHY: not `park_timeout`, which a thread cannot do whose locals are gone, nor `thread::sleep`, in
/// which it can be cancelled.
pub(crate) fn nap() {
    const MOMENT: std::time::Duration = std::time::Duration::from_micros(50);
    #[cfg(any(loom, shuttle))]
    park_timeout(MOMENT);
    #[cfg(not(any(loom, shuttle)))]
    {
        let nobody = std::sync::Condvar::new();
        let _ = nobody.wait_timeout(Mutex::new(()).lock(), MOMENT);
    }
}

/// A mutex whose critical sections leave its data valid at every step.
///
/// WHY: no poison. A panic is answered with `ETSLOCK_ERR_PANIC` where it happens; the key that
/// was being touched must stay usable for everybody else.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// `None`: another thread has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poison)) => Some(poison.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Parking in loom's models. WHY: not loom's own, which forgets a wake-up that comes while the
/// thread waits for a mutex.
#[cfg(loom)]
mod parking {
    use super::Arc;
    use loom::sync::Notify;

    loom::thread_local! {
        static OWN: Thread = Thread(Arc::new(Notify::new()));
    }

    #[derive(Clone)]
    pub(crate) struct Thread(Arc<Notify>);

    impl Thread {
        pub(crate) fn unpark(&self) {
            self.0.notify();
        }

        pub(crate) fn id(&self) -> usize {
            Arc::as_ptr(&self.0).addr()
        }
    }

    impl std::fmt::Debug for Thread {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Thread({:#x})", self.id())
        }
    }

    pub(crate) fn current() -> Thread {
        OWN.with(Thread::clone)
    }

    pub(crate) fn park() {
        current().0.wait();
    }
}

/// The mutex of a machine that is modelled with it.
pub(crate) mod machine {
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) use super::{Mutex, MutexGuard};
    #[cfg(loom)]
    pub(crate) use loom::sync::MutexGuard;
    #[cfg(shuttle)]
    pub(crate) use shuttle::sync::MutexGuard;

    #[cfg(loom)]
    use loom::sync::Mutex as Modelled;
    #[cfg(shuttle)]
    use shuttle::sync::Mutex as Modelled;

    #[cfg(any(loom, shuttle))]
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(Modelled<T>);

    #[cfg(any(loom, shuttle))]
    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Modelled::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(|poison| poison.into_inner())
        }
    }
}
