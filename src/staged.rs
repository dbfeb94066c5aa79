//! Staged writes: what a holder wants written, until it is published or forgotten.
//!
//! Invariants
//! I1. Of each key there are its writes in order, without those that a later one makes pointless.
//! I2. What is ready to be published needs nothing any more that could be refused, save what one
//!     write of a set takes: so all of it is published, or nothing (C-7).

use std::collections::HashMap;
use std::mem;
use std::slice;

use crate::error::{Error, Result};
use crate::key::{Key, KeyRef};
use crate::memory;
use crate::table::{Prepared, Preview, Spot, Table, TableType, Tuples, Write};

/// Staged writes, by the place of their key among the guard's.
///
/// WHY: one without a list; most holders write once.
#[derive(Debug, Default)]
pub(crate) enum Staged {
    #[default]
    None,
    One(usize, Write),
    Many(HashMap<usize, Batch>),
}

/// The writes of one key.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    writes: Vec<Write>,
    /// What they make, as of the last look.
    preview: Option<Preview>,
}

/// What is to be published.
pub(crate) enum Ready<'a> {
    /// One write of a set, which is made in place.
    Write(&'a Table, Option<Spot>, KeyRef<'a>, &'a Write),
    /// Changes that are made, one of each key.
    Made(Vec<Prepared<'a>>),
}

impl Batch {
    fn push(&mut self, write: Write, overrides: bool) -> Result<()> {
        if overrides {
            self.writes.clear();
            self.preview = None;
        }
        memory::push(&mut self.writes, write)
    }
}

impl Staged {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Staged::None)
    }

    #[inline(always)] // See below.
    pub(crate) fn push(
        &mut self,
        index: usize,
        write: impl FnOnce() -> Result<Write>,
        r#type: TableType,
    ) -> Result<()> {
        match self {
            // WHY: forgotten. There is nothing to drop, which the compiler does not see, and the
            // write goes where it stays (B1, a call on one key: 217 ns without this and without
            // `inline(always)` on the way here, 194 with them).
            Staged::None => mem::forget(mem::replace(self, Staged::One(index, write()?))),
            _ => self.push_more(index, write()?, r#type)?,
        }
        Ok(())
    }

    #[inline(never)]
    fn push_more(&mut self, index: usize, write: Write, r#type: TableType) -> Result<()> {
        let overrides = write.is_final(r#type);
        if let Staged::One(first, before) = self
            && overrides
            && *first == index
        {
            *before = write;
            return Ok(());
        }
        let batches = self.many()?;
        batches.try_reserve(1).map_err(|_| Error::NoMemory)?;
        batches.entry(index).or_default().push(write, overrides)
    }

    /// The batches; made of the only write if there is one.
    fn many(&mut self) -> Result<&mut HashMap<usize, Batch>> {
        if !matches!(self, Staged::Many(_)) {
            let mut batches = HashMap::new();
            let mut writes = memory::list(1)?;
            batches.try_reserve(1).map_err(|_| Error::NoMemory)?;
            if let Staged::One(index, write) = mem::take(self) {
                writes.push(write);
                batches.insert(index, Batch { writes, preview: None });
            }
            *self = Staged::Many(batches);
        }
        match self {
            Staged::Many(batches) => Ok(batches),
            _ => unreachable!("it was made a line ago"),
        }
    }

    /// The tuples of a key as they would be after its writes.
    ///
    /// A look costs what was staged since the last one, as long as nobody else wrote.
    pub(crate) fn preview(
        &mut self,
        index: usize,
        tuples: Tuples,
        r#type: TableType,
    ) -> Result<Tuples> {
        match self {
            Staged::None => return Ok(tuples),
            Staged::One(place, _) if *place != index => return Ok(tuples),
            Staged::One(_, write) if r#type == TableType::Set => {
                let preview = Preview::of(&tuples, r#type, slice::from_ref(write), None)?;
                return Ok(preview.tuples(tuples));
            }
            _ => {}
        }
        let Some(batch) = self.many()?.get_mut(&index) else { return Ok(tuples) };
        let last = batch.preview.take();
        let preview = batch.preview.insert(Preview::of(&tuples, r#type, &batch.writes, last)?);
        Ok(preview.tuples(tuples))
    }

    /// Takes what publishing needs: the memory, and the rows if they are several (I2). `spot`: where the
    /// tuples of a guard's only key were found.
    pub(crate) fn prepare<'a>(
        &'a self,
        spot: Option<Spot>,
        place: impl Fn(usize) -> (&'a Table, &'a Key),
    ) -> Result<Ready<'a>> {
        let made = match self {
            Staged::None => Vec::new(),
            Staged::One(index, write) => {
                let (table, key) = place(*index);
                if table.table_type() == TableType::Set {
                    return Ok(Ready::Write(table, spot, key.by_ref(), write));
                }
                let mut made = memory::list(1)?;
                made.push(table.prepare(key.by_ref(), slice::from_ref(write))?);
                made
            }
            Staged::Many(batches) => {
                let mut in_order = memory::list(batches.len())?;
                in_order.extend(batches.iter().map(|(index, batch)| (place(*index), batch)));
                // The one order in which everybody takes several rows.
                in_order.sort_unstable_by_key(|((table, key), _)| (key.by_ref(), table.id()));
                let mut made = memory::list(in_order.len())?;
                for ((table, key), batch) in in_order {
                    made.push(table.prepare(key.by_ref(), &batch.writes)?);
                }
                made
            }
        };
        Ok(Ready::Made(made))
    }

    /// To be called when they are published: gives back the memory of what they deleted, if it is
    /// much.
    pub(crate) fn tidy<'a>(&self, place: impl Fn(usize) -> (&'a Table, &'a Key)) {
        let deletes =
            |writes: &[Write]| writes.iter().any(|write| !matches!(write, Write::Insert(_)));
        let tidy = |index: usize, writes: &[Write]| {
            if deletes(writes) {
                let (table, key) = place(index);
                table.tidy(key.by_ref());
            }
        };
        match self {
            Staged::None => {}
            Staged::One(index, write) => tidy(*index, slice::from_ref(write)),
            Staged::Many(batches) => {
                batches.iter().for_each(|(index, batch)| tidy(*index, &batch.writes));
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Staged::None;
    }
}

impl Ready<'_> {
    /// Publishes all of it, or nothing.
    pub(crate) fn publish(self) -> Result<()> {
        match self {
            Ready::Write(table, spot, key, write) => table.apply_at(spot, key, write),
            Ready::Made(made) => {
                made.into_iter().for_each(Prepared::publish);
                Ok(())
            }
        }
    }
}
