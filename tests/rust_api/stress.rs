//! Many threads, few keys: C-1 with counters in plain memory, beside those in the table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;

use etslock::{Error, Guard, LockTable, OnExecTimeout, Options, RunOn, Timeout, Tuples, WaitMode};

use crate::{Body, RUN_ONS, Scene};

const KEYS: usize = 3;
const THREADS: usize = 6;

/// What the lock of one key protects. Atomic for the compiler alone: it is read, and written a
/// moment later, as plain memory would be.
#[derive(Default)]
struct Plain {
    count: AtomicU64,
    inside: AtomicBool,
}

#[derive(Default)]
struct Shared {
    plain: [Plain; KEYS],
    overlaps: AtomicUsize,
}

impl Shared {
    /// Adds one in memory, and one in the table.
    fn add(&self, key: usize, guard: &Guard) -> Result<(), Error> {
        let plain = &self.plain[key];
        if plain.inside.swap(true, Relaxed) {
            self.overlaps.fetch_add(1, Relaxed);
        }
        let count = plain.count.load(Relaxed);
        thread::yield_now();
        plain.count.store(count + 1, Relaxed);
        if !plain.inside.swap(false, Relaxed) {
            self.overlaps.fetch_add(1, Relaxed);
        }
        let name = name(key);
        let old = match guard.lookup(&name) {
            Ok(tuples) => number(&tuples),
            Err(Error::NotFound) => 0,
            Err(error) => return Err(error),
        };
        guard.insert(&name, &(old + 1).to_ne_bytes())
    }
}

fn name(key: usize) -> [u8; 1] {
    [b'a' + key as u8]
}

fn number(tuples: &Tuples) -> u64 {
    let value = tuples.values().next().expect("a tuple");
    u64::from_ne_bytes(value.try_into().expect("8 bytes"))
}

/// One call of each kind, for one key or for all.
fn lock_once(scene: &Scene, shared: &Arc<Shared>, options: &Options, turn: usize) {
    let all: Vec<[u8; 1]> = (0..KEYS).map(name).collect();
    let first = turn % (KEYS + 1);
    let range = if first == KEYS { 0..KEYS } else { first..first + 1 };
    let keys: Vec<&[u8]> = range.clone().map(|key| &all[key][..]).collect();
    let options = Options {
        run_on: if turn.is_multiple_of(2) { RunOn::Caller } else { RunOn::Worker },
        queue: [WaitMode::Fair, WaitMode::Fifo, WaitMode::Polling][turn % 3],
        ..options.clone()
    };
    let add = {
        let shared = Arc::clone(shared);
        move |guard: &Guard| range.clone().try_for_each(|key| shared.add(key, guard))
    };
    if turn.is_multiple_of(5) {
        let guard = etslock::acquire(scene.table(), &keys, &options).expect("it waits");
        add(&guard).expect("it holds");
        guard.release().expect("it is in time");
    } else {
        let run = move |guard: &Guard, _: &[Tuples]| i32::from(add(guard).is_err());
        let body = Body { run };
        let answer = etslock::with_lock(scene.table(), &keys, &options, body);
        assert_eq!(answer.end, Ok(()));
    }
}

/// `rounds` turns on every thread, or until an overlap was seen.
fn run(scene: &Scene, rounds: usize, options: impl Fn() -> Options + Sync) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (shared, options) = (&shared, &options);
            scope.spawn(move || {
                let options = options();
                for round in 0..rounds {
                    lock_once(scene, shared, &options, number + round * 7);
                    if shared.overlaps.load(Relaxed) > 0 {
                        break;
                    }
                }
            });
        }
    });
    shared
}

#[test]
fn c1_one_holder_at_a_time() {
    const ROUNDS: usize = 600;
    let scene = Scene::new();
    let shared = run(&scene, ROUNDS, || scene.options.clone());
    assert_eq!(shared.overlaps.load(Relaxed), 0);
    let mut total = 0;
    for key in 0..KEYS {
        let count = shared.plain[key].count.load(Relaxed);
        assert_eq!(number(&scene.table.lookup(&name(key)).unwrap()), count);
        total += count;
    }
    let turns = (0..THREADS).flat_map(|thread| (0..ROUNDS).map(move |round| thread + round * 7));
    let wanted: usize = turns.map(|turn| if turn % (KEYS + 1) == KEYS { KEYS } else { 1 }).sum();
    assert_eq!(total, wanted as u64);
    let stats = scene.lock_table().stats();
    assert_eq!((stats.held, stats.waiting, stats.acquired), (0, 0, total));
}

/// The control: with a lock table for each thread nothing excludes, and the counters must tell.
#[test]
fn without_a_common_lock_the_counters_tell() {
    let scene = Scene::new();
    let alone = || scene.options(|options| options.lock_table = Some(LockTable::new()));
    assert!(run(&scene, 100_000, alone).overlaps.load(Relaxed) > 0);
}

/// C-4, C-8: whatever is late, what the calls say and what the table holds are the same.
#[test]
fn c8_what_a_call_says_is_what_was_written() {
    let scene = Scene::new();
    let hasty = scene.options(|options| {
        options.exec = Timeout::millis(1);
        options.fail = Timeout::INFINITE;
        options.on_exec_timeout = OnExecTimeout::Join;
    });
    let successes = AtomicU64::new(0);
    let call = |round: usize| {
        let sleeps = Timeout::millis(if round.is_multiple_of(4) { 1 } else { 0 });
        let options = Options { run_on: RUN_ONS[round % 2], ..hasty.clone() };
        let answer = scene.call(&options, move |guard, tuples| {
            let old = if tuples[0].is_empty() { 0 } else { number(&tuples[0]) };
            let _late = guard.sleep(sleeps);
            i32::from(guard.insert(b"k", &(old + 1_u64).to_ne_bytes()).is_err())
        });
        match answer.end {
            Ok(()) => successes.fetch_add(1, Relaxed),
            Err(Error::ExecTimeout) => 0,
            other => panic!("{other:?}"),
        };
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            let call = &call;
            scope.spawn(move || (0..200).for_each(|round| call(thread + round)));
        }
    });
    let successes = successes.load(Relaxed);
    // One in four sleeps until its deadline, at least.
    assert!(successes > 0 && successes <= 600, "{successes}");
    assert_eq!(number(&scene.table.lookup(b"k").unwrap()), successes);
}
