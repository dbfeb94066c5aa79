//! Callbacks that panic.

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use etslock::{Callback, Error, Guard, RunOn, Snapshot, Timeout, Tuples, acquire, with_lock};

use crate::{Body, RUN_ONS, Scene, until};

/// What a call panicked with.
fn panic_of(call: impl FnOnce()) -> &'static str {
    let payload = catch_unwind(AssertUnwindSafe(call)).expect_err("a panic");
    payload.downcast_ref::<&str>().copied().expect("a text")
}

#[test]
fn a_panic_on_the_callers_thread_reaches_the_caller() {
    let scene = Scene::new();
    let options = scene.options(|options| options.run_on = RunOn::Caller);
    scene.table.insert(b"k", b"old").unwrap();
    let keys: [&[u8]; 2] = [b"k", b"other"];
    for _ in 0..3 {
        let run = |guard: &Guard, _: &[Tuples]| {
            guard.insert(b"k", b"lost").unwrap();
            panic!("in the callback")
        };
        let body = Body { run };
        let call = || drop(with_lock(scene.table(), &keys, &options, body));
        assert_eq!(panic_of(call), "in the callback");

        assert_eq!(scene.lock_table().stats().held, 0);
        assert_eq!(scene.try_lock(b"k"), Ok(()));
        assert_eq!(scene.try_lock(b"other"), Ok(()));
        assert_eq!(scene.values(b"k"), "old");
    }
    assert_eq!(
        scene.call(&options, |guard, _| guard.insert(b"k", b"new").map_or(1, |()| 0)).code,
        0
    );
    assert_eq!(scene.values(b"k"), "new");
}

#[test]
fn after_a_panic_the_thread_still_owns_what_it_holds() {
    let scene = Scene::new();
    let options = scene.options(|options| options.run_on = RunOn::Caller);
    let before = scene.acquire(b"before");
    assert_eq!(panic_of(|| drop(scene.call(&options, |_, _| panic!("caught")))), "caught");
    let after = scene.acquire(b"after");
    let again = |key: &[u8]| acquire(scene.table(), &[key], &options).unwrap_err();
    assert_eq!([again(b"before"), again(b"after")], [Error::Deadlock; 2]);
    before.release().unwrap();
    after.release().unwrap();
}

#[test]
fn c7_a_panic_keeps_what_was_committed_and_hands_the_lock_to_the_waiter() {
    let scene = Scene::new();
    let options = scene.options(|options| options.run_on = RunOn::Caller);
    let lock_table = scene.lock_table().clone();
    let data = Arc::new(());
    let owned = Arc::clone(&data);
    let run = move |guard: &Guard, _: &[Tuples]| {
        let _owned = &owned;
        guard.insert(b"k", b"committed").unwrap();
        guard.commit().unwrap();
        guard.insert(b"k", b"lost").unwrap();
        until(|| lock_table.stats().waiting == 1);
        panic!("while another waits")
    };
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            until(|| scene.lock_table().stats().held == 1);
            scene.acquire(b"k").release()
        });
        assert_eq!(panic_of(|| drop(scene.call(&options, run))), "while another waits");
        assert_eq!(waiter.join().unwrap(), Ok(()));
    });
    assert_eq!(Arc::strong_count(&data), 1, "the callback was dropped, once");
    assert_eq!(scene.values(b"k"), "committed");
}

#[test]
fn c13_a_nested_panic_that_is_caught_leaves_the_outer_call_alone() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let outer = scene.options(|options| options.run_on = run_on);
        let inner = scene.options(|options| {
            options.run_on = RunOn::Caller;
            options.wait = Timeout::millis(1_000);
        });
        let table = scene.table();
        let answer = scene.call(&outer, move |guard, _| {
            guard.insert(b"k", b"outer").unwrap();
            let run = |guard: &Guard, _: &[Tuples]| {
                guard.insert(b"inner", b"lost").unwrap();
                panic!("nested")
            };
            let call = || drop(with_lock(Arc::clone(&table), &[b"inner"], &inner, Body { run }));
            assert_eq!(panic_of(call), "nested");
            let again = acquire(Arc::clone(&table), &[b"k"], &inner);
            assert_eq!(again.unwrap_err(), Error::Deadlock, "the callback still owns its lock");
            guard.status().map_or(1, |()| 0)
        });
        assert_eq!(answer.end, Ok(()));
        assert_eq!((scene.values(b"k"), scene.values(b"inner")), ("outer".into(), "".into()));
        assert_eq!(scene.lock_table().stats().held, 0);
    }
}

#[test]
fn a_nested_panic_that_is_not_caught_frees_both_locks() {
    let scene = Scene::new();
    let options = scene.options(|options| options.run_on = RunOn::Caller);
    let (table, inner) = (scene.table(), options.clone());
    let run = move |guard: &Guard, _: &[Tuples]| {
        guard.insert(b"k", b"lost").unwrap();
        let body = Body { run: |_: &Guard, _: &[Tuples]| panic!("nested") };
        with_lock(Arc::clone(&table), &[b"inner"], &inner, body).code
    };
    assert_eq!(panic_of(|| drop(scene.call(&options, run))), "nested");
    assert_eq!(scene.lock_table().stats().held, 0);
    assert_eq!([scene.try_lock(b"k"), scene.try_lock(b"inner")], [Ok(()); 2]);
    assert_eq!(scene.values(b"k"), "");
}

struct Unarranged;

impl Callback for Unarranged {
    type View = ();

    fn arrange(&self, _tuples: Snapshot) -> Result<(), Error> {
        panic!("while the tuples are arranged")
    }

    fn run(&self, _guard: &Guard, _view: &()) -> i32 {
        unreachable!("it has no tuples")
    }
}

#[test]
fn a_panic_before_the_callback_starts_reaches_the_caller() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let options = scene.options(|options| options.run_on = run_on);
        let call = || drop(with_lock(scene.table(), &[b"k"], &options, Unarranged));
        assert_eq!(panic_of(call), "while the tuples are arranged");
        assert_eq!(scene.try_lock(b"k"), Ok(()));
    }
}

/// Nothing between a worker's start and the callback may catch an unwind (C-17), so the process
/// ends, in a child here: it neither hangs nor goes on with the panic lost.
#[test]
fn c17_a_panic_on_a_worker_ends_the_process() {
    const CHILD: &str = "ETSLOCK_TEST_PANICS_ON_A_WORKER";
    if std::env::var_os(CHILD).is_some() {
        let scene = Scene::new();
        scene.call(&scene.options, |_, _| panic!("on a worker"));
        return;
    }
    let name = "panics::c17_a_panic_on_a_worker_ends_the_process";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(6), "SIGABRT: {:?} {told}", output.status);
    assert!(told.contains("on a worker"), "{told}");
}
