//! The tables whose keys a guard holds: one, as a rule, or several (C-20).
//!
//! Invariants
//! I1. Every handle that was named is kept once: a wait ends when any of them is closed.
//! I2. Handles are in the order of their tables, so that a table is found by its number.

use crate::error::{self, Error, Result};
use crate::lock::Scope;
use crate::registry::{OpenTable, Opened};
use crate::sync::Arc;

/// A key, and a handle to the table that it is a key of.
pub type TableKey<'a> = (&'a OpenTable, &'a [u8]);

/// What a guard's keys are keys of.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    first: Arc<Opened>,
    /// All handles; `None`: the first is the only one.
    ///
    /// WHY: beside the first. A guard of one table asks for nothing else.
    all: Option<Box<[Arc<Opened>]>>,
}

impl Tables {
    #[inline(always)] // See `with_lock::empty_handed`.
    pub(crate) fn one(table: Arc<Opened>) -> Self {
        Self { first: table, all: None }
    }

    /// Those of `keys`, of which there is at least one.
    pub(crate) fn of_keys(keys: &[TableKey<'_>]) -> Result<Self> {
        let mut handles = error::list(keys.iter().map(|(table, _)| Ok(*table)))?;
        let address = |handle: &&OpenTable| std::ptr::from_ref::<OpenTable>(handle).addr();
        handles.sort_unstable_by_key(|handle| (handle.id(), address(handle)));
        handles.dedup_by_key(|handle| address(handle));
        let all = error::list(handles.into_iter().map(|handle| Ok(handle.enter())))?;
        let first = Arc::clone(all.first().ok_or(Error::Invalid)?);
        Ok(Self { first, all: (all.len() > 1).then(|| all.into()) })
    }

    /// The only table; `Error::Invalid` if there are several.
    #[inline]
    pub(crate) fn only(&self) -> Result<&Opened> {
        match &self.all {
            None => Ok(&self.first),
            // Several handles to it (I2).
            Some(all) if all[all.len() - 1].id() == self.first.id() => Ok(&self.first),
            Some(_) => Err(Error::Invalid),
        }
    }

    /// One of them, by its number, which is asked for only if there are several.
    #[inline(always)]
    pub(crate) fn by_id(&self, id: impl FnOnce() -> u64) -> &Opened {
        match &self.all {
            None => &self.first,
            Some(all) => Self::find(all, id()),
        }
    }

    #[inline(never)]
    fn find(all: &[Arc<Opened>], id: u64) -> &Opened {
        let place = all.binary_search_by_key(&id, |table| table.id());
        &all[place.unwrap_or_else(|_| unreachable!("a key of a table that was not named"))]
    }

    /// The handle that every guard has.
    pub(crate) fn scope(&self) -> &Scope {
        self.first.scope()
    }

    /// The other handles (I1).
    #[inline]
    pub(crate) fn other_scopes(&self) -> Result<Vec<&Scope>> {
        match &self.all {
            None => Ok(Vec::new()),
            Some(all) => error::list(all[1..].iter().map(|table| Ok(table.scope()))),
        }
    }

    /// A forked child inherited them: they are never freed, for a thread may have been at work in
    /// one that is not here (C-16).
    pub(crate) fn leak(&self) {
        std::mem::forget(Arc::clone(&self.first));
        for table in self.all.iter().flatten() {
            std::mem::forget(Arc::clone(table));
        }
    }
}
