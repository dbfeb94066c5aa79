//! The library called from Rust, with what `etslock_rates` calls from C: what the C boundary costs.
//!
//! Subjects: caller, caller-infinite.

use etslock::{
    Callback, Guard, OpenTable, Options, RunOn, Snapshot, TableOptions, Timeout, with_lock,
};
use etslock_bench_peers::{Arguments, Subject, run};

struct Etslock {
    table: OpenTable,
    options: Options,
}

fn number(tuples: &etslock::Tuples) -> u64 {
    let value = tuples.values().next().and_then(|value| value.try_into().ok());
    value.map_or(0, u64::from_ne_bytes)
}

struct AddOne<S> {
    key: [u8; 8],
    section: S,
}

impl<S: Fn() + Send + Sync + 'static> Callback for AddOne<S> {
    type View = Snapshot;

    fn arrange(&self, tuples: Snapshot) -> etslock::Result<Snapshot> {
        Ok(tuples)
    }

    fn run(&self, guard: &Guard, tuples: &Snapshot) -> i32 {
        let found = tuples.groups().first();
        let value = found.map_or(0, number) + 1;
        (self.section)();
        guard.insert(&self.key, &value.to_ne_bytes()).map_or(1, |()| 0)
    }
}

impl Subject for Etslock {
    fn fill(&self, key: u64) {
        self.table.insert(&key.to_ne_bytes(), &0_u64.to_ne_bytes()).expect("insert");
    }

    fn read(&self, key: u64) -> u64 {
        number(&self.table.lookup(&key.to_ne_bytes()).expect("key"))
    }

    fn add(&self, key: u64, _section: impl Fn()) {
        let key = key.to_ne_bytes();
        let callback = AddOne { key, section: || {} };
        with_lock(self.table.enter(), &[&key], &self.options, callback).end.expect("call");
    }
}

fn main() {
    let arguments = Arguments::read();
    let mut options =
        Options { wait: Timeout::INFINITE, run_on: RunOn::Caller, ..Options::default() };
    if arguments.subject.contains("infinite") {
        options.exec = Timeout::INFINITE;
    }
    let table = OpenTable::create(TableOptions::default()).expect("table");
    run(&arguments, &Etslock { table, options });
}
