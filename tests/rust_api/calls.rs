//! Calls with a callback: where it runs, how it ends, and what becomes of its writes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use etslock::{Callback, Error, Guard, OnExecTimeout, RunOn, Snapshot, Timeout};

use crate::{Body, RUN_ONS, SOON, Scene, join, timed, until};

#[test]
fn c7_writes_are_published_when_the_callback_returns_0() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let options = scene.options(|options| options.run_on = run_on);
        scene.table.insert(b"k", b"old").unwrap();
        let table = scene.table();
        let answer = scene.call(&options, move |guard, tuples| {
            assert_eq!((tuples.len(), tuples[0].key(), &*join(&tuples[0])), (1, &b"k"[..], "old"));
            guard.insert(b"k", b"new").unwrap();
            assert_eq!(join(&guard.lookup(b"k").unwrap()), "new");
            assert_eq!(join(&table.lookup(b"k").unwrap()), "old", "staged: nobody else sees it");
            guard.set_result(b"first").unwrap();
            guard.set_result(b"second").unwrap();
            0
        });
        assert_eq!((answer.end, answer.code), (Ok(()), 0));
        assert_eq!(answer.data.as_deref(), Some(&b"second"[..]));
        assert_eq!(scene.values(b"k"), "new");
        assert_eq!(scene.try_lock(b"k"), Ok(()));
    }
}

#[test]
fn c7_a_failing_callback_has_written_nothing_since_its_last_commit() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let options = scene.options(|options| options.run_on = run_on);
        let answer = scene.call(&options, |guard, tuples| {
            assert!(tuples[0].is_empty());
            guard.insert(b"k", b"forgotten").unwrap();
            guard.rollback().unwrap();
            guard.commit().unwrap();
            assert_eq!(guard.lookup(b"k").unwrap_err(), Error::NotFound);
            guard.insert(b"k", b"committed").unwrap();
            guard.commit().unwrap();
            guard.insert(b"k", b"lost").unwrap();
            guard.set_result(b"lost").unwrap();
            -7
        });
        assert_eq!((answer.end, answer.code), (Err(Error::CallbackFailed), -7));
        assert_eq!(answer.data, None);
        assert_eq!(scene.values(b"k"), "committed");
        assert_eq!(scene.try_lock(b"k"), Ok(()));
    }
}

#[test]
fn c10_a_callback_runs_where_it_was_asked_to() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let options = scene.options(|options| options.run_on = run_on);
        let ran_on = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&ran_on);
        let answer = scene.call(&options, move |_, _| {
            *seen.lock().unwrap() = Some(thread::current().id());
            0
        });
        assert_eq!(answer.end, Ok(()));
        let ran_on = ran_on.lock().unwrap().expect("it ran");
        assert_eq!(ran_on == thread::current().id(), run_on == RunOn::Caller);
    }
}

#[test]
fn c18_several_keys_are_one_call() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let options = scene.options(|options| options.run_on = run_on);
        scene.table.insert(b"a", b"1").unwrap();
        scene.table.insert(b"c", b"3").unwrap();
        let run = |guard: &Guard, tuples: &[etslock::Tuples]| {
            let groups: Vec<_> =
                tuples.iter().map(|group| (group.key().to_vec(), join(group))).collect();
            let wanted = [("c", "3"), ("b", ""), ("a", "1")]
                .map(|(key, values)| (key.as_bytes().to_vec(), values.to_owned()));
            assert_eq!(groups, wanted, "in the order given, each once");
            guard.delete(b"a").unwrap();
            guard.insert(b"b", b"2").unwrap();
            assert_eq!(guard.insert(b"d", b"4"), Err(Error::NotCovered));
            0
        };
        let keys: [&[u8]; 4] = [b"c", b"b", b"c", b"a"];
        let body = Body { run };
        assert_eq!(etslock::with_lock(scene.table(), &keys, &options, body).end, Ok(()));
        assert_eq!([scene.values(b"a"), scene.values(b"b")], ["", "2"]);
        assert_eq!(scene.lock_table().stats().acquired, 3);
        assert_eq!(scene.lock_table().stats().held, 0);
    }
}

#[test]
fn c4_a_call_on_a_worker_returns_at_its_deadline() {
    let scene = Scene::new();
    let options = scene.options(|options| options.exec = Timeout::millis(50));
    let (leave, may_leave) = channel::<()>();
    let (tell, told) = channel();
    let may_leave = Mutex::new(may_leave);
    let call = || {
        scene.call(&options, move |guard, _| {
            guard.insert(b"k", b"lost").unwrap();
            may_leave.lock().unwrap().recv().unwrap();
            tell.send((guard.status(), guard.insert(b"k", b"late"), guard.commit())).unwrap();
            0
        })
    };
    let (answer, took) = timed(call);
    assert_eq!((answer.end, answer.code), (Err(Error::ExecTimeout), 0));
    assert!(took >= Duration::from_millis(48) && took < SOON, "{took:?}");
    assert_eq!(scene.try_lock(b"k"), Ok(()), "free while the callback still runs");
    assert_eq!(scene.lock_table().stats().exec_timeouts, 1);

    leave.send(()).unwrap();
    let revoked = Err(Error::Revoked);
    assert_eq!(told.recv_timeout(SOON).unwrap(), (revoked, revoked, revoked));
    assert_eq!(scene.values(b"k"), "");
}

#[test]
fn c11_join_returns_when_the_callback_has() {
    let scene = Arc::new(Scene::new());
    let options = scene.options(|options| {
        options.exec = Timeout::millis(50);
        options.on_exec_timeout = OnExecTimeout::Join;
    });
    let has_ended = Arc::new(AtomicBool::new(false));
    let (ended, inside) = (Arc::clone(&has_ended), Arc::clone(&scene));
    let answer = scene.call(&options, move |guard, _| {
        assert_eq!(guard.sleep(Timeout::INFINITE), Err(Error::Revoked));
        until(|| inside.try_lock(b"k").is_ok());
        ended.store(true, SeqCst);
        0
    });
    assert_eq!(answer.end, Err(Error::ExecTimeout));
    assert!(has_ended.load(SeqCst));
}

#[test]
fn c10_a_late_callback_on_the_callers_thread_is_found_out() {
    let scene = Scene::new();
    let options = scene.options(|options| {
        options.run_on = RunOn::Caller;
        options.exec = Timeout::millis(30);
    });
    let answer = scene.call(&options, |guard, _| {
        guard.insert(b"k", b"lost").unwrap();
        assert_eq!(guard.sleep(Timeout::INFINITE), Err(Error::ExecTimeout));
        assert_eq!(guard.insert(b"k", b"late"), Err(Error::ExecTimeout));
        0
    });
    assert_eq!((answer.end, answer.code), (Err(Error::ExecTimeout), 0));
    assert_eq!(scene.values(b"k"), "");
    assert_eq!(scene.try_lock(b"k"), Ok(()));
}

#[test]
fn c4_no_time_to_run_is_a_timeout() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let options = scene.options(|options| {
            options.run_on = run_on;
            options.exec = Timeout::millis(0);
        });
        let answer = scene.call(&options, |_, _| panic!("it runs"));
        assert_eq!(answer.end, Err(Error::ExecTimeout));
        assert_eq!(scene.lock_table().stats().acquired, 1);
        assert_eq!(scene.try_lock(b"k"), Ok(()));
    }
}

#[test]
fn c11_kill_needs_a_worker() {
    let scene = Scene::new();
    let options = scene.options(|options| {
        options.run_on = RunOn::Caller;
        options.on_exec_timeout = OnExecTimeout::Kill;
    });
    assert_eq!(scene.call(&options, |_, _| panic!("it runs")).end, Err(Error::Invalid));
    assert_eq!(scene.lock_table().stats().acquired, 0);
}

/// A callback that counts its ends.
struct Counted {
    dropped: Arc<AtomicUsize>,
    arranged: Result<(), Error>,
    answers: i32,
}

impl Callback for Counted {
    type View = ();

    fn arrange(&self, _tuples: Snapshot) -> Result<(), Error> {
        self.arranged
    }

    fn run(&self, _guard: &Guard, _view: &()) -> i32 {
        assert_eq!(self.arranged, Ok(()), "nothing runs without its tuples");
        assert_eq!(self.dropped.load(SeqCst), 0, "dropped while it runs");
        self.answers
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

#[test]
fn c12_a_callback_is_dropped_once_and_before_the_call_returns() {
    for run_on in RUN_ONS {
        let scene = Scene::new();
        let fine = scene.options(|options| options.run_on = run_on);
        let mut no_time = fine.clone();
        no_time.exec = Timeout::millis(0);
        let mut no_wait = fine.clone();
        no_wait.wait = Timeout::millis(0);
        let held = scene.acquire(b"held");
        let no_memory = Err(Error::NoMemory);
        let cases: [(&[u8], _, _, _, _); 5] = [
            (b"k", &fine, Ok(()), 0, Ok(())),
            (b"k", &fine, Ok(()), 1, Err(Error::CallbackFailed)),
            (b"k", &fine, no_memory, 0, no_memory),
            (b"k", &no_time, Ok(()), 0, Err(Error::ExecTimeout)),
            (b"held", &no_wait, Ok(()), 0, Err(Error::WaitTimeout)),
        ];
        for (key, options, arranged, answers, wanted) in cases {
            let dropped = Arc::new(AtomicUsize::new(0));
            let callback = Counted { dropped: Arc::clone(&dropped), arranged, answers };
            assert_eq!(etslock::with_lock(scene.table(), &[key], options, callback).end, wanted);
            assert_eq!(dropped.load(SeqCst), 1, "{wanted:?}");
            assert_eq!(scene.try_lock(b"k"), Ok(()));
        }
        held.release().unwrap();
    }
}
