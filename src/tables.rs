//! The tables whose keys a guard holds: one, as a rule, or several (C-20).
//!
//! Invariants
//! I1. Every handle that was named is kept once: a wait ends when any of them is closed.
//! I2. Handles are in the order of their tables, so that a table is found by its number.

use crate::error::{Error, Result};
use crate::lock::Scopes;
use crate::memory;
use crate::registry::{OpenTable, Opened};
use crate::sync::Arc;

/// A key, and a handle to the table that it is a key of.
pub type TableKey<'a> = (&'a OpenTable, &'a [u8]);

/// What a guard's keys are keys of: a table, which says if it stands for several.
///
/// WHY: no list here. A guard of one table is as large as if there were no others.
#[derive(Debug, Clone)]
pub(crate) struct Tables(Arc<Opened>);

impl Tables {
    #[inline(always)] // See `with_lock::empty_handed`.
    pub(crate) fn one(table: Arc<Opened>) -> Self {
        Self(table)
    }

    /// Those of `keys`, of which there is at least one.
    pub(crate) fn of_keys(keys: &[TableKey<'_>]) -> Result<Self> {
        let mut all = memory::list(keys.len())?;
        let mut last = None;
        for (handle, _) in keys {
            if !last.replace(*handle).is_some_and(|last| std::ptr::eq(last, *handle)) {
                all.push(handle.enter());
            }
        }
        all.sort_unstable_by_key(|opened| (opened.id(), Arc::as_ptr(opened).addr()));
        all.dedup_by(|one, other| Arc::ptr_eq(one, other)); // One thread gets the same each time.
        Ok(Self(if all.len() > 1 {
            Opened::several(all)?
        } else {
            all.pop().ok_or(Error::Invalid)?
        }))
    }

    /// The only table; `Error::Invalid` if there are several.
    #[inline]
    pub(crate) fn only(&self) -> Result<&Opened> {
        match self.0.all() {
            // Several handles to it (I2).
            [first, .., last] if first.id() != last.id() => Err(Error::Invalid),
            _ => Ok(&self.0),
        }
    }

    /// The table that a guard is known to have one of.
    #[inline(always)]
    pub(crate) fn first(&self) -> &Opened {
        &self.0
    }

    #[inline(always)]
    pub(crate) fn are_one(&self) -> bool {
        self.0.all().is_empty()
    }

    /// One of them, by its number, which is asked for only if there are several.
    #[inline(always)]
    pub(crate) fn by_id(&self, id: impl FnOnce() -> u64) -> &Opened {
        match self.0.all() {
            [] => &self.0,
            all => Self::find(all, id()),
        }
    }

    #[inline(never)]
    fn find(all: &[Arc<Opened>], id: u64) -> &Opened {
        let place = all.binary_search_by_key(&id, |table| table.id());
        &all[place.unwrap_or_else(|_| unreachable!("a key of a table that was not named"))]
    }

    /// What a wait ends with, if any of them is closed (I1).
    #[inline(always)]
    pub(crate) fn handles(&self) -> &dyn Scopes {
        &*self.0
    }

    /// A forked child inherited them: they are never freed, for a thread may have been at work in
    /// one that is not here (C-16).
    pub(crate) fn leak(&self) {
        std::mem::forget(Arc::clone(&self.0));
    }
}
