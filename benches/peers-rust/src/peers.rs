//! Rates and memory of the Rust peers: lockable, dashmap, scc, flurry (its own compute).
//!
//! Workloads with `count=N`, one in a process: tuples, boxed-tuples (flurry), held-locks
//! (lockable).

use std::sync::Arc;

use etslock_bench_peers::{Arguments, Memory, Subject, key, run};
use lockable::{LockableHashMap, SyncLimit};

struct Lockable(LockableHashMap<u64, u64>);

impl Subject for Lockable {
    fn fill(&self, key: u64) {
        let Ok(mut guard) = self.0.blocking_lock(key, SyncLimit::no_limit());
        guard.insert(0);
    }

    fn read(&self, key: u64) -> u64 {
        let Ok(guard) = self.0.blocking_lock(key, SyncLimit::no_limit());
        *guard.value().expect("key")
    }

    fn add(&self, key: u64, section: impl Fn()) {
        let Ok(mut guard) = self.0.blocking_lock(key, SyncLimit::no_limit());
        let kept = guard.value_mut().expect("key");
        let value = *kept + 1;
        section();
        *kept = value;
    }
}

struct Dashmap(dashmap::DashMap<u64, u64>);

impl Subject for Dashmap {
    fn fill(&self, key: u64) {
        self.0.insert(key, 0);
    }

    fn read(&self, key: u64) -> u64 {
        *self.0.get(&key).expect("key")
    }

    fn add(&self, key: u64, section: impl Fn()) {
        let mut kept = self.0.get_mut(&key).expect("key");
        let value = *kept + 1;
        section();
        *kept = value;
    }
}

struct Scc(scc::HashMap<u64, u64>);

impl Subject for Scc {
    fn fill(&self, key: u64) {
        let _ = self.0.insert_sync(key, 0);
    }

    fn read(&self, key: u64) -> u64 {
        self.0.read_sync(&key, |_, value| *value).expect("key")
    }

    fn add(&self, key: u64, section: impl Fn()) {
        let update = |_: &u64, kept: &mut u64| {
            let value = *kept + 1;
            section();
            *kept = value;
        };
        self.0.update_sync(&key, update).expect("key");
    }
}

struct Flurry(flurry::HashMap<u64, u64>);

impl Subject for Flurry {
    fn fill(&self, key: u64) {
        self.0.pin().insert(key, 0);
    }

    fn read(&self, key: u64) -> u64 {
        *self.0.pin().get(&key).expect("key")
    }

    fn add(&self, key: u64, section: impl Fn()) {
        let update = |_: &u64, kept: &u64| {
            section();
            Some(*kept + 1)
        };
        self.0.pin().compute_if_present(&key, update).expect("key");
    }
}

/// flurry with keys and values of 8 bytes inline, and as byte strings of any length.
fn flurry_memory(arguments: &Arguments, count: u64) {
    let before = Memory::now();
    if arguments.wants("tuples") {
        let inline = flurry::HashMap::<[u8; 8], [u8; 8]>::new();
        for index in 0..count {
            inline.pin().insert(key(index).to_ne_bytes(), index.to_ne_bytes());
        }
        before.print_since(&arguments.subject, "tuples", count);
    }
    if arguments.wants("boxed-tuples") {
        let boxed = flurry::HashMap::<Box<[u8]>, Box<[u8]>>::new();
        for index in 0..count {
            boxed.pin().insert(Box::new(key(index).to_ne_bytes()), Box::new(index.to_ne_bytes()));
        }
        before.print_since(&arguments.subject, "boxed-tuples", count);
    }
}

fn lockable_memory(arguments: &Arguments, count: u64) {
    let mut guards = Vec::with_capacity(count as usize);
    let map = Arc::new(LockableHashMap::<u64, u64>::new());
    let before = Memory::now();
    for index in 0..count {
        let Ok(mut guard) = map.blocking_lock_owned(key(index), SyncLimit::no_limit());
        if arguments.wants("held-locks") {
            guards.push(guard);
        } else {
            guard.insert(index);
        }
    }
    let workload = if guards.is_empty() { "tuples" } else { "held-locks" };
    before.print_since(&arguments.subject, workload, count);
}

fn main() {
    let arguments = Arguments::read();
    let count = arguments.number("count", 0);
    match arguments.subject.as_str() {
        "lockable" if count > 0 => lockable_memory(&arguments, count),
        "flurry" if count > 0 => flurry_memory(&arguments, count),
        "lockable" => run(&arguments, &Lockable(LockableHashMap::new())),
        "dashmap" => run(&arguments, &Dashmap(dashmap::DashMap::new())),
        "scc" => run(&arguments, &Scc(scc::HashMap::new())),
        "flurry" => run(&arguments, &Flurry(flurry::HashMap::new())),
        _ => panic!("no such subject"),
    }
}
