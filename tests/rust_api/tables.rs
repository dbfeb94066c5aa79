//! Tables, their names, and the lock tables beside them.

use std::collections::BTreeMap;

use etslock::{
    Access, Error, Guard, LockTable, OpenTable, Options, Owner, TableOptions, TableType, Timeout,
};

use crate::{Scene, join};

fn named(name: &str) -> TableOptions {
    TableOptions { name: Some(name.into()), ..TableOptions::default() }
}

#[test]
fn c14_a_name_is_taken_until_its_last_handle_is_closed() {
    let first = OpenTable::create(named("tables: taken")).unwrap();
    assert_eq!(OpenTable::create(named("tables: taken")).unwrap_err(), Error::Exists);
    let second = OpenTable::open("tables: taken").unwrap();
    assert_eq!(second.name(), Some("tables: taken"));
    first.insert(b"k", b"v").unwrap();
    drop(first);
    assert_eq!(join(&second.lookup(b"k").unwrap()), "v");
    assert_eq!(OpenTable::create(named("tables: taken")).unwrap_err(), Error::Exists);
    drop(second);
    assert_eq!(OpenTable::open("tables: taken").unwrap_err(), Error::NotFound);
    assert_eq!(OpenTable::create(named("tables: taken")).unwrap().count(), 0);
}

#[test]
fn c1_two_handles_are_one_table_and_two_tables_never_collide() {
    let scene = Scene::with(named("tables: two handles"));
    let second = OpenTable::open("tables: two handles").unwrap();
    let other = OpenTable::create(TableOptions::default()).unwrap();
    let options = scene.options(|options| options.wait = Timeout::millis(0));
    let try_lock = |table: &OpenTable| {
        etslock::acquire(table.enter(), &[b"k"], &options).and_then(Guard::cancel)
    };
    let guard = scene.acquire(b"k");
    assert_eq!(try_lock(&second), Err(Error::WaitTimeout));
    assert_eq!(try_lock(&other), Ok(()));
    guard.release().unwrap();
    assert_eq!(try_lock(&second), Ok(()));
}

#[test]
fn c14_a_guard_outlives_its_table() {
    let scene = Scene::with(named("tables: outlived"));
    let guard = scene.acquire(b"k");
    let lock_table = scene.lock_table().clone();
    let options = scene.options.clone();
    drop(scene);
    let fresh = OpenTable::create(named("tables: outlived")).unwrap();
    let same_key = etslock::acquire(fresh.enter(), &[b"k"], &options).unwrap();
    assert_eq!(lock_table.stats().held, 2, "another table, with other locks");
    guard.insert(b"k", b"v").unwrap();
    guard.release().unwrap();
    assert_eq!(same_key.lookup(b"k").unwrap_err(), Error::NotFound);
}

#[test]
fn a_guarded_table_is_written_through_guards_only() {
    let options = TableOptions { access: Access::Guarded, ..TableOptions::default() };
    let scene = Scene::with(options);
    let table = &scene.table;
    let refused = [
        table.insert(b"k", b"v"),
        table.insert_new(b"k", b"v"),
        table.delete(b"k"),
        table.delete_tuple(b"k", b"v"),
        table.clear(),
        table.take(b"k").map(drop),
        table.update_counter(b"k", 1, 0).map(drop),
    ];
    assert_eq!(refused, [Err(Error::Guarded); 7]);
    let guard = scene.acquire(b"k");
    guard.insert(b"k", b"v").unwrap();
    guard.release().unwrap();
    assert_eq!(scene.values(b"k"), "v");
}

#[test]
fn c9_bags_keep_the_order_of_insertion() {
    for (r#type, wanted) in [(TableType::Bag, "b,a,c"), (TableType::DuplicateBag, "b,a,b,c,a")] {
        let scene = Scene::with(TableOptions { r#type, ..TableOptions::default() });
        scene.table.insert(b"k", b"b").unwrap();
        scene.table.insert(b"k", b"a").unwrap();
        let guard = scene.acquire(b"k");
        guard.insert(b"k", b"b").unwrap();
        guard.insert(b"k", b"c").unwrap();
        guard.insert(b"k", b"a").unwrap();
        assert_eq!(join(&guard.lookup(b"k").unwrap()), wanted);
        guard.release().unwrap();
        assert_eq!(scene.values(b"k"), wanted);
        assert_eq!(scene.table.count(), wanted.split(',').count());
        scene.table.delete_tuple(b"k", b"a").unwrap();
        assert!(!scene.values(b"k").contains('a'));
    }
}

#[test]
fn counters_and_cursors() {
    let scene = Scene::new();
    for number in 0..100_i64 {
        let key = number.to_be_bytes();
        assert_eq!(scene.table.update_counter(&key, 1, number), Ok(number + 1));
        assert_eq!(scene.table.update_counter(&key, -1, 0), Ok(number));
    }
    assert_eq!(scene.table.update_counter(&7_i64.to_be_bytes(), i64::MAX, 0), Err(Error::Invalid));
    let seen: BTreeMap<_, _> = scene
        .table
        .cursor()
        .unwrap()
        .map(|tuples| (tuples.key().to_vec(), tuples.values().next().unwrap().to_vec()))
        .collect();
    let wanted = (0..100_i64).map(|n| (n.to_be_bytes().to_vec(), n.to_ne_bytes().to_vec()));
    assert_eq!(seen, wanted.collect());
    scene.table.clear().unwrap();
    assert_eq!(scene.table.cursor().unwrap().count(), 0);
}

#[test]
fn c1_the_same_key_in_two_lock_tables_is_two_locks() {
    let table = OpenTable::create(TableOptions::default()).unwrap();
    let options = [None, Some(LockTable::new()), Some(LockTable::new())].map(|lock_table| {
        Options { wait: Timeout::millis(0), owner: Owner::None, lock_table, ..Options::default() }
    });
    let acquire = |options: &Options| etslock::acquire(table.enter(), &[b"k"], options);
    let guards = options.each_ref().map(|options| acquire(options).unwrap());
    for options in &options {
        assert_eq!(acquire(options).unwrap_err(), Error::WaitTimeout);
    }
    let defaults = etslock::locks(&LockTable::default_of_process(), Some(&table)).unwrap();
    assert_eq!(defaults.len(), 1);
    drop(guards);
    assert!(etslock::locks(&LockTable::default_of_process(), Some(&table)).unwrap().is_empty());
}

#[test]
fn a_snapshot_tells_who_holds_what() {
    let scene = Scene::with(named("tables: snapshot"));
    let nameless = OpenTable::create(TableOptions::default()).unwrap();
    let options = scene.options(|options| {
        options.owner = Owner::Logical(42);
        options.exec = Timeout::millis(60_000);
    });
    let guard = etslock::acquire(scene.table(), &[b"k"], &options).unwrap();
    let other = etslock::acquire(nameless.enter(), &[b"k"], &scene.options).unwrap();
    assert_eq!(etslock::locks(scene.lock_table(), None).unwrap().len(), 2);

    let of_table = |table: &OpenTable| {
        let mut locks = etslock::locks(scene.lock_table(), Some(table)).unwrap();
        assert_eq!(locks.len(), 1);
        locks.remove(0)
    };
    let (info, name) = of_table(&scene.table);
    assert_eq!(name.as_deref(), Some("tables: snapshot"));
    assert_eq!((info.key.as_bytes(), info.token, info.owner), (&b"k"[..], guard.token(), 42));
    assert!(!info.late && info.waiters == 0 && (0..60_000).contains(&info.held_ms));
    assert!((40_000..=60_000).contains(&info.exec_remaining.as_millis()));

    let (info, name) = of_table(&nameless);
    assert_eq!((name, info.token, info.owner), (None, other.token(), 0));
    assert_eq!(info.exec_remaining, Timeout::INFINITE);
}
