//! Several threads on shared tables. What each call answers depends on the others, what is in the
//! tables at the end does not: exactly what the answers said.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::thread;

use crate::api::{self, Status};
use crate::input::{Bytes, Input};
use crate::locks::{acquire, c_keys, default_options};
use crate::lonely::{self, Ending};
use crate::tables::shown_by;
use crate::world::{say, stats_of, unset, until};

/// The first two are held without a deadline. The last one is taken away from its holders all the
/// time.
const COUNTERS: [&[u8]; 3] = [b"first", b"second", b"stormy"];
const STORMY: usize = 2;
const LIST: &[u8] = b"list";
const SUM: &[u8] = b"sum";
const SLOT: &[u8] = b"slot";
/// Keys of which many are locked at once, and how many.
const CROWD: usize = 1200;
const CROWDED: usize = 900;
/// So many locks there are at most.
const MOST: usize = COUNTERS.len() + 1 + CROWD;

/// What the threads share.
#[derive(Debug)]
struct Stage {
    /// A set for writes through guards.
    counters: *mut api::Table,
    /// A duplicate bag.
    lists: *mut api::Table,
    lists_name: &'static CStr,
    /// A set for writes without a lock.
    free: *mut api::Table,
    lock_table: *mut api::LockTable,
    /// Writes that the library said are done.
    counted: [AtomicI64; COUNTERS.len()],
    sum: AtomicI64,
    slot: AtomicI64,
    /// Whether somebody holds a counter, of those that nobody loses.
    held: [AtomicBool; STORMY],
    /// The same of the crowd.
    crowd: Vec<AtomicBool>,
}

// SAFETY: handles may be used from any thread.
unsafe impl Sync for Stage {}

pub fn run(mut input: Input, threads: usize) {
    let own = input.below(2) == 1;
    let mut lock_table = ptr::null_mut();
    if own {
        assert_eq!(api::etslock_lock_table_new(&mut lock_table), api::OK);
    }
    let lists_name = c"lists";
    let stage = Stage {
        counters: new_table(api::SET, api::GUARDED, ptr::null()),
        lists: new_table(api::DUPLICATE_BAG, api::PUBLIC, lists_name.as_ptr()),
        lists_name,
        free: new_table(api::SET, api::PUBLIC, ptr::null()),
        lock_table,
        counted: Default::default(),
        sum: AtomicI64::new(0),
        slot: AtomicI64::new(0),
        held: Default::default(),
        crowd: (0..CROWD).map(|_| AtomicBool::new(false)).collect(),
    };
    let inputs = input.split(threads);
    let listed: Vec<Vec<Bytes>> = thread::scope(|scope| {
        let stage = &stage;
        let actors: Vec<_> = inputs
            .into_iter()
            .enumerate()
            .map(|(id, input)| scope.spawn(move || Actor::new(stage, id, input).run()))
            .collect();
        let join = |actor: thread::ScopedJoinHandle<_>| actor.join().expect("a panic ends all");
        actors.into_iter().map(join).collect()
    });
    until("abandoned callbacks end", || stats_of(ptr::null_mut()).abandoned == 0);
    let stats = stats_of(lock_table);
    assert_eq!((stats.held, stats.waiting), (0, 0));
    for (key, counted) in COUNTERS.iter().zip(&stage.counted) {
        assert_eq!(number(stage.counters, key), counted.load(SeqCst), "{}", key.escape_ascii());
    }
    assert_eq!(number(stage.free, SUM), stage.sum.load(SeqCst));
    let in_slot = api::etslock_table_member(stage.free, SLOT.as_ptr(), SLOT.len()) == api::OK;
    assert_eq!(i64::from(in_slot), stage.slot.load(SeqCst));
    check_list(&values(stage.lists, LIST), &listed);
    for table in [stage.counters, stage.lists, stage.free] {
        api::etslock_table_free(table);
    }
    api::etslock_lock_table_free(lock_table);
}

/// Each thread's values are there once, in the order in which it wrote them.
fn check_list(list: &[Bytes], listed: &[Vec<Bytes>]) {
    assert_eq!(list.len(), listed.iter().map(Vec::len).sum());
    for (id, written) in listed.iter().enumerate() {
        let own: Vec<_> = list.iter().filter(|value| value[0] == id as u8).cloned().collect();
        assert_eq!(&own, written);
    }
}

fn new_table(r#type: i32, access: i32, name: *const std::ffi::c_char) -> *mut api::Table {
    let struct_size = size_of::<api::TableOptions>() as u32;
    let options = api::TableOptions { struct_size, r#type, access, reserved: 0, name };
    let mut table = unset();
    assert_eq!(api::etslock_table_new(&options, &mut table), api::OK);
    table
}

fn values(table: *mut api::Table, key: &[u8]) -> Vec<Bytes> {
    let mut tuples = unset();
    api::etslock_table_lookup(table, key.as_ptr(), key.len(), &mut tuples);
    values_of(tuples)
}

fn values_of(tuples: *mut api::Tuples) -> Vec<Bytes> {
    let values = shown_by(tuples).into_iter().map(|(_, value)| value).collect();
    api::etslock_tuples_free(tuples);
    values
}

fn names(which: &[usize]) -> Vec<Bytes> {
    which.iter().map(|which| COUNTERS[*which].to_vec()).collect()
}

/// 0 if there is none.
fn number(table: *mut api::Table, key: &[u8]) -> i64 {
    number_in(&values(table, key))
}

fn number_in(values: &[Bytes]) -> i64 {
    values.first().map_or(0, |value| {
        i64::from_ne_bytes(value.as_slice().try_into().expect("a number has 8 bytes"))
    })
}

/// One thread.
struct Actor<'a> {
    stage: &'a Stage,
    id: usize,
    input: Input,
    /// What it wrote to the list.
    listed: Vec<Bytes>,
    /// The last values that it saw of the counters, which only grow.
    seen: [i64; COUNTERS.len()],
    /// Guards of the stormy counter, which it lets lie about.
    left: Vec<*mut api::Guard>,
    freed: Vec<Arc<AtomicUsize>>,
}

impl<'a> Actor<'a> {
    fn new(stage: &'a Stage, id: usize, input: Input) -> Self {
        let (listed, seen) = (Vec::new(), [0; COUNTERS.len()]);
        Self { stage, id, input, listed, seen, left: Vec::new(), freed: Vec::new() }
    }

    fn run(mut self) -> Vec<Bytes> {
        while !self.input.is_empty() {
            let choice = self.input.below(32);
            say(format_args!("thread {}: {choice}", self.id));
            match choice {
                0..=9 => self.count(),
                10..=13 => self.call(),
                14..=15 => self.storm(),
                16..=17 => self.leave_guard(),
                18 if self.freed.is_empty() => self.abandon(),
                18..=20 => self.list_without_lock(),
                21..=22 => self.list_with_lock(),
                23..=24 => self.add(),
                25..=26 => self.swap_slot(),
                27 => self.crowd(),
                _ => self.look(),
            }
        }
        for guard in &self.left {
            assert_eq!(api::etslock_guard_cancel(*guard), api::OK);
        }
        let freed = || self.freed.iter().all(|freed| freed.load(SeqCst) == 1);
        until("the user's data is freed", freed);
        self.listed
    }

    /// Options for the counters, of which one may be stormy.
    fn options(&mut self, stormy: bool) -> api::Options {
        let choice = self.input.byte();
        let pick = |shift: u8, of: [i64; 4]| of[usize::from(choice >> shift & 3)];
        api::Options {
            wait_timeout_ms: pick(0, [api::INFINITE, api::INFINITE, 0, 1]),
            exec_timeout_ms: match stormy {
                true => pick(2, [api::INFINITE, 1, 0, 1]),
                false => api::INFINITE,
            },
            fail_timeout_ms: 0,
            spin_delay_ms: 0,
            lock_table: self.stage.lock_table,
            queue: i32::from((choice >> 4) % 3),
            on_exec_timeout: api::JOIN,
            run_on: i32::from(choice >> 7),
            ..default_options()
        }
    }

    /// Acquires a counter or both steady ones, and counts.
    fn count(&mut self) {
        let which = self.input.of(&[&[0][..], &[1], &[STORMY], &[0, 1], &[1, 0]]);
        let options = self.options(which[0] == STORMY);
        let Some(guard) = self.acquire(which, &options, which.len() > 1) else { return };
        let nested = self.input.below(4);
        if nested < STORMY && which.len() == 1 && which[0] != STORMY && nested != which[0] {
            // Cycles are broken by the library, or these threads wait for ever.
            let inner = self.acquire(&[nested], &options, true);
            if let Some(inner) = inner {
                self.count_and_end(inner, &[nested]);
            }
        }
        self.count_and_end(guard, which);
    }

    fn acquire(
        &self,
        which: &[usize],
        options: &api::Options,
        may_deadlock: bool,
    ) -> Option<*mut api::Guard> {
        let keys = names(which);
        let several = keys.len() > 1;
        let (status, guard) = acquire(self.stage.counters, &keys, several, options);
        match status {
            api::OK => {}
            api::WAIT_TIMEOUT if options.wait_timeout_ms >= 0 => return None,
            api::DEADLOCK if may_deadlock && options.wait_timeout_ms != 0 => return None,
            // Taken away in the moment in which it was got.
            api::REVOKED if which[0] == STORMY => return None,
            _ => panic!("{which:?}: {}", api::name(status)),
        }
        self.stage.enter(which);
        Some(guard)
    }

    fn count_and_end(&mut self, guard: *mut api::Guard, which: &[usize]) {
        let how = self.input.below(8);
        let mut counted = self.stage.count(guard, which);
        if how == 1 {
            let status = api::etslock_guard_commit(guard);
            self.stage.published(which, counted, status);
            self.stage.count(guard, which);
        }
        match how {
            2 => thread::yield_now(),
            3 => {
                let status = api::etslock_guard_extend(guard, 1);
                assert!(status == api::OK || which[0] == STORMY, "a steady counter was lost");
            }
            4 => {
                let status = api::etslock_guard_rollback(guard);
                assert!(status == api::OK || which[0] == STORMY, "a steady counter was lost");
                counted &= status != api::OK;
            }
            _ => {}
        }
        self.stage.leave(which);
        if how == 0 {
            assert_eq!(api::etslock_guard_cancel(guard), api::OK);
        } else {
            let status = api::etslock_guard_release(guard);
            self.stage.published(which, counted, status);
        }
    }

    /// The same in a callback.
    fn call(&mut self) {
        let which = self.input.of(&[&[0][..], &[1], &[STORMY], &[0, 1], &[1, 0]]);
        let options = self.options(which[0] == STORMY);
        let code = self.input.of(&[0, 0, 0, 1]);
        let names = names(which);
        let keys = c_keys(&names);
        let mut body = Body { stage: self.stage, which, code, ran: false, counted: false };
        let data = (&raw mut body).cast();
        let (table, run) =
            (self.stage.counters, Some(count_in_callback as extern "C-unwind" fn(_, _, _, _) -> _));
        let out = ptr::null_mut();
        let status = match keys.as_slice() {
            [only] => {
                api::etslock_with_lock(table, only.key, only.key_len, run, data, &options, out)
            }
            all => {
                let (keys, count) = (all.as_ptr(), all.len());
                api::etslock_with_locks(table, keys, count, run, data, &options, out)
            }
        };
        let steady = which[0] != STORMY;
        match status {
            api::OK => assert!(body.ran && code == 0),
            api::CALLBACK_FAILED => assert!(body.ran && code != 0),
            api::WAIT_TIMEOUT => assert!(!body.ran && options.wait_timeout_ms >= 0),
            api::DEADLOCK => assert!(!body.ran && which.len() > 1),
            api::EXEC_TIMEOUT => assert!(!steady && options.exec_timeout_ms >= 0),
            api::REVOKED => assert!(!steady),
            _ => panic!("{which:?}: {}", api::name(status)),
        }
        self.stage.published(which, body.counted, status);
    }

    /// Holds many keys for a moment.
    fn crowd(&mut self) {
        let first = self.input.of(&[0, 100, CROWD - CROWDED]);
        let options = self.options(false);
        let crowd = first..first + CROWDED;
        let keys: Vec<Bytes> = crowd.clone().map(|key| key.to_ne_bytes().to_vec()).collect();
        let (status, guard) = acquire(self.stage.free, &keys, true, &options);
        if status == api::WAIT_TIMEOUT && options.wait_timeout_ms >= 0 {
            return;
        }
        assert_eq!(api::name(status), "ETSLOCK_OK");
        for held in &self.stage.crowd[crowd.clone()] {
            assert!(!held.swap(true, SeqCst), "two hold the same key");
        }
        for held in &self.stage.crowd[crowd] {
            held.store(false, SeqCst);
        }
        assert_eq!(api::etslock_guard_release(guard), api::OK);
    }

    fn storm(&self) {
        let key = COUNTERS[STORMY];
        let (lock_table, table) = (self.stage.lock_table, self.stage.counters);
        let status =
            api::etslock_lock_table_force_release(lock_table, table, key.as_ptr(), key.len());
        assert!(matches!(status, api::OK | api::NOT_FOUND));
    }

    /// Acquires the stormy counter for no time at all, and forgets about it.
    fn leave_guard(&mut self) {
        let options = api::Options { exec_timeout_ms: 0, ..self.options(true) };
        if let Some(guard) = self.acquire(&[STORMY], &options, true) {
            assert_ne!(api::etslock_guard_commit(guard), api::OK);
            self.left.push(guard);
        }
    }

    fn abandon(&mut self) {
        let ending = self.input.of(&[Ending::ReturnsLate, Ending::IsKilled, Ending::ExitsThread]);
        let (table, key) = (self.stage.counters, COUNTERS[STORMY]);
        let (status, freed) = lonely::call(ending, table, key, self.stage.lock_table, 1);
        let allowed = [ending.status(), api::REVOKED, api::WAIT_TIMEOUT, api::DEADLOCK];
        assert!(allowed.contains(&status), "{}", api::name(status));
        self.freed.push(freed);
    }

    fn next_value(&self) -> Bytes {
        vec![self.id as u8, self.listed.len() as u8]
    }

    /// Through a handle of its own or the shared one.
    fn list_without_lock(&mut self) {
        let own = self.input.below(2) == 1;
        let mut table = self.stage.lists;
        if own {
            let name = self.stage.lists_name.as_ptr();
            assert_eq!(api::etslock_table_open(name, &mut table), api::OK);
        }
        let value = self.next_value();
        let (key, len) = (LIST.as_ptr(), LIST.len());
        let status = api::etslock_table_insert(table, key, len, value.as_ptr(), value.len());
        assert_eq!(status, api::OK);
        if own {
            api::etslock_table_free(table);
        }
        self.listed.push(value);
    }

    fn list_with_lock(&mut self) {
        let options = self.options(false);
        let (key, len) = (LIST.as_ptr(), LIST.len());
        let (status, guard) = acquire(self.stage.lists, &[LIST.to_vec()], false, &options);
        if status == api::WAIT_TIMEOUT && options.wait_timeout_ms >= 0 {
            return;
        }
        assert_eq!(api::name(status), "ETSLOCK_OK");
        for _ in 0..=self.input.below(3) {
            let value = self.next_value();
            let status = api::etslock_guard_insert(guard, key, len, value.as_ptr(), value.len());
            assert_eq!(status, api::OK);
            self.listed.push(value);
        }
        assert_eq!(api::etslock_guard_release(guard), api::OK);
    }

    fn add(&mut self) {
        let add = i64::from(self.input.byte());
        let mut new = 0;
        let (key, len) = (SUM.as_ptr(), SUM.len());
        let status = api::etslock_table_update_counter(self.stage.free, key, len, add, 0, &mut new);
        assert_eq!(status, api::OK);
        assert!(new >= add);
        self.stage.sum.fetch_add(add, SeqCst);
    }

    /// Puts something into the slot if it is empty, or takes it out.
    fn swap_slot(&mut self) {
        let (table, key, len) = (self.stage.free, SLOT.as_ptr(), SLOT.len());
        if self.input.below(2) == 0 {
            let status = api::etslock_table_insert_new(table, key, len, key, len);
            assert!(matches!(status, api::OK | api::EXISTS));
            self.stage.slot.fetch_add(i64::from(status == api::OK), SeqCst);
        } else {
            let mut tuples = unset();
            let status = api::etslock_table_take(table, key, len, &mut tuples);
            assert!(matches!(status, api::OK | api::NOT_FOUND));
            assert_eq!(values_of(tuples).len(), usize::from(status == api::OK));
            self.stage.slot.fetch_sub(i64::from(status == api::OK), SeqCst);
        }
    }

    fn look(&mut self) {
        match self.input.below(4) {
            0 => {
                for (key, seen) in COUNTERS.iter().zip(&mut self.seen) {
                    let now = number(self.stage.counters, key);
                    assert!(*seen <= now, "a counter went back");
                    *seen = now;
                }
            }
            1 => {
                let mut cursor = unset();
                assert_eq!(api::etslock_table_cursor(self.stage.counters, &mut cursor), api::OK);
                let (mut tuples, mut keys) = (unset(), 0);
                while api::etslock_cursor_next(cursor, &mut tuples) == api::OK {
                    assert_eq!(values_of(tuples).len(), 1);
                    keys += 1;
                }
                assert!(keys <= COUNTERS.len());
                api::etslock_cursor_free(cursor);
            }
            2 => {
                let mut locks = unset();
                let all = ptr::null_mut();
                assert_eq!(
                    api::etslock_lock_table_locks(self.stage.lock_table, all, &mut locks),
                    api::OK
                );
                assert!(api::etslock_locks_count(locks) <= MOST);
                api::etslock_locks_free(locks);
            }
            _ => assert!(stats_of(self.stage.lock_table).held <= MOST as u64),
        }
    }
}

impl Stage {
    /// From here on nobody else may hold a steady counter.
    fn enter(&self, which: &[usize]) {
        for held in which.iter().filter_map(|which| self.held.get(*which)) {
            assert!(!held.swap(true, SeqCst), "two hold the same key");
        }
    }

    fn leave(&self, which: &[usize]) {
        for held in which.iter().filter_map(|which| self.held.get(*which)) {
            held.store(false, SeqCst);
        }
    }

    /// Adds one to each. Whether all of that was staged.
    fn count(&self, guard: *mut api::Guard, which: &[usize]) -> bool {
        which.iter().all(|which| {
            let (key, len) = (COUNTERS[*which].as_ptr(), COUNTERS[*which].len());
            let mut tuples = unset();
            let status = api::etslock_guard_lookup(guard, key, len, &mut tuples);
            let next = number_in(&values_of(tuples)) + 1;
            let staged = matches!(status, api::OK | api::NOT_FOUND) && {
                let next = next.to_ne_bytes();
                api::etslock_guard_insert(guard, key, len, next.as_ptr(), next.len()) == api::OK
            };
            assert!(staged || *which == STORMY, "a steady counter was lost");
            staged
        })
    }

    /// A commit was answered: if it was done, each counter has one more.
    fn published(&self, which: &[usize], counted: bool, status: Status) {
        assert!(status == api::OK || which[0] == STORMY || !counted || status != api::REVOKED);
        if counted && status == api::OK {
            for which in which {
                self.counted[*which].fetch_add(1, SeqCst);
            }
        }
    }
}

/// What a counting callback gets. Its call returns when it has returned.
struct Body<'a> {
    stage: &'a Stage,
    which: &'a [usize],
    code: i32,
    ran: bool,
    counted: bool,
}

extern "C-unwind" fn count_in_callback(
    guard: *mut api::Guard,
    _: *const api::Tuple,
    _: usize,
    body: *mut c_void,
) -> i32 {
    // SAFETY: the caller's, who waits.
    let body = unsafe { &mut *body.cast::<Body<'_>>() };
    body.ran = true;
    body.stage.enter(body.which);
    body.counted = body.stage.count(guard, body.which);
    body.stage.leave(body.which);
    body.code
}
