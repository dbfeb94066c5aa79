//! What a hold holds: its locks, in the lock table that they live in.

use std::mem;

use crate::error::Result;
use crate::key::{KeyRef, LockId, LockIdRef};
use crate::lock::entry::EntryRef;
use crate::lock::hold_ref::HoldRef;
use crate::lock::lock_table::LockTable;

/// Locks that a hold holds, and the table they live in.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(super) lock_table: LockTable,
    pub(super) hold: HoldRef,
    pub(super) entries: Entries,
}

#[derive(Debug)]
pub(super) enum Entries {
    None,
    /// A thin lock, as far as its holder knows.
    Thin,
    One(EntryRef),
    Many(Box<[EntryRef]>),
}

impl Locked {
    /// What `hold` holds before it has got anything.
    pub(crate) fn nothing_yet(lock_table: LockTable, hold: HoldRef) -> Self {
        Self { lock_table, hold, entries: Entries::None }
    }

    pub(crate) fn hold(&self) -> &HoldRef {
        &self.hold
    }

    pub(crate) fn len(&self) -> usize {
        match &self.entries {
            Entries::None => 0,
            Entries::Thin | Entries::One(_) => 1,
            Entries::Many(entries) => entries.len(),
        }
    }

    /// What is locked; in the order of `LockIdRef`.
    pub(crate) fn id(&self, index: usize) -> &LockId {
        match (self.hold.id(), &self.entries) {
            (Some(id), _) => id,
            (None, Entries::Many(entries)) => entries[index].id(),
            (None, _) => unreachable!("a hold for several locks that has none"),
        }
    }

    /// The place of a key, if it is locked. `table`: the only one, which is asked for only if there
    /// are several locks.
    #[inline]
    pub(crate) fn position(
        &self,
        key: &[u8],
        table: impl FnOnce() -> Result<u64>,
    ) -> Result<Option<usize>> {
        match self.hold.id() {
            Some(id) => Ok(id.key.has_bytes(key).then_some(0)),
            None => self.position_in(table()?, key),
        }
    }

    /// The place of a key of a table, if it is locked.
    pub(crate) fn position_in(&self, table: u64, key: &[u8]) -> Result<Option<usize>> {
        if let Some(id) = self.hold.id() {
            return Ok((id.table == table && id.key.has_bytes(key)).then_some(0));
        }
        let Entries::Many(entries) = &self.entries else { return Ok(None) };
        let wanted = LockIdRef { table, key: KeyRef::new(key)? };
        Ok(entries.binary_search_by(|entry| entry.id().by_ref().cmp(&wanted)).ok())
    }

    /// Frees the locks, as far as they are still this hold's. To be called after the hold's final
    /// step: by whoever made it, and by whoever must be sure that it was done.
    pub(crate) fn release(&self) {
        match &self.entries {
            Entries::None => {}
            Entries::Thin => self.lock_table.release_thin(&self.hold),
            Entries::One(entry) => self.lock_table.release(entry, &self.hold),
            Entries::Many(entries) => self.lock_table.release_all(entries, &self.hold),
        }
    }

    /// As `release`, by the only owner.
    pub(crate) fn release_for_good(&mut self) {
        match mem::replace(&mut self.entries, Entries::None) {
            Entries::None => {}
            Entries::Thin => self.lock_table.give_up_thin(&mut self.hold),
            Entries::One(entry) => self.lock_table.give_up(entry, &mut self.hold),
            Entries::Many(entries) => self.lock_table.release_all(&entries, &self.hold),
        }
    }

    /// The final step came from the clock: counts it, and frees the locks.
    pub(crate) fn release_expired(&self) {
        self.lock_table.count_exec_timeout();
        self.release();
    }
}
