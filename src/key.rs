//! Keys, and the identity of a lock.
//!
//! Invariants
//! I1. A key is hashed once, when it enters the library. The hasher is seeded when the process
//!     starts to use the library: keys come from untrusted users.
//! I2. Keys are ordered by hash, then by bytes: the same total order everywhere in the process.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use crate::bytes::Bytes;
use crate::error::{self, Error, Result};
use crate::siphash::Seed;
use crate::sync::OnceLock;

/// The key of a tuple.
#[derive(Debug, Clone)]
pub struct Key {
    hash: u64,
    bytes: Bytes,
}

/// The seed of this process's hashes (I1).
fn seed() -> Seed {
    static SEED: OnceLock<Seed> = OnceLock::new();
    // The standard library's hashers are seeded at random: what they make of nothing is random too.
    let random = || RandomState::new().build_hasher().finish();
    *SEED.get_or_init(|| Seed(random(), random()))
}

/// Draws the seed, before a fork can come in the middle (C-16).
pub(crate) fn prepare() {
    seed();
}

impl Key {
    /// A copy of `bytes`; `Error::NoMemory` if memory of that size cannot be had.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        // Copied first: a length that memory cannot be had for is found out before it is read.
        let bytes = Bytes::copy_of(bytes)?;
        Ok(Self { hash: seed().hash(bytes.as_slice()), bytes })
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }
}

impl Eq for Key {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_hash = self.hash.cmp(&other.hash);
        by_hash.then_with(|| self.as_bytes().cmp(other.as_bytes()))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// What a call locks, each once, in the order given. WHY: one without a list; most calls have one.
#[derive(Debug)]
pub(crate) enum LockIds {
    One(LockId),
    Many(Vec<LockId>),
}

impl LockIds {
    #[inline(always)] // See `with_lock::take`.
    pub(crate) fn new(table: u64, keys: &[&[u8]]) -> Result<Self> {
        let id = |key: &&[u8]| Ok(LockId { table, key: Key::new(key)? });
        if let [key] = keys {
            return Ok(LockIds::One(id(key)?));
        }
        let mut ids = error::list(keys.iter().map(id))?;
        let mut seen = HashSet::with_hasher(Prehashed::default());
        seen.try_reserve(ids.len()).map_err(|_| Error::NoMemory)?;
        ids.retain(|id| seen.insert(id.key.clone()));
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockId {
    pub(crate) table: u64,
    pub(crate) key: Key,
}

impl LockId {
    /// The same key in two tables falls into two buckets.
    pub(crate) fn hash(&self) -> u64 {
        // An odd multiplier spreads consecutive table numbers over all bits.
        self.key.hash ^ self.table.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
}
