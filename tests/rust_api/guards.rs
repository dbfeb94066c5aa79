//! Acquired guards: what they write, when they lose their lock, and what ends them.

use std::thread;
use std::time::Duration;

use etslock::{Error, Guard, Timeout};

use crate::{SOON, Scene, join, timed};

#[test]
fn c7_a_release_publishes_and_a_cancel_does_not() {
    let scene = Scene::new();
    let guard = scene.acquire(b"k");
    guard.insert(b"k", b"one").unwrap();
    assert_eq!(scene.values(b"k"), "", "staged");
    guard.release().unwrap();
    assert_eq!(scene.values(b"k"), "one");

    let guard = scene.acquire(b"k");
    guard.delete(b"k").unwrap();
    assert_eq!(guard.lookup(b"k").unwrap_err(), Error::NotFound);
    guard.cancel().unwrap();
    assert_eq!(scene.values(b"k"), "one");
    assert_eq!(scene.try_lock(b"k"), Ok(()));
}

#[test]
fn dropping_a_guard_cancels_it() {
    let scene = Scene::new();
    let guard = scene.acquire(b"k");
    guard.insert(b"k", b"committed").unwrap();
    guard.commit().unwrap();
    guard.insert(b"k", b"lost").unwrap();
    assert_eq!(scene.try_lock(b"k"), Err(Error::WaitTimeout));
    drop(guard);
    assert_eq!(scene.values(b"k"), "committed");
    assert_eq!(scene.try_lock(b"k"), Ok(()));
}

#[test]
fn dropping_a_guard_wakes_the_next() {
    let scene = Scene::new();
    let keys: [&[u8]; 2] = [b"a", b"b"];
    let guard = etslock::acquire(scene.table(), &keys, &scene.options).unwrap();
    thread::scope(|scope| {
        for key in keys {
            let scene = &scene;
            scope.spawn(move || scene.acquire(key).release().unwrap());
        }
        scene.await_waiting(2);
        drop(guard);
    });
    assert_eq!(scene.lock_table().stats().held, 0);
}

#[test]
fn c7_commit_keeps_the_lock_and_rollback_forgets() {
    let scene = Scene::new();
    let guard = scene.acquire(b"k");
    guard.insert(b"k", b"one").unwrap();
    guard.commit().unwrap();
    assert_eq!(scene.values(b"k"), "one");
    assert_eq!(scene.try_lock(b"k"), Err(Error::WaitTimeout));
    guard.insert(b"k", b"two").unwrap();
    guard.rollback().unwrap();
    assert_eq!(join(&guard.lookup(b"k").unwrap()), "one");
    guard.release().unwrap();
    assert_eq!(scene.values(b"k"), "one");
}

#[test]
fn c18_a_guard_of_several_keys_covers_them_and_no_other() {
    let scene = Scene::new();
    let keys: [&[u8]; 3] = [b"b", b"a", b"b"];
    let guard = etslock::acquire(scene.table(), &keys, &scene.options).unwrap();
    assert_eq!(scene.lock_table().stats().held, 2);
    guard.insert(b"a", b"1").unwrap();
    guard.insert(b"b", b"2").unwrap();
    for outcome in [
        guard.insert(b"c", b"3"),
        guard.delete(b"c"),
        guard.delete_tuple(b"c", b"3"),
        guard.lookup(b"c").map(drop),
    ] {
        assert_eq!(outcome, Err(Error::NotCovered));
    }
    guard.release().unwrap();
    assert_eq!([scene.values(b"a"), scene.values(b"b")], ["1", "2"]);
}

#[test]
fn c18_no_key_stays_locked_at_a_timeout() {
    let scene = Scene::new();
    let held = scene.acquire(b"b");
    let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
    let options = scene.options(|options| options.wait = Timeout::millis(20));
    thread::scope(|scope| {
        let other = scope.spawn(|| etslock::acquire(scene.table(), &keys, &options));
        assert_eq!(other.join().unwrap().unwrap_err(), Error::WaitTimeout);
    });
    assert_eq!(scene.lock_table().stats().held, 1);
    held.release().unwrap();
}

#[test]
fn c6_a_late_guard_keeps_others_out_and_publishes_nothing() {
    let scene = Scene::new();
    let options = scene.options(|options| {
        options.exec = Timeout::millis(30);
        options.fail = Timeout::INFINITE;
    });
    let acquire = || etslock::acquire(scene.table(), &[b"k"], &options).unwrap();
    let late = || {
        let guard = acquire();
        guard.insert(b"k", b"lost").unwrap();
        assert!(guard.remaining().as_millis() <= 30);
        let (slept, took) = timed(|| guard.sleep(Timeout::INFINITE));
        assert_eq!(slept, Err(Error::ExecTimeout));
        assert!(took < SOON, "{took:?}");
        guard
    };
    let timeout = Err(Error::ExecTimeout);

    let guard = late();
    assert_eq!([guard.status(), guard.commit(), guard.insert(b"k", b"x")], [timeout; 3]);
    assert_eq!(guard.extend(Timeout::INFINITE), timeout, "never back to life");
    assert_eq!(guard.remaining(), Timeout::millis(0));
    assert_eq!(scene.try_lock(b"k"), Err(Error::WaitTimeout));
    assert_eq!(guard.release(), timeout);
    assert_eq!(scene.try_lock(b"k"), Ok(()));

    assert_eq!(late().cancel(), Ok(()));
    assert_eq!(scene.try_lock(b"k"), Ok(()));
    assert_eq!(scene.values(b"k"), "");
}

#[test]
fn c4_an_extension_moves_the_deadline_and_never_shortens() {
    let scene = Scene::new();
    let options = scene.options(|options| options.exec = Timeout::millis(60_000));
    let guard = etslock::acquire(scene.table(), &[b"k"], &options).unwrap();
    guard.extend(Timeout::millis(1)).unwrap();
    assert!(guard.remaining().as_millis() > 40_000);
    guard.extend(Timeout::millis(600_000)).unwrap();
    assert!(guard.remaining().as_millis() > 500_000);
    guard.extend(Timeout::INFINITE).unwrap();
    assert_eq!(guard.remaining(), Timeout::INFINITE);
    guard.release().unwrap();
}

#[test]
fn c6_a_revoked_guard_cannot_hurt_its_successor() {
    let scene = Scene::new();
    let guard = scene.acquire(b"k");
    guard.insert(b"k", b"lost").unwrap();
    etslock::force_release(scene.lock_table(), &scene.table, b"k").unwrap();
    let not_locked = etslock::force_release(scene.lock_table(), &scene.table, b"k");
    assert_eq!(not_locked, Err(Error::NotFound));
    let successor = scene.acquire(b"k");
    assert!(successor.token() > guard.token());

    let revoked = Err(Error::Revoked);
    assert_eq!([guard.status(), guard.commit(), guard.rollback()], [revoked; 3]);
    assert_eq!(guard.lookup(b"k").unwrap_err(), Error::Revoked);
    assert_eq!(guard.release(), revoked);
    assert_eq!(scene.try_lock(b"k"), Err(Error::WaitTimeout));
    successor.insert(b"k", b"kept").unwrap();
    successor.release().unwrap();
    assert_eq!(scene.values(b"k"), "kept");
}

#[test]
fn a_sleeping_holder_wakes_when_it_is_revoked() {
    let scene = Scene::new();
    let guard = scene.acquire(b"k");
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            let ended = guard.sleep(Timeout::INFINITE);
            (guard, ended)
        });
        // Mostly after it has fallen asleep; right in either order.
        thread::sleep(Duration::from_millis(20));
        etslock::force_release(scene.lock_table(), &scene.table, b"k").unwrap();
        let (guard, ended) = sleeper.join().unwrap();
        assert_eq!(ended, Err(Error::Revoked));
        assert_eq!(guard.sleep(Timeout::millis(0)), Err(Error::Revoked));
    });
}

#[test]
fn a_guard_is_not_tied_to_its_thread() {
    let scene = Scene::new();
    let guard = thread::scope(|scope| scope.spawn(|| scene.acquire(b"k")).join().unwrap());
    assert_eq!(guard.status(), Ok(()), "it did not end with its thread");
    let table = scene.table();
    thread::scope(|scope| {
        scope.spawn(move || {
            guard.insert(b"k", b"elsewhere").unwrap();
            guard.release().unwrap();
        });
    });
    assert_eq!(join(&table.lookup(b"k").unwrap()), "elsewhere");
}

#[test]
fn only_a_callbacks_guard_has_a_result() {
    let scene = Scene::new();
    let guard = scene.acquire(b"k");
    assert_eq!(guard.set_result(b"data"), Err(Error::Invalid));
    assert_eq!(guard.sleep(Timeout::millis(1)), Ok(()));
    Guard::release(guard).unwrap();
}
