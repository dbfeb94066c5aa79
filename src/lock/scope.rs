//! What can be closed under its waiters: handles to tables, lock tables, and stops.

use crate::error::Error;
use crate::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Something that can be closed under its waiters: a handle to a table, a lock table, or a stop.
#[derive(Debug)]
pub(crate) struct Scope {
    id: u64,
    is_stop: bool,
    closed: AtomicBool,
}

/// What a call waits through: one handle, or several.
pub(crate) trait Scopes: std::fmt::Debug {
    /// Looks at each of them.
    fn each(&self, look: &mut dyn FnMut(&Scope));
}

impl Scope {
    pub(crate) fn new() -> Self {
        Self::of(false)
    }

    fn of(is_stop: bool) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self { id: IDS.fetch_add(1, Relaxed), is_stop, closed: AtomicBool::new(false) }
    }

    /// What a wait ends with when the scope is closed.
    pub(super) fn ends_with(&self) -> Error {
        if self.is_stop { Error::Stopped } else { Error::Closed }
    }

    /// From here on nobody begins to wait in this scope. Who waits already is told by
    /// `waits::close`.
    pub(super) fn mark_closed(&self) {
        // ORDERING: SeqCst, as in `is_closed`: a waiter registers, then looks; who closes marks,
        // then searches the registry. One of the two sees the other.
        self.closed.store(true, SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst) // ORDERING: pairs with `mark_closed`.
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

/// Ends waits early. A clone is the same stop.
#[derive(Debug, Clone)]
pub struct Stop(Arc<Scope>);

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

impl Stop {
    /// A stop that was not requested.
    pub fn new() -> Self {
        Self(Arc::new(Scope::of(true)))
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.0
    }
}
