//! The index of entries: a lock-free hash trie. The only file that knows crossbeam-epoch.
//!
//! A slot is a singly linked list of nodes and, once the list was long, an array of child slots
//! for what comes later. What stands in a list stays there until it is removed, so nothing ever
//! moves. The slots grow to the number of locks held at once and are kept.
//!
//! A slot with nothing in it can hold a sole reference instead of a list, known to its owner alone.
//! Whoever else comes to the slot lists it first: makes the node that stands for it.
//!
//! | Head of a slot     | Meaning                           | Left by, to                             |
//! |--------------------|-----------------------------------|-----------------------------------------|
//! | null               | nothing                           | anyone: a node, SOLE                    |
//! | SOLE, a reference  | known to its owner alone          | its owner: null; anyone else: LISTING   |
//! | LISTING, the same  | its node is being made            | who makes it: the node                  |
//! | a node             | a list                            | anyone: another node, null, EXPANDED    |
//! | EXPANDED, a node or null | a list that nothing joins   | anyone: the same with a shorter list    |
//!
//! Invariants
//! I1. Nodes are inserted at the head of a list only, by a compare-exchange from the head that
//!     the inserter searched from. So an unchanged head means that no equal node came meanwhile.
//! I2. EXPANDED, a tag of a slot's head, is set once and for ever. Nothing is inserted into an
//!     expanded slot's list: the compare-exchange of I1 expects a head without the tag.
//! I3. By I1 and I2 a listed node is found by every search that begins after its insertion: in
//!     the list of the first slot on its path that was not expanded then. So is a sole one, which
//!     is put where a node would be.
//! I4. REMOVED, a tag of a node's `next`, is set once and for ever, before the node is unlinked.
//!     Unlinking expects a predecessor without the tag, so nothing is linked behind a removed node.
//! I5. A list owns one strong count of each of its nodes. The thread that unlinks a node gives it
//!     up, after every thread that was pinned then has moved on.
//! I6. SOLE owns the reference. Its owner takes it out by a compare-exchange from SOLE; one that fails
//!     finds LISTING, and waits, or a list.
//! I7. Who has made LISTING of SOLE, and nobody else, uses the reference until the node is there.

#![expect(unsafe_code, reason = "epoch-based reclamation; every block argues from I1 to I7")]

use std::fmt;
use std::ops::Deref;
use std::ptr::null_mut;

use crate::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sync::{Arc, OnceLock, nap, planted};

#[cfg(not(loom))]
pub(super) use epoch::begin_thread;
use epoch::{Guard, pin};

#[cfg(not(loom))]
mod epoch {
    use std::cell::RefCell;
    use std::mem;

    pub(super) use crossbeam_epoch::Guard;
    use crossbeam_epoch::{Collector, LocalHandle};

    use crate::process::{Generation, PerProcess};

    /// Keeps what is loaded from a list in memory, until it is dropped.
    ///
    /// WHY: not the crate's own collector. A forked child inherits the pins of threads that it does
    /// not have, and would never reclaim anything again (C-15, C-16).
    pub(super) fn pin() -> Guard {
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
    pub(in super::super) fn begin_thread() {
        drop(pin());
    }
}

/// In a model nothing is reclaimed before it ends.
#[cfg(loom)]
mod epoch {
    pub(super) struct Guard;

    pub(super) fn pin() -> Guard {
        Guard
    }

    impl Guard {
        pub(super) unsafe fn defer_unchecked(&self, reclaim: impl FnOnce()) {
            std::mem::forget(reclaim);
        }
    }
}
#[cfg(loom)]
pub(super) fn begin_thread() {}

/// Tag of a slot's head (I2).
const EXPANDED: usize = 1;
/// Tag of a slot's head: it is not a node (I6).
const SOLE: usize = 2;
/// Tag of a slot's head beside SOLE (I7).
const LISTING: usize = 4;
/// Tag of a node's `next` (I4).
const REMOVED: usize = 1;

/// A slot with so many nodes expands.
///
/// WHY: not one. Slots are kept, and of a few threads that come and go two meet in some slot soon, on
/// every level of the trie; three hardly ever (C-15).
const LONG: usize = if cfg!(loom) { 1 } else { 2 };

const ROOT_BITS: u32 = if cfg!(loom) { 0 } else { 10 };
const CHILD_BITS: u32 = if cfg!(loom) { 1 } else { 4 };

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
/// The pointer is not null, and its last three bits are 0.
pub(crate) unsafe trait Sole {
    /// What it refers to.
    fn as_pointer(&self) -> *mut ();

    /// Gives the reference away.
    fn into_pointer(self) -> *mut ();

    /// Takes it back.
    ///
    /// # Safety
    /// `pointer` came from `into_pointer`, and nobody else takes it back.
    unsafe fn from_pointer(pointer: *mut ()) -> Self;
}

/// A link to a node, with a tag in its last bits.
type Link<T> = AtomicPtr<Node<T>>;

fn tag<T>(link: *mut Node<T>) -> usize {
    link.addr() & (EXPANDED | SOLE | LISTING)
}

fn with_tag<T>(link: *mut Node<T>, tag: usize) -> *mut Node<T> {
    link.map_addr(|address| address & !(EXPANDED | SOLE | LISTING) | tag)
}

/// A listed value. Shared by the list and by everyone who found it.
// WHY: aligned, so that a tag fits into its address whatever the value is.
#[repr(align(8))]
pub(crate) struct Node<T> {
    next: Link<T>,
    value: T,
}

impl<T> Node<T> {
    pub(super) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { next: Link::new(null_mut()), value })
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
    head: Link<T>,
    children: OnceLock<Box<[Slot<T>; 1 << CHILD_BITS]>>,
}

impl<T> Slot<T> {
    fn empty() -> Self {
        Self { head: Link::new(null_mut()), children: OnceLock::new() }
    }

    fn children(&self) -> &[Self] {
        &**self.children.get_or_init(|| Box::new(std::array::from_fn(|_| Self::empty())))
    }

    /// ORDERING: pairs with every exchange of a head.
    fn head(&self) -> *mut Node<T> {
        self.head.load(Acquire)
    }

    /// ORDERING: Release shows others what the new head leads to; Acquire shows what the old one did.
    fn exchange(&self, from: *mut Node<T>, to: *mut Node<T>) -> Result<(), *mut Node<T>> {
        self.head.compare_exchange(from, to, AcqRel, Acquire).map(drop)
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

    /// Whether the hash has bits left to tell nodes apart by.
    fn can_descend(&self) -> bool {
        self.rest != 0
    }
}

impl<T: Listed + Send + Sync + 'static> Index<T> {
    pub(super) fn new() -> Self {
        Self { root: std::iter::repeat_with(Slot::empty).take(1 << ROOT_BITS).collect() }
    }

    /// The listed node that is `id`, if there is one.
    pub(super) fn find(&self, hash: u64, id: T::Id<'_>) -> Option<Arc<Node<T>>> {
        let mut path = Path::new(&self.root, hash);
        // Needs no pin: nothing is dereferenced.
        if path.slot.head().is_null() {
            return None;
        }
        let pin = pin();
        loop {
            let head = listed_head(path.slot);
            if let (Some(found), _) = search(head, id, &pin) {
                return Some(share(found));
            }
            if tag(head) != EXPANDED {
                return None;
            }
            path.descend();
        }
    }

    /// Lists `node`, which is `id`. `false`: another one that is `id` came first.
    pub(super) fn insert(&self, hash: u64, id: T::Id<'_>, node: &Arc<Node<T>>) -> bool {
        let mut path = Path::new(&self.root, hash);
        // The list's own strong count (I5).
        let listed = Arc::into_raw(Arc::clone(node)).cast_mut();
        // Needs no pin: nothing is dereferenced, and a slot that is empty and not expanded at the
        // moment of the exchange has no equal node.
        if path.slot.head().is_null() && path.slot.exchange(null_mut(), listed).is_ok() {
            return true;
        }
        let pin = pin();
        loop {
            let head = listed_head(path.slot);
            let (found, len) = search(head, id, &pin);
            if found.is_some() {
                // SAFETY: the count made above, which no list has taken over.
                drop(unsafe { Arc::from_raw(listed) });
                return false;
            }
            if tag(head) == EXPANDED {
                path.descend();
            } else if len >= LONG && path.can_descend() {
                // If it fails, somebody was here meanwhile.
                let _ = path.slot.exchange(head, with_tag(head, EXPANDED));
            } else {
                let stale = planted("insert without searching again");
                let head = if stale { listed_head(path.slot) } else { head };
                node.next.store(head, Relaxed); // ORDERING: published by the exchange below.
                if path.slot.exchange(head, listed).is_ok() {
                    return true;
                }
            }
        }
    }

    /// Takes `node` off its list. Its value must be dead by now: no search may want it.
    pub(super) fn remove(&self, hash: u64, node: &Arc<Node<T>>) {
        let pin = pin();
        mark(node);
        let mut path = Path::new(&self.root, hash);
        // Not found on the whole path: another thread has unlinked it in passing.
        while !unlink(path.slot, node, &pin) && tag(path.slot.head()) == EXPANDED {
            path.descend();
        }
    }

    /// A hint: `put_sole` may succeed.
    #[inline]
    pub(super) fn is_vacant(&self, hash: u64) -> bool {
        let head = Path::new(&self.root, hash).slot.head.load(Relaxed); // ORDERING: a hint.
        head.is_null() || tag(head) == EXPANDED
    }

    /// Puts `sole`, which is `id`, alone into the slot of `hash`, if nothing is there (I6); else gives
    /// it back.
    #[inline]
    pub(super) fn put_sole(&self, hash: u64, id: T::Id<'_>, sole: T::Sole) -> Result<(), T::Sole> {
        let mut path = Path::new(&self.root, hash);
        // Needs no pin, as long as nothing is dereferenced.
        if tag(path.slot.head()) == EXPANDED && !descend_past(&mut path, id) {
            return Err(sole);
        }
        let pointer = sole.into_pointer();
        match path.slot.exchange(null_mut(), with_tag(pointer.cast(), SOLE)) {
            Ok(()) => Ok(()),
            // SAFETY: given away above, and not put in.
            Err(_) => Err(unsafe { T::Sole::from_pointer(pointer) }),
        }
    }

    /// Takes out what was put in with a reference to the same as `sole`. `None`: somebody has listed it
    /// meanwhile, or taken it out.
    #[inline]
    pub(super) fn take_sole(&self, hash: u64, sole: &T::Sole) -> Option<T::Sole> {
        let pointer = sole.as_pointer();
        let alone = with_tag(pointer.cast(), SOLE);
        let mut path = Path::new(&self.root, hash);
        loop {
            match path.slot.exchange(alone, null_mut()) {
                // SAFETY: the slot's reference, which this exchange took out (I6).
                Ok(()) => return Some(unsafe { T::Sole::from_pointer(pointer) }),
                Err(seen) if seen == with_tag(alone, SOLE | LISTING) => nap(),
                Err(seen) if tag(seen) == EXPANDED => path.descend(),
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

/// Goes down to the first slot that is not expanded. `false`: `id` is in a list on the way (I3).
#[inline(never)]
fn descend_past<T: Listed>(path: &mut Path<'_, T>, id: T::Id<'_>) -> bool {
    let pin = pin();
    loop {
        let head = path.slot.head();
        if tag(head) != EXPANDED {
            return true;
        }
        if search(head, id, &pin).0.is_some() {
            return false;
        }
        path.descend();
    }
}

fn collect<T: Listed>(slots: &[Slot<T>], nodes: &mut Vec<Arc<Node<T>>>, pin: &Guard) {
    for slot in slots {
        let mut next = listed_head(slot);
        while let Some(node) = deref(next, pin) {
            nodes.push(share(node));
            next = node.next.load(Acquire); // ORDERING: as in `search`.
        }
        if let Some(children) = slot.children.get() {
            collect(&**children, nodes, pin);
        }
    }
}

/// The head of a slot's list, in which a sole one is listed first.
fn listed_head<T: Listed>(slot: &Slot<T>) -> *mut Node<T> {
    loop {
        let head = slot.head();
        if tag(head) & SOLE == 0 {
            return head;
        }
        list_sole(slot, head);
    }
}

/// Lists the sole one that was seen in a slot, if it is still there (I7).
#[cold]
fn list_sole<T: Listed>(slot: &Slot<T>, seen: *mut Node<T>) {
    if tag(seen) == SOLE | LISTING {
        return nap();
    }
    if slot.exchange(seen, with_tag(seen, SOLE | LISTING)).is_err() {
        return;
    }
    // SAFETY: the slot's reference, which nobody else uses now (I7).
    let sole = unsafe { T::Sole::from_pointer(with_tag(seen, 0).cast()) };
    // The list's own strong count (I5).
    let node = Arc::into_raw(Node::new(T::of_sole(sole))).cast_mut();
    slot.head.store(node, Release); // ORDERING: pairs with `Slot::head`.
}

fn deref<T>(link: *mut Node<T>, _pin: &Guard) -> Option<&Node<T>> {
    // SAFETY: null, or loaded from a list under `_pin`, so the list's count is not given up before the
    // pin ends (I5). A sole one does not come here (`listed_head`, `unlink`).
    unsafe { with_tag(link, 0).as_ref() }
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
    head: *mut Node<T>,
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
        next = node.next.load(Acquire);
    }
    (None, len)
}

/// Sets REMOVED (I4).
fn mark<T>(node: &Node<T>) {
    if planted("a node is unlinked unmarked") {
        return;
    }
    // ORDERING: pairs with the load of `next` in `unlink`.
    let mut next = node.next.load(Acquire);
    while let Err(seen) = node.next.compare_exchange(next, with_tag(next, REMOVED), AcqRel, Acquire)
    {
        next = seen;
    }
}

/// Unlinks removed nodes from a slot's list, up to `wanted`. Whether it was this thread that
/// unlinked `wanted`.
fn unlink<T: Send + Sync + 'static>(slot: &Slot<T>, wanted: &Arc<Node<T>>, pin: &Guard) -> bool {
    'restart: loop {
        let mut place = &slot.head;
        let mut current = slot.head();
        if tag(current) & SOLE != 0 {
            return false; // The list came to its end before.
        }
        while let Some(node) = deref(current, pin) {
            let next = node.next.load(Acquire);
            let is_wanted = std::ptr::eq(node, Arc::as_ptr(wanted));
            if tag(next) != REMOVED && !(is_wanted && planted("a node is unlinked unmarked")) {
                (place, current) = (&node.next, next);
                continue;
            }
            // The head keeps its tag (I2); a `next` without REMOVED has none (I4).
            let follower = with_tag(next, tag(current));
            if place.compare_exchange(current, follower, AcqRel, Acquire).is_err() {
                continue 'restart;
            }
            // SAFETY: the list's count, which this thread gives up because it unlinked the node (I5).
            let listed = unsafe { Arc::from_raw(std::ptr::from_ref(node)) };
            // SAFETY: the value is Send and borrows nothing, so any thread may drop it at any time.
            unsafe { pin.defer_unchecked(move || drop(listed)) };
            if is_wanted {
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

/// Gives up the references of all slots. For the index's end: nobody else uses it.
fn release_all<T: Listed>(slots: &[Slot<T>]) {
    for slot in slots {
        let mut next = slot.head();
        if tag(next) & SOLE != 0 {
            // SAFETY: the slot's reference, which nobody else can take out now.
            drop(unsafe { T::Sole::from_pointer(with_tag(next, 0).cast()) });
            next = null_mut();
        }
        while !with_tag(next, 0).is_null() {
            // SAFETY: the list's count, which nobody else can give up now.
            let node = unsafe { Arc::from_raw(with_tag(next, 0)) };
            next = node.next.load(Acquire);
        }
        if let Some(children) = slot.children.get() {
            release_all(&**children);
        }
    }
}

/// A sole reference to a number.
#[cfg(test)]
struct Alone(Arc<u64>);

#[cfg(test)]
// SAFETY: the address of a word.
unsafe impl Sole for Alone {
    fn as_pointer(&self) -> *mut () {
        Arc::as_ptr(&self.0).cast_mut().cast()
    }

    fn into_pointer(self) -> *mut () {
        Arc::into_raw(self.0).cast_mut().cast()
    }

    unsafe fn from_pointer(pointer: *mut ()) -> Self {
        // SAFETY: the contract above.
        Self(unsafe { Arc::from_raw(pointer.cast()) })
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

    /// As above, with owners that come alone, and look now and then who is there.
    #[test]
    fn one_owner_per_identity_sole_or_listed() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 20_000;
        const IDS: u64 = 3;
        let index = Index::<Item>::new();
        let owners: Vec<AtomicUsize> = (0..IDS).map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (index, owners) = (&index, &owners);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let id = (thread + round) as u64 % IDS;
                        // Two of them meet in one slot.
                        let hash = id / 2;
                        let number = Arc::new(id);
                        if index.put_sole(hash, id, Alone(Arc::clone(&number))).is_err() {
                            continue;
                        }
                        let owner = &owners[id as usize];
                        assert_eq!(owner.swap(thread + 1, SeqCst), 0, "two at once");
                        if round % 7 == 0 {
                            assert!(index.all().iter().any(|node| node.id == id), "not seen");
                        }
                        owner.store(0, SeqCst);
                        if index.take_sole(hash, &Alone(number)).is_none() {
                            let node = index.find(hash, id).expect("it was listed");
                            remove(index, hash, &node);
                        }
                    }
                });
            }
        });
        assert!(index.all().is_empty());
    }
}

/// Models: every interleaving of those who come to one slot. A slot expands when it has one node.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::atomic::{AtomicBool, AtomicUsize};
    use loom::thread;

    struct Item {
        id: u64,
        dead: AtomicBool,
    }

    impl Listed for Item {
        type Id<'a> = u64;
        type Sole = Alone;

        fn of_sole(sole: Alone) -> Self {
            Self { id: *sole.0, dead: AtomicBool::new(false) }
        }

        fn is(&self, id: u64) -> bool {
            self.id == id && !self.dead.load(Acquire)
        }
    }

    struct Scene {
        index: Index<Item>,
        owners: [AtomicUsize; 2],
    }

    enum Owned {
        Sole(Arc<u64>),
        Listed(Arc<Node<Item>>),
    }

    /// Both identities have the root slot, and a child each.
    fn hash(id: u64) -> u64 {
        id + 2
    }

    impl Scene {
        fn new() -> Arc<Self> {
            let owners = [AtomicUsize::new(0), AtomicUsize::new(0)];
            let index = Index::new();
            // Made here: what a thread makes under std's lock, the model takes for a race.
            for child in index.root[0].children() {
                child.children();
            }
            Arc::new(Self { index, owners })
        }

        fn own(&self, id: u64, alone: bool) -> Option<Owned> {
            let number = Arc::new(id);
            if alone && self.index.put_sole(hash(id), id, Alone(Arc::clone(&number))).is_ok() {
                return Some(Owned::Sole(number));
            }
            if self.index.find(hash(id), id).is_some() {
                return None;
            }
            let node = Node::new(Item::of_sole(Alone(number)));
            self.index.insert(hash(id), id, &node).then_some(Owned::Listed(node))
        }

        fn remove(&self, id: u64, node: &Arc<Node<Item>>) {
            node.dead.store(true, Release);
            self.index.remove(hash(id), node);
        }

        fn give_back(&self, id: u64, owned: Owned) {
            match owned {
                Owned::Sole(number) => {
                    if self.index.take_sole(hash(id), &Alone(number)).is_none() {
                        let node = self.index.find(hash(id), id).expect("it was listed");
                        self.remove(id, &node);
                    }
                }
                Owned::Listed(node) => self.remove(id, &node),
            }
        }

        /// Comes and goes, if it is first.
        fn visit(&self, id: u64, alone: bool) {
            if let Some(owned) = self.own(id, alone) {
                let owners = &self.owners[id as usize];
                assert_eq!(owners.fetch_add(1, AcqRel), 0, "two at once");
                owners.fetch_sub(1, AcqRel);
                self.give_back(id, owned);
            }
        }
    }

    /// Interleavings with at most three preemptions.
    fn check(model: impl Fn(&Arc<Scene>) + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.max_branches = 100_000;
        builder.check(move || {
            let scene = Scene::new();
            model(&scene);
            assert!(scene.index.all().is_empty(), "something was left");
        });
    }

    fn spawn(scene: &Arc<Scene>, body: impl Fn(&Scene) + 'static) -> thread::JoinHandle<()> {
        let scene = Arc::clone(scene);
        thread::spawn(move || body(&scene))
    }

    /// Two who want the same, one of them twice, each alone if it can (I6, I7), or by a node (I1).
    #[test]
    fn one_owner_sole_or_listed() {
        for (left, right) in [(true, true), (true, false), (false, false)] {
            check(move |scene| {
                let other = spawn(scene, move |scene| {
                    scene.visit(0, left);
                    scene.visit(0, left);
                });
                scene.visit(0, right);
                other.join().unwrap();
            });
        }
    }

    /// A sole owner goes while another one looks who is there.
    #[test]
    fn a_sole_one_is_listed_once() {
        check(|scene| {
            let owned = scene.own(0, true).expect("nobody else is there");
            let looker = spawn(scene, |scene| assert!(scene.index.all().len() <= 1));
            scene.give_back(0, owned);
            looker.join().unwrap();
        });
    }

    /// Two of one slot, which expands under them (I2, I3).
    #[test]
    fn neighbours_are_found_while_their_slot_expands() {
        check(|scene| {
            let other = spawn(scene, |scene| {
                scene.visit(0, true);
                scene.visit(0, false);
            });
            let owned = scene.own(1, false).expect("nobody else wants it");
            assert!(scene.index.find(hash(1), 1).is_some());
            scene.give_back(1, owned);
            other.join().unwrap();
        });
    }

    /// Two nodes of one list, side by side, are unlinked at once (I4).
    #[test]
    fn neighbours_leave_at_once() {
        check(|scene| {
            let [first, second] = [0, 1].map(|id| Node::new(Item::of_sole(Alone(Arc::new(id)))));
            // Without bits to tell them apart by, they stay in one list.
            assert!(scene.index.insert(0, 0, &first));
            assert!(scene.index.insert(0, 1, &second));
            let other = spawn(scene, move |scene| {
                first.dead.store(true, Release);
                scene.index.remove(0, &first);
            });
            second.dead.store(true, Release);
            scene.index.remove(0, &second);
            other.join().unwrap();
        });
    }
}
