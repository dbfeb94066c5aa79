//! Who holds and who waits, for the detection of deadlocks (C-13).
//!
//! A callback is an owner of its own, together with whoever waits for it. So owners form ways up: a
//! callback, its caller, the caller's caller, to a thread or a logical owner. Two ways that share
//! one owner share all above it. So whether they meet is told by their ends, the roots, alone.
//!
//! A way is cut below a caller that stops waiting, and the callback becomes a root.
//!
//! Invariants
//! I1. `Up::caller` goes from an owner to `None`, once, and never back. So a root moves down a way,
//!     never up, and only by a cut.
//! I2. What a call knows of its root holds while `CUTS` says what it said before it was looked for:
//!     a cut that has calls below it counts `CUTS` up after it is made.
//! I3. A lock whose holder changed while it had a queue is counted in `AWAITED`, under the root that
//!     its holder had then, until it is handed on or its queue is empty. By I1 a holder's root is
//!     another one only if it is a call that was cut.

use std::sync::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

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
    up: Mutex<Up>,
    /// How many calls below were not cut from it.
    below: AtomicUsize,
}

/// What lies above a call.
#[derive(Debug)]
struct Up {
    /// The owner that waits for it; nobody once that is over. WHY: forgotten then. What a callback
    /// began may outlive it, and must not keep all its ancestors.
    caller: OwnerId,
    was_cut: bool,
    /// Whether it has waited for a lock.
    has_waited: bool,
    /// Its place, and the number of cuts it was found at (I2).
    known: Option<(Place, u64)>,
}

/// How many cuts had calls below them.
static CUTS: AtomicU64 = AtomicU64::new(0);

impl Call {
    pub(super) fn of(caller: OwnerId) -> Arc<Self> {
        if let OwnerId::Call(caller) = &caller {
            caller.below.fetch_add(1, Relaxed); // ORDERING: see `cut`.
        }
        let up = Up { caller, was_cut: false, has_waited: false, known: None };
        Arc::new(Self { up: Mutex::new(up), below: AtomicUsize::new(0) })
    }

    /// Nobody waits for it any more. Its place before, if waits may stand below it that are registered
    /// there.
    pub(super) fn cut(self: &Arc<Self>) -> Option<Place> {
        let (caller, has_waited) = {
            let mut up = self.up.lock();
            if matches!(up.caller, OwnerId::None) {
                return None;
            }
            up.was_cut = true;
            up.known = None;
            (std::mem::replace(&mut up.caller, OwnerId::None), up.has_waited)
        };
        // ORDERING: a call below that is not seen here looks for its place later, and sees the cut by
        // the mutex.
        let has_calls = self.below.load(Relaxed) > 0;
        if has_calls {
            CUTS.fetch_add(1, Release); // ORDERING: pairs with `place`: shows the cut.
        }
        if let OwnerId::Call(caller) = &caller {
            caller.below.fetch_sub(1, Relaxed); // ORDERING: as above.
        }
        let place = |above: Place| match caller {
            OwnerId::Call(_) => above,
            _ => Place { top: self.node(), ..above },
        };
        if has_waited || has_calls { self::place(&caller).map(place) } else { None }
    }

    /// Whether a cut may matter to waits that are registered. Exact for who runs the callback.
    pub(super) fn has_waits(&self) -> bool {
        self.up.lock().has_waited || self.below.load(Relaxed) > 0 // ORDERING: see `cut`.
    }

    #[cfg(all(test, loom))]
    pub(super) fn is_detached(&self) -> bool {
        matches!(self.up.lock().caller, OwnerId::None)
    }

    fn node(self: &Arc<Self>) -> OwnerNode {
        OwnerNode::Call(Arc::as_ptr(self).addr())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Step by step: one call would drop the next, as deep as they are nested.
        let take = |call: &Call| std::mem::replace(&mut call.up.lock().caller, OwnerId::None);
        let mut caller = take(self);
        while let OwnerId::Call(call) = caller {
            call.below.fetch_sub(1, Relaxed); // ORDERING: see `cut`.
            caller = Arc::into_inner(call).map_or(OwnerId::None, |call| take(&call));
        }
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

/// Where an owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The end of its way up.
    pub(super) root: OwnerNode,
    /// The uppermost callback on its way, or the root if there is none. WHY: a logical owner may have
    /// ten thousand callbacks; who looks for what is below one of them must not look at all.
    pub(super) top: OwnerNode,
    /// The root is a callback whose caller has stopped waiting.
    pub(super) was_cut: bool,
}

impl Place {
    fn root(root: OwnerNode) -> Self {
        Self { root, top: root, was_cut: false }
    }
}

/// Where an owner stands now; `None` if it takes no part. Every call on the way knows it afterwards:
/// ten thousand nested callbacks cost ten thousand steps, not their square.
pub(super) fn place(owner: &OwnerId) -> Option<Place> {
    let first = match owner {
        OwnerId::None => return None,
        OwnerId::Thread(id) => return Some(Place::root(OwnerNode::Thread(*id))),
        OwnerId::Logical(id) => return Some(Place::root(OwnerNode::Logical(*id))),
        OwnerId::Call(call) => call,
    };
    let cuts = CUTS.load(Acquire); // ORDERING: pairs with `cut`; before the way is looked at (I2).
    let mut call = Arc::clone(first);
    let place = loop {
        let up = call.up.lock();
        let root = match &up.caller {
            OwnerId::None => {
                break Place { was_cut: up.was_cut, ..Place::root(call.node()) };
            }
            OwnerId::Thread(id) => Some(OwnerNode::Thread(*id)),
            OwnerId::Logical(id) => Some(OwnerNode::Logical(*id)),
            OwnerId::Call(_) => None,
        };
        if let Some(root) = root {
            break Place { root, top: call.node(), was_cut: false };
        }
        if let Some((place, at)) = up.known
            && at == cuts
        {
            break place;
        }
        let OwnerId::Call(next) = &up.caller else { unreachable!("as looked above") };
        let next = Arc::clone(next);
        drop(up);
        call = next;
    };
    let last = call;
    let mut call = Arc::clone(first);
    while !Arc::ptr_eq(&call, &last) {
        let mut up = call.up.lock();
        let OwnerId::Call(next) = &up.caller else { break }; // Cut meanwhile.
        let next = Arc::clone(next);
        up.known = Some((place, cuts));
        drop(up);
        call = next;
    }
    Some(place)
}

/// As `place`, for one that is going to be registered as a waiter: a cut is told of it.
pub(super) fn place_of_waiter(owner: &OwnerId) -> Option<Place> {
    if let OwnerId::Call(call) = owner {
        call.up.lock().has_waited = true; // Before it looks: whoever cuts later sees it.
    }
    place(owner)
}

/// How many places `AWAITED` has. WHY: what falls together costs a search that finds nothing, and is
/// rare: only locks count that were handed on to others while somebody waited.
const PLACES: usize = 4096;

/// How many locks are held, by root, that were handed on while they had a queue (I3). A forked child
/// inherits the counts, which make it search more often, and no more.
static AWAITED: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];

fn index(root: OwnerNode) -> usize {
    let (kind, id) = match root {
        OwnerNode::Thread(id) => (0, id),
        OwnerNode::Logical(id) => (1, id),
        OwnerNode::Call(address) => (2, address as u64 >> 4),
    };
    let mixed = (id ^ kind << 62).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> (64 - PLACES.ilog2())) as usize
}

/// Whether an owner with this root may hold a lock that got a new holder while it had a queue.
pub(super) fn may_be_awaited(root: OwnerNode) -> bool {
    // ORDERING: pairs with `Awaited::set`.
    AWAITED[index(root)].load(SeqCst) != 0
}

/// The count of one lock in `AWAITED`. Under the mutex of the lock's entry.
#[derive(Debug, Default)]
pub(super) struct Awaited(Option<u16>);

impl Awaited {
    /// The lock has a queue, and an owner with this root holds it.
    ///
    /// WHY: a lock that is free stays counted for the holder before. On a contended lock that is
    /// mostly the next one, too.
    pub(super) fn set(&mut self, root: Option<OwnerNode>) {
        let now = root.map(|root| index(root) as u16);
        if now == self.0 {
            return;
        }
        // ORDERING of both: whoever waits next in this holder's name reads it. It does so on the
        // thread that took the lock, or after a hand-over, or after the registration of one who
        // waits for it. SeqCst: for logical owners, of which another thread may hold the lock.
        if let Some(now) = now {
            AWAITED[now as usize].fetch_add(1, SeqCst);
        }
        self.clear();
        self.0 = now;
    }

    /// Nobody waits for the lock.
    pub(super) fn clear(&mut self) {
        if let Some(before) = self.0.take() {
            AWAITED[before as usize].fetch_sub(1, SeqCst);
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn nest(depth: usize, root: OwnerId) -> Vec<Arc<Call>> {
        let mut calls = Vec::new();
        let mut caller = root;
        for _ in 0..depth {
            let call = Call::of(caller);
            caller = OwnerId::Call(Arc::clone(&call));
            calls.push(call);
        }
        calls
    }

    fn root_of(call: &Arc<Call>) -> OwnerNode {
        place(&OwnerId::Call(Arc::clone(call))).expect("a callback is an owner").root
    }

    /// A way is cut in two, and each part has its own root; what was known before is not believed.
    #[test]
    fn a_cut_moves_those_below_it_and_no_others() {
        let calls = nest(100, OwnerId::Logical(7));
        for call in &calls {
            assert_eq!(root_of(call), OwnerNode::Logical(7));
        }
        let before = calls[50].cut().unwrap();
        assert_eq!(
            before,
            Place { root: OwnerNode::Logical(7), top: calls[0].node(), was_cut: false }
        );
        for (i, call) in calls.iter().enumerate() {
            let root = if i < 50 { OwnerNode::Logical(7) } else { calls[50].node() };
            assert_eq!(root_of(call), root, "{i}");
        }
        calls[70].cut();
        calls[0].cut();
        for (i, call) in calls.iter().enumerate() {
            let root = calls[if i < 50 {
                0
            } else if i < 70 {
                50
            } else {
                70
            }]
            .node();
            assert_eq!(root_of(call), root, "{i}");
        }
        assert!(calls[50].cut().is_none(), "only once");
    }

    /// The end of a callback that has begun nothing concerns nobody.
    #[test]
    fn a_cut_with_nothing_below_is_told_to_nobody() {
        let calls = nest(2, OwnerId::Thread(1));
        assert!(calls[1].cut().is_none());
        assert!(calls[0].cut().is_none());
        let waiter = nest(1, OwnerId::Thread(1)).remove(0);
        place_of_waiter(&OwnerId::Call(Arc::clone(&waiter)));
        assert_eq!(waiter.cut().unwrap().top, waiter.node());
    }

    /// A deep nest is looked through once, and ends without recursion.
    #[test]
    fn deep_nests_are_cheap() {
        let depth = 100_000;
        let mut calls = nest(depth, OwnerId::Thread(1));
        for call in calls.iter().rev() {
            root_of(call);
        }
        let last = calls.pop().unwrap();
        drop(calls);
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || drop(last))
            .unwrap()
            .join()
            .unwrap();
    }
}
