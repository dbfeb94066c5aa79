//! How long a call waits, who is next, and which waits cannot end.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use etslock::{Error, Guard, LockTable, OpenTable, Owner, TableOptions, Timeout, WaitMode};

use crate::{Body, RUN_ONS, SOON, Scene, timed, until};

const QUEUES: [WaitMode; 3] = [WaitMode::Fair, WaitMode::Fifo, WaitMode::Polling];

#[test]
fn c2_a_wait_lasts_until_its_timeout_and_leaves_no_trace() {
    for queue in QUEUES {
        let scene = Scene::new();
        let held = scene.acquire(b"k");
        for millis in [0, 50] {
            let options = scene.options(|options| {
                options.wait = Timeout::millis(millis);
                options.queue = queue;
                options.owner = Owner::None; // This thread holds the key itself.
            });
            let (guard, took) = timed(|| etslock::acquire(scene.table(), &[b"k"], &options));
            assert_eq!(guard.unwrap_err(), Error::WaitTimeout);
            assert!(took >= Duration::from_millis(u64::from(millis)) && took < SOON, "{took:?}");
        }
        held.release().unwrap();
        let stats = scene.lock_table().stats();
        assert_eq!((stats.acquired, stats.wait_timeouts), (1, 2));
        assert_eq!((stats.held, stats.waiting), (0, 0));
        assert_eq!(scene.try_lock(b"k"), Ok(()));
    }
}

#[test]
fn c3_a_release_wakes_the_waiter() {
    for queue in QUEUES {
        let scene = Scene::new();
        let options = scene.options(|options| options.queue = queue);
        let held = scene.acquire(b"k");
        let first = held.token();
        thread::scope(|scope| {
            let waiter =
                scope.spawn(|| etslock::acquire(scene.table(), &[b"k"], &options).unwrap());
            scene.await_waiting(1);
            held.release().unwrap();
            let guard = waiter.join().unwrap();
            assert!(guard.token() > first);
            guard.release().unwrap();
        });
        assert_eq!(scene.lock_table().stats().contended, 1);
    }
}

#[test]
fn c3_fifo_waiters_come_in_the_order_of_arrival() {
    let scene = Scene::new();
    let options = scene.options(|options| options.queue = WaitMode::Fifo);
    let held = scene.acquire(b"k");
    let order = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..6 {
            let (scene, options, order) = (&scene, &options, &order);
            scope.spawn(move || {
                let guard = etslock::acquire(scene.table(), &[b"k"], options).unwrap();
                order.lock().unwrap().push(number);
                guard.release().unwrap();
            });
            until(|| {
                let locks = etslock::locks(scene.lock_table(), Some(&scene.table)).unwrap();
                locks.len() == 1 && locks[0].0.waiters == number + 1
            });
        }
        held.release().unwrap();
    });
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn c5_a_waiter_takes_an_overdue_lock_and_the_successor_is_safe() {
    let scene = Scene::new();
    let short = scene.options(|options| {
        options.exec = Timeout::millis(30);
        options.fail = Timeout::millis(20);
    });
    let other = scene.options(|options| options.owner = Owner::None);
    let acquire = |options| etslock::acquire(scene.table(), &[b"k"], options).unwrap();
    let ((late, successor), took) = timed(|| (acquire(&short), acquire(&other)));
    assert!(took >= Duration::from_millis(48) && took < SOON, "{took:?}");
    assert_eq!(late.insert(b"k", b"late"), Err(Error::Revoked));
    assert_eq!(late.release(), Err(Error::Revoked));
    assert_eq!(scene.try_lock(b"k"), Err(Error::WaitTimeout), "not freed by its predecessor");
    successor.insert(b"k", b"in time").unwrap();
    successor.release().unwrap();
    assert_eq!(scene.values(b"k"), "in time");
    assert_eq!(scene.lock_table().stats().forced_releases, 1);
}

#[test]
fn c13_waiting_for_oneself_is_a_deadlock() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let options = scene.options(|options| options.run_on = run_on);
        let try_options = scene.options(|options| options.wait = Timeout::millis(0));
        let outer = scene.acquire(b"outer");
        let (table, inner) = (scene.table(), options.clone());
        let answer = scene.call(&options, move |_, _| {
            let run = |_: &Guard, _: &[etslock::Tuples]| panic!("it runs");
            let keys: [&[u8]; 2] = [b"k", b"outer"];
            for key in keys {
                let body = Body { run };
                let answer = etslock::with_lock(table.clone(), &[key], &inner, body);
                assert_eq!(answer.end, Err(Error::Deadlock));
                let attempt = etslock::acquire(table.clone(), &[key], &try_options);
                assert_eq!(attempt.unwrap_err(), Error::WaitTimeout, "nothing waits");
            }
            0
        });
        assert_eq!(answer.end, Ok(()));
        outer.release().unwrap();
        assert_eq!(scene.lock_table().stats().deadlocks, 2);
    }
}

#[test]
fn c13_a_cycle_of_two_threads_is_answered_to_the_one_that_closes_it() {
    let scene = Scene::new();
    let a = scene.acquire(b"a");
    let (say_held, is_held) = channel();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let b = scene.acquire(b"b");
            say_held.send(()).unwrap();
            let a = scene.acquire(b"a");
            a.release().unwrap();
            b.release().unwrap();
        });
        is_held.recv_timeout(SOON).unwrap();
        scene.await_waiting(1);
        let closing = etslock::acquire(scene.table(), &[b"b"], &scene.options);
        assert_eq!(closing.unwrap_err(), Error::Deadlock);
        a.release().unwrap();
        other.join().unwrap();
    });
    assert_eq!(scene.lock_table().stats().deadlocks, 1);
}

#[test]
fn c13_logical_owners_share_a_thread() {
    let scene = Scene::new();
    let of = |owner| {
        scene.options(|options| {
            options.owner = owner;
            options.wait = Timeout::millis(20);
        })
    };
    let want = |owner| etslock::acquire(scene.table(), &[b"k"], &of(owner)).map(drop);
    let held = etslock::acquire(scene.table(), &[b"k"], &of(Owner::Logical(7))).unwrap();
    assert_eq!(want(Owner::Logical(7)), Err(Error::Deadlock));
    assert_eq!(want(Owner::Logical(8)), Err(Error::WaitTimeout));
    assert_eq!(want(Owner::Current), Err(Error::WaitTimeout));
    assert_eq!(want(Owner::None), Err(Error::WaitTimeout));
    held.release().unwrap();
    assert_eq!(want(Owner::Logical(7)), Ok(()));
}

#[test]
fn c14_closing_a_handle_ends_the_waits_through_it() {
    let lock_table = LockTable::new();
    let mut options = Scene::new().options;
    options.lock_table = Some(lock_table.clone());
    let named = TableOptions { name: Some("waiting: closed".into()), ..TableOptions::default() };
    let first = OpenTable::create(named).unwrap();
    let second = OpenTable::open("waiting: closed").unwrap();
    let held = etslock::acquire(first.enter(), &[b"k"], &options).unwrap();
    thread::scope(|scope| {
        let wait = |table: &OpenTable| {
            let table = table.enter();
            scope.spawn(|| etslock::acquire(table, &[b"k"], &options).and_then(Guard::release))
        };
        let (through_first, through_second) = (wait(&first), wait(&second));
        until(|| lock_table.stats().waiting == 2);
        drop(second);
        assert_eq!(through_second.join().unwrap(), Err(Error::Closed));
        held.insert(b"k", b"v").unwrap();
        held.release().unwrap();
        assert_eq!(through_first.join().unwrap(), Ok(()));
    });
    assert!(first.member(b"k").unwrap());
}

#[test]
fn c14_closing_a_lock_table_ends_the_waits_in_it() {
    let scene = Scene::new();
    let held = scene.acquire(b"k");
    thread::scope(|scope| {
        let waiter = scope.spawn(|| etslock::acquire(scene.table(), &[b"k"], &scene.options));
        scene.await_waiting(1);
        scene.lock_table().close();
        assert_eq!(waiter.join().unwrap().unwrap_err(), Error::Closed);
    });
    held.insert(b"k", b"v").unwrap();
    held.release().unwrap();
    assert_eq!(scene.values(b"k"), "v");
}
