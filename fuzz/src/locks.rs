//! Lock tables, options, acquired guards, and who holds what.

use std::fmt::{self, Display, Formatter};
use std::ptr;

use crate::api::{self, Status};
use crate::input::Bytes;
use crate::model::{Attempt, HoldId, Kind, LockTableId, Party, Place, Request, State};
use crate::tables::copied;
use crate::world::{OpenGuard, OpenTable, World, at, say, stats_of, unset, until};

/// Longer than a script takes.
pub const LONG: i64 = 60_000;

unsafe extern "C" {
    safe fn gettid() -> i32;
}

/// The calling thread, as the system numbers it.
pub fn thread_id() -> u64 {
    u64::from(gettid().unsigned_abs())
}

/// Options as a later release may have them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub known: api::Options,
    pub unknown: [u64; 2],
}

/// How a lock call is told its keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Named {
    One,
    Several,
    /// Each with its table.
    Across,
}

/// A lock call, before it is made.
#[derive(Debug)]
pub struct Ask {
    pub named: Named,
    /// The table of each key.
    pub tables: Vec<OpenTable>,
    pub request: Request,
    pub options: Options,
    /// Pass NULL for `options`. The defaults have a deadline that a script might reach on a busy
    /// machine: what is locked so is given back at once.
    pub defaults: bool,
    /// Something in it is wrong, which must be answered so.
    pub flaw: Option<Status>,
    /// Let it become late first thing.
    pub short: bool,
}

impl Ask {
    pub fn options(&self) -> *const api::Options {
        if self.defaults { ptr::null() } else { (&raw const self.options).cast() }
    }

    /// The table, for a call that is told one.
    pub fn table(&self) -> *mut api::Table {
        self.tables[0].table
    }

    pub fn keys(&self) -> Vec<Bytes> {
        self.request.keys.iter().map(|(_, key)| key.clone()).collect()
    }

    /// As C passes them; they point into the ask.
    pub fn c_keys(&self) -> Vec<api::Key> {
        let c_key = |(_, key): &Place| api::Key { key: at(key), key_len: key.len() };
        self.request.keys.iter().map(c_key).collect()
    }

    pub fn c_table_keys(&self) -> Vec<api::TableKey> {
        let c_key = |(open, (_, key)): (&OpenTable, &Place)| api::TableKey {
            table: open.table,
            key: at(key),
            key_len: key.len(),
        };
        self.tables.iter().zip(&self.request.keys).map(c_key).collect()
    }
}

impl Display for Ask {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        for (table, key) in &self.request.keys {
            write!(to, "{table} {}, ", key.escape_ascii())?;
        }
        write!(to, "{:?}, default {}, {:?}", self.named, self.defaults, self.options.known)
    }
}

/// The same keys, as C passes them.
pub fn c_keys(keys: &[Bytes]) -> Vec<api::Key> {
    keys.iter().map(|key| api::Key { key: at(key), key_len: key.len() }).collect()
}

pub fn show(keys: &[Bytes]) -> String {
    keys.iter().map(|key| format!("{} ", key.escape_ascii())).collect()
}

pub fn default_options() -> api::Options {
    // SAFETY: numbers, and pointers that may be NULL.
    let mut options: api::Options = unsafe { std::mem::zeroed() };
    api::etslock_options_init(&mut options, size_of::<api::Options>());
    options
}

/// Acquires one lock, or several with the function for several. The guard is NULL on failure.
pub fn acquire(
    table: *mut api::Table,
    keys: &[Bytes],
    several: bool,
    options: *const api::Options,
) -> (Status, *mut api::Guard) {
    let mut guard = unset();
    let c_keys = c_keys(keys);
    let status = match several {
        false => api::etslock_acquire(table, at(&keys[0]), keys[0].len(), options, &mut guard),
        true => {
            let (keys, count) = (c_keys.as_ptr(), c_keys.len());
            api::etslock_acquire_locks(table, keys, count, options, &mut guard)
        }
    };
    assert_eq!(guard.is_null(), status != api::OK);
    (status, guard)
}

impl World {
    // Options.

    /// Chooses table, keys and options.
    pub fn ask(&mut self, kind: Kind, named: Named) -> Ask {
        let table = self.some_table();
        let keys = match named {
            Named::One => vec![self.input.key()],
            Named::Several | Named::Across => self.input.keys(),
        };
        let others = keys[1..].iter().map(|_| match named {
            Named::Across => self.some_table(),
            Named::One | Named::Several => table,
        });
        let tables: Vec<OpenTable> = [table].into_iter().chain(others).collect();
        let mut options = Options { known: default_options(), unknown: [0; 2] };
        let known = &mut options.known;
        known.run_on = i32::from(kind == Kind::OnCaller);
        let mut request = Request {
            kind,
            lock_table: 0,
            keys: tables.iter().map(|open| open.id).zip(keys).collect(),
            owner: 0,
            party: self.me(),
            exec: Some(known.exec_timeout_ms),
            fails_at_once: false,
            thread_id: thread_id(),
            commit_code: 0,
            stopped: false,
        };
        let style = self.input.byte();
        if style % 16 == 7 && style < 240 && kind != Kind::OnCaller {
            let (flaw, short) = (None, false);
            return Ask { named, tables, request, options, defaults: true, flaw, short };
        }
        known.commit_code = [0, 0, 1, i32::MIN][usize::from(style / 16 % 4)];
        request.commit_code = known.commit_code;
        if let (1..=6, Some((stop, requested))) = (style % 16, self.stop) {
            (known.stop, request.stopped) = (stop, requested);
        }
        let time = self.input.byte();
        known.exec_timeout_ms = match time % 16 {
            0..=3 => LONG,
            4..=7 => api::INFINITE,
            8 => i64::MAX,
            9 if self.wait_a_moment() => 1,
            _ => 0,
        };
        known.fail_timeout_ms = [LONG, 0, 0, api::INFINITE][usize::from(time / 16 % 4)];
        known.wait_timeout_ms = [LONG, 0, api::INFINITE, i64::MAX][usize::from(time / 64)];
        let short = known.exec_timeout_ms == 1;
        request.exec = match known.exec_timeout_ms {
            api::INFINITE | i64::MAX => None,
            exec => Some(exec),
        };
        request.fails_at_once = known.fail_timeout_ms == 0;

        let place = self.input.byte();
        known.queue = i32::from(place % 3);
        known.spin_delay_ms = i64::from(place / 3 % 2);
        if let Some((lock_table, id)) = self.lock_tables[usize::from(place / 6 % 3)] {
            (known.lock_table, request.lock_table) = (lock_table, id);
        }
        known.owner = [0, 0, 1, 2, api::OWNER_NONE][usize::from(place / 18 % 5)];
        request.owner = known.owner;
        request.party = match known.owner {
            0 => request.party,
            api::OWNER_NONE => Party::None,
            id => Party::Logical(id),
        };
        known.on_exec_timeout = i32::from(place / 90 % 3);
        // KILL needs a thread of its own; what is late and abandoned has its own step.
        if kind == Kind::OnCaller && known.on_exec_timeout == api::KILL || short {
            known.on_exec_timeout = api::JOIN;
        }
        let flaw = (style >= 240).then(|| self.flaw(kind, &mut options)).flatten();
        Ask { named, tables, request, options, defaults: false, flaw, short }
    }

    /// Puts something wrong into options; `None` if it is right nevertheless.
    fn flaw(&mut self, kind: Kind, options: &mut Options) -> Option<Status> {
        let known = &mut options.known;
        match self.input.below(14) {
            0 => known.reserved = 1,
            1 => known.reserved = u32::MAX,
            2 => known.run_on = 2,
            3 => known.queue = -1,
            4 => known.queue = 3,
            5 => known.on_exec_timeout = 3,
            6 => known.wait_timeout_ms = -2,
            7 => known.exec_timeout_ms = i64::MIN,
            8 => known.fail_timeout_ms = -1000,
            9 => known.spin_delay_ms = api::INFINITE,
            10 if kind == Kind::Acquired => return None,
            10 => (known.run_on, known.on_exec_timeout) = (api::RUN_ON_CALLER, api::KILL),
            11 => {
                // Smaller than in the first release.
                known.struct_size = std::mem::offset_of!(api::Options, stop) as u32 - 1;
                return Some(api::ERR_STRUCT_SIZE);
            }
            what => {
                known.struct_size = size_of::<Options>() as u32;
                options.unknown[1] = u64::from(what == 12) << 56;
                return (what == 12).then_some(api::ERR_STRUCT_SIZE);
            }
        }
        Some(api::ERR_INVALID)
    }

    // Attempts.

    /// What may come of the call. Sees to it that it does not wait for long.
    pub fn forecast(&mut self, ask: &mut Ask) -> (Vec<Status>, Attempt) {
        if let Some(status) = ask.flaw {
            let overdue = Vec::new();
            return (
                vec![status],
                Attempt::Busy { deadlock: false, only_deadlock: false, overdue },
            );
        }
        let attempt = self.model.attempt(&ask.request);
        let Attempt::Busy { deadlock, only_deadlock, .. } = attempt else {
            return (vec![api::OK], attempt);
        };
        // A callback that lost its lock is detached from its caller soon, not at once.
        let detached = self.frames.iter().any(|frame| !self.model.holds[frame.hold].in_force());
        let stopped = ask.request.stopped;
        let wait = &mut ask.options.known.wait_timeout_ms;
        if stopped {
            // It does not wait; which of the reasons is told is not said.
            let mut allowed = vec![if *wait == 0 { api::WAIT_TIMEOUT } else { api::STOPPED }];
            allowed.extend((deadlock || detached).then_some(api::DEADLOCK));
            return (allowed, attempt);
        }
        if detached || !only_deadlock {
            *wait = i64::from(*wait != 0 && !detached && self.patience > 0);
            self.patience -= *wait as u32;
            ask.defaults = false;
        }
        let allowed = match (*wait, deadlock, only_deadlock) {
            (0, ..) | (_, false, _) => vec![api::WAIT_TIMEOUT],
            (_, true, true) => vec![api::DEADLOCK],
            (_, true, false) => vec![api::WAIT_TIMEOUT, api::DEADLOCK],
        };
        (allowed, attempt)
    }

    /// The call was refused: counts it, and finds out who was evicted on the way.
    pub fn refused(&mut self, ask: &Ask, attempt: Attempt, status: Status) {
        let counts = &mut self.model.counts[ask.request.lock_table];
        match status {
            api::WAIT_TIMEOUT => counts.wait_timeouts += 1,
            api::DEADLOCK => counts.deadlocks += 1,
            _ => {}
        }
        let Attempt::Busy { overdue, .. } = attempt else { return };
        for id in overdue {
            if api::etslock_guard_status(self.guard_of(id)) == api::REVOKED {
                self.model.evict(id);
            }
        }
    }

    pub fn acquire(&mut self, named: Named) {
        let Some(slot) = self.guards.iter().position(Option::is_none) else {
            return self.end_guard();
        };
        let mut ask = self.ask(Kind::Acquired, named);
        if ask.flaw.is_none() {
            // It has no effect here.
            ask.options.known.run_on = self.input.of(&[api::RUN_ON_WORKER, api::RUN_ON_CALLER]);
        }
        let (allowed, attempt) = self.forecast(&mut ask);
        let (table, options) = (ask.table(), ask.options());
        let mut guard = unset();
        let what = format_args!("acquire({ask})");
        let make = || {
            let status = match named {
                Named::Across => {
                    let keys = ask.c_table_keys();
                    let (keys, count) = (keys.as_ptr(), keys.len());
                    api::etslock_acquire_locks_across(keys, count, options, &mut guard)
                }
                Named::One | Named::Several => {
                    let several = named == Named::Several;
                    let (status, got) = acquire(table, &ask.keys(), several, options);
                    guard = got;
                    status
                }
            };
            assert_eq!(guard.is_null(), status != api::OK);
            status
        };
        let status = self.call(what, make, &allowed);
        if status != api::OK {
            return self.refused(&ask, attempt, status);
        }
        let hold = self.model.grant(ask.request);
        self.model.saw_token(hold, api::etslock_guard_token(guard));
        self.guards[slot] = Some(OpenGuard { guard, hold });
        if ask.short {
            self.outlive(guard, hold);
        }
        if ask.defaults {
            self.end_guard_at(slot, true);
        }
    }

    /// Sleeps until the exec deadline has passed.
    pub fn outlive(&mut self, guard: *mut api::Guard, hold: HoldId) {
        self.model.is_late(hold);
        let wanted = self.model.holds[hold].status();
        let sleep = || api::etslock_guard_sleep(guard, api::INFINITE);
        self.call(format_args!("guard_sleep(INFINITE)"), sleep, &[wanted]);
    }

    pub fn force_release(&mut self) {
        let open = self.some_table();
        let key = self.input.key();
        let choice = self.input.byte();
        let (lock_table, id) = self.some_lock_table([0, 0, 1, 2][usize::from(choice % 4)]);
        let holder = self.model.holder(id, open.id, &key);
        let held = holder.map_or(0, |hold| self.model.holds[hold].token);
        let token = match choice / 4 % 4 {
            0 | 1 => None,
            2 => Some(held),
            // That of an earlier holder, perhaps.
            _ => Some(held.wrapping_sub(1 + u64::from(choice / 16))),
        };
        let wanted = match token {
            None => self.model.force_release(id, open.id, &key),
            Some(token) => self.model.force_release_token(id, open.id, &key, token),
        };
        let k = key.escape_ascii();
        self.call(
            format_args!("lock_table_force_release({id}, {}, {k}, {token:?})", open.id),
            || {
                let (table, data, len) = (open.table, at(&key), key.len());
                match token {
                    None => api::etslock_lock_table_force_release(lock_table, table, data, len),
                    Some(token) => api::etslock_lock_table_force_release_token(
                        lock_table, table, data, len, token,
                    ),
                }
            },
            &[wanted],
        );
    }

    /// Makes, requests or frees the stop, which later calls may have.
    pub fn stop_step(&mut self) {
        match (self.stop, self.input.below(2)) {
            (None, _) => {
                let mut stop = unset();
                self.call(
                    format_args!("stop_new()"),
                    || api::etslock_stop_new(&mut stop),
                    &[api::OK],
                );
                self.stop = Some((stop, false));
            }
            (Some((stop, _)), 0) => {
                let request = || api::etslock_stop_request(stop);
                self.call(format_args!("stop_request()"), request, &[api::OK]);
                self.stop = Some((stop, true));
            }
            _ => self.free_stop(),
        }
    }

    pub fn free_stop(&mut self) {
        let Some((stop, _)) = self.stop.take() else { return };
        say(format_args!("etslock_stop_free()"));
        api::etslock_stop_free(stop);
    }

    pub fn raise_tokens(&mut self) {
        let last = self.model.holds.iter().map(|hold| hold.token).max().unwrap_or_default();
        let above = last + u64::from(self.input.byte()) * 10;
        let raise = || api::etslock_token_raise(above);
        self.call(format_args!("token_raise({above})"), raise, &[api::OK]);
        self.model.tokens_above = self.model.tokens_above.max(above);
    }

    // Lock tables.

    /// Makes or frees one.
    pub fn lock_table_step(&mut self) {
        let slot = 1 + self.input.below(self.lock_tables.len() - 1);
        match self.lock_tables[slot] {
            Some(_) => self.free_lock_table(slot),
            None => _ = self.some_lock_table(slot),
        }
    }

    pub fn some_lock_table(&mut self, slot: usize) -> (*mut api::LockTable, LockTableId) {
        if let Some(there) = self.lock_tables[slot] {
            return there;
        }
        let mut lock_table = unset();
        let new = || api::etslock_lock_table_new(&mut lock_table);
        self.call(format_args!("lock_table_new()"), new, &[api::OK]);
        self.model.counts.push(Default::default());
        let made = (lock_table, self.model.counts.len() - 1);
        self.lock_tables[slot] = Some(made);
        made
    }

    pub fn free_lock_table(&mut self, slot: usize) {
        let Some((lock_table, id)) = self.lock_tables[slot].take() else { return };
        say(format_args!("etslock_lock_table_free({id})"));
        api::etslock_lock_table_free(lock_table);
    }

    // Who holds what.

    /// Keeps a snapshot of locks, or looks at the one that was kept.
    pub fn look_at_locks(&mut self) {
        let open = self.some_table();
        self.check_locks(Some(open));
        match self.locks {
            Some(_) => self.free_locks(),
            None => {
                let mut locks = unset();
                let new =
                    || api::etslock_lock_table_locks(ptr::null_mut(), ptr::null_mut(), &mut locks);
                self.call(format_args!("lock_table_locks()"), new, &[api::OK]);
                self.locks = Some((locks, api::etslock_locks_count(locks)));
            }
        }
    }

    pub fn free_locks(&mut self) {
        let Some((locks, count)) = self.locks.take() else { return };
        assert_eq!(infos_of(locks).len(), count);
        api::etslock_locks_free(locks);
    }

    /// Compares the locks of each lock table, all or those of one table, with the model's.
    pub fn check_locks(&self, of: Option<OpenTable>) {
        for (lock_table, id) in self.lock_tables.into_iter().flatten() {
            self.check_locks_of((lock_table, id), of);
        }
    }

    fn check_locks_of(
        &self,
        (lock_table, id): (*mut api::LockTable, usize),
        of: Option<OpenTable>,
    ) {
        let mut locks = unset();
        let table = of.map_or(ptr::null_mut(), |open| open.table);
        assert_eq!(api::etslock_lock_table_locks(lock_table, table, &mut locks), api::OK);
        let mut infos = infos_of(locks);
        let of_table = |table| of.is_none_or(|open| open.id == table);
        for (table, key, hold) in self.model.held(id).filter(|(table, ..)| of_table(*table)) {
            let hold = &self.model.holds[hold];
            // A table that has no handle left has lost its name.
            let name = self.model.tables[table].name.as_deref();
            let is_nameless = self.model.tables[table].handles == 0;
            // A hold has the same key of several tables, perhaps.
            let is_it = |(info, seen): &(api::LockInfo, Bytes)| {
                let shown = (!info.table_name.is_null()).then(|| api::text(info.table_name));
                let of_table = shown.map(str::as_bytes) == name || shown.is_none() && is_nameless;
                info.token == hold.token && seen == key && of_table
            };
            let found = infos.iter().position(is_it);
            let (info, _) = infos.swap_remove(found.expect("a lock is not shown"));
            assert_eq!(info.late != 0, hold.state == State::Late);
            assert_eq!((info.waiters, info.owner), (0, hold.request.owner));
            assert_eq!(info.thread_id, hold.request.thread_id);
            assert!((0..LONG).contains(&info.held_ms));
            assert!(is_left(info.exec_remaining_ms, hold.state, hold.limit));
        }
        assert!(infos.is_empty(), "locks that nobody holds: {infos:?}");
        api::etslock_locks_free(locks);
    }

    pub fn check_stats(&self) {
        for (lock_table, id) in self.lock_tables.into_iter().flatten() {
            let stats = stats_of(lock_table);
            let before = (id == 0).then_some(self.baseline);
            let since =
                |now: u64, of: fn(&api::Stats) -> u64| now - before.map_or(0, |before| of(&before));
            let counts = self.model.counts[id];
            assert_eq!(since(stats.acquired, |s| s.acquired), counts.acquired);
            assert_eq!(since(stats.wait_timeouts, |s| s.wait_timeouts), counts.wait_timeouts);
            assert_eq!(since(stats.deadlocks, |s| s.deadlocks), counts.deadlocks);
            let forced = since(stats.forced_releases, |s| s.forced_releases);
            assert!((counts.forced.0..=counts.forced.1).contains(&forced));
            // Counted after the loss was seen, if it was a callback that saw it.
            let late = || since(stats_of(lock_table).exec_timeouts, |s| s.exec_timeouts);
            until("late holders are counted", || late() >= counts.late.0);
            assert!(late() <= counts.late.1);
            assert_eq!(stats.held, self.model.held(id).count() as u64);
            assert_eq!(stats.waiting, 0);
        }
    }
}

/// Whether that much time may be left to the exec deadline.
pub fn is_left(remaining: i64, state: State, limit: Option<i64>) -> bool {
    match (state, limit) {
        (State::Live, None) => remaining == api::INFINITE,
        (State::Live, Some(limit)) => (1..=limit).contains(&remaining),
        _ => remaining == 0,
    }
}

/// The locks of a snapshot, with their keys.
fn infos_of(locks: *mut api::Locks) -> Vec<(api::LockInfo, Bytes)> {
    let count = api::etslock_locks_count(locks);
    // SAFETY: numbers, and pointers that may be NULL.
    let mut info: api::LockInfo = unsafe { std::mem::zeroed() };
    info.struct_size = size_of::<api::LockInfo>() as u32;
    assert_eq!(api::etslock_locks_get(locks, count, &mut info), api::NOT_FOUND);
    let get = |index| {
        let mut info = info;
        assert_eq!(api::etslock_locks_get(locks, index, &mut info), api::OK);
        let tuple =
            api::Tuple { key: info.key, key_len: info.key_len, value: ptr::null(), value_len: 0 };
        let (key, _) = copied(&tuple, 1).remove(0);
        (info, key)
    };
    (0..count).map(get).collect()
}
