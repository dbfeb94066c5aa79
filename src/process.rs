//! Which process this is: what must be fresh in a forked child, and how a handle from before the
//! fork is told from one made after it (C-16).
//!
//! A fork is seen by handlers that `ffi` registers before the first handle is made. A child never
//! touches a lock, a queue or a thread of its parent: it begins with its own. Only what a crate
//! keeps for the whole process in locks of its own is passed on; a fork waits until no thread is
//! in there.

use std::cell::RefCell;

use crate::sync::{Mutex, MutexGuard, OnceLock};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many forks lie between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The process that something was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    pub(crate) fn current() -> Self {
        // ORDERING: changed only in a child that has one thread.
        Self(FORKS.load(Relaxed))
    }

    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    fn next() {
        FORKS.fetch_add(1, Relaxed);
    }
}

/// Held by threads that must not be copied half-way, and by a fork.
static FORK_GATE: Mutex<()> = Mutex::new(());

thread_local! {
    static FORKING: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Lets `body` make thread-locals while no thread forks, and sees to it that none does while they
/// end: thread-locals end in reverse order, so `Ends` comes before those of `body`, and `Ended`
/// after them. Once a thread.
pub(crate) fn undisturbed_by_fork(body: impl FnOnce()) {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = ENDED.try_with(|ended| ended.replace(Some(FORK_GATE.lock())));
        }
    }
    thread_local! {
        static ENDED: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
        static ENDS: Ends = const { Ends };
    }
    let _gate = FORK_GATE.lock();
    ENDED.with(|_| ());
    body();
    ENDS.with(|_| ());
}

/// Runs `body` while no thread forks. It must neither fork nor wait for a thread that does.
pub(crate) fn while_nobody_forks<R>(body: impl FnOnce() -> R) -> R {
    let _gate = FORK_GATE.lock();
    body()
}

/// To be called before a fork, by the thread that forks.
pub(crate) fn before_fork() {
    // A thread whose locals are gone forks without a gate.
    let _ = FORKING.try_with(|forking| forking.replace(Some(FORK_GATE.lock())));
}

/// To be called after a fork, in the parent.
pub(crate) fn after_fork_in_parent() {
    let _ = FORKING.try_with(RefCell::take);
}

/// To be called after a fork, in the child.
pub(crate) fn after_fork_in_child() {
    Generation::next();
    let _ = FORKING.try_with(RefCell::take);
}

/// A value that each process of a line of forks has one of its own.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    value: OnceLock<T>,
    child: OnceLock<Box<PerProcess<T>>>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { value: OnceLock::new(), child: OnceLock::new() }
    }

    pub(crate) fn get(&self, make: fn() -> T) -> &T {
        let mut place = self;
        for _ in 0..Generation::current().0 {
            place = match place.child.get() {
                Some(child) => child,
                None => place.make_child(),
            };
        }
        place.value.get_or_init(make)
    }

    /// With the gate: a child of this process would wait for a thread that it does not have.
    #[cold]
    fn make_child(&self) -> &Self {
        let _gate = FORK_GATE.lock();
        self.child.get_or_init(|| Box::new(Self::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_per_process() {
        static VALUES: PerProcess<u32> = PerProcess::new();
        assert_eq!(VALUES.get(|| 1), &1);
        assert_eq!(VALUES.get(|| 2), &1);
    }
}
