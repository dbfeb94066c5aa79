//! Tables: tuples per key. The only file that knows flurry.
//!
//! A map of rows; a row holds a key, and the tuples of that key behind a mutex of its own. An update
//! of a key that has tuples touches its row alone; the map changes only when a key appears or
//! goes. No callback of a user ever runs in here.
//!
//! Invariants
//! I1. A row in the map has at least one tuple. The write that removes the last one also removes
//!     the row from the map, before it lets go of the row's mutex.
//! I2. A row that has left the map is empty for ever: who finds it so looks the key up again.
//! I3. A snapshot never changes: values are immutable, and a list that a snapshot shares is
//!     copied before it changes.
//! I4. The order is row mutex, then the map's own locks; never the other way round.
//! I5. One map guard per look at the map, never held over a wait for anything but a row's mutex.
//! I6. Rows that a thread used lately stay at hand for its next call. One that has left its map is
//!     found empty (I2), and one whose table has gone is never asked for: no number comes twice.
//! I7. Under the mutex of a row its version changes before its tuples do. So who has copied a tuple
//!     under the mutex has the tuple there is, as long as the version is the one it was copied at.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::collections::hash_set;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering::Relaxed};

use crate::bytes::{Bytes, Short};
use crate::error::{Error, Result};
use crate::key::{Key, KeyRef, Prehashed};
use crate::process;
use crate::sync::{Arc, Mutex, OnceLock};

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

/// The tuples of a key; at least one.
#[derive(Debug, Clone)]
enum Values {
    One(Bytes),
    Many(Arc<Vec<Bytes>>),
}

impl Values {
    fn as_slice(&self) -> &[Bytes] {
        match self {
            Values::One(value) => std::slice::from_ref(value),
            Values::Many(values) => values,
        }
    }

    /// The only one, if it is short.
    fn short_only(&self) -> Option<Short> {
        match self {
            Values::One(value) => value.short(),
            Values::Many(_) => None,
        }
    }
}

/// A change of the tuples of one key.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Insert(Bytes),
    Delete,
    DeleteTuple(Bytes),
}

impl Write {
    /// Whether the tuples after this write are the same whatever was there before.
    pub(crate) fn is_final(&self, r#type: TableType) -> bool {
        match self {
            Write::Insert(_) => r#type == TableType::Set,
            Write::Delete => true,
            Write::DeleteTuple(_) => false,
        }
    }
}

/// Makes `writes` in order, or none of them if there is no memory for the list. `room`: what
/// `Table::reserve` had for it.
#[inline(always)]
fn change(
    values: &mut Option<Values>,
    r#type: TableType,
    writes: &[Write],
    room: &mut Vec<Bytes>,
) -> Result<()> {
    if r#type != TableType::Set {
        return change_list(values, r#type, writes, room);
    }
    for write in writes {
        match write {
            Write::Insert(value) => *values = Some(Values::One(value.clone())),
            Write::Delete => *values = None,
            Write::DeleteTuple(value) => {
                values.take_if(|present| present.as_slice().contains(value));
            }
        }
    }
    Ok(())
}

/// As `change`, for tables of several tuples a key.
#[inline(never)]
fn change_list(
    values: &mut Option<Values>,
    r#type: TableType,
    writes: &[Write],
    room: &mut Vec<Bytes>,
) -> Result<()> {
    let (from_none, writes) = from_none(writes);
    match (&mut *values, writes) {
        (_, []) if from_none => *values = None,
        (_, []) => {}
        (None, [Write::Insert(value)]) => *values = Some(Values::One(value.clone())),
        (Some(Values::Many(list)), _) if !from_none => {
            make_room(list, writes.len())?;
            let list = Arc::make_mut(list); // It is not shared any more (I3).
            write_all(list, r#type, writes);
            if list.len() < 2 {
                *values = list.pop().map(Values::One);
            }
        }
        (present, _) => {
            let mut list = mem::take(room);
            list.try_reserve_exact(1 + writes.len()).map_err(|_| Error::NoMemory)?;
            if let (false, Some(Values::One(first))) = (from_none, present) {
                list.push(first.clone());
            }
            write_all(&mut list, r#type, writes);
            *values = match list.len() {
                0 | 1 => list.pop().map(Values::One),
                _ => Some(Values::Many(Arc::new(list))),
            };
        }
    }
    Ok(())
}

/// `writes` without a removal of everything at their front, and whether there was one.
fn from_none(writes: &[Write]) -> (bool, &[Write]) {
    match writes {
        [Write::Delete, rest @ ..] => (true, rest),
        _ => (false, writes),
    }
}

/// Makes `writes` in a list that has room for them.
fn write_all(list: &mut Vec<Bytes>, r#type: TableType, writes: &[Write]) {
    for write in writes {
        match write {
            // An equal tuple keeps its position (C-9).
            Write::Insert(value) if r#type == TableType::Bag && list.contains(value) => {}
            Write::Insert(value) => list.push(value.clone()),
            Write::Delete => list.clear(),
            Write::DeleteTuple(value) => list.retain(|present| present != value),
        }
    }
}

/// A snapshot of the tuples of one key: immutable, sharing the values with the table.
#[derive(Debug, Clone)]
pub struct Tuples {
    key: Key,
    values: Option<Values>,
}

impl Tuples {
    /// The key of every tuple.
    pub fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        count(&self.values)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_none()
    }

    /// The value of each tuple, in order.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.values.iter().flat_map(Values::as_slice).map(Bytes::as_slice)
    }

    /// These tuples after `writes`.
    pub(crate) fn after(mut self, r#type: TableType, writes: &[Write]) -> Result<Self> {
        change(&mut self.values, r#type, writes, &mut Vec::new())?;
        Ok(self)
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

fn count(values: &Option<Values>) -> usize {
    values.as_ref().map_or(0, |values| values.as_slice().len())
}

/// One key and its tuples. `None`: it has left the map (I2).
#[derive(Debug)]
struct Row {
    key: Key,
    version: AtomicU64,
    values: Mutex<Option<Values>>,
}

impl Row {
    fn new(key: Key, values: Option<Values>) -> Self {
        Self { key, version: AtomicU64::new(0), values: Mutex::new(values) }
    }

    /// ORDERING: coherence is all it takes (I7). A change comes before what is done after it, and so
    /// does its version.
    fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// To be called under the mutex, before the tuples change (I7).
    fn next_version(&self) {
        self.version.store(self.version() + 1, Relaxed);
    }
}

/// A row in the map, found by its key.
///
/// WHY: the row is the map's key, and its value is nothing. So a thread can keep a row at hand,
/// which it could not if the row were in the map's own memory.
#[derive(Debug, Clone)]
struct Place(Arc<Row>);

/// What has a key: a row of the map, and whoever looks for it.
trait Keyed {
    fn key(&self) -> KeyRef<'_>;
}

impl Keyed for Place {
    fn key(&self) -> KeyRef<'_> {
        self.0.key.by_ref()
    }
}

impl Keyed for KeyRef<'_> {
    fn key(&self) -> KeyRef<'_> {
        *self
    }
}

impl<'a> Borrow<dyn Keyed + 'a> for Place {
    fn borrow(&self) -> &(dyn Keyed + 'a) {
        self
    }
}

impl Hash for dyn Keyed + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Ord for dyn Keyed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for dyn Keyed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Keyed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Keyed + '_ {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Place {}

/// A row at hand.
#[derive(Debug)]
struct Known {
    table: u64,
    row: Arc<Row>,
    /// Its tuple, if it has a short one only, and the version it was copied at (I7).
    ///
    /// WHY: to read it takes no mutex, and those who read a key all the time do not wait for each
    /// other. Short, for what is at hand must not keep memory.
    copy: Option<Short>,
    version: u64,
}

impl Known {
    /// The tuple of a row that has a short one only, as far as is known.
    fn only_tuple(&self) -> Option<Short> {
        self.copy.filter(|_| self.version == self.row.version())
    }
}

/// The rows that this thread used lately (I6).
///
/// WHY: a look at the map, with its guard, costs as much as everything else that a small read does,
/// and a call with a lock looks twice. One place for a key: a look is one comparison.
type Lately = [Option<Known>; 8];

thread_local! {
    /// Made after the thread-locals that the map needs, so that it ends before them.
    ///
    /// WHY: not the map's own hasher, whose seeds are drawn when it is compiled: they would be in
    /// the library, and no two builds the same.
    ///
    /// WHY: with a gate. The map's reclaimer numbers threads, at their first use of a map and at
    /// their end, under a lock of its own, which a forked child would inherit as it stands (C-16).
    static LATELY: RefCell<Lately> = {
        static MAP: OnceLock<flurry::HashMap<u8, u8, Prehashed>> = OnceLock::new();
        process::undisturbed_by_fork(|| drop(MAP.get_or_init(Default::default).guard()));
        RefCell::default()
    };
}

/// Makes the thread-locals that tables need. `false`: they have ended.
pub(crate) fn begin_thread() -> bool {
    LATELY.try_with(|_| ()).is_ok()
}

/// Rows in memory.
pub struct Table {
    id: u64,
    name: Option<String>,
    r#type: TableType,
    access: Access,
    rows: flurry::HashMap<Place, (), Prehashed>,
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

impl Table {
    pub(crate) fn new(options: TableOptions) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self {
            id: IDS.fetch_add(1, Relaxed),
            name: options.name,
            r#type: options.r#type,
            access: options.access,
            rows: flurry::HashMap::with_hasher(Prehashed::default()),
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
        let (key, write) = (Key::new(key)?, Write::Insert(Bytes::copy_of(value)?));
        self.apply(&key, &[write], &mut Vec::new())
    }

    /// Inserts a tuple if the key has none; `Error::Exists` otherwise.
    pub fn insert_new(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_unguarded()?;
        let value = Bytes::copy_of(value)?;
        self.edit(&Key::new(key)?, |values| match values {
            Some(_) => Err(Error::Exists),
            None => {
                *values = Some(Values::One(value.clone()));
                Ok(())
            }
        })
    }

    /// All tuples of a key; `Error::NotFound` if there is none.
    pub fn lookup(&self, key: &[u8]) -> Result<Tuples> {
        self.snapshot(KeyRef::new(key)?)?.present()
    }

    /// Whether the key has a tuple.
    pub fn member(&self, key: &[u8]) -> Result<bool> {
        Ok(self.with_row(KeyRef::new(key)?, |_, _| ()).is_some())
    }

    /// Removes all tuples of a key and returns them; `Error::NotFound` if there is none.
    pub fn take(&self, key: &[u8]) -> Result<Tuples> {
        self.take_as(key, Ok)
    }

    /// As `take`, in the form that `view` gives them. If that fails, they stay.
    pub(crate) fn take_as<R>(
        &self,
        key: &[u8],
        mut view: impl FnMut(Tuples) -> Result<R>,
    ) -> Result<R> {
        self.check_unguarded()?;
        let key = Key::new(key)?;
        self.edit(&key, |values| {
            let tuples = Tuples { key: key.clone(), values: values.clone() };
            let seen = view(tuples.present()?)?;
            *values = None;
            Ok(seen)
        })
    }

    /// Removes all tuples of a key.
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.check_unguarded()?;
        self.apply(&Key::new(key)?, &[Write::Delete], &mut Vec::new())
    }

    /// Removes every instance of one tuple.
    pub fn delete_tuple(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_unguarded()?;
        let (key, write) = (Key::new(key)?, Write::DeleteTuple(Bytes::copy_of(value)?));
        self.apply(&key, &[write], &mut Vec::new())
    }

    /// Removes all tuples of all keys, one key at a time.
    pub fn clear(&self) -> Result<()> {
        self.check_unguarded()?;
        let mut keys = self.keys()?.into_iter();
        keys.try_for_each(|key| self.apply(&key, &[Write::Delete], &mut Vec::new()))
    }

    /// Adds to the key's counter, which is `initial` before it exists, and returns its new value.
    pub fn update_counter(&self, key: &[u8], add: i64, initial: i64) -> Result<i64> {
        self.check_unguarded()?;
        if self.r#type != TableType::Set {
            return Err(Error::Type);
        }
        self.edit(&Key::new(key)?, |values| {
            let old = match values {
                Some(present) => counter(present)?,
                None => initial,
            };
            let new = old.checked_add(add).ok_or(Error::Invalid)?;
            *values = Some(Values::One(Bytes::copy_of(&new.to_ne_bytes())?));
            Ok(new)
        })
    }

    /// How many tuples there are; exact when nothing writes.
    pub fn count(&self) -> usize {
        self.tuples.load(Relaxed).max(0).unsigned_abs()
    }

    /// The tuples of a key, perhaps none.
    pub(crate) fn snapshot(&self, key: KeyRef<'_>) -> Result<Tuples> {
        if let Some(tuples) = self.at_hand(key) {
            return Ok(tuples);
        }
        let view = |row: &Row, values: &mut Option<Values>| Tuples {
            key: row.key.clone(),
            values: values.clone(),
        };
        let none = || Ok(Tuples { key: key.to_key()?, values: None });
        self.with_row(key, view).map_or_else(none, Ok)
    }

    /// The tuples of a key that has a short one only, if this thread used it lately.
    #[inline]
    fn at_hand(&self, key: KeyRef<'_>) -> Option<Tuples> {
        let find = |lately: &RefCell<Lately>| {
            let mut lately = lately.borrow_mut();
            let place = key.place(&mut *lately).as_ref();
            let known = place.filter(|known| self.is_row_of(known, key))?;
            let values = Some(Values::One(known.only_tuple()?.into()));
            Some(Tuples { key: known.row.key.clone(), values })
        };
        LATELY.try_with(find).ok().flatten()
    }

    /// Takes the memory that `writes` to a key need: in the list of its tuples, or else in the one
    /// that it returns (C-7).
    pub(crate) fn reserve(&self, key: &Key, writes: &[Write]) -> Result<Vec<Bytes>> {
        let mut room = Vec::new();
        if self.r#type == TableType::Set {
            return Ok(room); // An insert takes the place of the tuple before.
        }
        let (from_none, writes) = from_none(writes);
        let in_list = self.with_row(key.by_ref(), |_, values| match values {
            Some(Values::Many(list)) if !from_none => Some(make_room(list, writes.len())),
            _ => None,
        });
        match in_list.flatten() {
            Some(made) => made?,
            None if writes.len() < 2 => {}
            None => room.try_reserve_exact(1 + writes.len()).map_err(|_| Error::NoMemory)?,
        }
        Ok(room)
    }

    /// Makes `writes` in order, visible in one step; none if there is no memory for them. After
    /// `reserve` there is, unless somebody else wrote, or a snapshot shares the list, since.
    pub(crate) fn apply(&self, key: &Key, writes: &[Write], room: &mut Vec<Bytes>) -> Result<()> {
        self.edit(key, |values| change(values, self.r#type, writes, room))
    }

    /// Changes the tuples of a key in one step. `change` runs again if the key appeared meanwhile;
    /// what it did before is forgotten then.
    #[inline]
    fn edit<R>(&self, key: &Key, mut change: impl FnMut(&mut Option<Values>) -> R) -> R {
        loop {
            let changed = self.with_row(key.by_ref(), |row, values| {
                row.next_version();
                let before = count(values);
                let answer = change(values);
                self.add_tuples(before, count(values));
                if values.is_none() {
                    self.remove(key); // I1
                }
                answer
            });
            if let Some(answer) = changed.or_else(|| self.begin_row(key, &mut change)) {
                return answer;
            }
        }
    }

    /// As `edit`, for a key that has no tuples; `None` if it got some meanwhile.
    #[cold]
    fn begin_row<R>(
        &self,
        key: &Key,
        change: &mut impl FnMut(&mut Option<Values>) -> R,
    ) -> Option<R> {
        let mut values = None;
        let answer = change(&mut values);
        let added = count(&values);
        if added > 0 {
            let row = Arc::new(Row::new(key.clone(), values));
            self.rows.try_insert(Place(row), (), &self.enter()).ok()?;
            self.add_tuples(0, added);
        }
        Some(answer)
    }

    /// Runs `body` on the tuples of a key, under the mutex of its row; `None` if it has none.
    #[inline(always)]
    fn with_row<R>(
        &self,
        key: KeyRef<'_>,
        mut body: impl FnMut(&Row, &mut Option<Values>) -> R,
    ) -> Option<R> {
        let at_hand = |lately: &RefCell<Lately>| {
            self.with_row_at(key.place(&mut *lately.borrow_mut()), key, &mut body)
        };
        if let Ok(answer) = LATELY.try_with(at_hand) {
            return answer;
        }
        let mut answer = None;
        self.with_row_of_map(key, &mut |row, values| answer = Some(body(row, values)));
        answer
    }

    /// As `with_row`, on a thread whose locals have ended, and which keeps nothing.
    #[cold]
    fn with_row_of_map(&self, key: KeyRef<'_>, body: &mut dyn FnMut(&Row, &mut Option<Values>)) {
        self.with_row_at(&mut None, key, &mut &mut *body);
    }

    /// As `with_row`, with a place for the row.
    #[inline(always)]
    fn with_row_at<R>(
        &self,
        place: &mut Option<Known>,
        key: KeyRef<'_>,
        body: &mut impl FnMut(&Row, &mut Option<Values>) -> R,
    ) -> Option<R> {
        loop {
            let known = match place {
                Some(known) if self.is_row_of(known, key) => known,
                _ => self.find(key, place)?,
            };
            let mut values = known.row.values.lock();
            if values.is_some() {
                let answer = body(&known.row, &mut values);
                known.copy = values.as_ref().and_then(Values::short_only);
                known.version = known.row.version();
                return Some(answer);
            }
            // It has left the map (I2).
            drop(values);
            *place = None;
        }
    }

    fn is_row_of(&self, known: &Known, key: KeyRef<'_>) -> bool {
        known.table == self.id && known.row.key.is(key)
    }

    /// Finds the row of a key in the map, and keeps it at hand.
    #[inline(never)]
    fn find<'a>(&self, key: KeyRef<'_>, place: &'a mut Option<Known>) -> Option<&'a mut Known> {
        let guard = self.enter();
        let key: &dyn Keyed = &key;
        let (Place(row), ()) = self.rows.get_key_value(key, &guard)?;
        let row = Arc::clone(row);
        Some(place.insert(Known { table: self.id, row, copy: None, version: 0 }))
    }

    fn remove(&self, key: &Key) {
        let key: &dyn Keyed = &key.by_ref();
        self.rows.remove(key, &self.enter());
    }

    fn add_tuples(&self, before: usize, after: usize) {
        if before != after {
            self.tuples.fetch_add(after as isize - before as isize, Relaxed);
        }
    }

    /// The keys, each once.
    ///
    /// WHY: a set. The map's iterator follows the chain of a bucket, and meets a key again that
    /// was removed and inserted behind it.
    fn keys(&self) -> Result<HashSet<Key, Prehashed>> {
        let guard = self.enter();
        let mut keys = HashSet::default();
        for Place(row) in self.rows.keys(&guard) {
            keys.try_reserve(1).map_err(|_| Error::NoMemory)?;
            keys.insert(row.key.clone());
        }
        Ok(keys)
    }

    fn enter(&self) -> flurry::Guard<'_> {
        begin_thread();
        self.rows.guard()
    }

    fn check_unguarded(&self) -> Result<()> {
        match self.access {
            Access::Public => Ok(()),
            Access::Guarded => Err(Error::Guarded),
        }
    }
}

impl Drop for Table {
    /// Frees the tuples, also those of rows that threads keep at hand.
    fn drop(&mut self) {
        // A thread whose locals have ended cannot look at the map.
        if begin_thread() {
            for Place(row) in self.rows.keys(&self.enter()) {
                row.values.lock().take();
            }
        }
    }
}

/// Room for `more` values in a list of one's own, with the same values.
fn make_room(list: &mut Arc<Vec<Bytes>>, more: usize) -> Result<()> {
    let no_memory = |_| Error::NoMemory;
    if let Some(own) = Arc::get_mut(list) {
        return own.try_reserve(more).map_err(no_memory);
    }
    let mut copy = Vec::new();
    copy.try_reserve(list.len() + more).map_err(no_memory)?;
    copy.extend_from_slice(list);
    *list = Arc::new(copy);
    Ok(())
}

/// The number that a tuple holds; `Error::Type` unless its value is 8 bytes.
fn counter(values: &Values) -> Result<i64> {
    let value = values.as_slice().first().map_or(&[][..], Bytes::as_slice);
    value.try_into().map(i64::from_ne_bytes).map_err(|_| Error::Type)
}

/// A pull iteration over a table: the keys as they were at its start, each with its tuples as
/// they are when its turn comes.
#[derive(Debug)]
pub struct Cursor {
    table: Arc<Table>,
    keys: hash_set::IntoIter<Key>,
}

impl Cursor {
    pub(crate) fn new(table: Arc<Table>) -> Result<Self> {
        Ok(Self { keys: table.keys()?.into_iter(), table })
    }
}

impl Iterator for Cursor {
    type Item = Tuples;

    fn next(&mut self) -> Option<Tuples> {
        self.keys.by_ref().find_map(|key| self.table.snapshot(key.by_ref()).ok()?.present().ok())
    }
}
