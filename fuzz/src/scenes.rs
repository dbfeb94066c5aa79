//! Scenes with other threads that have one outcome all the same: they wait for a lock that the
//! script holds, and the script sees them wait before it goes on.

use std::cell::RefCell;
use std::ptr;
use std::slice;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::api::{self, Status};
use crate::input::Bytes;
use crate::locks::{acquire, default_options, show, thread_id};
use crate::model::{HoldId, Kind, Party, Request, Write};
use crate::world::{OpenGuard, OpenTable, World, at, say, stats_of, unset, until};

/// The logical owner of a lock that a waiter got and the script keeps.
const USURPER: u64 = 9;

/// What a thread is given, handles included.
#[derive(Debug)]
struct Sent<T>(T);

// SAFETY: handles may be used from any thread.
unsafe impl<T> Send for Sent<T> {}

impl<T> Sent<T> {
    fn get(self) -> T {
        self.0
    }
}

/// A thread that waits for locks. It tells its status and token.
#[derive(Debug)]
struct Waiter {
    keys: Vec<Bytes>,
    thread: JoinHandle<(Status, u64)>,
}

/// The lock that a scene is about.
#[derive(Debug)]
struct Stage {
    table: OpenTable,
    lock_table: *mut api::LockTable,
    lock_table_id: usize,
    lock_table_slot: usize,
    key: Bytes,
    queue: i32,
}

impl World {
    /// A scene, if the key that it is about is free.
    pub fn scene(&mut self) {
        let table = self.some_table();
        let lock_table_slot = self.input.below(self.lock_tables.len());
        let (lock_table, lock_table_id) = self.some_lock_table(lock_table_slot);
        let key = self.input.key();
        let queue = self.input.of(&[api::QUEUE_FAIR, api::QUEUE_FIFO, api::QUEUE_POLLING]);
        let choice = self.input.byte();
        if let (2, Some(frame)) = (choice % 8, self.frames.last()) {
            return self.usurp(frame.hold, queue);
        }
        if self.model.holder(lock_table_id, table.id, &key).is_some() {
            return;
        }
        let stage = Stage { table, lock_table, lock_table_id, lock_table_slot, key, queue };
        match choice % 8 {
            0..=1 => self.handover(&stage, choice / 8),
            2 => self.sleeper(&stage),
            3 => self.closing(&stage, choice & 8 == 0),
            4 => self.cycle(&stage),
            5 => self.line(&stage),
            6 => self.half_taken(&stage),
            _ => self.last_words(&stage, choice & 8 == 0),
        }
    }

    /// The holder ends in some way, and the waiter gets the lock.
    fn handover(&mut self, stage: &Stage, how: u8) {
        let guard = self.hold(stage);
        let hold = self.model.holds.len() - 1;
        let insert =
            || api::etslock_guard_insert(guard, at(&stage.key), stage.key.len(), at(b"h"), 1);
        self.call(format_args!("guard_insert(h)"), insert, &[api::OK]);
        self.model.stage(hold, stage.table.id, &stage.key, Write::Insert(b"h".to_vec()));
        let waiter = stage.wait(&[&stage.key]);
        stage.await_waiting(1);
        let (wanted, end) = match how % 3 {
            0 => (self.model.release(hold), 0),
            1 => {
                self.model.cancel(hold);
                (api::OK, 1)
            }
            _ => {
                let table = stage.table.id;
                let forced = self.model.force_release(stage.lock_table_id, table, &stage.key);
                assert_eq!(stage.force(&stage.key), forced);
                (self.model.release(hold), 0)
            }
        };
        self.finish(guard, end, wanted);
        self.waiter_ends(stage, waiter, api::OK);
    }

    /// A callback loses its lock to a waiter, whose guard the script takes over: whatever the
    /// callback's caller does from now on, it is not its to free.
    fn usurp(&mut self, hold: HoldId, queue: i32) {
        let held = &self.model.holds[hold];
        let (table_id, key) = held.keys[0].clone();
        let lock_table_id = held.request.lock_table;
        let table = self.tables.into_iter().flatten().find(|open| open.id == table_id);
        let lock_tables = self.lock_tables.into_iter().enumerate();
        let mut lock_tables = lock_tables.filter_map(|(slot, open)| Some((slot, open?)));
        let lock_table = lock_tables.find(|(_, (_, id))| *id == lock_table_id);
        let slot = self.guards.iter().position(Option::is_none);
        let (Some(table), Some((lock_table_slot, (lock_table, _))), Some(slot), true) =
            (table, lock_table, slot, held.in_force() && !held.overdue())
        else {
            return;
        };
        let stage = Stage { table, lock_table, lock_table_id, lock_table_slot, key, queue };
        let options = api::Options { owner: USURPER, ..stage.options() };
        let sent = Sent((table.table, options, stage.key.clone()));
        let thread = thread::spawn(move || {
            let (table, options, key) = sent.get();
            let (status, guard) = acquire(table, &[key], false, &options);
            assert_eq!(api::name(status), "ETSLOCK_OK");
            (Sent(guard), thread_id())
        });
        stage.await_waiting(1);
        let forced = self.model.force_release(lock_table_id, table_id, &stage.key);
        self.call(format_args!("force_release()"), || stage.force(&stage.key), &[forced]);
        let (guard, thread_id) = thread.join().expect("a panic ends the process");
        let guard = guard.get();
        let hold = self.model.grant(Request {
            owner: USURPER,
            party: Party::Logical(USURPER),
            thread_id,
            ..stage.request()
        });
        self.model.saw_token(hold, api::etslock_guard_token(guard));
        self.guards[slot] = Some(OpenGuard { guard, hold });
    }

    /// A holder without a deadline sleeps for as long as it may: until its lock is taken away.
    fn sleeper(&mut self, stage: &Stage) {
        let (tell, told) = mpsc::channel();
        let sent = Sent((stage.table.table, stage.options(), stage.key.clone()));
        let sleeper = thread::spawn(move || {
            let (table, options, key) = sent.get();
            let (status, guard) = acquire(table, &[key], false, &options);
            assert_eq!(api::name(status), "ETSLOCK_OK");
            tell.send(()).expect("the script waits");
            let woken = api::etslock_guard_sleep(guard, api::INFINITE);
            assert_eq!(api::etslock_guard_release(guard), woken);
            woken
        });
        told.recv().expect("a panic ends the process");
        self.call(format_args!("force_release()"), || stage.force(&stage.key), &[api::OK]);
        let woken = sleeper.join().expect("a panic ends the process");
        assert_eq!(api::name(woken), "ETSLOCK_REVOKED");
        let counts = &mut self.model.counts[stage.lock_table_id];
        counts.acquired += 1;
        counts.forced.0 += 1;
        counts.forced.1 += 1;
    }

    /// What the waiter waits through is closed.
    fn closing(&mut self, stage: &Stage, close_table: bool) {
        let guard = self.hold(stage);
        let hold = self.model.holds.len() - 1;
        let waiter = stage.wait(&[&stage.key]);
        stage.await_waiting(1);
        if close_table || stage.lock_table.is_null() {
            let of_it =
                |slot: &usize| self.tables[*slot].is_some_and(|o| o.table == stage.table.table);
            let slot = (0..self.tables.len()).find(of_it).expect("the stage has a table");
            self.free_table(slot);
        } else {
            self.free_lock_table(stage.lock_table_slot);
        }
        self.waiter_ends(stage, waiter, api::CLOSED);
        let wanted = self.model.release(hold);
        self.finish(guard, 0, wanted);
    }

    /// Both have what the other wants.
    fn cycle(&mut self, stage: &Stage) {
        let other = b"other".to_vec();
        if self.model.holder(stage.lock_table_id, stage.table.id, &other).is_some() {
            return;
        }
        // A callback that lost its lock may be detached from its caller or not.
        if self.frames.iter().any(|frame| !self.model.holds[frame.hold].in_force()) {
            return;
        }
        let guard = self.hold(stage);
        let hold = self.model.holds.len() - 1;
        let waiter = stage.wait_holding(Some(other.clone()), &[&stage.key]);
        stage.await_waiting(1);
        let again = || acquire(stage.table.table, &[other], false, &stage.options()).0;
        self.call(format_args!("acquire(other)"), again, &[api::DEADLOCK]);
        self.model.counts[stage.lock_table_id].deadlocks += 1;
        let wanted = self.model.release(hold);
        self.finish(guard, 0, wanted);
        self.model.counts[stage.lock_table_id].acquired += 1;
        self.waiter_ends(stage, waiter, api::OK);
    }

    /// Waiters that stand in line for strict order come in their order.
    fn line(&mut self, stage: &Stage) {
        let guard = self.hold(stage);
        let hold = self.model.holds.len() - 1;
        let strict = Stage { queue: api::QUEUE_FIFO, key: stage.key.clone(), ..*stage };
        let waiters: Vec<_> = (1..=3)
            .map(|place| {
                let waiter = strict.wait(&[&stage.key]);
                stage.await_waiting(place);
                waiter
            })
            .collect();
        self.model.cancel(hold);
        self.finish(guard, 1, api::OK);
        let tokens: Vec<u64> =
            waiters.into_iter().map(|waiter| self.waiter_ends(stage, waiter, api::OK)).collect();
        assert!(tokens.is_sorted(), "not in order: {tokens:?}");
    }

    /// Somebody waits for one of several keys, and may have taken the others already.
    fn half_taken(&mut self, stage: &Stage) {
        // Locks are taken in an order that nobody knows, so this key is not always the same.
        let other = vec![b'o', self.input.byte()];
        if self.model.holder(stage.lock_table_id, stage.table.id, &other).is_some() {
            return;
        }
        let guard = self.hold(stage);
        let hold = self.model.holds.len() - 1;
        let waiter = stage.wait(&[&stage.key, &other]);
        stage.await_waiting(1);
        let taken = stage.force(&other);
        let revoked = taken == api::OK;
        let counts = &mut self.model.counts[stage.lock_table_id];
        // Forced or not, and counted by hold or by lock.
        counts.forced.0 += u64::from(revoked);
        counts.forced.1 += 2 * u64::from(revoked);
        if revoked {
            self.waiter_ends(stage, waiter, api::REVOKED);
            let wanted = self.model.release(hold);
            self.finish(guard, 0, wanted);
        } else {
            assert_eq!(taken, api::NOT_FOUND);
            let wanted = self.model.release(hold);
            self.finish(guard, 0, wanted);
            self.waiter_ends(stage, waiter, api::OK);
        }
    }

    /// A thread locks and writes while it ends, before or after the library's own thread-locals.
    fn last_words(&mut self, stage: &Stage, before: bool) {
        let options = api::Options { lock_table: stage.lock_table, ..default_options() };
        let words = Sent(LastWords { table: stage.table.table, options, key: stage.key.clone() });
        let ending = thread::spawn(move || {
            if before {
                stats_of(ptr::null_mut());
            }
            LAST_WORDS.set(Some(words.get()));
            stats_of(ptr::null_mut());
        });
        ending.join().expect("a panic ends the process");
        self.model.counts[stage.lock_table_id].acquired += 1;
        self.model.write(stage.table.id, &stage.key, &Write::Insert(b"l".to_vec()));
    }

    /// The script holds the key.
    fn hold(&mut self, stage: &Stage) -> *mut api::Guard {
        let mut guard = unset();
        let keys = slice::from_ref(&stage.key);
        let hold = || {
            let (status, got) = acquire(stage.table.table, keys, false, &stage.options());
            guard = got;
            status
        };
        self.call(format_args!("acquire({}, {})", stage.table.id, show(keys)), hold, &[api::OK]);
        let hold = self.model.grant(Request { party: self.me(), ..stage.request() });
        self.model.saw_token(hold, api::etslock_guard_token(guard));
        guard
    }

    fn finish(&self, guard: *mut api::Guard, end: u8, wanted: Status) {
        match end {
            0 => {
                let release = || api::etslock_guard_release(guard);
                self.call(format_args!("guard_release()"), release, &[wanted])
            }
            _ => {
                let cancel = || api::etslock_guard_cancel(guard);
                self.call(format_args!("guard_cancel()"), cancel, &[wanted])
            }
        };
    }

    /// The waiter has ended; if it got the locks it wrote to each key. Its token.
    fn waiter_ends(&mut self, stage: &Stage, waiter: Waiter, wanted: Status) -> u64 {
        let (status, token) = waiter.thread.join().expect("a panic ends the process");
        say(format_args!("  the waiter: {}", api::name(status)));
        assert_eq!(api::name(status), api::name(wanted));
        if status == api::OK {
            self.model.counts[stage.lock_table_id].acquired += waiter.keys.len() as u64;
            for key in &waiter.keys {
                self.model.write(stage.table.id, key, &Write::Insert(b"w".to_vec()));
            }
        }
        token
    }
}

thread_local!(static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) });

/// What a thread does when it ends.
struct LastWords {
    table: *mut api::Table,
    options: api::Options,
    key: Bytes,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let (key, len) = (at(&self.key), self.key.len());
        let (status, guard) = acquire(self.table, slice::from_ref(&self.key), false, &self.options);
        assert_eq!(api::name(status), "ETSLOCK_OK");
        assert_eq!(api::etslock_guard_insert(guard, key, len, at(b"l"), 1), api::OK);
        assert_eq!(api::etslock_guard_release(guard), api::OK);
    }
}

impl Stage {
    fn options(&self) -> api::Options {
        api::Options {
            wait_timeout_ms: api::INFINITE,
            exec_timeout_ms: api::INFINITE,
            lock_table: self.lock_table,
            queue: self.queue,
            ..default_options()
        }
    }

    /// What `options` ask for.
    fn request(&self) -> Request {
        Request {
            kind: Kind::Acquired,
            lock_table: self.lock_table_id,
            keys: vec![(self.table.id, self.key.clone())],
            owner: 0,
            party: Party::Main,
            exec: None,
            fails_at_once: false,
            thread_id: thread_id(),
            commit_code: 0,
            stopped: false,
        }
    }

    fn force(&self, key: &[u8]) -> Status {
        let table = self.table.table;
        api::etslock_lock_table_force_release(self.lock_table, table, at(key), key.len())
    }

    fn await_waiting(&self, count: u64) {
        until("somebody waits", || stats_of(self.lock_table).waiting == count);
    }

    /// A thread that waits for `keys`, and writes to each.
    fn wait(&self, keys: &[&Bytes]) -> Waiter {
        self.wait_holding(None, keys)
    }

    /// The same, holding another lock meanwhile.
    fn wait_holding(&self, held: Option<Bytes>, keys: &[&Bytes]) -> Waiter {
        let keys: Vec<Bytes> = keys.iter().copied().cloned().collect();
        say(format_args!("  another thread, holding {held:?}, acquires {}", show(&keys)));
        let sent = Sent((self.table.table, self.options(), keys.clone()));
        let thread = thread::spawn(move || {
            let (table, options, keys) = sent.get();
            let held = held.map(|key| acquire(table, &[key], false, &options).1);
            let (status, guard) = acquire(table, &keys, keys.len() > 1, &options);
            let token = api::etslock_guard_token(guard);
            if status == api::OK {
                for key in &keys {
                    let insert = api::etslock_guard_insert(guard, at(key), key.len(), at(b"w"), 1);
                    assert_eq!(insert, api::OK);
                }
                assert_eq!(api::etslock_guard_release(guard), api::OK);
            }
            if let Some(held) = held {
                assert_eq!(api::etslock_guard_cancel(held), api::OK);
            }
            (status, token)
        });
        Waiter { keys, thread }
    }
}
