//! Handles to tables, and the names under which they are found again.
//!
//! Invariants
//! I1. A name is taken from the creation of its table until its last handle is closed (C-14).
//! I2. A closed handle has no waiter: whoever waits through it is told, and whoever comes later
//!     finds it closed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::ops::Deref;

use crate::error::{Error, Result};
use crate::lock::{self, Scope, Scopes, thread_number};
use crate::memory;
use crate::process::PerProcess;
use crate::sync::{Arc, Mutex};
use crate::table::{Cursor, Table, TableOptions};

/// A table's name, as long as it has one.
#[derive(Debug)]
struct Named {
    table: Arc<Table>,
    handles: usize,
}

/// The names, and whose they are.
#[derive(Debug, Default)]
struct Names {
    tables: HashMap<String, Named>,
    /// By the number of the table.
    of: HashMap<u64, Arc<Table>>,
}

fn names() -> &'static Mutex<Names> {
    static NAMES: PerProcess<Mutex<Names>> = PerProcess::new();
    NAMES.get(Mutex::default)
}

impl Names {
    /// Takes a name; `Error::Exists` if it is taken.
    fn add(&mut self, name: String, table: &Arc<Table>) -> Result<()> {
        self.tables.try_reserve(1).map_err(|_| Error::NoMemory)?;
        self.of.try_reserve(1).map_err(|_| Error::NoMemory)?;
        match self.tables.entry(name) {
            Entry::Occupied(_) => Err(Error::Exists),
            Entry::Vacant(free) => {
                free.insert(Named { table: Arc::clone(table), handles: 1 });
                self.of.insert(table.id(), Arc::clone(table));
                Ok(())
            }
        }
    }

    /// One handle less to a table that has a name.
    fn close(&mut self, name: &str, table: &Arc<Table>) {
        // A table of the same name that came after this one is another table.
        let Some(named) = self.tables.get_mut(name) else { return };
        if Arc::ptr_eq(&named.table, table) {
            named.handles -= 1;
            if named.handles == 0 {
                self.tables.remove(name);
                self.of.remove(&table.id());
                shrink(&mut self.tables);
                shrink(&mut self.of);
            }
        }
    }
}

/// Gives back what a map does not need, when that is most of it (C-23).
fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    /// Less is not worth it.
    const LITTLE: usize = 64;
    let wanted = map.len() * 2;
    let room = (wanted + LITTLE) * size_of::<(K, V)>() * 2;
    // A map cannot be told to do without the memory for a smaller one.
    if map.capacity() > LITTLE
        && wanted < map.capacity() / 4
        && memory::check_room_for(room).is_ok()
    {
        map.shrink_to(wanted);
    }
}

/// The name of the table that has this number, as long as it has a name and a handle.
pub(crate) fn name_of(table: u64) -> Option<String> {
    let names = names().lock();
    names.of.get(&table).and_then(|table| table.name()).map(str::to_owned)
}

/// A table and the scope of one handle to it: what a call under way keeps when the handle is
/// closed meanwhile (C-14).
#[derive(Debug)]
pub struct Opened {
    table: Arc<Table>,
    scope: Arc<Scope>,
    /// If it stands for several handles: all of them, in the order of their tables.
    all: Vec<Arc<Opened>>,
    /// Keeps the counts of two of them on lines of their own. WHY: not aligned. What stands for
    /// several is made by each call, and aligned memory costs four times as much.
    _apart: Apart,
}

type Apart = [u64; 8];

impl Opened {
    /// The first of several, which stands for all of them; at least one.
    pub(crate) fn several(all: Vec<Arc<Opened>>) -> Result<Arc<Self>> {
        let first = all.first().ok_or(Error::Invalid)?;
        let (table, scope) = (Arc::clone(&first.table), Arc::clone(&first.scope));
        Ok(Arc::new(Self { table, scope, all, _apart: Apart::default() }))
    }

    /// All handles, if it stands for several.
    #[inline(always)]
    pub(crate) fn all(&self) -> &[Arc<Opened>] {
        &self.all
    }

    /// Starts an iteration over the table; it outlives the handle.
    pub fn cursor(&self) -> Result<Cursor> {
        Ok(Cursor::new(Arc::clone(&self.table)))
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }
}

impl Scopes for Opened {
    fn each(&self, look: &mut dyn FnMut(&Scope)) {
        match &*self.all {
            [] => look(self.scope()),
            all => all.iter().for_each(|opened| look(opened.scope())),
        }
    }
}

impl Deref for Opened {
    type Target = Table;
    fn deref(&self) -> &Table {
        &self.table
    }
}

/// A handle to a table. Dropping it closes it: calls that wait for a lock through it end with
/// `Error::Closed`.
///
/// WHY: several times the same, each counted on a cache line of its own. Every call counts itself
/// in and out, and threads that share nothing else would wait for each other there.
#[derive(Debug)]
pub struct OpenTable([Arc<Opened>; SHARES]);

const SHARES: usize = 8;

impl OpenTable {
    /// Makes a table; `Error::Exists` if its name is taken.
    pub fn create(options: TableOptions) -> Result<Self> {
        let name = options.name.as_deref().map(copy).transpose()?;
        Self::check_room()?;
        let table = Arc::new(Table::new(options));
        if let Some(name) = name {
            names().lock().add(name, &table)?;
        }
        Ok(Self::to(table))
    }

    /// One more handle to a named table; `Error::NotFound` if there is none of that name.
    pub fn open(name: &str) -> Result<Self> {
        Self::check_room()?;
        let mut names = names().lock();
        let named = names.tables.get_mut(name).ok_or(Error::NotFound)?;
        named.handles += 1;
        Ok(Self::to(Arc::clone(&named.table)))
    }

    /// `Error::NoMemory` if there is no room for a table and its handle, which are made of types that
    /// cannot be told to do without.
    fn check_room() -> Result<()> {
        const HANDLE: usize = (SHARES + 2) * 128 + size_of::<Table>();
        memory::check_room_for(HANDLE)
    }

    fn to(table: Arc<Table>) -> Self {
        let scope = Arc::new(Scope::new());
        let share = |_| {
            let (table, scope) = (Arc::clone(&table), Arc::clone(&scope));
            Arc::new(Opened { table, scope, all: Vec::new(), _apart: Apart::default() })
        };
        Self(std::array::from_fn(share))
    }

    /// What a call keeps for its duration.
    pub fn enter(&self) -> Arc<Opened> {
        Arc::clone(&self.0[thread_number() as usize % SHARES])
    }
}

impl Deref for OpenTable {
    type Target = Opened;
    fn deref(&self) -> &Opened {
        &self.0[0]
    }
}

impl Drop for OpenTable {
    fn drop(&mut self) {
        lock::close(&self.scope);
        let Some(name) = self.name() else { return };
        names().lock().close(name, &self.table);
    }
}

/// A copy of a name.
pub(crate) fn copy(name: &str) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(name.len()).map_err(|_| Error::NoMemory)?;
    copy.push_str(name);
    Ok(copy)
}
