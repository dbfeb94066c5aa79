//! Keys, and the identity of a lock.
//!
//! Invariants
//! I1. A key is hashed once, when it enters the library. The hasher is seeded when the process
//!     starts to use the library: keys come from untrusted users.
//! I2. Keys are ordered by hash, then by bytes: the same total order everywhere in the process.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use crate::bytes::{self, Bytes};
use crate::error::{self, Error, Result};
use crate::process::PerProcess;
use crate::siphash::Seed;

/// The key of a tuple.
#[derive(Debug, Clone)]
pub struct Key {
    hash: u64,
    bytes: Bytes,
}

/// A key in its caller's memory: what everything is searched by.
///
/// WHY: most calls find what they look for, and never need a copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRef<'a> {
    hash: u64,
    bytes: &'a [u8],
}

/// The seed of this process's hashes (I1).
fn seed() -> Seed {
    static SEED: PerProcess<Seed> = PerProcess::new();
    // The standard library's hashers are seeded at random: what they make of nothing is random too.
    fn random() -> u64 {
        RandomState::new().build_hasher().finish()
    }
    *SEED.get(|| Seed(random(), random()))
}

/// The hash of a byte string, in this process.
pub(crate) fn hash_of(bytes: &[u8]) -> u64 {
    seed().hash(bytes)
}

impl Key {
    /// A copy of `bytes`; `Error::NoMemory` if memory of that size cannot be had.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        KeyRef::new(bytes)?.to_key()
    }

    pub(crate) fn by_ref(&self) -> KeyRef<'_> {
        KeyRef { hash: self.hash, bytes: self.as_bytes() }
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.by_ref())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Hash::hash(&self.by_ref(), state);
    }
}

impl Key {
    /// Whether these are its bytes.
    #[inline]
    pub(crate) fn has_bytes(&self, bytes: &[u8]) -> bool {
        self.bytes.is(bytes)
    }

    /// Whether its bytes take no memory of their own.
    pub(crate) fn is_short(&self) -> bool {
        self.bytes.are_in_place()
    }

    /// Whether it is this key.
    #[inline]
    pub(crate) fn is(&self, other: KeyRef<'_>) -> bool {
        self.hash == other.hash && self.bytes.is(other.bytes)
    }
}

impl<'a> KeyRef<'a> {
    /// `Error::NoMemory` if no copy of `bytes` could be made.
    #[inline(always)] // See `Staged::push`.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self> {
        // Before they are read: the length may be absurd.
        bytes::check_room_for(bytes.len())?;
        Ok(Self { hash: seed().hash(bytes), bytes })
    }

    /// One of `places`, the same for equal keys.
    #[inline]
    pub(crate) fn place<T>(self, places: &mut [T]) -> &mut T {
        let index = self.hash as usize % places.len();
        &mut places[index]
    }

    pub(crate) fn hash(self) -> u64 {
        self.hash
    }

    pub(crate) fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// A copy of one's own.
    #[inline(always)] // See `Staged::push`.
    pub(crate) fn to_key(self) -> Result<Key> {
        Ok(Key { hash: self.hash, bytes: Bytes::copy_of(self.bytes)? })
    }
}

impl PartialEq for KeyRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for KeyRef<'_> {}

impl Ord for KeyRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.hash.cmp(&other.hash).then_with(|| self.bytes.cmp(other.bytes))
    }
}

impl PartialOrd for KeyRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for KeyRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// What a call locks, each once, in the order given. WHY: one without a list; most calls have one.
#[derive(Debug)]
pub(crate) enum LockIds<'a> {
    One(LockIdRef<'a>),
    Many(Vec<LockIdRef<'a>>),
}

/// So many are compared with each other. WHY: a set is an allocation, and costs more than that.
const FEW: usize = 16;

impl<'a> LockIds<'a> {
    /// Of keys of one table.
    #[inline(always)] // See `Staged::push`.
    pub(crate) fn new(table: u64, keys: &[&'a [u8]]) -> Result<Self> {
        if let [key] = keys {
            return Ok(LockIds::One(LockIdRef { table, key: KeyRef::new(key)? }));
        }
        Self::across(keys.iter().map(|key| (table, *key)))
    }

    /// Of keys, each with the number of its table.
    pub(crate) fn across(mut keys: impl ExactSizeIterator<Item = (u64, &'a [u8])>) -> Result<Self> {
        let id = |(table, key)| Ok(LockIdRef { table, key: KeyRef::new(key)? });
        if keys.len() == 1
            && let Some(key) = keys.next()
        {
            return Ok(LockIds::One(id(key)?));
        }
        let mut ids = error::list(keys.map(id))?;
        if ids.len() <= FEW {
            let mut kept = 0;
            for next in 0..ids.len() {
                if !ids[..kept].contains(&ids[next]) {
                    ids[kept] = ids[next];
                    kept += 1;
                }
            }
            ids.truncate(kept);
        } else {
            let mut seen = HashSet::with_hasher(Prehashed::default());
            seen.try_reserve(ids.len()).map_err(|_| Error::NoMemory)?;
            ids.retain(|id| seen.insert(*id));
        }
        Ok(LockIds::Many(ids))
    }
}

/// A hasher for keys, which carry their hash with them (I1).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Prehashed(u64);

impl BuildHasher for Prehashed {
    type Hasher = Self;
    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a key writes its hash and nothing else")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// What a lock is the lock of: one key of one table.
#[derive(Debug, Clone)]
pub(crate) struct LockId {
    pub(crate) table: u64,
    pub(crate) key: Key,
}

/// The same, with its key in a caller's memory.
///
/// Ordered by key, then by table: the one order that several locks are taken in (C-18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockIdRef<'a> {
    pub(crate) table: u64,
    pub(crate) key: KeyRef<'a>,
}

impl LockId {
    pub(crate) fn by_ref(&self) -> LockIdRef<'_> {
        LockIdRef { table: self.table, key: self.key.by_ref() }
    }

    /// As `LockIdRef::hash`.
    pub(crate) fn hash(&self) -> u64 {
        self.by_ref().hash()
    }

    /// Whether it is this one.
    #[inline]
    pub(crate) fn is(&self, other: LockIdRef<'_>) -> bool {
        self.table == other.table && self.key.is(other.key)
    }
}

impl Ord for LockIdRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then(self.table.cmp(&other.table))
    }
}

impl PartialOrd for LockIdRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for LockIdRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64((*self).hash());
    }
}

impl LockIdRef<'_> {
    /// The same key in two tables falls into two buckets.
    pub(crate) fn hash(self) -> u64 {
        // An odd multiplier spreads consecutive table numbers over all bits.
        self.key.hash ^ self.table.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// Its hashes: the 0th is `hash`; the others tell apart what has that in common.
    #[inline]
    pub(crate) fn hash_number(self, number: u32) -> u64 {
        if number == 0 { self.hash() } else { self.another_hash(number) }
    }

    #[cold]
    fn another_hash(self, number: u32) -> u64 {
        let Seed(first, second) = seed();
        let hash = Seed(first ^ u64::from(number), second).hash(self.key.bytes);
        Self { table: self.table, key: KeyRef { hash, bytes: self.key.bytes } }.hash()
    }

    /// A copy of one's own.
    #[inline(always)] // See `Staged::push`.
    pub(crate) fn to_id(self) -> Result<LockId> {
        Ok(LockId { table: self.table, key: self.key.to_key()? })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    /// Few are compared with each other, many are put into a set: the same comes out.
    #[test]
    fn what_is_named_twice_counts_once_and_in_the_order_given() {
        for named in [2, 3, FEW, FEW + 1, 1000] {
            for tables in [1, 2, 3] {
                let texts: Vec<_> = (0..named).map(|i| format!("k{}", i * 7 % 5)).collect();
                let table = |i: usize| (i / 2 % tables) as u64;
                let keys = texts.iter().enumerate().map(|(i, text)| (table(i), text.as_bytes()));
                let mut wanted: Vec<(u64, &[u8])> = Vec::new();
                for key in keys.clone() {
                    if !wanted.contains(&key) {
                        wanted.push(key);
                    }
                }
                let LockIds::Many(ids) = LockIds::across(keys).unwrap() else { panic!("one") };
                let got: Vec<_> = ids.iter().map(|id| (id.table, id.key.bytes)).collect();
                assert_eq!(got, wanted, "{named} keys, {tables} tables");
            }
        }
    }
}
