//! Threads that write, read and iterate while the table grows and shrinks under them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::*;
use crate::sync::Arc;

/// As many rounds as a debug build does in a second or so.
const ROUNDS: u64 = if cfg!(debug_assertions) { 2 } else { 20 };

fn table(r#type: TableType) -> Arc<Table> {
    Arc::new(Table::new(TableOptions { r#type, ..TableOptions::default() }))
}

/// Every second key is too long for its place in the map, every second value for its row.
fn key(owner: &str, number: u64) -> Vec<u8> {
    match number % 2 {
        0 => [owner.as_bytes(), &number.to_le_bytes()].concat(),
        _ => format!("{owner} with a key that is long {number}").into_bytes(),
    }
}

fn value(number: u64) -> Vec<u8> {
    match number % 4 / 2 {
        0 => number.to_le_bytes().to_vec(),
        _ => format!("a value that is long {number}").into_bytes(),
    }
}

fn has(table: &Table, key: &[u8], value: &[u8]) -> bool {
    table.lookup(key).is_ok_and(|tuples| tuples.values().eq([value]))
}

/// Lets the others stop, however these end.
fn stop_after(stop: &AtomicBool, threads: Vec<thread::ScopedJoinHandle<'_, ()>>) {
    let ends: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    stop.store(true, Relaxed);
    ends.into_iter().for_each(|end| end.unwrap());
}

#[test]
fn what_is_there_is_found_while_all_else_comes_and_goes() {
    const STABLE: u64 = 500;
    let table = table(TableType::Set);
    for number in 0..STABLE {
        table.insert(&key("s", number), &value(number)).unwrap();
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let movers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|owner| {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        // Small tables, and some with several segments.
                        let count = if round % 4 == 3 { 6000 } else { 300 };
                        for number in 0..count {
                            let (key, value) = (key(owner, number), value(number + round));
                            assert_eq!(table.insert_new(&key, &value), Ok(()));
                            assert!(has(table, &key, &value));
                        }
                        for number in 0..count {
                            let key = key(owner, number);
                            match number % 3 {
                                0 => table.delete(&key).unwrap(),
                                1 => drop(table.take(&key).unwrap()),
                                _ => table.delete_tuple(&key, &value(number + round)).unwrap(),
                            }
                            assert_eq!(table.member(&key), Ok(false));
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                for number in 0..STABLE {
                    let key = key("s", number);
                    assert!(has(&table, &key, &value(number)));
                    assert_eq!(table.member(&key), Ok(true));
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let mut seen = HashMap::new();
                for tuples in Cursor::new(Arc::clone(&table)) {
                    *seen.entry(tuples.key().to_vec()).or_insert(0) += 1;
                }
                assert!(seen.values().all(|times| *times == 1));
                assert!((0..STABLE).all(|number| seen.contains_key(&key("s", number))));
            }
        });
        stop_after(&stop, movers);
    });
    assert_eq!(table.count() as u64, STABLE);
}

#[test]
fn no_update_is_lost_while_rows_move() {
    const COUNTERS: u64 = 40;
    let table = table(TableType::Set);
    let adds = ROUNDS * 2000;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for step in 0..adds {
                    table.update_counter(&key("n", step % COUNTERS), 1, 0).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for round in 0..ROUNDS {
                (0..3000).for_each(|number| table.insert(&key("m", number), b"").unwrap());
                (0..3000).for_each(|number| table.delete(&key("m", number)).unwrap());
                assert!(table.count() as u64 <= COUNTERS, "{round}");
            }
        });
        scope.spawn(|| {
            // Prepared as a commit of several keys is: nothing else comes between.
            for _ in 0..adds / 10 {
                let keys = [key("n", 0), key("n", 1)];
                let mut keys: Vec<KeyRef<'_>> =
                    keys.iter().map(|key| KeyRef::new(key).unwrap()).collect();
                keys.sort();
                let mut all = Vec::new();
                for key in keys {
                    let prepared = table.prepare(key, &[]).unwrap();
                    let held = table.snapshot(key).unwrap().held;
                    all.push((prepared, held.only().map_or(0, |value| number(value).unwrap())));
                }
                for (mut prepared, old) in all {
                    if prepared.row.is_some() {
                        prepared.after = Held::One(Bytes::copy_of(&old.to_ne_bytes()).unwrap());
                        prepared.publish();
                    }
                }
            }
        });
    });
    for number in 0..COUNTERS {
        let expected = (2 * adds / COUNTERS) as i64;
        assert_eq!(table.update_counter(&key("n", number), 0, 0), Ok(expected));
    }
}

#[test]
fn bags_keep_the_order_of_each_writer() {
    for r#type in [TableType::Bag, TableType::DuplicateBag] {
        let table = table(r#type);
        let count = ROUNDS * 300;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = ["a", "b"]
                .into_iter()
                .map(|owner| {
                    let table = &table;
                    scope.spawn(move || {
                        for number in 0..count {
                            table.insert(b"bag", &key(owner, number)).unwrap();
                            table.insert(b"bag", b"passing").unwrap();
                            table.delete_tuple(b"bag", b"passing").unwrap();
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut last = 0;
                while !stop.load(Relaxed) {
                    let Ok(tuples) = table.lookup(b"bag") else { continue };
                    let now: Vec<_> = tuples.values().collect();
                    assert_eq!(now.len(), tuples.len());
                    assert!(now.len() + 4 >= last);
                    last = now.len();
                    assert!(tuples.values().eq(now));
                }
            });
            stop_after(&stop, writers);
        });
        let tuples = table.lookup(b"bag").unwrap();
        assert_eq!(tuples.len() as u64, 2 * count);
        for owner in ["a", "b"] {
            let own = tuples.values().filter(|value| value.starts_with(owner.as_bytes()));
            assert!(own.eq((0..count).map(|number| key(owner, number))));
        }
    }
}

#[test]
fn a_change_that_is_prepared_is_seen_when_it_is_published_or_never() {
    let table = table(TableType::Bag);
    let writes: Vec<Write> =
        (0..100).map(|number| Write::Insert(Bytes::copy_of(&value(number)).unwrap())).collect();
    for publishes in [false, true] {
        let prepared = table.prepare(KeyRef::new(b"k").unwrap(), &writes).unwrap();
        assert_eq!(table.member(b"k"), Ok(false));
        // Rows move meanwhile.
        (0..5000).for_each(|number| table.insert(&key("m", number), b"").unwrap());
        (0..5000).for_each(|number| table.delete(&key("m", number)).unwrap());
        if publishes {
            prepared.publish()
        } else {
            drop(prepared)
        }
        assert_eq!(table.lookup(b"k").map(|tuples| tuples.len()).ok(), publishes.then_some(100));
    }
}
