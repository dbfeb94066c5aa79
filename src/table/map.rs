//! One map of rows. The only file that knows flurry.
//!
//! A map has a fixed number of bins, and takes rows but never gives one up: what is not needed any
//! more is left behind when the rows move to another map (`shape`).
//!
//! Invariants
//! I1. The map never retires anything. It would when it grows, which it does not as long as three
//!     quarters of its bins are as many as its rows; or when a bin becomes a tree, which it does not
//!     as long as the bin has at most `LONGEST` rows. `may_take` sees to both.
//! I2. So a look at it needs no guard of its own: what is found stays as long as the map does. Who
//!     looks is pinned, and the map is retired (`shape`).
//! I3. One thread inserts at a time.
//!
//! WHY: not the map's own growth and its own guards. One insert in a million would move a million
//! rows (1.2 s at 3 million keys), and each map keeps garbage of its own for each thread, in
//! proportion to the square of their number (1.1 GiB in an empty table that 3,000 threads have used).

#![expect(unsafe_code, reason = "guards that guard nothing, argued from I1 and I2")]

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::row::Row;
use crate::error::Result;
use crate::key::{Key, KeyRef, Prehashed, hash_of};
use crate::memory::{self, Shared};
use crate::process;
use crate::sync::OnceLock;

/// The most rows of a bin (I1). The map makes a tree of one that has as many and gets another.
const LONGEST: u8 = 8;

/// What the map allocates for a row, in a way that cannot fail.
const BLOCKS: [usize; 2] = [96, 24];

/// What that takes of the heap, with what the allocator adds.
pub(super) const ROW: usize = 112 + 32;

/// `Error::NoMemory` if there is none for one more row.
pub(super) fn check_room_for_row() -> Result<()> {
    memory::check_room_for_blocks(BLOCKS)
}

/// `Error::NoMemory` if there is none for two maps and so many rows.
pub(super) fn check_room_for_rows(rows: usize) -> Result<()> {
    /// What an allocator may take at once for small pieces; a map takes much less.
    const SPARE: usize = 2 << 20;
    memory::check_room_for(rows * ROW + SPARE)
}

thread_local! {
    /// WHY: with a gate. The map's reclaimer numbers threads, at their first use of a map and at
    /// their end, under a lock of its own, which a forked child would inherit as it stands (C-16).
    static NUMBERED: NumberedThread = {
        static MAP: OnceLock<flurry::HashMap<u8, u8, Prehashed>> = OnceLock::new();
        process::undisturbed_by_fork(|| drop(MAP.get_or_init(Default::default).guard()));
        NumberedThread
    };
}

struct NumberedThread;

impl Drop for NumberedThread {
    // Only a type that needs dropping has an end that can be seen.
    fn drop(&mut self) {}
}

/// Makes the thread-locals that the map needs to insert. `false`: they have ended.
pub(super) fn begin_thread() -> bool {
    NUMBERED.try_with(|_| ()).is_ok()
}

/// A key in a map.
///
/// WHY: short ones in place, in two words: the node of the map is 16 bytes larger with a `Key`.
#[derive(Debug, Clone)]
pub(super) enum RowKey {
    Short { len: u8, bytes: [u8; IN_PLACE], hash: u32 },
    Long(Shared<Key>),
}

/// The longest key that is kept in place.
const IN_PLACE: usize = 10;

impl RowKey {
    /// A key of up to `IN_PLACE` bytes.
    #[inline]
    fn short(key: KeyRef<'_>) -> Option<Self> {
        let source = key.as_bytes();
        let mut bytes = [0; IN_PLACE];
        // WHY: numbers apart, as in `Bytes`: one load and one store.
        match source.first_chunk::<8>() {
            Some(number) if source.len() == 8 => bytes[..8].copy_from_slice(number),
            _ => bytes.get_mut(..source.len())?.copy_from_slice(source),
        }
        Some(Self::Short { len: source.len() as u8, bytes, hash: key.hash() as u32 })
    }

    /// A copy of one's own.
    pub(super) fn of(key: KeyRef<'_>) -> Result<Self> {
        match Self::short(key) {
            Some(short) => Ok(short),
            None => Ok(Self::Long(Shared::new(key.to_key()?)?)),
        }
    }

    pub(super) fn to_key(&self) -> Result<Key> {
        match self {
            RowKey::Short { len, bytes, .. } => Key::new(&bytes[..usize::from(*len)]),
            RowKey::Long(key) => Ok(Key::clone(key)),
        }
    }

    pub(super) fn hash(&self) -> u64 {
        match self {
            RowKey::Short { len, bytes, .. } => hash_of(&bytes[..usize::from(*len)]),
            RowKey::Long(key) => key.by_ref().hash(),
        }
    }

    /// How many bytes it keeps on the heap.
    pub(super) fn heap(&self) -> usize {
        match self {
            RowKey::Short { .. } => 0,
            RowKey::Long(key) => Self::heap_of(key.by_ref()),
        }
    }

    /// How many bytes it would keep on the heap.
    pub(super) fn heap_of(key: KeyRef<'_>) -> usize {
        match key.as_bytes().len() {
            0..=IN_PLACE => 0,
            len => size_of::<Key>() + len,
        }
    }
}

impl PartialEq for RowKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                RowKey::Short { len, bytes, hash },
                RowKey::Short { len: other_len, bytes: other_bytes, hash: other_hash },
            ) => hash == other_hash && len == other_len && bytes == other_bytes,
            (RowKey::Long(key), RowKey::Long(other)) => **key == **other,
            _ => false,
        }
    }
}

impl Eq for RowKey {}

/// A key that is looked for, and kept in place by no map.
trait Long {
    fn key(&self) -> Option<KeyRef<'_>>;
}

impl Long for RowKey {
    fn key(&self) -> Option<KeyRef<'_>> {
        match self {
            RowKey::Short { .. } => None,
            RowKey::Long(key) => Some(key.by_ref()),
        }
    }
}

impl Long for KeyRef<'_> {
    fn key(&self) -> Option<KeyRef<'_>> {
        Some(*self)
    }
}

impl<'a> Borrow<dyn Long + 'a> for RowKey {
    fn borrow(&self) -> &(dyn Long + 'a) {
        self
    }
}

impl PartialEq for dyn Long + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn Long + '_ {}

/// The part of a hash that leads to a bin.
fn low(hash: u64) -> u64 {
    u64::from(hash as u32)
}

impl Hash for RowKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(match self {
            RowKey::Short { hash, .. } => u64::from(*hash),
            RowKey::Long(key) => low(key.by_ref().hash()),
        });
    }
}

impl Hash for dyn Long + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.key().map_or(0, |key| low(key.hash())));
    }
}

// The order is that of the trees that no bin becomes (I1).

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |key: &Self| match key {
            RowKey::Short { len, bytes, .. } => (Some((*len, *bytes)), None),
            RowKey::Long(key) => (None, Some(key.as_bytes().to_owned())),
        };
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Long + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for dyn Long + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// SAFETY: nothing is retired as long as a map is there (I1, I2).
const NO_GUARD: &flurry::Guard<'static> = &unsafe { flurry::Guard::unprotected() };

/// A map of rows.
pub(super) struct Map {
    rows: flurry::HashMap<RowKey, Row, Prehashed>,
}

/// How many rows the bins of a map have.
#[derive(Debug)]
pub(super) struct Bins {
    rows: usize,
    lengths: Vec<u8>,
}

impl Bins {
    /// `count` empty ones; a power of two.
    pub(super) fn new(count: usize) -> Result<Self> {
        let mut lengths = memory::list(count)?;
        lengths.resize(count, 0);
        Ok(Self { rows: 0, lengths })
    }

    pub(super) fn count(&self) -> usize {
        self.lengths.len()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether `may_take` would count one more.
    pub(super) fn has_room_for(&self, hash: u64) -> bool {
        self.rows + 1 < self.lengths.len() / 4 * 3 && self.lengths[self.bin(hash)] < LONGEST
    }

    fn bin(&self, hash: u64) -> usize {
        low(hash) as usize & (self.lengths.len() - 1)
    }

    /// Counts one more row, whose key has this hash. `false`: it may not be taken (I1).
    pub(super) fn may_take(&mut self, hash: u64) -> bool {
        let fits = self.has_room_for(hash);
        if fits {
            let bin = self.bin(hash);
            self.rows += 1;
            self.lengths[bin] += 1;
        }
        fits
    }
}

impl Map {
    /// An empty map for the rows that `bins` count.
    pub(super) fn new(bins: usize) -> Result<Self> {
        /// What a map takes besides its bins.
        const MAP: usize = 4096;
        // What the map allocates it cannot be told to do without.
        memory::check_room_for(MAP + bins * size_of::<usize>())?;
        // It makes a power of two of one and a half times what it is asked for.
        let rows = flurry::HashMap::with_capacity_and_hasher(bins / 2, Prehashed::default());
        Ok(Self { rows })
    }

    /// The row of a key.
    #[inline]
    pub(super) fn get(&self, key: KeyRef<'_>) -> Option<&Row> {
        match RowKey::short(key) {
            Some(short) => self.rows.get(&short, NO_GUARD),
            None => self.rows.get::<dyn Long>(&key, NO_GUARD),
        }
    }

    /// The row of a key, with the key.
    pub(super) fn get_with_key(&self, key: KeyRef<'_>) -> Option<(&RowKey, &Row)> {
        match RowKey::short(key) {
            Some(short) => self.rows.get_key_value(&short, NO_GUARD),
            None => self.rows.get_key_value::<dyn Long>(&key, NO_GUARD),
        }
    }

    /// Inserts a row that the bins have counted, and whose key has none.
    ///
    /// # Safety
    /// By one thread at a time (I3), after `may_take` of the bins that it was made with (I1).
    pub(super) unsafe fn insert(&self, key: RowKey, row: Row) -> &Row {
        match self.rows.try_insert(key, row, NO_GUARD) {
            Ok(inserted) => inserted,
            Err(error) => {
                error.not_inserted.forget();
                error.current
            }
        }
    }

    /// All rows, each once.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&RowKey, &Row)> {
        self.rows.iter(NO_GUARD)
    }
}
