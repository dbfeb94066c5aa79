//! The world of a single-threaded script: the real handles, the model beside them, and the bytes
//! that choose what comes next (`script`).

use std::fmt::Arguments;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::api::{self, Status};
use crate::input::{Bytes, Input};
use crate::model::{CursorId, HoldId, LockTableId, Model, Party, TableId};

pub const TABLES: usize = 3;
pub const LOCK_TABLES: usize = 2;
pub const GUARDS: usize = 4;
pub const SNAPSHOTS: usize = 4;
pub const CURSORS: usize = 2;

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

/// What a call must answer, from its callback's end on.
#[derive(Debug)]
pub struct Outcome {
    pub status: Status,
    pub code: i32,
    pub data: Bytes,
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
    /// And whether it was requested.
    pub stop: Option<(*mut api::Stop, bool)>,
    pub completions: Option<*mut api::Completions>,
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

/// A world that goes from hand to hand: from the thread that calls to the one that runs the
/// callback, and back when the callback has returned, which may be after the call.
#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    turn: Condvar,
    /// Goes on with the script, inside a callback of this level.
    pub go_on: fn(&Arc<Shared>, usize),
}

impl Shared {
    pub fn new(world: World, go_on: fn(&Arc<Self>, usize)) -> Arc<Self> {
        Arc::new(Self { world: Mutex::new(world), turn: Condvar::new(), go_on })
    }

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
}

impl World {
    pub fn new(input: Input) -> Self {
        Self {
            input,
            model: Model::default(),
            tables: [None; TABLES],
            lock_tables: [None; LOCK_TABLES + 1],
            guards: [None; GUARDS],
            snapshots: [const { None }; SNAPSHOTS],
            cursors: [None; CURSORS],
            locks: None,
            stop: None,
            completions: None,
            frames: Vec::new(),
            outcomes: Vec::new(),
            freed: Vec::new(),
            baseline: stats_of(ptr::null_mut()),
            patience: 2,
        }
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
