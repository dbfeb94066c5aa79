//! The index of the locks that are held: a lock-free hash trie of sole locks and nodes.
//!
//! A slot is one word. What has it for itself stands in it; where two meet, a block of further slots
//! takes its place, and the one that was there moves down. A block goes when nothing is left in it.
//! So the slots grow and shrink with the number of locks held.
//!
//! A sole lock is a reference that is known to its owner alone. Who wants the same lock makes a node
//! of it. Who only comes by, looks, or counts, leaves it what it is.
//!
//! | Word of a slot      | Meaning                     | Left by, to                                |
//! |---------------------|-----------------------------|--------------------------------------------|
//! | null                | nothing                     | anyone: SOLE, a node                       |
//! | SOLE, a reference   | known to its owner alone    | its owner: null; anyone: LATCHED, a node that has the reference |
//! | LATCHED, the same   | somebody looks at it        | that one: SOLE, CHILD                      |
//! | a node              | known to all who search     | its remover: null; anyone: CHILD, if it is dead another one |
//! | CHILD, a block      | all that belongs here is in the block | whoever sees the block closed: null |
//!
//! | Things of a block   | Meaning                     | Left by, to                                |
//! |---------------------|-----------------------------|--------------------------------------------|
//! | n > 0               | open                        | who puts something in: n + 1; who has taken something out: n - 1 |
//! | 0                   | closed                      | never                                      |
//!
//! Invariants
//! I1. A thing belongs into the slots that its hashes lead to, from the root down, and is in the first
//!     of them that is not CHILD. A word becomes CHILD together with the move of what it was.
//! I2. Who puts something into a slot of a block, or lets it be in there, has been counted in the
//!     block's things before; and is so until it has been taken out. A closed block has nothing in it,
//!     and nothing can be put into it.
//! I3. A block is in its parent's slot from the beginning until somebody has seen that it is closed.
//!     It is counted there as one thing, by the one who takes it out.
//!     So who is counted in a block knows that all above it are open and in their places: the slot that
//!     it sees is the one of I1. Two that belong to one identity meet there, in an exchange.
//! I4. SOLE and LATCHED own the reference. Who takes the word out by an exchange owns it then.
//! I5. Who has made LATCHED of SOLE, and nobody else, uses the reference until it lets go of it: for a
//!     few steps, none of which waits for anything, or for memory.
//! I6. A slot owns one count of its node, and its block. Who takes them out gives them up when every
//!     thread that was pinned then has moved on. What a pinned thread loaded from a slot stays in
//!     memory, and its address means no other thing.
//! I7. A node is put in once. So is a reference: its owner knows whether it did.

#![expect(unsafe_code, reason = "epoch-based reclamation; every block argues from I1 to I7")]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull, null_mut};
// In a model too, as the counts of `Arc` are.
use std::sync::atomic::AtomicUsize;

use crate::error::{Error, Result};
use crate::lock::epoch::{Pin, pin};
use crate::memory;
use crate::sync::atomic::{
    AtomicPtr, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sync::{OnceLock, nap};

/// Tag of a word: a block (I1).
const CHILD: usize = 1;
/// Tag of a word: a reference (I4).
const SOLE: usize = 2;
/// Tag of a word beside SOLE (I5).
const LATCHED: usize = 4;
const TAGS: usize = CHILD | SOLE | LATCHED;

/// WHY: 8 KiB. What is held at once by the threads of a machine finds a slot for itself there.
const ROOT_BITS: u32 = if cfg!(loom) { 0 } else { 10 };
const CHILD_BITS: u32 = if cfg!(loom) { 1 } else { 4 };
/// How many blocks one hash leads through. Who shares it all has further ones.
const LEVELS: u32 = (u64::BITS - ROOT_BITS) / CHILD_BITS;

const ROOT: usize = 1 << ROOT_BITS;
const WIDTH: usize = 1 << CHILD_BITS;

/// How often to look whether a latch is gone before one sleeps for it.
const SPINS: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 100 };

/// What an index lists.
pub(crate) trait Listed: Sized {
    /// What it is searched by.
    type Id<'a>: Copy;
    /// What stands in for it while it is sole.
    type Sole: Sole;

    /// Whether it is what is searched, and alive.
    fn is(&self, id: Self::Id<'_>) -> bool;
    /// Whether nobody wants it any more. It stays so.
    fn is_dead(&self) -> bool;
    /// Whether `sole` is what is searched.
    fn sole_is(sole: &Self::Sole, id: Self::Id<'_>) -> bool;

    /// The hashes of an identity: the 0th, and others for those who have all before in common.
    fn hash_of(id: Self::Id<'_>, number: u32) -> u64;
    /// The same of its own identity.
    fn hash(&self, number: u32) -> u64;
    /// The same of the identity of `sole`.
    fn sole_hash(sole: &Self::Sole, number: u32) -> u64;

    /// What is listed for `sole`.
    fn of_sole(sole: Self::Sole) -> Self;
}

/// A counted reference that a slot can hold instead of a node.
///
/// # Safety
/// The pointer is not null, and its last three bits are 0. It is the same for every clone. To clone
/// it and to compare takes a few steps that end.
pub(crate) unsafe trait Sole: Clone + Send {
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

/// A listed value. Shared by the index and by everyone who found it.
///
/// WHY: not in an `Arc`, which cannot say that there is no memory (C-24).
// WHY: aligned, so that a tag fits into its address whatever the value is.
#[repr(align(8))]
pub(crate) struct Node<T> {
    count: AtomicUsize,
    value: T,
}

/// A counted reference to a node.
pub(crate) struct NodeRef<T>(NonNull<Node<T>>);

// SAFETY: as for `Arc`: what is shared can be used, and dropped by, any thread.
unsafe impl<T: Send + Sync> Send for NodeRef<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for NodeRef<T> {}

impl<T> Node<T> {
    /// A node that is in no index yet; `Error::NoMemory` if there is no memory for it.
    pub(super) fn try_new(value: T) -> Result<NodeRef<T>> {
        let node = memory::boxed(Self { count: AtomicUsize::new(1), value })?;
        Ok(NodeRef(NonNull::from(Box::leak(node))))
    }
}

impl<T> Deref for Node<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> NodeRef<T> {
    /// Whether both are the same node.
    pub(super) fn ptr_eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Where the node lies.
    pub(super) fn as_ptr(&self) -> *mut Node<T> {
        self.0.as_ptr()
    }

    fn node(&self) -> &Node<T> {
        // SAFETY: alive: this reference is counted.
        unsafe { self.0.as_ref() }
    }

    /// Gives the reference away.
    fn into_raw(self) -> *mut Node<T> {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// # Safety
    /// `node` came from `into_raw`, and nobody else takes it back.
    unsafe fn from_raw(node: *mut Node<T>) -> Self {
        // SAFETY: not null, as `into_raw` gave it.
        Self(unsafe { NonNull::new_unchecked(node) })
    }
}

impl<T> Deref for NodeRef<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.node()
    }
}

impl<T> Clone for NodeRef<T> {
    fn clone(&self) -> Self {
        // ORDERING: the reference it is made from keeps the node alive.
        self.node().count.fetch_add(1, Relaxed);
        Self(self.0)
    }
}

impl<T> Drop for NodeRef<T> {
    fn drop(&mut self) {
        // ORDERING: with the decrements of the others: what they did comes before the end.
        if self.node().count.fetch_sub(1, AcqRel) == 1 {
            // SAFETY: made by `Node::try_new` of a box, and this was the last reference.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for NodeRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node().value.fmt(f)
    }
}

/// The word of a slot: a node, or with a tag what the tag says.
type Word<T> = *mut Node<T>;

fn untagged<T>(word: Word<T>) -> Word<T> {
    word.map_addr(|address| address & !TAGS)
}

fn tagged<T>(word: *mut Node<T>, tags: usize) -> Word<T> {
    word.map_addr(|address| address | tags)
}

/// The reference in a word.
///
/// # Safety
/// The word is SOLE or LATCHED, and its reference this thread's to take (I4).
unsafe fn sole_of<T: Listed>(word: Word<T>) -> T::Sole {
    // SAFETY: the contract above.
    unsafe { T::Sole::from_pointer(untagged(word).cast()) }
}

/// What stands in a slot.
enum Content<'g, T> {
    Nothing,
    Sole,
    Latched,
    Node(&'g Node<T>),
    Child(&'g Block<T>),
}

struct Slot<T>(AtomicPtr<Node<T>>);

impl<T> Slot<T> {
    fn new(word: Word<T>) -> Self {
        Self(AtomicPtr::new(word))
    }

    /// A hint: there is nothing in it.
    #[inline]
    fn looks_empty(&self) -> bool {
        self.0.load(Relaxed).is_null() // ORDERING: a hint; the exchange decides.
    }

    /// ORDERING: Release shows others what the new word leads to; Acquire shows what the old one did.
    /// Pairs with itself, with `look` and with `let_go`.
    #[inline]
    fn exchange(&self, from: Word<T>, to: Word<T>) -> Option<Word<T>> {
        self.0.compare_exchange(from, to, AcqRel, Relaxed).ok()
    }

    /// What is in it now: the word, and what that means as long as the pin is there.
    fn look<'g>(&self, _pin: &'g Pin) -> (Word<T>, Content<'g, T>) {
        let word = self.0.load(Acquire); // ORDERING: pairs with `exchange` and `let_go`.
        let content = match word.addr() & TAGS {
            0 if word.is_null() => Content::Nothing,
            // SAFETY: a node that the slot had a count of when the pin was there (I6).
            0 => Content::Node(unsafe { &*word }),
            // SAFETY: a block that the slot had when the pin was there (I6); nobody has it mutably
            // from the time on when it is in a slot.
            CHILD => Content::Child(unsafe { &*untagged(word).cast::<Block<T>>() }),
            SOLE => Content::Sole,
            _ => Content::Latched,
        };
        (word, content)
    }

    /// Latches the slot, if it is still `seen`, which is SOLE.
    fn latch(&self, seen: Word<T>) -> Option<Latch<'_, T>>
    where
        T: Listed,
    {
        let word = self.exchange(seen, tagged(seen, LATCHED))?;
        // SAFETY: the slot's reference, which nobody else uses now, and which is not given up (I5).
        let sole = ManuallyDrop::new(unsafe { sole_of::<T>(word) });
        Some(Latch { slot: self, word, sole })
    }

    /// One more reference to the sole one that was seen, if it is still there.
    fn share(&self, seen: Word<T>) -> Option<T::Sole>
    where
        T: Listed,
    {
        let latch = self.latch(seen)?;
        let shared = T::Sole::clone(&latch.sole);
        latch.restore();
        Some(shared)
    }
}

/// A slot that this thread has latched (I5).
#[must_use]
struct Latch<'a, T: Listed> {
    slot: &'a Slot<T>,
    word: Word<T>,
    sole: ManuallyDrop<T::Sole>,
}

impl<T: Listed> Latch<'_, T> {
    /// The slot is as it was.
    fn restore(self) {
        let word = self.word;
        self.let_go(word);
    }

    fn let_go(self, word: Word<T>) {
        self.slot.0.store(word, Release); // ORDERING: pairs with `exchange` and `look`.
    }
}

/// Waits a moment for whoever has latched a slot.
fn wait(tries: &mut u32) {
    *tries += 1;
    if *tries > SPINS { nap() } else { std::hint::spin_loop() }
}

/// Further slots in the place of one.
struct Block<T> {
    /// How many of its slots have something in them, or are about to (I2).
    things: AtomicU32,
    /// The place of its slot in its parent.
    place: u32,
    /// Null: the root. Never changed once it is in its slot, and alive as long as it is (I3).
    parent: *const Block<T>,
    slots: [Slot<T>; WIDTH],
}

// SAFETY: its pointers are followed under a pin alone, by whichever thread, and not to drop it.
unsafe impl<T: Send + Sync> Send for Block<T> {}

impl<T> Block<T> {
    fn new() -> Result<Box<Self>> {
        let slots = std::array::from_fn(|_| Slot::new(null_mut()));
        let block = memory::boxed(Self {
            things: AtomicU32::new(1),
            place: 0,
            parent: ptr::null(),
            slots,
        })?;
        #[cfg(all(test, loom))]
        model::BLOCKS.set(model::BLOCKS.get() + 1);
        Ok(block)
    }

    /// One more is about to be put in. `false`: it is closed.
    fn enter(&self) -> bool {
        let mut things = self.things.load(Relaxed);
        // ORDERING: pairs with `leave`, as a matter of form: what counts is the order of the word
        // itself (I2).
        while things != 0 {
            match self.things.compare_exchange_weak(things, things + 1, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(seen) => things = seen,
            }
        }
        false
    }

    /// What was counted has been taken out, or was not put in. Whether the block is closed now.
    fn leave(&self) -> bool {
        // ORDERING: pairs with itself: who closes it sees all slots empty.
        self.things.fetch_sub(1, AcqRel) == 1
    }

    fn parent<'g>(&self, _pin: &'g Pin) -> Option<&'g Self> {
        // SAFETY: null, or in its place as long as this one was in its own (I3), which was so when the
        // pin was there: who has a block has got it from a slot under its pin (I6).
        unsafe { self.parent.as_ref() }
    }
}

#[cfg(all(test, loom))]
impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        model::BLOCKS.set(model::BLOCKS.get() - 1);
    }
}

type Root<T> = [Slot<T>; ROOT];

fn first_place(hash: u64) -> usize {
    hash as usize & (ROOT - 1)
}

/// The way down to where something belongs.
struct Path<'g, T> {
    slot: &'g Slot<T>,
    place: usize,
    /// Whose slot it is; `None` for the root.
    block: Option<&'g Block<T>>,
    /// How many blocks there are above.
    level: u32,
}

impl<'g, T> Path<'g, T> {
    fn new(root: &'g Root<T>, hash: u64) -> Self {
        let place = first_place(hash);
        Self { slot: &root[place], place, block: None, level: 0 }
    }

    /// The place in the next block of whatever has these hashes.
    fn place_below(&self, hash: impl Fn(u32) -> u64) -> usize {
        let (number, level) = (self.level / LEVELS, self.level % LEVELS);
        (hash(number) >> (ROOT_BITS + level * CHILD_BITS)) as usize & (WIDTH - 1)
    }

    fn descend(&mut self, child: &'g Block<T>, hash: impl Fn(u32) -> u64) {
        self.place = self.place_below(hash);
        self.slot = &child.slots[self.place];
        self.block = Some(child);
        self.level += 1;
    }

    /// Makes `block` a block for this slot, with `word`, which is in here, at `place`. Its word.
    fn child(&self, mut block: Box<Block<T>>, place: usize, word: Word<T>) -> Word<T> {
        block.parent = self.block.map_or(ptr::null(), ptr::from_ref);
        block.place = self.place as u32;
        block.slots[place] = Slot::new(word);
        tagged(Box::into_raw(block).cast(), CHILD)
    }
}

/// Takes back what `Path::child` made.
///
/// # Safety
/// It was put into no slot, or this is the end of it.
unsafe fn block_of<T>(word: Word<T>) -> Box<Block<T>> {
    // SAFETY: the contract above; it came from a box.
    unsafe { Box::from_raw(untagged(word).cast::<Block<T>>()) }
}

/// What a walk through the index meets.
pub(super) enum Seen<'a, T: Listed> {
    /// With a reference of the walk's own.
    Sole(T::Sole),
    Node(&'a T),
}

/// Sole locks and nodes by hash and identity.
pub(super) struct Index<T: Listed + Send + Sync + 'static> {
    /// Made for the first that is put in. WHY: a lock table that is not used costs no slots.
    root: OnceLock<Box<Root<T>>>,
}

impl<T: Listed + Send + Sync + 'static> fmt::Debug for Index<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

impl<T: Listed + Send + Sync + 'static> Index<T> {
    pub(super) fn new() -> Self {
        let index = Self { root: OnceLock::new() };
        // What a thread makes under std's lock, a model takes for a race.
        #[cfg(loom)]
        let _ = index.root();
        index
    }

    fn root(&self) -> Result<&Root<T>> {
        if let Some(root) = self.root.get() {
            return Ok(root);
        }
        let mut slots = Vec::new();
        slots.try_reserve_exact(ROOT).map_err(|_| Error::NoMemory)?;
        slots.extend(std::iter::repeat_with(|| Slot::new(null_mut())).take(ROOT));
        let root = slots.into_boxed_slice().try_into();
        Ok(self.root.get_or_init(|| root.unwrap_or_else(|_| unreachable!("as many as reserved"))))
    }

    /// The node that is `id`, if there is one. What is sole becomes a node;
    /// `Error::NoMemory`: it stays sole.
    pub(super) fn find(&self, hash: u64, id: T::Id<'_>) -> Result<Option<NodeRef<T>>> {
        self.search(hash, id, true)
    }

    /// The node that is `id`, if there is one that is not sole.
    pub(super) fn find_node(&self, hash: u64, id: T::Id<'_>) -> Option<NodeRef<T>> {
        self.search(hash, id, false).ok().flatten()
    }

    fn search(&self, hash: u64, id: T::Id<'_>, sole_too: bool) -> Result<Option<NodeRef<T>>> {
        let Some(root) = self.root.get() else { return Ok(None) };
        let mut path = Path::new(root, hash);
        // Needs no pin: nothing is dereferenced. ORDERING: what is seen decides nothing; who saw
        // something put in before sees it here, by the order of this one word.
        if path.slot.looks_empty() {
            return Ok(None);
        }
        let pin = pin();
        let mut tries = 0;
        loop {
            match path.slot.look(&pin) {
                (_, Content::Child(child)) => {
                    path.descend(child, |number| hash_at::<T>(hash, id, number))
                }
                (_, Content::Node(node)) => return Ok(node.is(id).then(|| share(node))),
                (seen, Content::Sole) if sole_too => {
                    let Some(latch) = path.slot.latch(seen) else { continue };
                    let is_wanted = T::sole_is(&latch.sole, id);
                    let shared = is_wanted.then(|| T::Sole::clone(&latch.sole));
                    latch.restore();
                    let Some(shared) = shared else { return Ok(None) };
                    if let Some(node) = list(path.slot, seen, shared)? {
                        return Ok(Some(node));
                    }
                }
                (_, Content::Latched) if sole_too => wait(&mut tries),
                (_, Content::Nothing | Content::Sole | Content::Latched) => return Ok(None),
            }
        }
    }

    /// Lists `node`, which is `id`. `false`: another one that is `id` came first.
    pub(super) fn insert(&self, hash: u64, id: T::Id<'_>, node: &NodeRef<T>) -> Result<bool> {
        // The slot's own count (I6).
        let listed = node.clone().into_raw();
        let put = self.put(hash, id, listed);
        if put != Ok(true) {
            // SAFETY: the count made above, which no slot has taken over.
            drop(unsafe { NodeRef::from_raw(listed) });
        }
        put
    }

    /// Takes `node` out. Its value must be dead by now.
    pub(super) fn remove(&self, hash: u64, node: &NodeRef<T>) {
        let Some(root) = self.root.get() else { return };
        let pin = pin();
        let mut path = Path::new(root, hash);
        loop {
            match path.slot.look(&pin) {
                (_, Content::Child(child)) => path.descend(child, |number| node.hash(number)),
                (seen, Content::Node(_)) if seen == node.as_ptr() => {
                    // If it fails, it was moved, or replaced.
                    if path.slot.exchange(seen, null_mut()).is_some() {
                        // SAFETY: by the exchange.
                        unsafe { retire_node(seen, &pin) };
                        return self.leave(root, path.block, &pin);
                    }
                }
                // Another one that is the same has replaced it.
                _ => return,
            }
        }
    }

    /// A hint: `put_sole` may succeed.
    #[inline]
    pub(super) fn is_vacant(&self, hash: u64) -> bool {
        let Some(root) = self.root.get() else { return true };
        // WHY: not where a node is. Most are of keys that come back, and are at hand elsewhere.
        let word = root[first_place(hash)].0.load(Relaxed); // ORDERING: a hint.
        word.is_null() || word.addr() & TAGS != 0
    }

    /// Puts `sole`, which is `id`, where it belongs, if no other one that is `id` is there; else, or
    /// if there is no memory for that, gives it back.
    #[inline]
    pub(super) fn put_sole(
        &self,
        hash: u64,
        id: T::Id<'_>,
        sole: T::Sole,
    ) -> std::result::Result<(), T::Sole> {
        let word = tagged(sole.into_pointer().cast(), SOLE);
        match self.put(hash, id, word) {
            Ok(true) => Ok(()),
            // SAFETY: given away above, and not put in.
            Ok(false) | Err(_) => Err(unsafe { sole_of::<T>(word) }),
        }
    }

    /// Takes out what was put in with a reference to the same as `sole`. `None`: somebody has made a
    /// node of it meanwhile, or taken it out.
    #[inline]
    pub(super) fn take_sole(&self, hash: u64, sole: &T::Sole) -> Option<T::Sole> {
        let root = self.root.get()?;
        let slot = &root[first_place(hash)];
        let alone = tagged(sole.as_pointer().cast(), SOLE);
        // WHY: a look first. Once many are held, a block is in every slot of the root.
        // ORDERING: a hint; the exchange decides.
        if slot.0.load(Relaxed) == alone
            && let Some(word) = slot.exchange(alone, null_mut())
        {
            // SAFETY: the slot's reference, which this exchange took out (I4).
            return Some(unsafe { sole_of::<T>(word) });
        }
        self.take_sole_below(root, hash, sole)
    }

    #[inline(never)] // WHY: most are in the root.
    fn take_sole_below(&self, root: &Root<T>, hash: u64, sole: &T::Sole) -> Option<T::Sole> {
        let pin = pin();
        let mut path = Path::new(root, hash);
        let mut tries = 0;
        loop {
            let (seen, content) = path.slot.look(&pin);
            let is_wanted = untagged(seen).addr() == sole.as_pointer().addr();
            match content {
                Content::Child(child) => path.descend(child, |number| T::sole_hash(sole, number)),
                Content::Latched if is_wanted => wait(&mut tries),
                Content::Sole if is_wanted => {
                    if let Some(word) = path.slot.exchange(seen, null_mut()) {
                        self.leave(root, path.block, &pin);
                        // SAFETY: the slot's reference, which this exchange took out (I4).
                        return Some(unsafe { sole_of::<T>(word) });
                    }
                }
                _ => return None,
            }
        }
    }

    /// Puts `word` where `id` belongs. `false`: something that is `id` is there.
    #[inline]
    fn put(&self, hash: u64, id: T::Id<'_>, word: Word<T>) -> Result<bool> {
        let root = self.root()?;
        let slot = &root[first_place(hash)];
        // Needs no pin: nothing is dereferenced. What is empty is no block's (I1).
        if slot.looks_empty() && slot.exchange(null_mut(), word).is_some() {
            return Ok(true);
        }
        self.put_below(root, hash, id, word)
    }

    #[inline(never)] // WHY: most find an empty slot in the root.
    fn put_below(&self, root: &Root<T>, hash: u64, id: T::Id<'_>, word: Word<T>) -> Result<bool> {
        let pin = pin();
        let mut path = Path::new(root, hash);
        let mut spare: Option<Box<Block<T>>> = None;
        let mut tries = 0;
        loop {
            match path.slot.look(&pin) {
                (_, Content::Child(child)) => {
                    path.descend(child, |number| hash_at::<T>(hash, id, number))
                }
                (_, Content::Nothing) => {
                    if let Some(block) = path.block
                        && !block.enter()
                    {
                        // What belongs here belongs above by now, or soon.
                        self.unlink(root, block, &pin);
                        path = Path::new(root, hash);
                        continue;
                    }
                    if path.slot.exchange(null_mut(), word).is_some() {
                        return Ok(true);
                    }
                    self.leave(root, path.block, &pin);
                }
                (seen, Content::Node(node)) if node.is_dead() => {
                    // Counted as the one that it replaces (I2).
                    if path.slot.exchange(seen, word).is_some() {
                        // SAFETY: by the exchange.
                        unsafe { retire_node(seen, &pin) };
                        return Ok(true);
                    }
                }
                (_, Content::Node(node)) if node.is(id) => return Ok(false),
                (seen, Content::Node(node)) => {
                    let block = spare.take().map_or_else(Block::new, Ok)?;
                    let place = path.place_below(|number| node.hash(number));
                    let child = path.child(block, place, seen);
                    if path.slot.exchange(seen, child).is_none() {
                        // SAFETY: made above, and in no slot.
                        let mut block = unsafe { block_of(child) };
                        block.slots[place] = Slot::new(null_mut());
                        spare = Some(block);
                    }
                }
                (seen, Content::Sole) => {
                    let Some(latch) = path.slot.latch(seen) else { continue };
                    if T::sole_is(&latch.sole, id) {
                        latch.restore();
                        return Ok(false);
                    }
                    match spare.take() {
                        Some(block) => {
                            let place =
                                path.place_below(|number| T::sole_hash(&latch.sole, number));
                            latch.let_go(path.child(block, place, seen));
                        }
                        None => {
                            latch.restore();
                            spare = Some(Block::new()?);
                        }
                    }
                }
                (_, Content::Latched) => wait(&mut tries),
            }
        }
    }

    /// Something of `block` has been taken out, or was not put in. Blocks that this closes go.
    fn leave<'g>(&self, root: &Root<T>, block: Option<&'g Block<T>>, pin: &'g Pin) {
        if let Some(block) = block
            && block.leave()
        {
            self.unlink(root, block, pin);
        }
    }

    /// Takes a closed block out of its slot, and what that closes.
    fn unlink<'g>(&self, root: &Root<T>, mut block: &'g Block<T>, pin: &'g Pin) {
        loop {
            let parent = block.parent(pin);
            let place = block.place as usize;
            let slot = parent.map_or_else(|| &root[place], |parent| &parent.slots[place]);
            let child = tagged(ptr::from_ref(block).cast_mut().cast(), CHILD);
            // If it fails, another thread has done it (I3).
            let Some(word) = slot.exchange(child, null_mut()) else { return };
            // SAFETY: the slot's, which this exchange took out: nobody else gives it up (I6).
            let retired = unsafe { block_of(word) };
            pin.retire(move || drop(retired));
            match parent {
                Some(parent) if parent.leave() => block = parent,
                Some(_) => return,
                None => return pin.collect_now_and_then(),
            }
        }
    }

    /// Shows `look` everything that is in here, dead nodes too: what is there all the time once, what
    /// comes or goes meanwhile perhaps. Nothing is changed, and no owner waits for `look`.
    pub(super) fn visit(&self, mut look: impl FnMut(Seen<'_, T>) -> Result<()>) -> Result<()> {
        self.walk(|slot, pin| {
            let mut tries = 0;
            loop {
                let seen = match slot.look(pin) {
                    (_, Content::Nothing) => return Ok(None),
                    (_, Content::Child(child)) => return Ok(Some(child)),
                    (_, Content::Node(node)) => Seen::Node(&**node),
                    (_, Content::Latched) => {
                        wait(&mut tries);
                        continue;
                    }
                    (seen, Content::Sole) => match slot.share(seen) {
                        Some(sole) => Seen::Sole(sole),
                        None => continue,
                    },
                };
                return look(seen).map(|()| None);
            }
        })
    }

    /// How many sole ones there are, and nodes that count.
    pub(super) fn count(&self, counts: impl Fn(&T) -> bool) -> usize {
        let mut count = 0;
        let counted = self.walk(|slot, pin| {
            let counts = match slot.look(pin).1 {
                Content::Child(child) => return Ok(Some(child)),
                Content::Nothing => false,
                Content::Sole | Content::Latched => true,
                Content::Node(node) => counts(node),
            };
            count += usize::from(counts);
            Ok(None)
        });
        debug_assert!(counted.is_ok());
        count
    }

    /// Comes to every slot. `step` says to which block it leads, or that it has seen to what is there
    /// instead: whatever belongs there is in either the one or the other (I1).
    ///
    /// WHY: a pin for each slot of the root. One for all would hold up reclamation for as long as
    /// there are locks to see.
    fn walk(
        &self,
        mut step: impl for<'g> FnMut(&'g Slot<T>, &'g Pin) -> Result<Option<&'g Block<T>>>,
    ) -> Result<()> {
        let Some(root) = self.root.get() else { return Ok(()) };
        for first in root.iter() {
            // ORDERING: as in `search`.
            if first.looks_empty() {
                continue;
            }
            let pin = pin();
            let mut next = step(first, &pin)?.map(|block| (block, 0));
            while let Some((block, place)) = next {
                next = match block.slots.get(place) {
                    Some(slot) => match step(slot, &pin)? {
                        Some(child) => Some((child, 0)),
                        None => Some((block, place + 1)),
                    },
                    None => block.parent(&pin).map(|parent| (parent, block.place as usize + 1)),
                };
            }
        }
        Ok(())
    }
}

/// The hashes of `id`, of which the 0th is known.
fn hash_at<T: Listed>(hash: u64, id: T::Id<'_>, number: u32) -> u64 {
    if number == 0 { hash } else { T::hash_of(id, number) }
}

/// Makes a node of the sole one that was seen in a slot, if it is still there. `shared`: a reference
/// to it, which goes to the node.
#[cold]
fn list<T: Listed>(slot: &Slot<T>, seen: Word<T>, shared: T::Sole) -> Result<Option<NodeRef<T>>> {
    let node = Node::try_new(T::of_sole(shared))?;
    // The slot's own count (I6).
    let listed = node.clone().into_raw();
    // As long as the node has its reference, the address in the word is no other one's, and it is put
    // in once (I7): what is exchanged is what was seen.
    match slot.exchange(seen, listed) {
        Some(word) => {
            // SAFETY: the slot's reference, which this exchange took out (I4).
            drop(unsafe { sole_of::<T>(word) });
            Ok(Some(node))
        }
        None => {
            // SAFETY: the count made above, which the slot has not taken over.
            drop(unsafe { NodeRef::from_raw(listed) });
            Ok(None)
        }
    }
}

/// One more count of a node that a pin protects.
fn share<T>(node: &Node<T>) -> NodeRef<T> {
    // SAFETY: the slot's count is alive as long as the pin (I6); this one is of the caller's.
    let slots = ManuallyDrop::new(NodeRef(NonNull::from(node)));
    NodeRef::clone(&slots)
}

/// Gives up a slot's count of a node.
///
/// # Safety
/// An exchange of this thread has taken `word` out of its slot.
unsafe fn retire_node<T: Send + Sync + 'static>(word: Word<T>, pin: &Pin) {
    // SAFETY: the slot's count, which nobody else gives up (I6).
    let node = unsafe { NodeRef::from_raw(word) };
    pin.retire(move || drop(node));
}

impl<T: Listed + Send + Sync + 'static> Drop for Index<T> {
    /// Gives up what is in the slots, and the blocks: nobody else uses them any more.
    fn drop(&mut self) {
        let Some(root) = self.root.get() else { return };
        for first in root.iter() {
            let mut next = give_up(first).map(|block| (block, 0));
            while let Some((block, place)) = next {
                next = match block.slots.get(place) {
                    Some(slot) => match give_up(slot) {
                        Some(child) => Some((child, 0)),
                        None => Some((block, place + 1)),
                    },
                    None => {
                        // SAFETY: null, or a block that is given up after this one.
                        let parent = unsafe { block.parent.as_ref() };
                        let place = block.place as usize;
                        let slot = parent.map_or(first, |parent| &parent.slots[place]);
                        let word = slot.0.load(Relaxed); // ORDERING: nobody else has it.
                        // SAFETY: this is the end of it, and that of all below was before.
                        drop(unsafe { block_of::<T>(word) });
                        parent.map(|parent| (parent, place + 1))
                    }
                };
            }
        }
    }
}

/// Gives up the reference in a slot, at the end of the index. The block in it, if there is one.
fn give_up<T: Listed>(slot: &Slot<T>) -> Option<&Block<T>> {
    let word = slot.0.load(Relaxed); // ORDERING: nobody else has it.
    match word.addr() & TAGS {
        0 if word.is_null() => {}
        // SAFETY: the slot's count, which nobody else can give up now.
        0 => drop(unsafe { NodeRef::from_raw(word) }),
        // SAFETY: the slot's, alive until the end comes to it.
        CHILD => return Some(unsafe { &*untagged(word).cast::<Block<T>>() }),
        // SAFETY: the slot's reference, which nobody else can take out now.
        _ => drop(unsafe { sole_of::<T>(word) }),
    }
    None
}

/// A sole reference to something, for tests.
#[cfg(test)]
#[derive(Debug)]
struct Alone<N>(std::sync::Arc<N>);

#[cfg(test)]
impl<N> Clone for Alone<N> {
    fn clone(&self) -> Self {
        Self(std::sync::Arc::clone(&self.0))
    }
}

#[cfg(test)]
// SAFETY: the address of a word; a count.
unsafe impl<N: Send + Sync> Sole for Alone<N> {
    fn as_pointer(&self) -> *mut () {
        const { assert!(align_of::<N>() == 8) }
        std::sync::Arc::as_ptr(&self.0).cast_mut().cast()
    }

    fn into_pointer(self) -> *mut () {
        std::sync::Arc::into_raw(self.0).cast_mut().cast()
    }

    unsafe fn from_pointer(pointer: *mut ()) -> Self {
        // SAFETY: the contract above.
        Self(unsafe { std::sync::Arc::from_raw(pointer.cast()) })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::thread;
    use std::time::{Duration, SystemTime};

    /// A number and its 0th hash.
    type Id = (u64, u64);

    struct Item {
        sole: Alone<Id>,
        dead: AtomicBool,
    }

    impl Item {
        fn node(id: &Arc<Id>) -> NodeRef<Item> {
            Node::try_new(Item::of_sole(Alone(Arc::clone(id)))).expect("memory")
        }
    }

    impl Listed for Item {
        type Id<'a> = Id;
        type Sole = Alone<Id>;

        fn is(&self, id: Id) -> bool {
            *self.sole.0 == id && !self.is_dead()
        }
        fn is_dead(&self) -> bool {
            self.dead.load(SeqCst)
        }
        fn sole_is(sole: &Alone<Id>, id: Id) -> bool {
            *sole.0 == id
        }
        fn hash_of((number, hash): Id, which: u32) -> u64 {
            match which {
                0 => hash,
                // One more that is the same for all, and one that is not.
                1 => 7,
                _ => number.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            }
        }
        fn hash(&self, which: u32) -> u64 {
            Self::sole_hash(&self.sole, which)
        }
        fn sole_hash(sole: &Alone<Id>, which: u32) -> u64 {
            Self::hash_of(*sole.0, which)
        }
        fn of_sole(sole: Alone<Id>) -> Self {
            Item { sole, dead: AtomicBool::new(false) }
        }
    }

    fn remove(index: &Index<Item>, node: &NodeRef<Item>) {
        node.dead.store(true, SeqCst);
        index.remove(node.hash(0), node);
    }

    fn put(index: &Index<Item>, id: &Arc<Id>) -> bool {
        index.put_sole(id.1, **id, Alone(Arc::clone(id))).is_ok()
    }

    fn take(index: &Index<Item>, id: &Arc<Id>) -> bool {
        index.take_sole(id.1, &Alone(Arc::clone(id))).is_some()
    }

    /// Whether there is no block and nothing else.
    fn is_bare(index: &Index<Item>) -> bool {
        index.root.get().is_none_or(|root| root.iter().all(Slot::looks_empty))
    }

    fn everything(_: &Item) -> bool {
        true
    }

    /// Waits until nobody else refers to them: what was retired is run.
    fn assert_reclaimed(ids: &[Arc<Id>]) {
        let start = SystemTime::now();
        while !ids.iter().all(|id| Arc::strong_count(id) == 1) {
            let pin = pin();
            (0..100).for_each(|_| pin.collect_now_and_then());
            drop(pin);
            assert!(
                start.elapsed().expect("a clock that runs forward") < Duration::from_secs(20),
                "never reclaimed"
            );
        }
    }

    /// Ids whose hashes spread, that meet in one slot of the root, and that have them all in common.
    fn crowds() -> [Vec<Arc<Id>>; 3] {
        let ids = |count: u64, hash: fn(u64) -> u64| {
            (0..count).map(|number| Arc::new((number, hash(number)))).collect()
        };
        [
            ids(30_000, |number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20)),
            ids(10_000, |number| number << ROOT_BITS),
            ids(1_000, |_| 5),
        ]
    }

    #[test]
    fn a_crowd_of_sole_ones_comes_and_goes() {
        for ids in crowds() {
            let index = Index::new();
            for id in &ids {
                assert!(put(&index, id));
                assert!(!put(&index, id));
            }
            assert_eq!(index.count(|_| false), ids.len());
            for id in &ids {
                assert!(index.find_node(id.1, **id).is_none(), "it has become a node");
                assert!(take(&index, id));
                assert!(!take(&index, id));
            }
            assert!(is_bare(&index), "blocks are left");
            assert_reclaimed(&ids);
        }
    }

    #[test]
    fn a_crowd_of_nodes_comes_and_goes() {
        for ids in crowds() {
            let index = Index::new();
            let nodes: Vec<_> = ids.iter().map(Item::node).collect();
            for (id, node) in ids.iter().zip(&nodes) {
                assert_eq!(index.insert(id.1, **id, node), Ok(true));
                assert_eq!(index.insert(id.1, **id, &Item::node(id)), Ok(false));
                assert!(!put(&index, id));
            }
            assert_eq!(index.count(everything), nodes.len());
            for (id, node) in ids.iter().zip(nodes) {
                let found = index.find(id.1, **id).unwrap();
                assert!(found.is_some_and(|found| NodeRef::ptr_eq(&found, &node)));
                remove(&index, &node);
                assert!(index.find(id.1, **id).unwrap().is_none());
            }
            assert!(is_bare(&index), "blocks are left");
            assert_reclaimed(&ids);
        }
    }

    /// Sole ones and nodes side by side: the search for one makes a node of that one alone.
    #[test]
    fn who_is_searched_becomes_a_node_and_nobody_else() {
        for ids in crowds() {
            let index = Index::new();
            assert!(ids.iter().all(|id| put(&index, id)));
            for id in ids.iter().step_by(10) {
                let node = index.find(id.1, **id).unwrap().expect("it is there");
                assert_eq!(*node.sole.0, **id);
            }
            // Others come to the same places, and are not in here.
            for (number, hash) in ids.iter().skip(1).step_by(10).map(|id| **id) {
                assert!(index.find(hash, (!number, hash)).unwrap().is_none());
            }
            assert_eq!(index.count(|_| false), ids.len() - ids.len() / 10);
            let mut seen = [0, 0];
            let visited = index.visit(|one| {
                seen[usize::from(matches!(one, Seen::Sole(_)))] += 1;
                Ok(())
            });
            assert_eq!(visited, Ok(()));
            assert_eq!(seen, [ids.len() / 10, ids.len() - ids.len() / 10]);
            for (number, id) in ids.iter().enumerate() {
                assert_eq!(take(&index, id), number % 10 != 0);
                if number % 10 == 0 {
                    remove(&index, &index.find_node(id.1, **id).expect("it is a node"));
                }
            }
            assert!(is_bare(&index), "blocks are left");
            assert_reclaimed(&ids);
        }
    }

    #[test]
    fn a_dead_node_gives_way() {
        let index = Index::new();
        let ids = [Arc::new((1, 0)), Arc::new((2, 1 << ROOT_BITS))];
        for id in &ids {
            let node = Item::node(id);
            assert_eq!(index.insert(id.1, **id, &node), Ok(true));
            node.dead.store(true, SeqCst);
            assert!(put(&index, id));
            index.remove(id.1, &node);
            assert_eq!(index.count(everything), 1, "the dead one took another out");
            assert!(take(&index, id));
        }
        assert!(is_bare(&index));
        assert_reclaimed(&ids);
    }

    /// I6: who is pinned may still look at it.
    #[test]
    fn a_node_stays_as_long_as_a_pin() {
        let index = Index::new();
        let id = Arc::new((1, 0));
        let node = Item::node(&id);
        assert_eq!(index.insert(id.1, *id, &node), Ok(true));
        let pin = pin();
        remove(&index, &node);
        drop(node);
        assert_eq!(Arc::strong_count(&id), 2, "it has gone");
        drop(pin);
        assert_reclaimed(&[id]);
    }

    #[test]
    fn what_is_in_an_index_ends_with_it() {
        for ids in crowds() {
            let index = Index::new();
            for (number, id) in ids.iter().enumerate() {
                assert!(put(&index, id));
                if number % 3 == 0 {
                    assert!(index.find(id.1, **id).unwrap().is_some());
                }
            }
            drop(index);
            assert_reclaimed(&ids);
        }
    }

    /// Owners of few ids come and go, alone or with a node, and look who is there: each id has one
    /// owner at a time, and nobody is lost. Slots split and blocks go all the time.
    #[test]
    fn one_owner_per_identity_while_blocks_come_and_go() {
        const THREADS: usize = 4;
        const ROUNDS: usize = 30_000;
        // Neighbours in the second block, neighbours in the third, and two that share all hashes.
        let hashes = [0x000, 0x100, 0x010, 0x110, 0x110, 0xf00].map(|hash| hash << ROOT_BITS);
        let ids: Vec<_> = (0..).zip(hashes).map(Arc::new).collect();
        let owners: Vec<_> = ids.iter().map(|_| AtomicUsize::new(0)).collect();
        let index = Index::<Item>::new();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (index, owners, ids) = (&index, &owners, &ids);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let which = (thread * 5 + round * 7) % ids.len();
                        // Its own address: what is put in is put in once.
                        let id = Arc::new(*ids[which]);
                        let (owner, hash) = (&owners[which], id.1);
                        let owned = match round % 3 {
                            0 => {
                                let node = Item::node(&id);
                                index.insert(hash, *id, &node).unwrap().then_some(Some(node))
                            }
                            _ => put(index, &id).then_some(None),
                        };
                        let Some(owned) = owned else {
                            // The owner meets a node.
                            if round % 5 == 0 {
                                drop(index.find(hash, *id).unwrap());
                            }
                            continue;
                        };
                        assert_eq!(owner.swap(thread + 1, SeqCst), 0, "two at once");
                        if round % 7 == 0 {
                            let mut seen = 0;
                            let visited = index.visit(|one| {
                                seen += usize::from(match one {
                                    Seen::Sole(sole) => Item::sole_is(&sole, *id),
                                    Seen::Node(node) => node.is(*id),
                                });
                                Ok(())
                            });
                            assert_eq!((visited, seen), (Ok(()), 1), "not seen once");
                            assert!(index.count(|_| false) <= THREADS);
                        }
                        owner.store(0, SeqCst);
                        match owned {
                            Some(node) => remove(index, &node),
                            None if take(index, &id) => {}
                            None => remove(index, &index.find_node(hash, *id).expect("a node")),
                        }
                    }
                });
            }
        });
        assert!(is_bare(&index), "something is left");
    }

    /// Peaks of several threads at once.
    #[test]
    fn after_a_peak_nothing_is_left() {
        const THREADS: u64 = 4;
        let index = Index::<Item>::new();
        for _ in 0..3 {
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let index = &index;
                    scope.spawn(move || {
                        let id = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(20);
                        let numbers = (0..5_000).map(|n| n * THREADS + thread);
                        let ids: Vec<_> = numbers.map(|n| Arc::new((n, id(n)))).collect();
                        assert!(ids.iter().all(|id| put(index, id)));
                        assert!(ids.iter().rev().all(|id| take(index, id)));
                    });
                }
            });
            assert!(is_bare(&index), "something is left");
        }
    }
}

/// Models: every interleaving of those who come to one slot, and to the blocks that take its place.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::lock::epoch::reclaim_all;
    use crate::sync::Arc;
    use crate::sync::atomic::AtomicBool;
    use loom::thread;
    use std::cell::Cell;

    std::thread_local! {
        // A model's threads take turns on one thread of the system.
        pub(super) static BLOCKS: Cell<isize> = const { Cell::new(0) };
        static NUMBERS: Cell<isize> = const { Cell::new(0) };
    }

    /// An identity, counted while it lives.
    #[repr(align(8))]
    struct Number(u64);

    impl Number {
        fn new(id: u64) -> Arc<Self> {
            NUMBERS.set(NUMBERS.get() + 1);
            Arc::new(Self(id))
        }
    }

    impl Drop for Number {
        fn drop(&mut self) {
            NUMBERS.set(NUMBERS.get() - 1);
        }
    }

    struct Item {
        sole: Alone<Number>,
        dead: AtomicBool,
    }

    /// 0 and 1 part in the first block; 2 and 3 go with 0, and part from it in the second, and from
    /// each other in the third.
    fn hash(id: u64) -> u64 {
        [0b000, 0b001, 0b010, 0b110][id as usize]
    }

    impl Listed for Item {
        type Id<'a> = u64;
        type Sole = Alone<Number>;

        fn is(&self, id: u64) -> bool {
            self.sole.0.0 == id && !self.is_dead()
        }
        fn is_dead(&self) -> bool {
            self.dead.load(Acquire)
        }
        fn sole_is(sole: &Alone<Number>, id: u64) -> bool {
            sole.0.0 == id
        }
        fn hash_of(id: u64, _: u32) -> u64 {
            hash(id)
        }
        fn hash(&self, _: u32) -> u64 {
            hash(self.sole.0.0)
        }
        fn sole_hash(sole: &Alone<Number>, _: u32) -> u64 {
            hash(sole.0.0)
        }
        fn of_sole(sole: Alone<Number>) -> Self {
            Self { sole, dead: AtomicBool::new(false) }
        }
    }

    struct Scene {
        index: Index<Item>,
        owners: [AtomicUsize; 4],
    }

    enum Owned {
        Sole(Arc<Number>),
        Listed(NodeRef<Item>),
    }

    impl Scene {
        fn own(&self, id: u64, alone: bool) -> Option<Owned> {
            let number = Number::new(id);
            let sole = Alone(Arc::clone(&number));
            let owned = if alone {
                self.index.put_sole(hash(id), id, sole).is_ok().then_some(Owned::Sole(number))
            } else {
                let node = Node::try_new(Item::of_sole(sole)).unwrap();
                let put = self.index.insert(hash(id), id, &node).unwrap();
                put.then_some(Owned::Listed(node))
            }?;
            // WHY: not of loom's. It is to add no interleavings, but to find two at once.
            let before = self.owners[id as usize].fetch_add(1, Relaxed);
            assert_eq!(before, 0, "two at once");
            Some(owned)
        }

        fn remove(&self, id: u64, node: &NodeRef<Item>) {
            node.dead.store(true, Release);
            self.index.remove(hash(id), node);
        }

        fn give_back(&self, id: u64, owned: Owned) {
            self.owners[id as usize].fetch_sub(1, Relaxed);
            match owned {
                Owned::Sole(number) => {
                    if self.index.take_sole(hash(id), &Alone(number)).is_none() {
                        let node = self.index.find_node(hash(id), id).expect("it was lost");
                        self.remove(id, &node);
                    }
                }
                Owned::Listed(node) => self.remove(id, &node),
            }
        }

        /// Comes and goes, if it is first.
        fn visit(&self, id: u64, alone: bool) {
            if let Some(owned) = self.own(id, alone) {
                self.give_back(id, owned);
            }
        }

        /// Comes and goes, and must be first.
        fn visit_alone(&self, id: u64) {
            let owned = self.own(id, true).expect("nobody else wants it");
            self.give_back(id, owned);
        }

        /// How often `id` is seen.
        fn sees(&self, id: u64) -> usize {
            let mut seen = 0;
            let visited = self.index.visit(|one| {
                seen += usize::from(match one {
                    Seen::Sole(sole) => Item::sole_is(&sole, id),
                    Seen::Node(node) => node.is(id),
                });
                Ok(())
            });
            assert_eq!(visited, Ok(()));
            seen
        }
    }

    /// Interleavings with so many preemptions at most. In the end nothing is left, neither in the
    /// index nor in memory.
    fn check(preemptions: usize, model: impl Fn(&Arc<Scene>) + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 100_000;
        builder.check(move || {
            BLOCKS.set(0);
            NUMBERS.set(0);
            let owners = std::array::from_fn(|_| AtomicUsize::new(0));
            let scene = Arc::new(Scene { index: Index::new(), owners });
            model(&scene);
            let root = scene.index.root().unwrap();
            assert!(root.iter().all(Slot::looks_empty), "something was left");
            reclaim_all();
            assert_eq!(BLOCKS.get(), 0, "blocks are left in memory, or freed twice");
            assert_eq!(NUMBERS.get(), 0, "references are left");
        });
    }

    fn spawn(scene: &Arc<Scene>, body: impl Fn(&Scene) + 'static) -> thread::JoinHandle<()> {
        let scene = Arc::clone(scene);
        thread::spawn(move || body(&scene))
    }

    /// A block that has gone stays in memory for those who may still look at it (I6).
    #[test]
    fn a_block_is_not_freed_at_once() {
        check(0, |scene| {
            let owned = scene.own(0, true).expect("nobody else is there");
            scene.visit_alone(1);
            let blocks = BLOCKS.get();
            assert!(blocks > 0, "two have met");
            scene.give_back(0, owned);
            assert_eq!(BLOCKS.get(), blocks);
        });
    }

    /// Two who want the same, one of them twice, each alone if it can, or by a node (I3).
    #[test]
    fn one_owner_sole_or_listed() {
        for (left, right) in [(true, true), (true, false), (false, false)] {
            check(3, move |scene| {
                let other = spawn(scene, move |scene| {
                    scene.visit(0, left);
                    scene.visit(0, left);
                });
                scene.visit(0, right);
                other.join().unwrap();
            });
        }
    }

    /// One wants what another one holds alone: makes a node of it, or comes when it has gone (I4).
    #[test]
    fn a_sole_one_is_listed_once() {
        check(3, |scene| {
            let owned = scene.own(0, true).expect("nobody else is there");
            let other = spawn(scene, |scene| {
                if let Some(node) = scene.index.find(hash(0), 0).unwrap() {
                    assert_eq!(node.sole.0.0, 0);
                }
            });
            scene.give_back(0, owned);
            other.join().unwrap();
        });
    }

    /// One looks who is there, while an owner goes, and another one comes to its slot (I5).
    #[test]
    fn who_looks_holds_up_nobody() {
        check(2, |scene| {
            let owned = scene.own(0, true).expect("nobody else is there");
            let looker = spawn(scene, |scene| assert!(scene.sees(0) <= 1));
            let other = spawn(scene, |scene| scene.visit_alone(1));
            scene.give_back(0, owned);
            looker.join().unwrap();
            other.join().unwrap();
        });
    }

    /// Two that share a slot come and go at once: it splits under them, and its block goes (I1 to I3).
    #[test]
    fn neighbours_come_and_go() {
        for alone in [true, false] {
            check(3, move |scene| {
                let other = spawn(scene, |scene| scene.visit_alone(1));
                scene.visit(0, alone);
                scene.visit(0, true);
                other.join().unwrap();
            });
        }
    }

    /// One stays while its neighbours come and go above and below it: it is found, and seen once.
    #[test]
    fn who_stays_is_found_wherever_it_is_moved() {
        check(2, |scene| {
            let owned = scene.own(0, true).expect("nobody else is there");
            let other = spawn(scene, |scene| {
                scene.visit_alone(1);
                scene.visit_alone(2);
            });
            assert_eq!(scene.sees(0), 1);
            assert!(scene.own(0, true).is_none(), "two at once");
            assert!(scene.index.count(|_| false) >= 1, "not counted");
            scene.give_back(0, owned);
            other.join().unwrap();
        });
    }

    /// Two leave the lowest of three blocks, while one comes that wants the place of one of them, and
    /// of a neighbour (I2, I3).
    #[test]
    fn blocks_go_from_below_while_one_comes() {
        check(2, |scene| {
            let [first, second] = [2, 3].map(|id| scene.own(id, true).expect("nobody is there"));
            let other = spawn(scene, |scene| {
                scene.visit(2, true);
                scene.visit_alone(0);
            });
            scene.give_back(2, first);
            scene.give_back(3, second);
            other.join().unwrap();
        });
    }

    /// The last one leaves a block, while two want one place in it (I2, I3).
    #[test]
    fn a_block_goes_while_two_come() {
        check(2, |scene| {
            let [first, second] = [0, 1].map(|id| scene.own(id, true).expect("nobody is there"));
            scene.give_back(0, first);
            let other = spawn(scene, |scene| scene.visit(0, true));
            let third = spawn(scene, |scene| scene.visit(0, true));
            scene.give_back(1, second);
            other.join().unwrap();
            third.join().unwrap();
        });
    }
}
