//! Tables: tuples per key.
//!
//! | file     | concept                                                                  |
//! |----------|--------------------------------------------------------------------------|
//! | `mod`    | tables and their verbs; changes that are prepared before they are seen     |
//! | `cursor` | iterations, range by range                                               |
//! | `shape`  | the maps of a table, as many as its rows need                            |
//! | `map`    | one map of rows; the only file that knows flurry                         |
//! | `parking`| where writers sleep until a row is free                                  |
//! | `row`    | the tuples of one key, in place, with the lock of their writers          |
//! | `values` | what a row holds, and what writes make of it                             |
//! | `log`    | long lists: appended to, and read as they were at any moment             |
//! | `epoch`  | what readers may still see stays until they have gone                    |
//!
//! Arrows run downward only. No callback of a user ever runs in here.
//!
//! Invariants
//! I1. A reader waits for no writer. What is published is made beforehand, and publishing writes two
//!     words.
//! I2. One writer has a row at a time. It waits for nothing but memory while it has one; who has
//!     several took them in the order of their keys.
//! I3. A snapshot never changes.
//! I4. Nothing is pinned over a wait.

mod cursor;
mod epoch;
mod log;
mod map;
mod parking;
mod row;
mod shape;
#[cfg(test)]
mod stress;
mod values;

use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering::Relaxed};

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::key::{Key, KeyRef};
use crate::memory::{self, Shared};
use cursor::Keys;
use epoch::{Pin, pin};
use log::{Log, Undo};
use map::RowKey;
use parking::Sleep;
use row::{Not, Row};
use shape::{NotMade, Segment, Shape};
use values::{Change, Held, LogIs};

pub use cursor::Cursor;
pub(crate) use values::Write;

/// How many tuples a key may have, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableType {
    /// One; an insert replaces it.
    Set,
    /// Several, all different.
    Bag,
    /// Several, equal ones too.
    DuplicateBag,
}

/// Who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a lock.
    Public,
    /// A guard only.
    Guarded,
}

/// What a table is made with.
#[derive(Debug, Clone)]
pub struct TableOptions {
    /// The type of the table.
    pub r#type: TableType,
    /// Who may write.
    pub access: Access,
    /// A name, to be found by.
    pub name: Option<String>,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { r#type: TableType::Set, access: Access::Public, name: None }
    }
}

/// A snapshot of the tuples of one key: immutable, sharing the values with the table.
#[derive(Debug, Clone)]
pub struct Tuples {
    key: Key,
    held: Held,
}

impl Tuples {
    /// The key of every tuple.
    pub fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// The value of each tuple, in order.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.held.values().map(Bytes::as_slice)
    }

    /// `Error::NotFound` if there is none.
    pub(crate) fn present(self) -> Result<Self> {
        if self.is_empty() { Err(Error::NotFound) } else { Ok(self) }
    }
}

/// Tuples by key: those of one key, or of several.
#[derive(Debug)]
pub enum Snapshot {
    /// Of one key.
    One(Tuples),
    /// Of several keys, in the order given.
    Many(Vec<Tuples>),
}

impl Snapshot {
    /// The tuples of each key.
    pub fn groups(&self) -> &[Tuples] {
        match self {
            Snapshot::One(tuples) => std::slice::from_ref(tuples),
            Snapshot::Many(groups) => groups,
        }
    }
}

/// Tuples after writes that are not published; the next look makes only what came since.
#[derive(Debug)]
pub(crate) struct Preview {
    /// What it was made from, how many writes it has, and what they made.
    from: Held,
    writes: usize,
    after: Held,
}

impl Preview {
    /// What `writes` make of `tuples`. `last`: what was returned for the first of them.
    pub(crate) fn of(
        tuples: &Tuples,
        r#type: TableType,
        writes: &[Write],
        last: Option<Preview>,
    ) -> Result<Self> {
        let from = tuples.held.clone();
        let after = match last {
            Some(last) if last.from.is(&from) && last.writes <= writes.len() => {
                last.after.after(r#type, &writes[last.writes..], LogIs::Own)?.after
            }
            _ => from.after(r#type, writes, LogIs::Foreign)?.after,
        };
        Ok(Self { from, writes: writes.len(), after })
    }

    pub(crate) fn tuples(&self, of: Tuples) -> Tuples {
        Tuples { key: of.key, held: self.after.clone() }
    }
}

/// Where the row of a key was found, to be tried first the next time: most holders write what they
/// read. It holds nothing up, for it is not looked at if a segment was replaced since.
///
/// WHY: to find it again costs a fifth of what a call on one key does (B1: 200 ns, 12 less).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    moment: u64,
    row: NonNull<Row>,
}

// SAFETY: it is looked at by one thread at a time, as what it leads to may be by any.
#[expect(unsafe_code, reason = "it goes with its guard")]
unsafe impl Send for Spot {}

/// Makes the thread-locals that tables need.
pub(crate) fn begin_thread() {
    map::begin_thread();
    drop(pin());
}

/// Rows in memory.
pub struct Table {
    id: u64,
    name: Option<String>,
    r#type: TableType,
    access: Access,
    shape: Shape,
    tuples: AtomicIsize,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("type", &self.r#type)
            .field("access", &self.access)
            .field("tuples", &self.count())
            .finish()
    }
}

/// How a writer takes a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Take {
    /// For a few instructions: readers wait.
    ToWrite,
    /// For as long as it takes to make what is to be written: they do not.
    ToPrepare,
}

/// What keeps a writer from a row.
enum Obstacle {
    Full(*const Segment),
    Moving,
    NotFree(Option<Sleep>),
    No(Error),
}

impl Take {
    fn take(self, row: &Row) -> std::result::Result<(), Not> {
        match self {
            Take::ToWrite => row.seize(),
            Take::ToPrepare => row.lock(),
        }
    }

    fn new_row(self) -> Row {
        match self {
            Take::ToWrite => Row::new_busy(),
            Take::ToPrepare => Row::new_locked(),
        }
    }
}

/// A row that is written; as it was, if nothing comes of it.
struct Busy<'a> {
    row: &'a Row,
    hash: u64,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.row.close_unchanged() {
            parking::wake(self.hash);
        }
    }
}

/// A row that its writer has until it is published or given back, wherever it moves.
#[derive(Debug)]
struct Locked<'a> {
    table: &'a Table,
    key: KeyRef<'a>,
}

/// A change of one key, made and not seen by anybody: to be published, which cannot fail, or to be
/// dropped as if it had not been. Nobody else writes the key meanwhile.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    row: Option<Locked<'a>>,
    after: Held,
    undo: Option<Undo>,
}

impl Prepared<'_> {
    /// Makes it seen, in one step.
    pub(crate) fn publish(mut self) {
        self.undo = None;
        if let Some(row) = self.row.take() {
            row.publish(mem::replace(&mut self.after, Held::None));
        }
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        // Before the row is given back.
        if let Some(undo) = self.undo.take() {
            undo.undo();
        }
    }
}

impl Locked<'_> {
    /// Finds the row, and does `step` on it, which says that it has moved meanwhile with `None`.
    fn on_row<R>(&self, mut step: impl FnMut(&Pin, &Segment, &Row) -> Option<R>) -> R {
        loop {
            {
                let pin = pin();
                let segment = self.table.shape.segment(self.key.hash(), &pin);
                let row = segment.and_then(|segment| Some((segment, segment.get(self.key)?)));
                let Some((segment, row)) = row else {
                    unreachable!("a row that is locked moves, but is not left behind");
                };
                if let Some(done) = step(&pin, segment, row) {
                    return done;
                }
            }
            self.table.shape.settle();
        }
    }

    fn held(&self) -> Held {
        self.on_row(|_, _, row| Some(row.held()))
    }

    /// Replaces what the row holds, and gives it back.
    fn publish(self, held: Held) {
        let this = mem::ManuallyDrop::new(self);
        let mut held = Some(held);
        let was_large = this.on_row(|pin, segment, row| {
            row.open().then(|| {
                let held = held.take().unwrap_or(Held::None);
                this.table.close(this.key, segment, row, held, pin)
            })
        });
        if was_large {
            epoch::collect();
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if self.on_row(|_, _, row| row.unlock()) {
            parking::wake(self.key.hash());
        }
    }
}

impl Table {
    pub(crate) fn new(options: TableOptions) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self {
            id: IDS.fetch_add(1, Relaxed),
            name: options.name,
            r#type: options.r#type,
            access: options.access,
            shape: Shape::new(),
            tuples: AtomicIsize::new(0),
        }
    }

    /// A number that no other table of this process ever has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The name it was made with.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn table_type(&self) -> TableType {
        self.r#type
    }

    /// Inserts a tuple. In a set it replaces the key's tuple; in a bag an equal one stays.
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_unguarded()?;
        self.apply(KeyRef::new(key)?, &Write::Insert(Bytes::copy_of(value)?))
    }

    /// Inserts a tuple if the key has none; `Error::Exists` otherwise.
    pub fn insert_new(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_unguarded()?;
        let key = KeyRef::new(key)?;
        let held = Held::One(Bytes::copy_of(value)?).settled()?;
        self.write(key, true, |present| match present {
            Held::None => Ok(held),
            _ => Err(Error::Exists),
        })
    }

    /// All tuples of a key; `Error::NotFound` if there is none.
    pub fn lookup(&self, key: &[u8]) -> Result<Tuples> {
        self.snapshot(KeyRef::new(key)?)?.present()
    }

    /// Whether the key has a tuple.
    pub fn member(&self, key: &[u8]) -> Result<bool> {
        let key = KeyRef::new(key)?;
        let pin = pin();
        let segment = self.shape.segment(key.hash(), &pin);
        let row = segment.and_then(|segment| segment.get(key));
        Ok(row.is_some_and(|row| !row.is_vacant()))
    }

    /// Removes all tuples of a key and returns them; `Error::NotFound` if there is none.
    pub fn take(&self, key: &[u8]) -> Result<Tuples> {
        self.take_as(key, Ok)
    }

    /// As `take`, in the form that `view` gives them. If that fails, they stay.
    pub(crate) fn take_as<R>(
        &self,
        key: &[u8],
        view: impl FnOnce(Tuples) -> Result<R>,
    ) -> Result<R> {
        self.check_unguarded()?;
        let key = KeyRef::new(key)?;
        let row = self.lock(key, false)?.ok_or(Error::NotFound)?;
        let seen = view(self.snapshot(key)?.present()?)?;
        row.publish(Held::None);
        self.tidy(key);
        Ok(seen)
    }

    /// Removes all tuples of a key.
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.check_unguarded()?;
        let key = KeyRef::new(key)?;
        self.apply(key, &Write::Delete)?;
        self.tidy(key);
        Ok(())
    }

    /// Removes every instance of one tuple.
    pub fn delete_tuple(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_unguarded()?;
        let key = KeyRef::new(key)?;
        self.apply(key, &Write::DeleteTuple(Bytes::copy_of(value)?))?;
        self.tidy(key);
        Ok(())
    }

    /// Removes all tuples of all keys, one key at a time.
    pub fn clear(&self) -> Result<()> {
        self.check_unguarded()?;
        let mut keys = Keys::new();
        while let Some(key) = keys.turn(self)? {
            self.apply(key.by_ref(), &Write::Delete)?;
            self.tidy(key.by_ref());
            keys.pass();
        }
        epoch::collect();
        Ok(())
    }

    /// Adds to the key's counter, which is `initial` before it exists, and returns its new value.
    pub fn update_counter(&self, key: &[u8], add: i64, initial: i64) -> Result<i64> {
        self.check_unguarded()?;
        if self.r#type != TableType::Set {
            return Err(Error::Type);
        }
        let mut counter = 0;
        self.write(KeyRef::new(key)?, true, |present| {
            let old = match present {
                Held::None => initial,
                Held::One(value) => number(value)?,
                Held::Shared(_) => return Err(Error::Type),
            };
            counter = old.checked_add(add).ok_or(Error::Invalid)?;
            Ok(Held::One(Bytes::copy_of(&counter.to_ne_bytes())?))
        })?;
        Ok(counter)
    }

    /// How many tuples there are; exact when nothing writes.
    pub fn count(&self) -> usize {
        self.tuples.load(Relaxed).max(0).unsigned_abs()
    }

    /// The tuples of a key, perhaps none.
    pub(crate) fn snapshot(&self, key: KeyRef<'_>) -> Result<Tuples> {
        self.snapshot_at(key).map(|(tuples, _)| tuples)
    }

    /// As `snapshot`, and where they were found.
    ///
    /// A row that is gone will do. Nobody has changed it between the moment it moved and the moment its
    /// new map was found, and the old one was found before that: so what it holds is what the key had
    /// during this call.
    #[inline]
    pub(crate) fn snapshot_at(&self, key: KeyRef<'_>) -> Result<(Tuples, Option<Spot>)> {
        let pin = pin();
        let moment = self.shape.moment();
        let segment = self.shape.segment(key.hash(), &pin);
        let Some((row_key, row)) = segment.and_then(|segment| segment.get_with_key(key)) else {
            return Ok((Tuples { key: key.to_key()?, held: Held::None }, None));
        };
        let key = match row_key {
            RowKey::Long(key) => Key::clone(key),
            RowKey::Short { .. } => key.to_key()?,
        };
        let spot = Spot { moment, row: NonNull::from(row) };
        Ok((Tuples { key, held: row.read(&pin) }, Some(spot)))
    }

    /// Puts a value of a word in place of one, where that was found before. `false`: not there.
    #[inline]
    #[expect(unsafe_code, reason = "a spot is looked at when nothing was replaced since")]
    fn put_word_at(&self, spot: Spot, hash: u64, value: (usize, u64)) -> bool {
        let pin = pin();
        if !self.shape.is_as_at(spot.moment, &pin) {
            return false;
        }
        // SAFETY: the row of a segment that is there (`Shape::is_as_at`).
        let row = unsafe { spot.row.as_ref() };
        if row.seize().is_err() {
            return false;
        }
        let put = row.close_word(value);
        if put.unwrap_or_else(|| row.close_unchanged()) {
            parking::wake(hash);
        }
        put.is_some()
    }

    /// As `apply`, on the row of this key that was found before, in this table.
    #[inline]
    pub(crate) fn apply_at(
        &self,
        spot: Option<Spot>,
        key: KeyRef<'_>,
        write: &Write,
    ) -> Result<()> {
        if let (TableType::Set, Write::Insert(value), Some(spot)) = (self.r#type, write, spot)
            && let Some(word) = value.word()
            && self.put_word_at(spot, key.hash(), word)
        {
            return Ok(());
        }
        self.apply(key, write)
    }

    /// Makes one write. All of it, or nothing if there is no memory for it. Deletions want `tidy`.
    pub(crate) fn apply(&self, key: KeyRef<'_>, write: &Write) -> Result<()> {
        match (self.r#type, write) {
            (TableType::Set, Write::Insert(value)) => {
                let held = Held::One(value.clone()).settled()?;
                self.write(key, true, |_| Ok(held))
            }
            (_, Write::Delete) => self.write(key, false, |_| Ok(Held::None)),
            _ => {
                self.prepare(key, std::slice::from_ref(write))?.publish();
                Ok(())
            }
        }
    }

    /// Locks the row of a key, and makes what `writes` make of it, to be published.
    pub(crate) fn prepare<'a>(&'a self, key: KeyRef<'a>, writes: &[Write]) -> Result<Prepared<'a>> {
        let inserts = writes.iter().any(|write| matches!(write, Write::Insert(_)));
        let mut prepared = Prepared { row: None, after: Held::None, undo: None };
        if let Some(row) = self.lock(key, inserts)? {
            let Change { after, undo } = row.held().after(self.r#type, writes, LogIs::Own)?;
            prepared = Prepared { row: Some(row), after, undo };
        }
        Ok(prepared)
    }

    /// Gives back the memory of keys that were deleted, if it is much. WHY: apart from the deletion,
    /// which others wait for.
    pub(crate) fn tidy(&self, key: KeyRef<'_>) {
        let is_mostly_vacant = {
            let pin = pin();
            self.shape.segment(key.hash(), &pin).is_some_and(Segment::is_mostly_vacant)
        };
        if is_mostly_vacant {
            self.shape.tidy(key.hash());
        }
    }

    /// Writes what `change` makes of what a key has, in one step. It takes a few instructions.
    #[inline]
    fn write(
        &self,
        key: KeyRef<'_>,
        creates: bool,
        change: impl FnOnce(&Held) -> Result<Held>,
    ) -> Result<()> {
        loop {
            let obstacle = {
                let pin = pin();
                match self.take_row(key, creates, Take::ToWrite, &pin) {
                    Ok(None) => return Ok(()),
                    Ok(Some((segment, row))) => {
                        let busy = Busy { row, hash: key.hash() };
                        let held = change(&row.held())?;
                        mem::forget(busy);
                        let was_large = self.close(key, segment, row, held, &pin);
                        drop(pin);
                        if was_large {
                            epoch::collect();
                        }
                        return Ok(());
                    }
                    Err(obstacle) => obstacle,
                }
            };
            self.overcome(key, obstacle)?;
        }
    }

    /// Takes the row of a key to prepare a change; `None` if it has none and is to have none.
    fn lock<'a>(&'a self, key: KeyRef<'a>, creates: bool) -> Result<Option<Locked<'a>>> {
        loop {
            let obstacle = {
                let pin = pin();
                match self.take_row(key, creates, Take::ToPrepare, &pin) {
                    Ok(row) => return Ok(row.map(|_| Locked { table: self, key })),
                    Err(obstacle) => obstacle,
                }
            };
            self.overcome(key, obstacle)?;
        }
    }

    #[inline]
    fn take_row<'p>(
        &self,
        key: KeyRef<'_>,
        creates: bool,
        how: Take,
        pin: &'p Pin,
    ) -> std::result::Result<Option<(&'p Segment, &'p Row)>, Obstacle> {
        let Some(segment) = self.shape.segment(key.hash(), pin) else {
            return if creates { Err(Obstacle::Full(std::ptr::null())) } else { Ok(None) };
        };
        let row = match segment.get(key) {
            Some(row) => row,
            None if !creates => return Ok(None),
            None => match Self::make_row(segment, key, how)? {
                (row, true) => return Ok(Some((segment, row))),
                (row, false) => row,
            },
        };
        if !creates && row.is_vacant() {
            return Ok(None);
        }
        match how.take(row) {
            Ok(()) => Ok(Some((segment, row))),
            Err(Not::Here) => Err(Obstacle::Moving),
            Err(Not::Free) => Err(Obstacle::NotFree(parking::sleep_until_free(key.hash(), row))),
        }
    }

    /// A row for a key that had none, and whether it is this thread's: else somebody was first.
    #[inline(never)]
    fn make_row<'p>(
        segment: &'p Segment,
        key: KeyRef<'_>,
        how: Take,
    ) -> std::result::Result<(&'p Row, bool), Obstacle> {
        match segment.make(key, || how.new_row()) {
            Ok(Some(made)) => Ok(made),
            Ok(None) => Err(Obstacle::Moving),
            Err(NotMade::Full(segment)) => Err(Obstacle::Full(segment)),
            Err(NotMade::NoMemory) => Err(Obstacle::No(Error::NoMemory)),
            Err(NotMade::NoThread) => Err(Obstacle::No(Error::NoThread)),
        }
    }

    /// Unpinned (I4).
    #[cold]
    fn overcome(&self, key: KeyRef<'_>, obstacle: Obstacle) -> Result<()> {
        match obstacle {
            Obstacle::Full(segment) => return self.shape.make_room(key.hash(), segment),
            Obstacle::Moving => self.shape.settle(),
            Obstacle::NotFree(None) => {}
            Obstacle::NotFree(Some(sleep)) => sleep.sleep(),
            Obstacle::No(what) => return Err(what),
        }
        Ok(())
    }

    /// Replaces what a BUSY row holds, with what is settled, and gives it back. Whether that was large:
    /// then it is worth while to see at once whether it can be freed.
    #[inline]
    fn close(&self, key: KeyRef<'_>, segment: &Segment, row: &Row, held: Held, pin: &Pin) -> bool {
        let (before, after) = (row.len(), held.len());
        if before != after {
            self.tuples.fetch_add(after as isize - before as isize, Relaxed);
            if before == 0 || after == 0 {
                segment.count_living(key, after > 0);
            }
        }
        let log = held.log().cloned();
        let (old, waited) = row.close(held);
        if waited {
            parking::wake(key.hash());
        }
        retire(old, log.as_ref(), pin)
    }

    /// Adds the keys of a range to a list. Returns where the next one begins.
    fn range(&self, from: u64, keys: &mut Vec<Key>) -> Result<Option<u64>> {
        let pin = pin();
        let (segment, next) = self.shape.range(from, &pin);
        for (key, row) in segment.iter().flat_map(|segment| segment.rows()) {
            if !row.is_vacant() && key.hash() >= from {
                memory::push(keys, key.to_key()?)?;
            }
        }
        Ok(next)
    }

    fn check_unguarded(&self) -> Result<()> {
        match self.access {
            Access::Public => Ok(()),
            Access::Guarded => Err(Error::Guarded),
        }
    }
}

/// Lets go of what a row held, now that the row has something else: perhaps the same log. Whether it
/// was large.
#[inline]
#[expect(unsafe_code, reason = "a row that was written holds it no more")]
fn retire(old: Held, next: Option<&Shared<Log>>, pin: &Pin) -> bool {
    /// Of smaller ones a few may stay until other threads, or other calls, have taken notice.
    const SMALL: usize = 1024;
    const LARGE: usize = 64 * 1024;
    let Held::Shared(_) = old else { return false };
    let size = old.freed_for(next);
    // SAFETY: the row that led to it does not any more, and any thread may drop it.
    unsafe { pin.retire(old) };
    if size > SMALL {
        pin.flush();
    }
    size > LARGE
}

/// The number that a tuple holds; `Error::Type` unless its value is 8 bytes.
fn number(value: &Bytes) -> Result<i64> {
    value.as_slice().try_into().map(i64::from_ne_bytes).map_err(|_| Error::Type)
}
