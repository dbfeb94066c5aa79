//! The tuples of one key, in place: two words in the memory of the map.
//!
//! | bits of the word | meaning                                                                   |
//! |------------------|---------------------------------------------------------------------------|
//! | LOCKED           | a writer has the row; perhaps for as long as it takes to make a long list  |
//! | WAITED           | somebody sleeps until it is unlocked                                       |
//! | BUSY             | with LOCKED: both words are being written, which takes a few instructions  |
//! | GONE             | it has moved to another map, with its lock; or was vacant and was left     |
//! | KIND, LEN        | what the data word is: nothing, up to 8 bytes, or a shared list            |
//! | VERSION          | counts the changes                                                         |
//!
//! | from             | by             | to                                                         |
//! |------------------|----------------|------------------------------------------------------------|
//! | free             | `seize`        | LOCKED BUSY                                                |
//! | free             | `lock`         | LOCKED                                                     |
//! | LOCKED           | `open`         | LOCKED BUSY, by the same writer                            |
//! | LOCKED BUSY      | `close`        | free, with new contents                                    |
//! | LOCKED           | `unlock`       | free, as it was                                            |
//! | not BUSY         | `leave`        | GONE, for the one that moves the row; LOCKED stays         |
//! | GONE             | `come_back`    | as it was, if the map was not left after all               |
//!
//! Invariants
//! I1. The contents change while the row is BUSY, and only then. Readers wait for that, and for
//!     nothing else.
//! I2. A row that is GONE stays what it was: nobody changes it. It holds nothing any more that it
//!     would have to drop.
//! I3. What the contents held goes to whoever replaces them, who retires it: a reader that saw them
//!     is pinned.

#![expect(unsafe_code, reason = "the data word is a counted reference, argued from I1 to I3")]

use std::fmt;
use std::hint;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::epoch::Pin;
use super::values::{Held, Values};
use crate::bytes::Bytes;
use crate::memory::Shared;
use crate::sync::nap;

const LOCKED: u64 = 1;
const WAITED: u64 = 2;
const BUSY: u64 = 4;
const GONE: u64 = 8;
const KIND: u64 = 0x30;
const NOTHING: u64 = 0;
const SHORT: u64 = 0x10;
const SHARED: u64 = 0x20;
const LEN_SHIFT: u32 = 8;
const LEN: u64 = 0xF << LEN_SHIFT;
/// What says which contents there are.
const CONTENTS: u64 = KIND | LEN;
const VERSION: u64 = 1 << 16;
const VERSIONS: u64 = !(VERSION - 1);

pub(super) struct Row {
    word: AtomicU64,
    data: AtomicU64,
}

/// Why a row was not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Not {
    /// Another writer has it.
    Free,
    /// It is gone.
    Here,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({:#x})", self.word.load(Relaxed))
    }
}

/// The words of what is settled.
fn encode(held: Held) -> (u64, u64) {
    match held {
        Held::None => (NOTHING, 0),
        Held::One(value) => {
            let (len, word) = value.word().unwrap_or((0, 0));
            (SHORT | (len as u64) << LEN_SHIFT, word)
        }
        Held::Shared(values) => (SHARED, values.into_raw()),
    }
}

impl Row {
    /// A row that its maker has, BUSY.
    pub(super) fn new_busy() -> Self {
        Self { word: AtomicU64::new(LOCKED | BUSY), data: AtomicU64::new(0) }
    }

    /// A row that its maker has.
    pub(super) fn new_locked() -> Self {
        Self { word: AtomicU64::new(LOCKED), data: AtomicU64::new(0) }
    }

    /// Both words, as they were at one moment, when nobody was at work on them.
    #[inline]
    fn load(&self) -> (u64, u64) {
        /// A writer that is at it this long has lost its processor.
        const PATIENCE: u32 = 256;
        let mut tries = 0;
        loop {
            // ORDERING: pairs with `close`, and so does the next one: who sees data sees all that
            // came before it, the word that said BUSY among them.
            let word = self.word.load(Acquire);
            let data = self.data.load(Acquire);
            let again = self.word.load(Relaxed);
            if word & BUSY == 0 && (word ^ again) & (VERSIONS | BUSY | CONTENTS) == 0 {
                return (again, data);
            }
            tries += 1;
            if tries % PATIENCE == 0 { nap() } else { hint::spin_loop() }
        }
    }

    /// What it holds; of a row that is gone, what it held then.
    #[inline]
    pub(super) fn read(&self, _: &Pin) -> Held {
        let (word, data) = self.load();
        // SAFETY: the row held it, or the one that it went to, while the reader was pinned (I3).
        unsafe { Self::share(word, data) }
    }

    /// Whether it holds nothing.
    pub(super) fn is_vacant(&self) -> bool {
        self.word.load(Acquire) & KIND == NOTHING
    }

    /// Whether a writer has it.
    pub(super) fn is_locked(&self) -> bool {
        self.word.load(Relaxed) & LOCKED != 0
    }

    /// How many tuples it holds, for the writer that has it.
    pub(super) fn len(&self) -> usize {
        // ORDERING: nobody else writes it.
        match self.word.load(Relaxed) & KIND {
            NOTHING => 0,
            SHORT => 1,
            _ => self.held().len(),
        }
    }

    /// # Safety
    /// The words of a row, whose value is not dropped during the call.
    #[inline]
    unsafe fn share(word: u64, data: u64) -> Held {
        match word & KIND {
            NOTHING => Held::None,
            SHORT => Held::One(Bytes::of_word(((word & LEN) >> LEN_SHIFT) as usize, data)),
            // SAFETY: the contract above; `encode` made it.
            _ => Held::Shared(unsafe { Shared::<Values>::clone_raw(data) }),
        }
    }

    /// Takes a free row, to write it at once.
    #[inline]
    pub(super) fn seize(&self) -> Result<(), Not> {
        self.take(LOCKED | BUSY)
    }

    /// Takes a free row, to write it later.
    #[inline]
    pub(super) fn lock(&self) -> Result<(), Not> {
        self.take(LOCKED)
    }

    #[inline]
    fn take(&self, how: u64) -> Result<(), Not> {
        let mut word = self.word.load(Relaxed);
        loop {
            if word & GONE != 0 {
                return Err(Not::Here);
            }
            if word & LOCKED != 0 {
                return Err(Not::Free);
            }
            // ORDERING: Acquire pairs with `close` and `unlock`. Release has no pair; it keeps the
            // word before the data that follows, as `load` expects.
            match self.word.compare_exchange_weak(word, word | how, AcqRel, Relaxed) {
                Ok(_) => return Ok(()),
                Err(seen) => word = seen,
            }
        }
    }

    /// Asks to be woken when it is unlocked. `false`: it is free, or gone.
    pub(super) fn wait_for(&self) -> bool {
        let mut word = self.word.load(Relaxed);
        loop {
            if word & GONE != 0 || word & LOCKED == 0 {
                return false;
            }
            match self.word.compare_exchange_weak(word, word | WAITED, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// What it holds, for the writer that has it.
    #[inline]
    pub(super) fn held(&self) -> Held {
        // ORDERING: nobody else writes it.
        // SAFETY: the row holds it, and only its writer replaces it.
        unsafe { Self::share(self.word.load(Relaxed), self.data.load(Relaxed)) }
    }

    /// From LOCKED to BUSY. `false`: it has gone.
    pub(super) fn open(&self) -> bool {
        let mut word = self.word.load(Relaxed);
        loop {
            if word & GONE != 0 {
                return false;
            }
            // ORDERING: as in `take`.
            match self.word.compare_exchange_weak(word, word | BUSY, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// Replaces what a BUSY row holds, with what is settled, and unlocks it. Returns what it held,
    /// to be retired, and whether somebody waits.
    #[inline]
    pub(super) fn close(&self, held: Held) -> (Held, bool) {
        let (word, old_data) = (self.word.load(Relaxed), self.data.load(Relaxed));
        let (contents, data) = encode(held);
        // ORDERING: Release on both pairs with `load`, and with the next writer's `take`.
        self.data.store(data, Release);
        let version = (word & VERSIONS).wrapping_add(VERSION);
        let before = self.word.swap(version | contents, AcqRel);
        let old = match before & KIND {
            // SAFETY: what the row owned is its replacer's now (I3).
            SHARED => Held::Shared(unsafe { Shared::from_raw(old_data) }),
            NOTHING => Held::None,
            // SAFETY: a short one, which nobody owns.
            _ => unsafe { Self::share(before, old_data) },
        };
        (old, before & WAITED != 0)
    }

    /// As `close`, with one value of a word for another. `None`: it holds something else.
    #[inline]
    pub(super) fn close_word(&self, value: (usize, u64)) -> Option<bool> {
        let word = self.word.load(Relaxed);
        if word & KIND != SHORT {
            return None;
        }
        // ORDERING: as in `close`.
        self.data.store(value.1, Release);
        let contents = SHORT | (value.0 as u64) << LEN_SHIFT;
        let version = (word & VERSIONS).wrapping_add(VERSION);
        Some(self.word.swap(version | contents, AcqRel) & WAITED != 0)
    }

    /// Unlocks a BUSY row that stays what it was. Whether somebody waits.
    pub(super) fn close_unchanged(&self) -> bool {
        // ORDERING: as in `unlock`.
        self.word.fetch_and(!(LOCKED | BUSY | WAITED), Release) & WAITED != 0
    }

    /// Unlocks a LOCKED row. `None`: it has gone, and its lock with it. Else whether somebody waits.
    pub(super) fn unlock(&self) -> Option<bool> {
        let mut word = self.word.load(Relaxed);
        loop {
            if word & GONE != 0 {
                return None;
            }
            // ORDERING: Release pairs with the next writer's `take`.
            match self.word.compare_exchange_weak(word, word & !(LOCKED | WAITED), Release, Relaxed)
            {
                Ok(_) => return Some(word & WAITED != 0),
                Err(seen) => word = seen,
            }
        }
    }

    /// Leaves a row that nobody needs. `false`: somebody does.
    pub(super) fn leave_vacant(&self) -> bool {
        let mut word = self.word.load(Relaxed);
        while word & (KIND | LOCKED) == 0 {
            match self.word.compare_exchange_weak(word, word | GONE, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
        false
    }

    /// Leaves a row for the one that it returns: the same, locked if it was.
    pub(super) fn leave(&self) -> Self {
        loop {
            let (word, data) = self.load();
            // ORDERING: Acquire with what `load` saw; Release keeps it for `come_back`.
            if self.word.compare_exchange(word, word | GONE, AcqRel, Relaxed).is_ok() {
                return Self { word: AtomicU64::new(word), data: AtomicU64::new(data) };
            }
        }
    }

    /// Undoes `leave` and `leave_vacant`; nobody has seen the row that came of it.
    pub(super) fn come_back(&self) {
        self.word.fetch_and(!GONE, Release);
    }

    /// Forgets what it holds: another row has it. For one that nobody has seen.
    pub(super) fn forget(&self) {
        self.word.fetch_or(GONE, Relaxed);
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let word = *self.word.get_mut();
        if word & GONE == 0 && word & KIND == SHARED {
            // SAFETY: the row owns it (I2), and nobody sees the row any more.
            drop(unsafe { Shared::<Values>::from_raw(*self.data.get_mut()) });
        }
    }
}
