//! The index of entries: a lock-free hash trie. The only file that knows crossbeam-epoch.
//!
//! A slot is a singly linked list of nodes and, once the list was long, an array of child slots
//! for what comes later. What stands in a list stays there until it is removed, so nothing ever
//! moves. The slots grow to the number of locks held at once and are kept.
//!
//! Invariants
//! I1. Nodes are inserted at the head of a list only, by a compare-exchange from the head that
//!     the inserter searched from. So an unchanged head means that no equal node came meanwhile.
//! I2. EXPANDED, a tag of a slot's head, is set once and for ever. Nothing is inserted into an
//!     expanded slot's list: the compare-exchange of I1 expects a head without the tag.
//! I3. By I1 and I2 a listed node is found by every search that begins after its insertion: in
//!     the list of the first slot on its path that was not expanded then.
//! I4. REMOVED, a tag of a node's `next`, is set once and for ever, before the node is unlinked.
//!     Unlinking expects a predecessor without the tag, so nothing is linked behind a removed node.
//! I5. A list owns one strong count of each of its nodes. The thread that unlinks a node gives it
//!     up, after every thread that was pinned then has moved on.

#![expect(unsafe_code, reason = "epoch-based reclamation; every block argues from I1 to I5")]

use std::cell::RefCell;
use std::fmt;
use std::mem;
use std::ops::Deref;

use crossbeam_epoch::{Atomic, Collector, Guard, LocalHandle, Shared, unprotected};

use crate::process::{Generation, PerProcess};

use crate::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::thread::yield_now;

/// Keeps what is loaded from a list in memory, until it is dropped.
///
/// WHY: not the crate's own collector. A forked child inherits the pins of threads that it does
/// not have, and would never reclaim anything again (C-15, C-16).
fn pin() -> Guard {
    static COLLECTOR: PerProcess<Collector> = PerProcess::new();
    thread_local! {
        static HANDLE: RefCell<Option<(Generation, LocalHandle)>> = const { RefCell::new(None) };
    }
    let register = || COLLECTOR.get(Collector::new).register();
    let by_handle = HANDLE.try_with(|handle| {
        let mut handle = handle.borrow_mut();
        match &*handle {
            Some((born, handle)) if born.is_current() => handle.pin(),
            _ => {
                let new = register();
                let guard = new.pin();
                // A handle of the parent's is not touched.
                mem::forget(handle.replace((Generation::current(), new)));
                guard
            }
        }
    });
    // A thread whose locals are gone registers for this one time.
    by_handle.unwrap_or_else(|_| register().pin())
}

/// Makes the thread-local of `pin`.
pub(super) fn begin_thread() {
    drop(pin());
}

/// Tag of a slot's head (I2).
const EXPANDED: usize = 1;
/// Tag of a slot's head: it is not a node, but a sole one (I6).
const SOLE: usize = 2;
/// Tag of a slot's head beside SOLE: somebody is listing it (I7).
const LISTING: usize = 4;
/// Tag of a node's `next` (I4).
const REMOVED: usize = 1;

/// A slot with so many nodes expands.
const LONG: usize = 4;

const ROOT_BITS: u32 = 10;
const CHILD_BITS: u32 = 6;

/// What an index lists.
pub(crate) trait Listed {
    /// What it is searched by.
    type Id<'a>: Copy;
    /// Whether it is what is searched, and alive.
    fn is(&self, id: Self::Id<'_>) -> bool;
    /// What stands in for it while it is sole.
    type Sole: Sole;
    /// What is listed for `sole`.
    fn of_sole(sole: Self::Sole) -> Self;
}

/// A reference that a slot can hold instead of a list.
///
/// # Safety
/// The pointer is not null, and aligned to a word.
pub(crate) unsafe trait Sole {
    /// What it refers to.
    fn as_pointer(&self) -> *const ();

    /// Gives the reference away.
    fn into_pointer(self) -> *const ();

    /// Takes it back.
    ///
    /// # Safety
    /// `pointer` came from `into_pointer`, and nobody else takes it back.
    unsafe fn from_pointer(pointer: *const ()) -> Self;
}

/// A listed value. Shared by the list and by everyone who found it.
pub(crate) struct Node<T> {
    next: Atomic<Node<T>>,
    value: T,
}

impl<T> Node<T> {
    pub(super) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { next: Atomic::null(), value })
    }
}

impl<T> Deref for Node<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

struct Slot<T> {
    head: Atomic<Node<T>>,
    children: OnceLock<Box<[Slot<T>]>>,
}

impl<T> Slot<T> {
    fn array(bits: u32) -> Box<[Self]> {
        let empty = || Self { head: Atomic::null(), children: OnceLock::new() };
        std::iter::repeat_with(empty).take(1 << bits).collect()
    }

    fn children(&self) -> &[Self] {
        self.children.get_or_init(|| Self::array(CHILD_BITS))
    }
}

/// Nodes by hash and identity.
pub(super) struct Index<T: Listed + Send + Sync + 'static> {
    root: Box<[Slot<T>]>,
}

impl<T: Listed + Send + Sync + 'static> fmt::Debug for Index<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// The slots on the path of a hash, from the root down.
struct Path<'a, T> {
    slot: &'a Slot<T>,
    rest: u64,
}

impl<'a, T> Path<'a, T> {
    fn new(root: &'a [Slot<T>], hash: u64) -> Self {
        Self { slot: &root[hash as usize & ((1 << ROOT_BITS) - 1)], rest: hash >> ROOT_BITS }
    }

    fn descend(&mut self) {
        self.slot = &self.slot.children()[self.rest as usize & ((1 << CHILD_BITS) - 1)];
        self.rest >>= CHILD_BITS;
    }

    fn has_children(&self) -> bool {
        self.slot.children.get().is_some()
    }

    /// Whether the hash has bits left to tell nodes apart by.
    fn can_descend(&self) -> bool {
        self.rest != 0
    }
}

impl<T: Listed + Send + Sync + 'static> Index<T> {
    pub(super) fn new() -> Self {
        Self { root: Slot::array(ROOT_BITS) }
    }

    /// The listed node that is `id`, if there is one.
    pub(super) fn find(&self, hash: u64, id: T::Id<'_>) -> Option<Arc<Node<T>>> {
        let mut path = Path::new(&self.root, hash);
        if is_vacant(path.slot) {
            return None;
        }
        let pin = pin();
        loop {
            let head = listed_head(path.slot, &pin);
            if let (Some(found), _) = search(head, id, &pin) {
                return Some(share(found));
            }
            if head.tag() != EXPANDED {
                return None;
            }
            path.descend();
        }
    }

    /// Lists `node`, which is `id`. `false`: another one that is `id` came first.
    pub(super) fn insert(&self, hash: u64, id: T::Id<'_>, node: &Arc<Node<T>>) -> bool {
        let mut path = Path::new(&self.root, hash);
        // The list's own strong count (I5).
        let listed = Arc::into_raw(Arc::clone(node));
        if insert_first(path.slot, listed) {
            return true;
        }
        let pin = pin();
        let listed: Shared<'_, Node<T>> = Shared::from(listed);
        loop {
            let head = listed_head(path.slot, &pin);
            let (found, len) = search(head, id, &pin);
            if found.is_some() {
                // SAFETY: the count made above, which no list has taken over.
                drop(unsafe { Arc::from_raw(listed.as_raw()) });
                return false;
            }
            if head.tag() == EXPANDED {
                path.descend();
            } else if len >= LONG && path.can_descend() {
                let expanded = head.with_tag(EXPANDED);
                // ORDERING: as below. If it fails, somebody was here meanwhile.
                let _ = path.slot.head.compare_exchange(head, expanded, AcqRel, Acquire, &pin);
            } else {
                // ORDERING: published by the exchange below.
                node.next.store(head, Relaxed);
                // ORDERING: pairs with `load_head` and the load of `next` in `search`.
                if path.slot.head.compare_exchange(head, listed, AcqRel, Acquire, &pin).is_ok() {
                    return true;
                }
            }
        }
    }

    /// Takes `node` off its list. Its value must be dead by now: no search may want it.
    pub(super) fn remove(&self, hash: u64, node: &Arc<Node<T>>) {
        let pin = pin();
        // ORDERING: pairs with the load of `next` in `unlink`.
        node.next.fetch_or(REMOVED, AcqRel, &pin);
        let mut path = Path::new(&self.root, hash);
        // Not found on the whole path: another thread has unlinked it in passing.
        while !unlink(path.slot, node, &pin) && load_head(path.slot, &pin).tag() == EXPANDED {
            path.descend();
        }
    }

    /// A hint: nothing is in the first slot of `hash`, or it has children.
    #[inline]
    pub(super) fn is_vacant(&self, hash: u64) -> bool {
        // SAFETY: the pointer is compared, never followed.
        let unpinned = unsafe { unprotected() };
        Path::new(&self.root, hash).slot.head.load(Relaxed, unpinned).is_null()
    }

    /// Puts `sole` alone into the slot of `hash`, if nothing is there (I6); else gives it back.
    #[inline]
    pub(super) fn put_sole(&self, hash: u64, sole: T::Sole) -> Result<(), T::Sole> {
        // SAFETY: the pointers are compared, never followed.
        let unpinned = unsafe { unprotected() };
        let pointer = sole.into_pointer();
        let tagged = Shared::from(pointer.cast::<Node<T>>()).with_tag(SOLE);
        let mut path = Path::new(&self.root, hash);
        loop {
            let head = path.slot.head.load(Acquire, unpinned);
            if head.is_null() && head.tag() == EXPANDED {
                path.descend();
                continue;
            }
            let vacant = Shared::null();
            // ORDERING: pairs with `list_sole` and `take_sole`.
            if head == vacant
                && path.slot.head.compare_exchange(head, tagged, AcqRel, Relaxed, unpinned).is_ok()
            {
                return Ok(());
            }
            // SAFETY: given away above, and not put in.
            return Err(unsafe { T::Sole::from_pointer(pointer) });
        }
    }

    /// Takes out what was put in with a reference to the same as `sole`. `None`: somebody has listed it
    /// meanwhile, or taken it out.
    #[inline]
    pub(super) fn take_sole(&self, hash: u64, sole: &T::Sole) -> Option<T::Sole> {
        // SAFETY: the pointers are compared, never followed.
        let unpinned = unsafe { unprotected() };
        let pointer = sole.as_pointer();
        let tagged = Shared::from(pointer.cast::<Node<T>>()).with_tag(SOLE);
        let mut path = Path::new(&self.root, hash);
        loop {
            let head = &path.slot.head;
            // ORDERING: Release pairs with `put_sole`: the next one sees what this one did.
            match head.compare_exchange(tagged, Shared::null(), AcqRel, Acquire, unpinned) {
                // SAFETY: the slot's reference, which this exchange took out (I6).
                Ok(_) => return Some(unsafe { T::Sole::from_pointer(pointer) }),
                Err(seen) if seen.current == tagged.with_tag(SOLE | LISTING) => yield_now(),
                Err(seen) if seen.current.tag() == EXPANDED && path.has_children() => {
                    path.descend();
                }
                Err(_) => return None,
            }
        }
    }

    /// Every listed node, dead ones too.
    pub(super) fn all(&self) -> Vec<Arc<Node<T>>> {
        let mut nodes = Vec::new();
        let pin = pin();
        collect(&self.root, &mut nodes, &pin);
        nodes
    }
}

fn collect<T: Listed>(slots: &[Slot<T>], nodes: &mut Vec<Arc<Node<T>>>, pin: &Guard) {
    for slot in slots {
        let mut next = listed_head(slot, pin);
        while let Some(node) = deref(next, pin) {
            nodes.push(share(node));
            next = node.next.load(Acquire, pin);
        }
        if let Some(children) = slot.children.get() {
            collect(children, nodes, pin);
        }
    }
}

/// Lists a node if its slot is vacant. Needs no pin: nothing is dereferenced, and a slot that is
/// empty and not expanded at the moment of the exchange has no equal node.
fn insert_first<T>(slot: &Slot<T>, node: *const Node<T>) -> bool {
    // SAFETY: the pointers are compared, never followed.
    let unpinned = unsafe { unprotected() };
    is_vacant(slot)
        // ORDERING: pairs with `load_head`. The node's `next` is null from the start.
        && slot
            .head
            .compare_exchange(Shared::null(), Shared::from(node), AcqRel, Acquire, unpinned)
            .is_ok()
}

/// Whether a slot has neither nodes nor children. Needs no pin: nothing is dereferenced.
fn is_vacant<T>(slot: &Slot<T>) -> bool {
    // SAFETY: the pointer is compared, never followed.
    let unpinned = unsafe { unprotected() };
    let head = slot.head.load(Acquire, unpinned);
    head.is_null() && head.tag() != EXPANDED
}

/// The head of a slot's list, in which a sole one is listed first.
fn listed_head<'g, T: Listed>(slot: &Slot<T>, pin: &'g Guard) -> Shared<'g, Node<T>> {
    loop {
        let head = load_head(slot, pin);
        if head.tag() & SOLE == 0 {
            return head;
        }
        list_sole(slot, head, pin);
    }
}

/// Lists the sole one that was seen in a slot, if it is still there (I7).
#[cold]
fn list_sole<T: Listed>(slot: &Slot<T>, seen: Shared<'_, Node<T>>, pin: &Guard) {
    let (sole, listing) = (seen.with_tag(SOLE), seen.with_tag(SOLE | LISTING));
    // ORDERING: pairs with `put_sole` and `take_sole`.
    if slot.head.compare_exchange(sole, listing, AcqRel, Acquire, pin).is_err() {
        yield_now();
        return;
    }
    // SAFETY: the slot's reference, which nobody takes out while it is being listed (I7).
    let sole = unsafe { T::Sole::from_pointer(sole.as_raw().cast()) };
    // The list's own strong count (I5).
    let node = Arc::into_raw(Node::new(T::of_sole(sole)));
    slot.head.store(Shared::from(node), Release); // ORDERING: pairs with `load_head`.
}

/// ORDERING: pairs with the exchange in `insert`.
fn load_head<'g, T>(slot: &Slot<T>, pin: &'g Guard) -> Shared<'g, Node<T>> {
    slot.head.load(Acquire, pin)
}

fn deref<'g, T>(node: Shared<'g, Node<T>>, _pin: &'g Guard) -> Option<&'g Node<T>> {
    // SAFETY: loaded from a list under `_pin`, so the list's count is not given up before the
    // pin ends (I5).
    unsafe { node.as_ref() }
}

/// One more strong count of a node that a pin protects.
fn share<T>(node: &Node<T>) -> Arc<Node<T>> {
    let raw = std::ptr::from_ref(node);
    // SAFETY: every node was made by `Arc::new`, and its list's count is alive (`deref`).
    unsafe { Arc::increment_strong_count(raw) };
    // SAFETY: takes over the count just made.
    unsafe { Arc::from_raw(raw) }
}

/// The first node of a list that is `id`, or how long the list is.
fn search<'g, T: Listed>(
    head: Shared<'g, Node<T>>,
    id: T::Id<'_>,
    pin: &'g Guard,
) -> (Option<&'g Node<T>>, usize) {
    let mut len = 0;
    let mut next = head;
    while let Some(node) = deref(next, pin) {
        if node.is(id) {
            return (Some(node), len);
        }
        len += 1;
        // ORDERING: pairs with the exchanges in `insert` and `unlink`.
        next = node.next.load(Acquire, pin);
    }
    (None, len)
}

/// Unlinks removed nodes from a slot's list, up to `wanted`. Whether it was this thread that
/// unlinked `wanted`.
fn unlink<T: Send + Sync + 'static>(slot: &Slot<T>, wanted: &Arc<Node<T>>, pin: &Guard) -> bool {
    'restart: loop {
        let mut place = &slot.head;
        let mut current = place.load(Acquire, pin);
        if current.tag() & SOLE != 0 {
            return false; // The list came to its end before.
        }
        while let Some(node) = deref(current, pin) {
            let next = node.next.load(Acquire, pin);
            if next.tag() != REMOVED {
                (place, current) = (&node.next, next);
                continue;
            }
            // The head keeps its tag (I2); a `next` without REMOVED has none (I4).
            let follower = next.with_tag(current.tag());
            if place.compare_exchange(current, follower, AcqRel, Acquire, pin).is_err() {
                continue 'restart;
            }
            // SAFETY: the list's count, which this thread gives up because it unlinked the node (I5).
            let listed = unsafe { Arc::from_raw(current.as_raw()) };
            // SAFETY: the value is Send and borrows nothing, so any thread may drop it at any time.
            unsafe { pin.defer_unchecked(move || drop(listed)) };
            if std::ptr::eq(node, Arc::as_ptr(wanted)) {
                return true;
            }
            current = follower;
        }
        return false;
    }
}

impl<T: Listed + Send + Sync + 'static> Drop for Index<T> {
    fn drop(&mut self) {
        release_all(&self.root);
    }
}

/// Gives up the counts of all lists.
fn release_all<T: Listed>(slots: &[Slot<T>]) {
    // SAFETY: called when the index is dropped: no other thread uses it.
    let alone = unsafe { unprotected() };
    for slot in slots {
        let mut next = slot.head.load(Acquire, alone);
        if next.tag() & SOLE != 0 {
            // SAFETY: the slot's reference, which nobody else can take out now.
            drop(unsafe { T::Sole::from_pointer(next.with_tag(0).as_raw().cast()) });
            continue;
        }
        while !next.is_null() {
            // SAFETY: the list's count, which nobody else can give up now.
            let node = unsafe { Arc::from_raw(next.as_raw()) };
            next = node.next.load(Acquire, alone);
        }
        if let Some(children) = slot.children.get() {
            release_all(children);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::thread;

    static ALIVE: AtomicUsize = AtomicUsize::new(0);

    struct Item {
        id: u64,
        dead: AtomicBool,
    }

    impl Item {
        fn node(id: u64) -> Arc<Node<Item>> {
            ALIVE.fetch_add(1, SeqCst);
            Node::new(Item { id, dead: AtomicBool::new(false) })
        }
    }

    impl Drop for Item {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, SeqCst);
        }
    }

    /// An item that is sole.
    struct Alone(Box<u64>);

    // SAFETY: a box of a word.
    unsafe impl Sole for Alone {
        fn as_pointer(&self) -> *const () {
            std::ptr::from_ref(&*self.0).cast()
        }

        fn into_pointer(self) -> *const () {
            Box::into_raw(self.0).cast_const().cast()
        }

        unsafe fn from_pointer(pointer: *const ()) -> Self {
            // SAFETY: the contract above.
            Self(unsafe { Box::from_raw(pointer.cast_mut().cast()) })
        }
    }

    impl Listed for Item {
        type Sole = Alone;
        fn of_sole(sole: Alone) -> Self {
            ALIVE.fetch_add(1, SeqCst);
            Item { id: *sole.0, dead: AtomicBool::new(false) }
        }
        type Id<'a> = u64;
        fn is(&self, id: u64) -> bool {
            self.id == id && !self.dead.load(SeqCst)
        }
    }

    fn remove(index: &Index<Item>, hash: u64, node: &Arc<Node<Item>>) {
        node.dead.store(true, SeqCst);
        index.remove(hash, node);
    }

    #[test]
    fn ten_thousand_nodes_are_found_and_gone_again() {
        let index = Index::new();
        // All in one root slot, so that the trie grows.
        let hash = |id: u64| id << ROOT_BITS;
        let nodes: Vec<_> = (0..10_000).map(Item::node).collect();
        for (id, node) in (0..).zip(&nodes) {
            assert!(index.insert(hash(id), id, node));
            assert!(!index.insert(hash(id), id, &Item::node(id)));
        }
        assert_eq!(index.all().len(), nodes.len());
        for (id, node) in (0..).zip(&nodes) {
            assert!(index.find(hash(id), id).is_some_and(|found| Arc::ptr_eq(&found, node)));
            remove(&index, hash(id), node);
            assert!(index.find(hash(id), id).is_none());
        }
        assert!(index.all().is_empty());
    }

    /// Whoever inserted is alone: two live nodes of one identity would overlap.
    #[test]
    fn one_node_per_identity_under_contention() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 20_000;
        const IDS: u64 = 3;
        let index = Index::new();
        let owners: Vec<AtomicUsize> = (0..IDS).map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (index, owners) = (&index, &owners);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let id = (thread + round) as u64 % IDS;
                        let hash = id << ROOT_BITS;
                        let node = Item::node(id);
                        if index.insert(hash, id, &node) {
                            let owner = &owners[id as usize];
                            assert_eq!(owner.swap(thread + 1, SeqCst), 0, "two at once");
                            owner.store(0, SeqCst);
                            remove(index, hash, &node);
                        }
                    }
                });
            }
        });
        assert!(index.all().is_empty());
    }
}
