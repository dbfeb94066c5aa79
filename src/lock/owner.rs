//! Who holds and who waits, for the detection of deadlocks (C-13).

use crate::sync::{Arc, Mutex};

/// Who holds and waits, as a caller says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The calling thread, or the callback that runs on it.
    Current,
    /// Nobody: takes no part in deadlock detection.
    None,
    /// A task of the caller's own.
    Logical(u64),
}

/// An owner, resolved.
#[derive(Debug, Clone)]
pub(crate) enum OwnerId {
    None,
    Thread(u64),
    Logical(u64),
    /// A callback.
    Call(Arc<Call>),
}

/// A callback as an owner, made when it first waits or holds something itself.
#[derive(Debug)]
pub(crate) struct Call {
    /// The owner that waits for it; nobody once that is over. WHY: forgotten then. What a callback
    /// began may outlive it, and must not keep all its ancestors.
    caller: Mutex<OwnerId>,
}

impl Call {
    pub(super) fn of(caller: OwnerId) -> Arc<Self> {
        Arc::new(Self { caller: Mutex::new(caller) })
    }

    /// Nobody waits for it any more.
    pub(super) fn detach(&self) {
        *self.caller.lock() = OwnerId::None;
    }

    #[cfg(all(test, loom))]
    pub(super) fn is_detached(&self) -> bool {
        matches!(*self.caller.lock(), OwnerId::None)
    }

    fn node(self: &Arc<Self>) -> OwnerNode {
        OwnerNode::Call(Arc::as_ptr(self).addr())
    }
}

impl OwnerId {
    /// As `LockInfo::owner` shows it.
    pub(super) fn logical_id(&self) -> u64 {
        match self {
            OwnerId::None => u64::MAX,
            OwnerId::Logical(id) => *id,
            OwnerId::Thread(_) | OwnerId::Call(_) => 0,
        }
    }
}

/// A node of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OwnerNode {
    Thread(u64),
    Logical(u64),
    /// The address of the call, which an edge keeps alive.
    Call(usize),
}

/// The owners that stand behind one: a callback, and whoever waits for it.
pub(super) fn owners(owner: &OwnerId) -> Vec<OwnerNode> {
    let mut nodes = Vec::new();
    let mut owner = owner.clone();
    loop {
        match owner {
            OwnerId::None => return nodes,
            OwnerId::Thread(id) => {
                nodes.push(OwnerNode::Thread(id));
                return nodes;
            }
            OwnerId::Logical(id) => {
                nodes.push(OwnerNode::Logical(id));
                return nodes;
            }
            OwnerId::Call(call) => {
                nodes.push(call.node());
                owner = call.caller.lock().clone();
            }
        }
    }
}
