//! A long list of tuples: appended to, and read as it was at any moment since.
//!
//! Each element knows the version at which it died. A view is a length and a version, and shows what
//! was appended by then and not dead by then. So a list changes at the cost of the change, and those
//! who read it copy nothing and wait for nobody.
//!
//! Invariants
//! I1. Elements never move, and their values never change. They lie in chunks, each as long as all
//!     before it together.
//! I2. One owner changes a log at a time; its latest view is the owner's.
//! I3. What the owner does is seen by no view there is: an element it appends lies behind their ends,
//!     one it kills dies at a later version than theirs.
//! I4. The index leads to every element that lives, by the hash of its value: to the last one of a
//!     hash, and from each to the one before it.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::key::{Prehashed, hash_of};
use crate::memory::{self, Shared};
use crate::sync::{Mutex, OnceLock};

/// The version of an element that lives.
const ALIVE: u64 = u64::MAX;

/// Where a chain ends.
const NONE: u32 = u32::MAX;

/// The length of the first chunk.
const FIRST: usize = 32;
/// As many as there are lengths up to `NONE`.
const CHUNKS: usize = 28;

#[derive(Debug)]
struct Element {
    value: OnceLock<Bytes>,
    died: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Log {
    chunks: [OnceLock<Box<[Element]>>; CHUNKS],
    /// WHY: a mutex, though there is one owner at a time (I2), who never waits for it: this is not
    /// where memory safety hangs on it.
    owner: Mutex<Owner>,
}

#[derive(Debug, Default)]
struct Owner {
    len: usize,
    version: u64,
    living: usize,
    /// What the elements weigh that live, and those that do not.
    alive: usize,
    dead: usize,
    index: HashMap<u64, u32, Prehashed>,
    before: Vec<u32>,
}

/// A log as it is at one moment.
#[derive(Debug, Clone)]
pub(super) struct View {
    log: Shared<Log>,
    len: usize,
    version: u64,
    living: usize,
}

/// What a change did to a log, to be undone if nobody is to see it.
#[derive(Debug)]
#[must_use]
pub(super) struct Undo {
    log: Shared<Log>,
    /// The length, and the places of those that died.
    len: usize,
    died: Vec<u32>,
}

/// One change of a list.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    /// Appends. `unless_equal`: unless there is an equal one.
    Append { value: &'a Bytes, unless_equal: bool },
    /// Removes every equal one.
    Remove(&'a Bytes),
}

/// What an element weighs.
fn weight(value: &Bytes) -> usize {
    size_of::<Element>() + value.heap()
}

/// The chunk of an element, and its place there (I1).
fn place(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST + 1).ilog2() as usize;
    (chunk, index - first_of(chunk))
}

fn first_of(chunk: usize) -> usize {
    FIRST * ((1 << chunk) - 1)
}

impl Log {
    pub(super) fn new() -> Result<Shared<Self>> {
        Shared::new(Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
            owner: Mutex::new(Owner::default()),
        })
    }

    fn element(&self, index: usize) -> Option<&Element> {
        let (chunk, place) = place(index);
        self.chunks[chunk].get()?.get(place)
    }

    fn value(&self, index: usize) -> Option<&Bytes> {
        self.element(index)?.value.get()
    }

    /// A place for one more.
    fn make_room(&self, owner: &mut Owner) -> Result<()> {
        let (chunk, _) = place(owner.len);
        if owner.len >= NONE as usize || chunk >= CHUNKS {
            return Err(Error::NoMemory);
        }
        if self.chunks[chunk].get().is_none() {
            let len = FIRST << chunk;
            let mut elements = memory::list(len)?;
            let fresh = || Element { value: OnceLock::new(), died: AtomicU64::new(ALIVE) };
            elements.resize_with(len, fresh);
            let _ = self.chunks[chunk].set(elements.into_boxed_slice());
        }
        owner.index.try_reserve(1).map_err(|_| Error::NoMemory)?;
        owner.before.try_reserve(1).map_err(|_| Error::NoMemory)
    }

    /// Makes `steps`; all or, without memory for them, none.
    pub(super) fn change<'a>(
        this: &Shared<Self>,
        steps: impl Iterator<Item = Step<'a>>,
    ) -> Result<(View, Undo)> {
        let mut owner = this.owner.lock();
        let mut undo = Undo { log: this.clone(), len: owner.len, died: Vec::new() };
        let made = owner.make_all(this, steps, &mut undo);
        if let Err(error) = made {
            owner.undo(&undo);
            return Err(error);
        }
        owner.version += 1;
        let Owner { len, version, living, .. } = *owner;
        Ok((View { log: this.clone(), len, version, living }, undo))
    }

    /// How many bytes it keeps on the heap.
    pub(super) fn heap(&self) -> usize {
        let owner = self.owner.lock();
        owner.alive + owner.dead
    }

    /// Whether more of it is dead than alive.
    pub(super) fn is_mostly_dead(&self) -> bool {
        /// As long as so little is dead, it does not matter.
        const LITTLE: usize = 4096;
        let owner = self.owner.lock();
        owner.dead > owner.alive + LITTLE
    }
}

impl Owner {
    fn make_all<'a>(
        &mut self,
        log: &Log,
        steps: impl Iterator<Item = Step<'a>>,
        undo: &mut Undo,
    ) -> Result<()> {
        for step in steps {
            match step {
                Step::Append { value, unless_equal } => {
                    let hash = hash_of(value.as_slice());
                    if !(unless_equal && self.has(log, hash, value)) {
                        log.make_room(self)?;
                        self.append(log, hash, value.clone());
                    }
                }
                Step::Remove(value) => self.remove(log, value, undo)?,
            }
        }
        Ok(())
    }

    /// The places of one hash, the last one first.
    fn chain(&self, hash: u64) -> impl Iterator<Item = u32> {
        let some = |place: u32| (place != NONE).then_some(place);
        let first = self.index.get(&hash).copied().and_then(some);
        std::iter::successors(first, move |place| some(self.before[*place as usize]))
    }

    fn has(&self, log: &Log, hash: u64, value: &Bytes) -> bool {
        self.chain(hash).any(|place| log.value(place as usize) == Some(value))
    }

    /// In a place that there is (`make_room`).
    fn append(&mut self, log: &Log, hash: u64, value: Bytes) {
        self.alive += weight(&value);
        self.living += 1;
        let place = self.len as u32;
        if let Some(element) = log.element(self.len) {
            let _ = element.value.set(value);
        }
        self.before.push(self.index.insert(hash, place).unwrap_or(NONE));
        self.len += 1;
    }

    fn remove(&mut self, log: &Log, value: &Bytes, undo: &mut Undo) -> Result<()> {
        let hash = hash_of(value.as_slice());
        let (mut after, mut next) = (NONE, self.index.get(&hash).copied().unwrap_or(NONE));
        while next != NONE {
            let (here, before) = (next, self.before[next as usize]);
            if log.value(here as usize) == Some(value) {
                memory::push(&mut undo.died, here)?;
                self.kill(log, here, self.version + 1);
                match after {
                    NONE => drop(self.set_last(hash, before)),
                    _ => self.before[after as usize] = before,
                }
            } else {
                after = here;
            }
            next = before;
        }
        Ok(())
    }

    fn kill(&mut self, log: &Log, place: u32, version: u64) {
        let Some(element) = log.element(place as usize) else { return };
        // ORDERING: a view that must see it comes with the row's word.
        element.died.store(version, Relaxed);
        let weight = element.value.get().map_or(0, weight);
        self.living -= 1;
        self.alive -= weight;
        self.dead += weight;
    }

    /// Makes what was done since, by nobody seen, as if it had not been.
    fn undo(&mut self, undo: &Undo) {
        let log = &*undo.log;
        // WHY: not taken back, but never seen. Their places are the owner's alone, but a place is
        // written once (I1).
        for place in (undo.len..self.len).rev() {
            let Some(element) = log.element(place) else { continue };
            if element.died.load(Relaxed) == ALIVE {
                let hash = element.value.get().map_or(0, |value| hash_of(value.as_slice()));
                self.unlink(hash, place as u32);
                self.kill(log, place as u32, 0);
            }
            element.died.store(0, Relaxed);
        }
        for place in undo.died.iter().copied().filter(|place| (*place as usize) < undo.len) {
            let Some(element) = log.element(place as usize) else { continue };
            let Some(value) = element.value.get() else { continue };
            element.died.store(ALIVE, Relaxed);
            self.living += 1;
            self.alive += weight(value);
            self.dead -= weight(value);
            let last = self.set_last(hash_of(value.as_slice()), place);
            self.before[place as usize] = last;
        }
    }

    /// Lets the index lead to `place`, for a hash that it has; it has all there ever were. Returns
    /// where it led.
    ///
    /// WHY: not `insert`, which makes room for one more first.
    fn set_last(&mut self, hash: u64, place: u32) -> u32 {
        self.index.get_mut(&hash).map_or(NONE, |last| mem::replace(last, place))
    }

    fn unlink(&mut self, hash: u64, place: u32) {
        let before = self.before[place as usize];
        if self.index.get(&hash) == Some(&place) {
            self.set_last(hash, before);
            return;
        }
        let after = self.chain(hash).find(|after| self.before[*after as usize] == place);
        if let Some(after) = after {
            self.before[after as usize] = before;
        }
    }
}

impl Undo {
    /// To be called before anybody has seen the view that came with it.
    pub(super) fn undo(self) {
        self.log.owner.lock().undo(&self);
    }
}

impl View {
    pub(super) fn log(&self) -> &Shared<Log> {
        &self.log
    }

    pub(super) fn count(&self) -> usize {
        self.living
    }

    /// The values, in order.
    pub(super) fn values(&self) -> impl Iterator<Item = &Bytes> {
        let chunks = self.log.chunks.iter().map_while(OnceLock::get);
        let elements = chunks.flat_map(|chunk| chunk.iter()).take(self.len);
        // ORDERING: this version, or what happened before it, came with the view. Whatever the owner
        // does meanwhile is of a later version (I3).
        let alive = elements.filter(|element| element.died.load(Relaxed) > self.version);
        alive.filter_map(|element| element.value.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u32) -> Bytes {
        Bytes::copy_of(&number.to_le_bytes()).unwrap()
    }

    fn numbers(view: &View) -> Vec<u32> {
        let number = |value: &Bytes| u32::from_le_bytes(value.as_slice().try_into().unwrap());
        let numbers: Vec<u32> = view.values().map(number).collect();
        assert_eq!(numbers.len(), view.count());
        numbers
    }

    fn append(log: &Shared<Log>, values: &[Bytes], unless_equal: bool) -> (View, Undo) {
        let step = |value| Step::Append { value, unless_equal };
        Log::change(log, values.iter().map(step)).unwrap()
    }

    #[test]
    fn every_element_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for index in 0..10_000 {
            assert_eq!(place(index), expected);
            expected.1 += 1;
            if expected.1 == FIRST << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(place(NONE as usize).0 <= CHUNKS);
    }

    #[test]
    fn a_view_never_changes() {
        let log = Log::new().unwrap();
        let values: Vec<Bytes> = (0..1000).map(bytes).collect();
        let (first, _) = append(&log, &values, true);
        let (second, _) = Log::change(&log, [Step::Remove(&values[500])].into_iter()).unwrap();
        let (third, _) = append(&log, &values[499..502], true);
        let all: Vec<u32> = (0..1000).collect();
        let without: Vec<u32> = all.iter().copied().filter(|number| *number != 500).collect();
        assert_eq!(numbers(&first), all);
        assert_eq!(numbers(&second), without);
        // An equal one keeps its position; the one that was removed comes last.
        assert_eq!(numbers(&third), [&without[..], &[500]].concat());
    }

    #[test]
    fn equal_ones_go_together() {
        let log = Log::new().unwrap();
        let values: Vec<Bytes> = (0..300).map(|number| bytes(number % 3)).collect();
        let (all, _) = append(&log, &values, false);
        let (rest, _) = Log::change(&log, [Step::Remove(&values[1])].into_iter()).unwrap();
        assert_eq!((all.count(), rest.count()), (300, 200));
        assert!(!numbers(&rest).contains(&1));
    }

    #[test]
    fn what_is_undone_has_not_been() {
        let log = Log::new().unwrap();
        let values: Vec<Bytes> = (0..200).map(bytes).collect();
        let (before, _) = append(&log, &values[..100], true);
        for _ in 0..3 {
            let removed = values[50..150].iter().map(Step::Remove);
            let added = values.iter().map(|value| Step::Append { value, unless_equal: true });
            let (_, undo) = Log::change(&log, added.chain(removed)).unwrap();
            undo.undo();
        }
        assert_eq!(numbers(&before), (0..100).collect::<Vec<_>>());
        // Of those that were undone, some had been removed again.
        let more = [&values[90..110], &values[150..160]].concat();
        let (after, _) = append(&log, &more, true);
        let mut expected: Vec<u32> = (0..110).chain(150..160).collect();
        assert_eq!(numbers(&after), expected);
        let (last, _) = Log::change(&log, [Step::Remove(&values[60])].into_iter()).unwrap();
        expected.remove(60);
        assert_eq!(numbers(&last), expected);
    }
}
