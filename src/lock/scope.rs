//! What can be closed under its waiters.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Something that can be closed under its waiters: a handle to a table, or a lock table.
#[derive(Debug)]
pub(crate) struct Scope {
    id: u64,
    closed: AtomicBool,
}

/// What a call waits through: one handle, or several.
pub(crate) trait Scopes: std::fmt::Debug {
    /// Looks at each of them.
    fn each(&self, look: &mut dyn FnMut(&Scope));
}

impl Scope {
    pub(crate) fn new() -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self { id: IDS.fetch_add(1, Relaxed), closed: AtomicBool::new(false) }
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
