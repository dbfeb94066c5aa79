//! The world of a single-threaded script: the real handles, the model beside them, and the bytes
//! that choose what comes next.

use std::fmt::Arguments;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::api::{self, Status};
use crate::calls::{Call, Outcome};
use crate::input::{Bytes, Input};
use crate::model::{CursorId, HoldId, LockTableId, Model, Party, TableId};

pub const TABLES: usize = 3;
const LOCK_TABLES: usize = 2;
const GUARDS: usize = 4;
const SNAPSHOTS: usize = 4;
const CURSORS: usize = 2;

/// What comes soon, or never.
pub const HANGS: Duration = Duration::from_secs(60);

/// A handle to a table.
#[derive(Debug, Clone, Copy)]
pub struct OpenTable {
    pub table: *mut api::Table,
    pub id: TableId,
}

#[derive(Debug, Clone, Copy)]
pub struct OpenGuard {
    pub guard: *mut api::Guard,
    pub hold: HoldId,
}

#[derive(Debug)]
pub struct Snapshot {
    pub tuples: *mut api::Tuples,
    pub shown: Vec<(Bytes, Bytes)>,
}

#[derive(Debug)]
pub struct World {
    pub input: Input,
    pub model: Model,
    pub tables: [Option<OpenTable>; TABLES],
    /// The first is the process's own.
    pub lock_tables: [Option<(*mut api::LockTable, LockTableId)>; LOCK_TABLES + 1],
    pub guards: [Option<OpenGuard>; GUARDS],
    pub snapshots: [Option<Snapshot>; SNAPSHOTS],
    pub cursors: [Option<(*mut api::Cursor, CursorId)>; CURSORS],
    pub locks: Option<(*mut api::Locks, usize)>,
    /// The callbacks under way, the innermost last.
    pub frames: Vec<OpenGuard>,
    pub outcomes: Vec<(HoldId, Outcome)>,
    /// How often the user's data was freed, of those calls that may do it after they returned.
    pub freed: Vec<Arc<AtomicUsize>>,
    /// What the process's lock table had counted before this script.
    pub baseline: api::Stats,
    /// How often this script may yet let a millisecond pass.
    pub patience: u32,
}

// SAFETY: handles may be used from any thread; the mutex of `Shared` sees to one at a time.
unsafe impl Send for World {}

/// What comes after a step.
#[derive(Debug)]
pub enum Step {
    Next,
    /// A call that runs a callback, to be made while nobody holds the world.
    Call(Box<Call>),
    /// The callback returns, or the script is over.
    End,
}

/// A world that goes from hand to hand: from the thread that calls to the one that runs the
/// callback, and back when the callback has returned, which may be after the call.
#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    turn: Condvar,
}

impl Shared {
    /// The world, when `level` callbacks are under way.
    pub fn enter(&self, level: usize) -> MutexGuard<'_, World> {
        let world = self.world.lock().expect("a panic ends the process");
        let wait = |world: &mut World| world.frames.len() != level;
        let (world, timeout) =
            self.turn.wait_timeout_while(world, HANGS, wait).expect("a panic ends the process");
        assert!(!timeout.timed_out(), "a callback does not end");
        world
    }

    /// The innermost callback has left `frames`.
    pub fn pass_on(&self) {
        self.turn.notify_all();
    }

    /// Runs the script until it ends, or the callback at this level.
    pub fn run(self: &Arc<Self>, level: usize) {
        loop {
            let step = self.enter(level).step();
            match step {
                Step::Next => {}
                Step::Call(call) => {
                    let call = call.make(self, level);
                    self.enter(level).check_call(call);
                }
                Step::End => return,
            }
        }
    }
}

/// Runs a script.
pub fn run(input: Input) {
    let mut world = World {
        input,
        model: Model::default(),
        tables: [None; TABLES],
        lock_tables: [None; LOCK_TABLES + 1],
        guards: [None; GUARDS],
        snapshots: [const { None }; SNAPSHOTS],
        cursors: [None; CURSORS],
        locks: None,
        frames: Vec::new(),
        outcomes: Vec::new(),
        freed: Vec::new(),
        baseline: stats_of(ptr::null_mut()),
        patience: 2,
    };
    world.lock_tables[0] = Some((ptr::null_mut(), 0));
    world.model.counts.push(Default::default());
    let cleanup = world.input.below(6);
    world.new_table(0);

    let shared = Arc::new(Shared { world: Mutex::new(world), turn: Condvar::new() });
    shared.run(0);
    let mut world = shared.enter(0);
    world.compare();
    world.clean_up(cleanup);
    world.check_end();
}

impl World {
    /// What the next byte chooses. Every choice is possible at any time: where something is
    /// missing, it is made.
    fn step(&mut self) -> Step {
        if self.input.is_empty() {
            return Step::End;
        }
        match self.input.below(64) {
            0..=9 => self.table_step(),
            10 => self.cursor_step(),
            11 => self.let_go_step(),
            12..=13 => self.life_step(),
            14..=21 => self.acquire(false),
            22..=24 => self.acquire(true),
            25..=28 => self.end_guard(),
            29..=40 => self.guard_step(),
            41..=42 => self.force_release(),
            43 => self.look_at_locks(),
            44 => self.check_stats(),
            45..=51 => return self.prepare_call(),
            52..=53 => self.lonely_step(),
            54 => self.wrong_call(),
            55 => self.compare(),
            56..=57 => self.scene(),
            _ if self.frames.is_empty() => self.table_step(),
            _ => return Step::End,
        }
        Step::Next
    }

    /// Makes a call, and says so if asked to: at once, for it may not return.
    pub fn call(
        &self,
        what: Arguments,
        call: impl FnOnce() -> Status,
        allowed: &[Status],
    ) -> Status {
        let indent = 2 * self.frames.len();
        say(format_args!("{:indent$}etslock_{what}", ""));
        let status = call();
        say(format_args!("{:indent$}  {}", "", api::name(status)));
        assert!(
            allowed.contains(&status),
            "etslock_{what}: {}, wanted {:?}",
            api::name(status),
            allowed.iter().map(|status| api::name(*status)).collect::<Vec<_>>()
        );
        status
    }

    /// An owner of 0.
    pub fn me(&self) -> Party {
        self.frames.last().map_or(Party::Main, |frame| Party::Call(frame.hold))
    }

    /// The guard of a hold that is in force.
    pub fn guard_of(&self, hold: HoldId) -> *mut api::Guard {
        let mut guards = self.frames.iter().chain(self.guards.iter().flatten());
        guards.find(|open| open.hold == hold).expect("every hold has a guard").guard
    }

    pub fn wait_a_moment(&mut self) -> bool {
        let may = self.patience > 0;
        self.patience -= u32::from(may);
        may
    }

    /// The whole content of every table, each way it can be seen.
    pub fn compare(&mut self) {
        for open in self.tables.into_iter().flatten() {
            let mut count = usize::MAX;
            assert_eq!(api::etslock_table_count(open.table, &mut count), api::OK);
            assert_eq!(count, self.model.tables[open.id].count());
            let cursor = self.model.new_cursor(open.id);
            let mut handle = ptr::null_mut();
            assert_eq!(api::etslock_table_cursor(open.table, &mut handle), api::OK);
            while self.next_of_cursor(handle, cursor) {}
            api::etslock_cursor_free(handle);
        }
        self.check_locks(None);
    }

    /// Lets go of everything, in one of several orders.
    fn clean_up(&mut self, order: usize) {
        for turn in 0..6 {
            match (turn + order) % 6 {
                0 => {
                    for slot in 0..GUARDS {
                        self.end_guard_at(slot, slot % 2 == 0);
                    }
                }
                1 => (0..TABLES).for_each(|slot| self.free_table(slot)),
                2 => (1..=LOCK_TABLES).for_each(|slot| self.free_lock_table(slot)),
                3 => (0..SNAPSHOTS).for_each(|slot| self.free_snapshot(slot)),
                4 => (0..CURSORS).for_each(|slot| self.free_cursor(slot)),
                _ => self.free_locks(),
            }
        }
    }

    /// Nothing is left behind.
    fn check_end(&self) {
        for (id, _) in self.model.counts.iter().enumerate() {
            assert_eq!(self.model.held(id).count(), 0, "the model holds a lock");
        }
        until("abandoned callbacks end", || {
            let stats = stats_of(ptr::null_mut());
            assert_eq!((stats.held, stats.waiting), (0, 0));
            stats.abandoned == 0
        });
        until("the user's data is freed", || {
            self.freed.iter().all(|freed| freed.load(SeqCst) == 1)
        });
    }
}

pub fn stats_of(lock_table: *mut api::LockTable) -> api::Stats {
    // SAFETY: plain numbers.
    let mut stats: api::Stats = unsafe { std::mem::zeroed() };
    api::etslock_stats_init(&mut stats, size_of::<api::Stats>());
    assert_eq!(api::etslock_lock_table_stats(lock_table, &mut stats), api::OK);
    stats
}

/// Waits for what comes soon, or never.
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < HANGS, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Tells of a call, with TRACE in the environment.
pub fn say(what: Arguments) {
    static ASKED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("TRACE").is_some());
    if *ASKED {
        eprintln!("{what}");
    }
}

/// A byte string as C passes it.
pub fn at(bytes: &[u8]) -> *const u8 {
    if bytes.is_empty() { ptr::null() } else { bytes.as_ptr() }
}

/// An output handle before the call, which must not stay so.
pub fn unset<T>() -> *mut T {
    ptr::dangling_mut()
}
