//! Which process this is: what must be fresh in a forked child, and how a handle from before the
//! fork is told from one made after it (C-16).
//!
//! A fork is seen by a handler that `ffi` registers before the first handle is made. A child
//! never touches a lock, a queue or a thread of its parent: it begins with its own.

use crate::sync::OnceLock;
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

    /// To be called in the child, right after the fork.
    pub(crate) fn next() {
        FORKS.fetch_add(1, Relaxed);
    }
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
            place = place.child.get_or_init(|| Box::new(Self::new()));
        }
        place.value.get_or_init(make)
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
