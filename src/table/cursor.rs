//! A pull iteration over a table, range by range.
//!
//! Invariants
//! I1. The ranges follow each other from the first hash to the last, whatever maps the table has when
//!     the turn of each comes. So a key comes once at most, and one that is there throughout once.
//! I2. Between two calls nothing is pinned.

use super::{Table, Tuples};
use crate::error::Result;
use crate::key::Key;
use crate::sync::Arc;

/// The keys of a range at a time.
#[derive(Debug)]
pub(super) struct Keys {
    /// Where the next range begins; `None` at the end.
    next: Option<u64>,
    /// Those of this one that have not had their turn.
    keys: Vec<Key>,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { next: Some(0), keys: Vec::new() }
    }

    /// The key whose turn it is.
    pub(super) fn turn(&mut self, table: &Table) -> Result<Option<&Key>> {
        while self.keys.is_empty()
            && let Some(from) = self.next
        {
            match table.range(from, &mut self.keys) {
                Ok(next) => self.next = next,
                Err(error) => {
                    self.keys = Vec::new(); // The whole range has its turn again.
                    return Err(error);
                }
            }
        }
        Ok(self.keys.last())
    }

    pub(super) fn pass(&mut self) {
        self.keys.pop();
        if self.keys.is_empty() {
            self.keys = Vec::new();
        }
    }
}

/// An iteration: the keys of a table, each with its tuples as they are when its turn comes.
#[derive(Debug)]
pub struct Cursor {
    table: Arc<Table>,
    keys: Keys,
}

impl Cursor {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table, keys: Keys::new() }
    }

    /// The next tuples, in the form that `view` gives them; `None` at the end. If that fails, their
    /// turn comes again.
    pub(crate) fn next_as<R>(
        &mut self,
        view: impl FnOnce(Tuples) -> Result<R>,
    ) -> Result<Option<R>> {
        while let Some(key) = self.keys.turn(&self.table)? {
            let tuples = self.table.snapshot(key.by_ref())?;
            if !tuples.is_empty() {
                let seen = view(tuples)?;
                self.keys.pass();
                return Ok(Some(seen));
            }
            self.keys.pass();
        }
        Ok(None)
    }
}

impl Iterator for Cursor {
    type Item = Tuples;

    /// Ends early if there is no memory for the keys of a range.
    fn next(&mut self) -> Option<Tuples> {
        self.next_as(Ok).ok().flatten()
    }
}
