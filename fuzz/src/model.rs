//! The reference model: what DESIGN and header promise, as plain data. It predicts the answer of
//! every call of one thread; where the promise leaves a choice, the world looks which one was
//! made.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{self, Status};
use crate::input::Bytes;

/// Places in the vectors of the model.
pub type TableId = usize;
pub type LockTableId = usize;
pub type HoldId = usize;
pub type CursorId = usize;

/// What a lock is of.
pub type Place = (TableId, Bytes);

#[derive(Debug, Clone)]
pub enum Write {
    Insert(Bytes),
    Delete,
    DeleteTuple(Bytes),
}

#[derive(Debug)]
pub struct Table {
    /// `api::SET`, `api::BAG` or `api::DUPLICATE_BAG`.
    pub r#type: i32,
    pub guarded: bool,
    pub name: Option<Bytes>,
    pub handles: usize,
    /// No key has an empty list.
    pub rows: BTreeMap<Bytes, Vec<Bytes>>,
}

impl Table {
    pub fn values(&self, key: &[u8]) -> &[Bytes] {
        self.rows.get(key).map_or(&[], |values| values)
    }

    pub fn count(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }
}

fn apply(r#type: i32, values: &mut Vec<Bytes>, write: &Write) {
    match write {
        Write::Insert(value) => {
            if r#type == api::SET {
                values.clear();
            }
            let present = r#type == api::BAG && values.contains(value);
            if !present || crate::planted("model") {
                values.push(value.clone());
            }
        }
        Write::Delete => values.clear(),
        Write::DeleteTuple(value) => values.retain(|present| present != value),
    }
}

/// An iteration: which keys it has shown, and which it still must.
#[derive(Debug)]
pub struct Cursor {
    table: TableId,
    seen: BTreeSet<Bytes>,
    /// Present since the beginning, and not shown yet.
    due: BTreeSet<Bytes>,
    ended: bool,
}

/// Who holds and waits (C-13).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Party {
    None,
    /// The thread that runs the script. Others use logical owners.
    Main,
    Logical(u64),
    /// A callback.
    Call(HoldId),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Acquired,
    OnCaller,
    OnWorker,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    Live,
    /// Past its exec deadline, and still held.
    Late,
    /// Lost to the clock.
    Expired,
    /// Lost to force.
    Revoked,
    /// Given back.
    Ended,
}

/// What a lock call asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: Kind,
    pub lock_table: LockTableId,
    /// In the order given, with duplicates.
    pub keys: Vec<Place>,
    /// `options.owner`
    pub owner: u64,
    pub party: Party,
    /// The exec timeout; `None`: infinite.
    pub exec: Option<i64>,
    /// Whether it may be deleted as soon as it is late.
    pub fails_at_once: bool,
    pub thread_id: u64,
    /// `options.commit_code`
    pub commit_code: i32,
    /// Its stop was requested: it gets what is free, and waits for nothing.
    pub stopped: bool,
}

#[derive(Debug)]
pub struct Hold {
    pub request: Request,
    /// Each key once, in the order given.
    pub keys: Vec<Place>,
    pub state: State,
    /// The caller waits for the callback.
    pub attached: bool,
    /// The callback has returned.
    pub over: bool,
    /// The most that can be left of its time; `None`: no deadline.
    pub limit: Option<i64>,
    /// 0 as long as nobody has seen it.
    pub token: u64,
    pub result: Bytes,
    staged: Vec<(Place, Write)>,
}

impl Hold {
    pub fn in_force(&self) -> bool {
        matches!(self.state, State::Live | State::Late)
    }

    /// Whether a waiter deletes it at once.
    pub fn overdue(&self) -> bool {
        self.state == State::Late && self.request.fails_at_once
    }

    /// What its guard answers.
    pub fn status(&self) -> Status {
        match self.state {
            State::Live => api::OK,
            State::Late => api::EXEC_TIMEOUT,
            State::Expired | State::Revoked => api::REVOKED,
            State::Ended => unreachable!("its guard is gone"),
        }
    }

    pub fn covers(&self, table: TableId, key: &[u8]) -> bool {
        self.keys.iter().any(|(own_table, own)| *own_table == table && own == key)
    }

    /// The table of its keys, if it is one.
    pub fn table(&self) -> Option<TableId> {
        let (table, _) = self.keys[0];
        self.keys.iter().all(|(other, _)| *other == table).then_some(table)
    }
}

/// What a lock table counts. Ranges where the words leave room.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub acquired: u64,
    pub wait_timeouts: u64,
    pub deadlocks: u64,
    /// Holds, and the locks that they had.
    pub forced: (u64, u64),
    /// Holds that ended late, and those that ever were.
    pub late: (u64, u64),
}

/// What becomes of an attempt to lock.
#[derive(Debug)]
pub enum Attempt {
    Granted,
    /// At least one key is held by somebody who may not be evicted.
    Busy {
        /// The waiting owner waits for itself, at some key or at each.
        deadlock: bool,
        only_deadlock: bool,
        /// Evicted or not: that depends on the order in which the keys are taken.
        overdue: Vec<HoldId>,
    },
}

#[derive(Debug, Default)]
pub struct Model {
    pub tables: Vec<Table>,
    /// Of those that have an open handle.
    pub names: BTreeMap<Bytes, TableId>,
    pub cursors: Vec<Cursor>,
    pub holds: Vec<Hold>,
    pub counts: Vec<Counts>,
    locks: BTreeMap<(LockTableId, TableId, Bytes), HoldId>,
    /// The last token of each key.
    tokens: BTreeMap<Place, u64>,
    /// Every later token is larger than this.
    pub tokens_above: u64,
}

impl Model {
    // Tables.

    pub fn new_table(&mut self, r#type: i32, guarded: bool, name: Option<Bytes>) -> TableId {
        let id = self.tables.len();
        if let Some(name) = &name {
            self.names.insert(name.clone(), id);
        }
        self.tables.push(Table { r#type, guarded, name, handles: 1, rows: BTreeMap::new() });
        id
    }

    pub fn free_table(&mut self, id: TableId) {
        let table = &mut self.tables[id];
        table.handles -= 1;
        if let (0, Some(name)) = (table.handles, &table.name) {
            self.names.remove(name);
        }
    }

    /// The answer to an unguarded write that nothing but the table's access can forbid.
    pub fn writable(&self, table: TableId) -> Status {
        if self.tables[table].guarded { api::ERR_GUARDED } else { api::OK }
    }

    pub fn write(&mut self, table: TableId, key: &[u8], write: &Write) {
        let rows = &mut self.tables[table].rows;
        let mut values = rows.remove(key).unwrap_or_default();
        apply(self.tables[table].r#type, &mut values, write);
        if values.is_empty() {
            for cursor in self.cursors.iter_mut().filter(|cursor| cursor.table == table) {
                cursor.due.remove(key);
            }
        } else {
            self.tables[table].rows.insert(key.to_vec(), values);
        }
    }

    pub fn clear(&mut self, table: TableId) {
        let keys: Vec<Bytes> = self.tables[table].rows.keys().cloned().collect();
        for key in keys {
            self.write(table, &key, &Write::Delete);
        }
    }

    /// On failure nothing changes.
    pub fn update_counter(
        &mut self,
        table: TableId,
        key: &[u8],
        add: i64,
        initial: i64,
    ) -> Result<i64, Status> {
        if self.tables[table].r#type != api::SET {
            return Err(api::ERR_TYPE);
        }
        let old = match self.tables[table].values(key) {
            [] => initial,
            [value, ..] => match value.as_slice().try_into() {
                Ok(bytes) => i64::from_ne_bytes(bytes),
                Err(_) => return Err(api::ERR_TYPE),
            },
        };
        let new = old.checked_add(add).ok_or(api::ERR_INVALID)?;
        self.write(table, key, &Write::Insert(new.to_ne_bytes().to_vec()));
        Ok(new)
    }

    pub fn new_cursor(&mut self, table: TableId) -> CursorId {
        let due = self.tables[table].rows.keys().cloned().collect();
        self.cursors.push(Cursor { table, seen: BTreeSet::new(), due, ended: false });
        self.cursors.len() - 1
    }

    /// The cursor showed this key: the tuples that it must have now.
    pub fn cursor_showed(&mut self, id: CursorId, key: &[u8]) -> &[Bytes] {
        let cursor = &mut self.cursors[id];
        assert!(!cursor.ended, "a cursor goes on after its end");
        assert!(cursor.seen.insert(key.to_vec()), "a cursor shows a key twice");
        cursor.due.remove(key);
        self.tables[cursor.table].values(key)
    }

    pub fn cursor_ended(&mut self, id: CursorId) {
        let cursor = &mut self.cursors[id];
        assert!(cursor.due.is_empty(), "a cursor left out {:?}", cursor.due);
        cursor.ended = true;
    }

    // Locks.

    /// All owners behind a party: a callback, and whoever waits for it.
    pub fn owners(&self, party: Party) -> Vec<Party> {
        match party {
            Party::None => Vec::new(),
            Party::Main | Party::Logical(_) => vec![party],
            Party::Call(call) if self.holds[call].over => Vec::new(),
            Party::Call(call) => {
                let mut owners = vec![party];
                if self.holds[call].attached {
                    owners.extend(self.owners(self.holds[call].request.party));
                }
                owners
            }
        }
    }

    fn holders(&self, id: HoldId) -> Vec<Party> {
        let hold = &self.holds[id];
        match (hold.request.party, hold.request.kind) {
            (Party::None, _) => Vec::new(),
            (party, Kind::Acquired) => self.owners(party),
            (_, Kind::OnCaller | Kind::OnWorker) => self.owners(Party::Call(id)),
        }
    }

    pub fn holder(&self, lock_table: LockTableId, table: TableId, key: &[u8]) -> Option<HoldId> {
        self.locks.get(&(lock_table, table, key.to_vec())).copied()
    }

    /// The locks of a lock table.
    pub fn held(&self, lock_table: LockTableId) -> impl Iterator<Item = (TableId, &Bytes, HoldId)> {
        let of_it = self.locks.iter().filter(move |((owner, _, _), _)| *owner == lock_table);
        of_it.map(|((_, table, key), hold)| (*table, key, *hold))
    }

    pub fn attempt(&self, request: &Request) -> Attempt {
        let me = self.owners(request.party);
        let holder = |(table, key): &Place| self.holder(request.lock_table, *table, key);
        let holders: BTreeSet<HoldId> = request.keys.iter().filter_map(holder).collect();
        let (overdue, busy): (Vec<_>, Vec<_>) =
            holders.into_iter().partition(|id| self.holds[*id].overdue());
        if busy.is_empty() {
            return Attempt::Granted;
        }
        let meets = |id: &HoldId| self.holders(*id).iter().any(|owner| me.contains(owner));
        let deadlocks = busy.iter().filter(|id| meets(id)).count();
        Attempt::Busy { deadlock: deadlocks > 0, only_deadlock: deadlocks == busy.len(), overdue }
    }

    /// The attempt was granted.
    pub fn grant(&mut self, request: Request) -> HoldId {
        let id = self.holds.len();
        let mut keys: Vec<Place> = Vec::new();
        for key in &request.keys {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        for (table, key) in &keys {
            if let Some(holder) = self.holder(request.lock_table, *table, key) {
                self.evict(holder);
            }
            self.locks.insert((request.lock_table, *table, key.clone()), id);
        }
        self.counts[request.lock_table].acquired += keys.len() as u64;
        self.holds.push(Hold {
            keys,
            state: State::Live,
            attached: request.kind != Kind::Acquired,
            over: false,
            limit: request.exec,
            token: 0,
            result: Vec::new(),
            staged: Vec::new(),
            request,
        });
        if self.holds[id].limit == Some(0) {
            self.is_late(id);
        }
        id
    }

    /// Its guard was seen: the token is larger than that of every earlier lock of its keys.
    pub fn saw_token(&mut self, id: HoldId, token: u64) {
        let hold = &mut self.holds[id];
        assert!(hold.token == 0 || hold.token == token, "a token changed");
        if hold.token == token {
            return;
        }
        hold.token = token;
        assert!(self.tokens_above < token, "token {token} after {}", self.tokens_above);
        for place in &hold.keys {
            let last = self.tokens.entry(place.clone()).or_default();
            assert!(*last < token, "token {token} after {last}");
            *last = token;
        }
        let same = self.holds.iter().filter(|hold| hold.token == token).count();
        assert_eq!(same, 1, "token {token} is not unique");
    }

    /// Its exec deadline has passed.
    pub fn is_late(&mut self, id: HoldId) {
        assert_eq!(self.holds[id].state, State::Live);
        self.holds[id].state = State::Late;
        self.counts[self.holds[id].request.lock_table].late.1 += 1;
        if self.holds[id].request.kind == Kind::OnWorker {
            self.free(id, State::Expired);
        }
    }

    /// A waiter deleted it at its release time.
    pub fn evict(&mut self, id: HoldId) {
        assert!(self.holds[id].overdue());
        self.count_forced(id);
        self.free(id, State::Expired);
    }

    pub fn force_release(&mut self, lock_table: LockTableId, table: TableId, key: &[u8]) -> Status {
        let Some(id) = self.holder(lock_table, table, key) else {
            return api::NOT_FOUND;
        };
        self.count_forced(id);
        self.free(id, State::Revoked);
        api::OK
    }

    pub fn force_release_token(
        &mut self,
        lock_table: LockTableId,
        table: TableId,
        key: &[u8],
        token: u64,
    ) -> Status {
        match self.holder(lock_table, table, key) {
            Some(id) if self.holds[id].token == token => self.force_release(lock_table, table, key),
            _ => api::NOT_FOUND,
        }
    }

    fn count_forced(&mut self, id: HoldId) {
        let hold = &self.holds[id];
        let forced = &mut self.counts[hold.request.lock_table].forced;
        forced.0 += 1;
        forced.1 += hold.keys.len() as u64;
    }

    /// It does not hold its locks any more.
    fn free(&mut self, id: HoldId, state: State) {
        let hold = &mut self.holds[id];
        if hold.state == State::Late && state != State::Revoked {
            self.counts[hold.request.lock_table].late.0 += 1;
        }
        hold.state = state;
        hold.staged.clear();
        for (table, key) in &hold.keys {
            let lock = (hold.request.lock_table, *table, key.clone());
            assert_eq!(self.locks.remove(&lock), Some(id));
        }
    }

    // Guards.

    pub fn stage(&mut self, id: HoldId, table: TableId, key: &[u8], write: Write) {
        self.holds[id].staged.push(((table, key.to_vec()), write));
    }

    /// The tuples that the guard shows.
    pub fn seen_by(&self, id: HoldId, table_id: TableId, key: &[u8]) -> Vec<Bytes> {
        let table = &self.tables[table_id];
        let mut values = table.values(key).to_vec();
        let of_key = |place: &Place| place.0 == table_id && place.1 == key;
        for (_, write) in self.holds[id].staged.iter().filter(|(place, _)| of_key(place)) {
            apply(table.r#type, &mut values, write);
        }
        values
    }

    pub fn commit(&mut self, id: HoldId) {
        for ((table, key), write) in std::mem::take(&mut self.holds[id].staged) {
            self.write(table, &key, &write);
        }
    }

    pub fn rollback(&mut self, id: HoldId) {
        self.holds[id].staged.clear();
    }

    pub fn extend(&mut self, id: HoldId, exec: Option<i64>) {
        let hold = &mut self.holds[id];
        hold.limit = match (hold.limit, exec) {
            (Some(before), Some(exec)) => Some(before.max(exec)),
            _ => None,
        };
    }

    /// `etslock_guard_release`
    pub fn release(&mut self, id: HoldId) -> Status {
        let status = self.holds[id].status();
        if status == api::OK {
            self.commit(id);
        }
        self.cancel(id);
        status
    }

    /// `etslock_guard_cancel`
    pub fn cancel(&mut self, id: HoldId) {
        if self.holds[id].in_force() {
            self.free(id, State::Ended);
        }
    }

    /// The callback returned `code`: the status of its call.
    pub fn callback_returned(&mut self, id: HoldId, code: i32) -> Status {
        let status = match self.holds[id].state {
            State::Live if code == self.holds[id].request.commit_code => api::OK,
            State::Live => api::CALLBACK_FAILED,
            State::Late | State::Expired => api::EXEC_TIMEOUT,
            State::Revoked => api::REVOKED,
            State::Ended => unreachable!("a callback does not end its guard"),
        };
        if status == api::OK {
            self.commit(id);
        }
        self.cancel(id);
        self.holds[id].over = true;
        status
    }
}
