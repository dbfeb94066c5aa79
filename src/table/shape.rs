//! The maps of a table: one for each range of hashes, as many as its rows need.
//!
//! The directory leads from the first bits of a hash to the segment of that range. A segment whose
//! map is full is replaced by a larger one, or by two, each for half the range; one that is mostly
//! vacant by a smaller one, or by one for its range and its neighbour's. So growth and shrinking cost
//! each time what one map does, and what a table keeps follows what is in it.
//!
//! Invariants
//! I1. Each hash has one segment at a time, and a row of each key at most. A segment is replaced
//!     under the table's mutex, with its own mutex held: nobody inserts into it meanwhile, and who
//!     comes later finds it closed.
//! I2. A row moves with its lock, whoever has that; nobody is waited for but a writer that is BUSY,
//!     which is a few instructions. Between the moment a row is gone and the moment its new map is
//!     in the directory nobody can change it, and readers read it where it was.
//! I3. A vacant row that nobody has is left behind.
//! I4. A segment that was replaced is retired, and so is a directory. Who looks is pinned.
//! I5. The order is row, table's mutex, segment's mutex. Who holds a mutex waits for no row.
//! I6. What a segment's rows weigh is counted when they are inserted and moved; what the living ones
//!     weigh, while their row is BUSY: so it is counted where the row is.

#![expect(unsafe_code, reason = "segments and directories are retired, argued from I1 and I4")]

use std::fmt;
use std::ptr;
use std::sync::atomic::{
    AtomicPtr, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use super::epoch::{Pin, collect, pin};
use super::map::{Bins, Map, ROW, RowKey, begin_thread, check_room_for_row, check_room_for_rows};
use super::row::Row;
use crate::error::{Error, Result};
use crate::key::KeyRef;
use crate::memory;
use crate::sync::Mutex;

/// The fewest and the most bins of a map. WHY: the most rows that move at once, and stop an insert
/// meanwhile, are three quarters of it: 2 ms.
const FEWEST: usize = 64;
const MOST: usize = 4096;

/// With more rows than this a map is split, with fewer it shares one with its neighbour.
const SPLIT: usize = MOST / 2;
const MERGE: usize = MOST / 8;

/// What vacant rows may weigh besides as much as the living: a map that is made anew for less would
/// cost too much.
const SLACK: usize = 64 * ROW;

/// The rows of a range of hashes.
#[repr(C)] // What every call looks at comes first, in one cache line.
pub(super) struct Segment {
    map: Map,
    /// How many of the first bits of a hash its range has in common.
    bits: u32,
    /// What its rows weigh, and those that are not vacant (I6).
    weight: AtomicUsize,
    living: AtomicUsize,
    insertions: Mutex<Insertions>,
    /// The next one in the list of the dead.
    next_dead: *mut Segment,
}

// SAFETY: the list of the dead is its only pointer, and whoever takes that has it alone.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

struct Insertions {
    bins: Bins,
    closed: bool,
}

struct Directory {
    bits: u32,
    slots: Vec<AtomicPtr<Segment>>,
}

/// How many segments have as many bits as the directory: without one, half of it will do.
struct Deepest(usize);

/// The maps of a table.
pub(super) struct Shape {
    directory: AtomicPtr<Directory>,
    /// Counts the segments that were replaced, each before it is retired (`Spot`).
    replaced: AtomicU64,
    /// Held while a segment is replaced.
    replacing: Mutex<Deepest>,
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pin = pin();
        let bits = self.directory(&pin).map(|directory| directory.bits);
        f.debug_struct("Shape").field("bits", &bits).finish_non_exhaustive()
    }
}

/// Why a row was not made.
pub(super) enum NotMade {
    /// `make_room` first, for this segment.
    Full(*const Segment),
    NoMemory,
    /// The thread has ended but for its last destructors; see `ffi/ending`.
    NoThread,
}

/// The first `bits` bits of a hash.
fn first_bits(hash: u64, bits: u32) -> usize {
    // In two steps: none of them is a shift by all bits.
    (hash >> 1 >> (63 - bits)) as usize
}

/// What a row weighs, by its key.
fn weight(long_key: usize) -> usize {
    ROW + long_key
}

impl Segment {
    /// An empty one, with bins that count the rows that are to come.
    fn new(bits: u32, bins: Bins) -> Result<Box<Self>> {
        let map = Map::new(bins.count())?;
        memory::boxed(Self {
            map,
            bits,
            weight: AtomicUsize::new(0),
            living: AtomicUsize::new(0),
            insertions: Mutex::new(Insertions { bins, closed: false }),
            next_dead: ptr::null_mut(),
        })
    }

    /// The row of a key.
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>) -> Option<&Row> {
        self.map.get(key)
    }

    /// The row of a key, with the key.
    pub(super) fn get_with_key(&self, key: KeyRef<'_>) -> Option<(&RowKey, &Row)> {
        self.map.get_with_key(key)
    }

    /// All rows that the map has.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.map.rows()
    }

    /// Counts that the row of a key, which is BUSY, begins or ceases to be vacant.
    pub(super) fn count_living(&self, key: KeyRef<'_>, lives: bool) {
        let weight = weight(RowKey::heap_of(key));
        if lives {
            self.living.fetch_add(weight, Relaxed);
        } else {
            self.living.fetch_sub(weight, Relaxed);
        }
    }

    /// Whether it keeps too much for what is in it.
    pub(super) fn is_mostly_vacant(&self) -> bool {
        let living = self.living.load(Relaxed);
        self.weight.load(Relaxed).saturating_sub(living) > living + SLACK
    }

    /// Makes a row for a key that has none. The row is its maker's; another one that was first is
    /// nobody's. `Ok(None)`: the segment is closed.
    pub(super) fn make(
        &self,
        key: KeyRef<'_>,
        row: impl FnOnce() -> Row,
    ) -> std::result::Result<Option<(&Row, bool)>, NotMade> {
        let mut insertions = self.insertions.lock();
        if insertions.closed {
            return Ok(None);
        }
        if let Some(row) = self.map.get(key) {
            return Ok(Some((row, false)));
        }
        let room = RowKey::of(key).and_then(|key| check_room_for_row().map(|()| key));
        let Ok(row_key) = room else { return Err(NotMade::NoMemory) };
        if !begin_thread() {
            return Err(NotMade::NoThread);
        }
        if !insertions.bins.may_take(key.hash()) {
            return Err(NotMade::Full(self));
        }
        self.weight.fetch_add(weight(RowKey::heap_of(key)), Relaxed);
        // SAFETY: under the mutex of insertions, and counted by the bins of this map.
        let row = unsafe { self.map.insert(row_key, row()) };
        Ok(Some((row, true)))
    }

    /// Adds a row that moves here, before anybody sees the segment.
    ///
    /// # Safety
    /// The bins have counted it, and the segment is its maker's alone.
    unsafe fn add(&self, key: RowKey, row: Row) {
        let weight = weight(key.heap());
        self.weight.fetch_add(weight, Relaxed);
        if !row.is_vacant() {
            self.living.fetch_add(weight, Relaxed);
        }
        // SAFETY: the contract above.
        unsafe { self.map.insert(key, row) };
    }
}

/// Rows that move to a segment that is made for them.
struct Target<'a> {
    bits: u32,
    rows: Vec<(u64, &'a RowKey, &'a Row)>,
}

impl<'a> Target<'a> {
    /// The segment for them; there is room for one more, of this hash.
    fn make(&self, one_more: Option<u64>) -> Result<Box<Segment>> {
        /// No bin gets that crowded.
        const TOO_MANY: usize = MOST * 64;
        let mut count = (self.rows.len() * 8 / 3).next_power_of_two().clamp(FEWEST, MOST);
        loop {
            let mut bins = Bins::new(count)?;
            let all = self.rows.iter().all(|(hash, ..)| bins.may_take(*hash));
            if all && one_more.is_none_or(|hash| bins.has_room_for(hash)) {
                return Segment::new(self.bits, bins);
            }
            count *= 2;
            if count > TOO_MANY {
                return Err(Error::NoMemory);
            }
        }
    }

    /// Two of them, by the next bit of the hash.
    fn split(self) -> Result<[Self; 2]> {
        let bits = self.bits + 1;
        let (mut low, mut high) = (memory::list(self.rows.len())?, memory::list(self.rows.len())?);
        for row in self.rows {
            if first_bits(row.0, bits) & 1 == 0 { low.push(row) } else { high.push(row) }
        }
        Ok([Self { bits, rows: low }, Self { bits, rows: high }])
    }
}

/// Rows that were left and come back if their new segment is not to be had.
struct Leaving<'a>(Vec<&'a Segment>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        for segment in &self.0 {
            segment.map.rows().for_each(|(_, row)| row.come_back());
        }
    }
}

impl Shape {
    pub(super) const fn new() -> Self {
        Self {
            directory: AtomicPtr::new(ptr::null_mut()),
            replaced: AtomicU64::new(0),
            replacing: Mutex::new(Deepest(0)),
        }
    }

    #[inline]
    fn directory<'p>(&self, _: &'p Pin) -> Option<&'p Directory> {
        // ORDERING: pairs with `publish`.
        // SAFETY: retired when it is replaced, and whoever looks is pinned (I4).
        unsafe { self.directory.load(Acquire).as_ref() }
    }

    /// The segment of a hash; `None` before the first row.
    #[inline]
    pub(super) fn segment<'p>(&self, hash: u64, pin: &'p Pin) -> Option<&'p Segment> {
        let directory = self.directory(pin)?;
        let slot = &directory.slots[first_bits(hash, directory.bits)];
        // ORDERING: pairs with `publish`.
        // SAFETY: as for the directory; no slot is null.
        unsafe { slot.load(Acquire).as_ref() }
    }

    /// A moment, for `is_as_at`.
    #[inline]
    pub(super) fn moment(&self) -> u64 {
        self.replaced.load(Acquire)
    }

    /// Whether no segment was replaced since. So one that was found after that moment is there, and
    /// as it is counted before it is retired, it stays as long as the pin.
    #[inline]
    pub(super) fn is_as_at(&self, moment: u64, _: &Pin) -> bool {
        self.moment() == moment
    }

    /// The segment of a hash, and where the range of the next one begins.
    pub(super) fn range<'p>(&self, from: u64, pin: &'p Pin) -> (Option<&'p Segment>, Option<u64>) {
        let Some(segment) = self.segment(from, pin) else { return (None, None) };
        let last = from | u64::MAX.checked_shr(segment.bits).unwrap_or(0);
        (Some(segment), last.checked_add(1))
    }

    /// Waits until the segment that is being replaced is. To be called unpinned.
    #[cold]
    pub(super) fn settle(&self) {
        drop(self.replacing.lock());
    }

    /// Makes room for a row of this hash, in place of a segment that had none. To be called unpinned.
    #[cold]
    pub(super) fn make_room(&self, hash: u64, full: *const Segment) -> Result<()> {
        if !begin_thread() {
            return Err(Error::NoThread);
        }
        bury();
        let mut deepest = self.replacing.lock();
        let pin = pin();
        match self.segment(hash, &pin) {
            None => self.begin(&mut deepest),
            Some(segment) if ptr::eq(segment, full) => {
                self.replace(segment, hash, Some(hash), &mut deepest, &pin)
            }
            Some(_) => Ok(()), // Somebody else has made it.
        }
    }

    /// Gives back what the segment of this hash does not need. To be called unpinned.
    ///
    /// If there is no memory for it, then another time.
    #[cold]
    pub(super) fn tidy(&self, hash: u64) {
        if !begin_thread() {
            return;
        }
        {
            let mut deepest = self.replacing.lock();
            let pin = pin();
            for step in 0..u64::BITS {
                let Some(segment) = self.segment(hash, &pin) else { break };
                // Who has become smaller may have become small enough for its neighbour.
                let needs_it = match step {
                    0 => segment.is_mostly_vacant(),
                    _ => self.neighbour(segment, hash, &pin).is_some(),
                };
                if !needs_it || self.replace(segment, hash, None, &mut deepest, &pin).is_err() {
                    break;
                }
            }
        }
        collect();
        bury();
    }

    /// The first segment.
    fn begin(&self, deepest: &mut Deepest) -> Result<()> {
        let segment = Segment::new(0, Bins::new(FEWEST)?)?;
        let mut slots = memory::list(1)?;
        let directory = memory::boxed(Directory { bits: 0, slots: Vec::new() })?;
        slots.push(AtomicPtr::new(Box::into_raw(segment)));
        let directory = Box::leak(directory);
        directory.slots = slots;
        self.directory.store(directory, Release);
        deepest.0 = 1;
        Ok(())
    }

    /// The segment of the other half of a range, if both have few enough rows for one.
    fn neighbour<'p>(&self, segment: &Segment, hash: u64, pin: &'p Pin) -> Option<&'p Segment> {
        let half = 1_u64.checked_shl(64 - segment.bits)?;
        let neighbour = self.segment(hash ^ half, pin)?;
        let is_small = |segment: &Segment| segment.living.load(Relaxed) < MERGE * ROW;
        let both = segment.bits == neighbour.bits && is_small(segment) && is_small(neighbour);
        both.then_some(neighbour)
    }

    /// Replaces the segment of a hash, under the table's mutex; nothing changes without the memory.
    fn replace(
        &self,
        segment: &Segment,
        hash: u64,
        one_more: Option<u64>,
        deepest: &mut Deepest,
        pin: &Pin,
    ) -> Result<()> {
        let Some(directory) = self.directory(pin) else { return Ok(()) };
        let neighbour = match one_more {
            Some(_) => None,
            None => self.neighbour(segment, hash, pin),
        };
        let mut insertions = segment.insertions.lock();
        let mut neighbours = neighbour.map(|neighbour| neighbour.insertions.lock());

        // Nobody inserts any more. The vacant rows are left first: nobody fills them meanwhile.
        let others = neighbours.as_ref().map_or(0, |neighbours| neighbours.bins.rows());
        let mut rows = memory::list(insertions.bins.rows() + others)?;
        let mut leaving = Leaving(memory::list(2)?);
        leaving.0.push(segment);
        leaving.0.extend(neighbour);
        for (key, row) in leaving.0.iter().flat_map(|segment| segment.map.rows()) {
            if !row.leave_vacant() {
                rows.push((key.hash(), key, row));
            }
        }

        let bits = segment.bits - u32::from(neighbour.is_some());
        let all = Target { bits, rows };
        check_room_for_rows(all.rows.len())?;
        let mut larger = None;
        let mut targets = memory::list(2)?;
        if all.rows.len() > SPLIT && bits < 48 {
            if bits == directory.bits {
                larger = Some(directory.resized(bits + 1)?);
            }
            let [low, high] = all.split()?;
            targets.push((
                low.make(one_more.filter(|hash| first_bits(*hash, bits + 1) & 1 == 0))?,
                low,
            ));
            targets.push((
                high.make(one_more.filter(|hash| first_bits(*hash, bits + 1) & 1 == 1))?,
                high,
            ));
        } else {
            targets.push((all.make(one_more)?, all));
        }

        // From here on nothing fails.
        let segments = std::mem::take(&mut leaving.0);
        for (made, target) in &targets {
            for (_, key, row) in &target.rows {
                // SAFETY: its bins have counted the rows, and nobody has seen it.
                unsafe { made.add(RowKey::clone(key), row.leave()) };
            }
        }
        let was_deepest = |segment: &&&Segment| segment.bits == directory.bits;
        deepest.0 -= segments.iter().filter(was_deepest).count();
        let in_it = larger.as_deref().unwrap_or(directory);
        if larger.is_some() {
            deepest.0 = 0;
        }
        let first = first_bits(hash, bits) << (targets.len() - 1);
        for (place, (made, _)) in targets.into_iter().enumerate() {
            deepest.0 += usize::from(made.bits == in_it.bits);
            in_it.set(first + place, made);
        }
        if let Some(larger) = larger {
            self.replace_directory(directory, larger, pin);
        }
        // ORDERING: pairs with `Shape::is_as_at`.
        self.replaced.fetch_add(1, Release);
        insertions.closed = true;
        if let Some(neighbours) = &mut neighbours {
            neighbours.closed = true;
        }
        drop((insertions, neighbours));
        for segment in segments {
            // SAFETY: made from a box, and no directory leads to it any more.
            unsafe { pin.retire(Dying(ptr::from_ref(segment).cast_mut())) };
        }
        self.shrink_directory(deepest, pin);
        pin.flush();
        Ok(())
    }

    fn replace_directory(&self, old: &Directory, new: Box<Directory>, pin: &Pin) {
        // ORDERING: pairs with `directory`.
        self.directory.store(Box::into_raw(new), Release);
        // SAFETY: made from a box, and nobody finds it any more.
        unsafe { pin.retire(Old(ptr::from_ref(old).cast_mut())) };
    }

    /// Halves a directory that has each segment twice, as long as it has.
    fn shrink_directory(&self, deepest: &mut Deepest, pin: &Pin) {
        while deepest.0 == 0
            && let Some(directory) = self.directory(pin)
            && directory.bits > 0
            && let Ok(half) = directory.resized(directory.bits - 1)
        {
            deepest.0 = half.deepest();
            self.replace_directory(directory, half, pin);
        }
    }
}

/// Segments that nobody sees any more.
///
/// WHY: a list, not dropped when their time has come. That is found out by whoever pins then, most often
/// a reader, who would spend milliseconds on it. A child of a fork frees its copies of its parent's.
static DEAD: AtomicPtr<Segment> = AtomicPtr::new(ptr::null_mut());

/// Goes to the list of the dead when it is dropped.
struct Dying(*mut Segment);

impl Drop for Dying {
    fn drop(&mut self) {
        let mut head = DEAD.load(Relaxed);
        loop {
            // SAFETY: from a box, and nobody sees it any more.
            unsafe { (*self.0).next_dead = head };
            // ORDERING: Release pairs with `bury`.
            match DEAD.compare_exchange_weak(head, self.0, Release, Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }
}

/// Is freed when it is dropped.
struct Old(*mut Directory);

impl Drop for Old {
    fn drop(&mut self) {
        // SAFETY: from a box, and nobody sees it any more.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Frees the segments that nobody sees any more: the work of those who replace some.
fn bury() {
    // ORDERING: pairs with `Dying`.
    let mut next = DEAD.swap(ptr::null_mut(), Acquire);
    while !next.is_null() {
        // SAFETY: made from a box, and in this list alone.
        let dead = unsafe { Box::from_raw(next) };
        next = dead.next_dead;
    }
}

impl Directory {
    /// The same, for one bit more or less.
    fn resized(&self, bits: u32) -> Result<Box<Self>> {
        let mut slots = memory::list(1 << bits)?;
        let slot = |index: usize| {
            let old = if bits > self.bits { index >> 1 } else { index << 1 };
            AtomicPtr::new(self.slots[old].load(Relaxed))
        };
        slots.extend((0..1 << bits).map(slot));
        memory::boxed(Self { bits, slots })
    }

    /// Leads the range of this prefix, which has as many bits as the segment's, to it.
    fn set(&self, prefix: usize, segment: Box<Segment>) {
        let width = self.bits - segment.bits;
        let segment = Box::into_raw(segment);
        for slot in &self.slots[prefix << width..(prefix + 1) << width] {
            // ORDERING: pairs with `Shape::segment`.
            slot.store(segment, Release);
        }
    }

    /// How many segments have as many bits.
    fn deepest(&self) -> usize {
        let is_deepest = |slot: &&AtomicPtr<Segment>| {
            // SAFETY: what a directory leads to is there, under the table's mutex.
            unsafe { &*slot.load(Relaxed) }.bits == self.bits
        };
        self.slots.iter().filter(is_deepest).count()
    }
}

impl Drop for Shape {
    fn drop(&mut self) {
        collect();
        bury();
        let directory = *self.directory.get_mut();
        if directory.is_null() {
            return;
        }
        // SAFETY: made from a box; nobody looks any more.
        let mut directory = unsafe { Box::from_raw(directory) };
        directory.slots.dedup_by_key(|slot| *slot.get_mut());
        for slot in &mut directory.slots {
            // SAFETY: made from a box; the slots of a segment are next to each other.
            drop(unsafe { Box::from_raw(*slot.get_mut()) });
        }
    }
}
