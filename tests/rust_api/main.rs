//! The Rust API, as another crate sees it. The promises have the numbers of the header.

mod calls;
mod guards;
mod panics;
mod stress;
mod tables;
mod waiting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use etslock::{
    Answer, Callback, Error, Guard, LockTable, OpenTable, Opened, Options, RunOn, Snapshot,
    TableOptions, Timeout, Tuples,
};

const RUN_ONS: [RunOn; 2] = [RunOn::Worker, RunOn::Caller];

/// Far above what anything here takes, far below "it hung".
const SOON: Duration = Duration::from_secs(10);

/// A callback made of a closure, with the tuples that it is given.
struct Body<F> {
    run: F,
}

impl<F: Fn(&Guard, &[Tuples]) -> i32 + Send + Sync + 'static> Callback for Body<F> {
    type View = Snapshot;

    fn arrange(&self, tuples: Snapshot) -> Result<Snapshot, Error> {
        Ok(tuples)
    }

    fn run(&self, guard: &Guard, tuples: &Snapshot) -> i32 {
        (self.run)(guard, tuples.groups())
    }
}

/// A table, and a lock table that no other test counts in.
struct Scene {
    table: OpenTable,
    options: Options,
}

impl Scene {
    /// Its calls wait and hold for as long as it takes.
    fn new() -> Self {
        Self::with(TableOptions::default())
    }

    fn with(table: TableOptions) -> Self {
        let options = Options {
            wait: Timeout::INFINITE,
            exec: Timeout::INFINITE,
            lock_table: Some(LockTable::new()),
            ..Options::default()
        };
        Self { table: OpenTable::create(table).expect("no other test has this name"), options }
    }

    fn table(&self) -> Arc<Opened> {
        self.table.enter()
    }

    fn lock_table(&self) -> &LockTable {
        self.options.lock_table.as_ref().expect("every scene has its own")
    }

    fn options(&self, change: impl FnOnce(&mut Options)) -> Options {
        let mut options = self.options.clone();
        change(&mut options);
        options
    }

    /// One call for "k".
    fn call(
        &self,
        options: &Options,
        run: impl Fn(&Guard, &[Tuples]) -> i32 + Send + Sync + 'static,
    ) -> Answer {
        etslock::with_lock(self.table(), &[b"k"], options, Body { run })
    }

    fn acquire(&self, key: &[u8]) -> Guard {
        etslock::acquire(self.table(), &[key], &self.options).expect("nobody holds it")
    }

    /// One attempt; gives back what it gets.
    fn try_lock(&self, key: &[u8]) -> Result<(), Error> {
        let options = self.options(|options| options.wait = Timeout::millis(0));
        etslock::acquire(self.table(), &[key], &options).and_then(Guard::cancel)
    }

    /// The values of a key, joined by commas.
    fn values(&self, key: &[u8]) -> String {
        self.table.lookup(key).map_or_else(|_| String::new(), |tuples| join(&tuples))
    }

    fn waiting(&self) -> u64 {
        self.lock_table().stats().waiting
    }

    fn await_waiting(&self, wanted: u64) {
        until(|| self.waiting() == wanted);
    }
}

fn join(tuples: &Tuples) -> String {
    let values: Vec<_> = tuples.values().map(String::from_utf8_lossy).collect();
    values.join(",")
}

#[expect(clippy::disallowed_methods, reason = "a test reads the clock from outside")]
fn timed<R>(body: impl FnOnce() -> R) -> (R, Duration) {
    let begin = Instant::now();
    let answer = body();
    (answer, begin.elapsed())
}

/// Waits for what comes soon, or never.
#[expect(clippy::disallowed_methods, reason = "a test reads the clock from outside")]
fn until(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < 2 * SOON, "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}
