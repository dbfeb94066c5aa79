//! The story: wait for the lock, run the callback by its deadline, commit, release.
//!
//! On a worker the hold's word decides who was first (C-4). The worker ends it when the callback
//! has returned, with the writes or without; the caller takes it away when the deadline has passed.
//! One of the two succeeds, and that one frees the lock.

use crate::error::{Error, Result};
use crate::exec::{self, Ending, Running, Work};
use crate::guard::{Guard, Kind, OnWorker};
use crate::key::{KeyRef, LockIdRef, LockIds};
use crate::lock::{
    Hold, HoldRef, LockInfo, LockTable, Locked, Verdict, enter_call, inside_call, leave_call,
};
use crate::options::{OnExecTimeout, Options, RunOn};
use crate::registry::{self, Opened};
use crate::sync::{Arc, Mutex, current, nap};
use crate::table::Snapshot;

/// What runs while the lock is held.
pub trait Callback: Send + Sync + 'static {
    /// The tuples of the keys, as it wants to see them.
    type View: Send + Sync + 'static;

    /// Gets the tuples of the keys, as of acquisition and in the order given, before anything runs.
    /// If it fails, nothing runs.
    fn arrange(&self, tuples: Snapshot) -> Result<Self::View>;

    /// Runs, and returns 0 for success. On a worker it may be unwound by cancellation or
    /// `pthread_exit`: it must own nothing on the stack, and a panic there ends the process, for
    /// nothing stands by to catch it. On the caller's thread a panic reaches the caller; the lock is
    /// free by then, and nothing was written.
    fn run(&self, guard: &Guard, view: &Self::View) -> i32;
}

/// How a call ended, and what its callback left.
#[derive(Debug)]
pub struct Answer {
    /// How the call ended.
    pub end: Result<()>,
    /// What the callback returned, if it ended in time; else 0.
    pub code: i32,
    /// What a successful callback set.
    pub data: Option<Box<[u8]>>,
}

impl Answer {
    fn without_callback(error: Error) -> Self {
        Self { end: Err(error), code: 0, data: None }
    }
}

/// Runs `callback` while holding the locks of `keys`.
#[inline(always)]
pub fn with_lock(
    table: Arc<Opened>,
    keys: &[&[u8]],
    options: &Options,
    callback: impl Callback,
) -> Answer {
    let outcome = match (options.run_on, options.on_exec_timeout) {
        (RunOn::Caller, OnExecTimeout::Kill) => Err(Error::Invalid),
        (RunOn::Caller, _) => on_caller(table, keys, options, &callback),
        (RunOn::Worker, _) => on_worker(table, keys, options, callback),
    };
    outcome.unwrap_or_else(Answer::without_callback)
}

/// Acquires the locks of `keys`, and returns a guard that the user ends.
pub fn acquire(table: Arc<Opened>, keys: &[&[u8]], options: &Options) -> Result<Guard> {
    let ids = LockIds::new(table.id(), keys)?;
    let mut guard = empty_handed(Kind::Acquired, table, &ids, options)?;
    guard.acquire(&ids, options)?;
    Ok(guard)
}

/// Waits for the locks, and shows the callback what it will work on.
#[inline(always)]
fn begin<C: Callback>(
    guard: &mut Guard,
    ids: &LockIds<'_>,
    options: &Options,
    callback: &C,
) -> Result<C::View> {
    guard.acquire(ids, options)?;
    if options.exec.is_zero() {
        // The lock was got, and is given back: there is no time to run anything.
        guard.holding().expire();
        return Err(guard.holding().loss().unwrap_or(Error::ExecTimeout));
    }
    callback.arrange(guard.read(ids)?)
}

/// On the calling thread nothing can return early: a late callback is found out afterwards.
#[inline(always)]
fn on_caller(
    table: Arc<Opened>,
    keys: &[&[u8]],
    options: &Options,
    callback: &impl Callback,
) -> Result<Answer> {
    let ids = LockIds::new(table.id(), keys)?;
    let mut guard = empty_handed(Kind::OnCaller, table, &ids, options)?;
    let view = begin(&mut guard, &ids, options, callback)?;

    let code = {
        let _ends = Ends(&guard);
        inside_call(guard.hold(), || callback.run(&guard, &view))
    };

    let end = match code {
        0 => guard.finish(),
        _ => refused(&guard),
    };
    Ok(answer(&guard, code, end))
}

/// The end of a callback on the calling thread, also when it panics.
struct Ends<'a>(&'a Guard);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.hold().detach();
    }
}

/// On a worker the call returns at the deadline, whatever the callback does.
#[inline(never)]
fn on_worker(
    table: Arc<Opened>,
    keys: &[&[u8]],
    options: &Options,
    callback: impl Callback,
) -> Result<Answer> {
    let ids = LockIds::new(table.id(), keys)?;
    let mut guard = empty_handed(Kind::OnWorker, table, &ids, options)?;
    let view = begin(&mut guard, &ids, options, &callback)?;

    let guard = OnWorker::new(guard);
    let call = Arc::new(Call { guard, callback, view, answer: Mutex::new(None) });
    // Watched before it starts: the lock may be taken away at once.
    call.guard.holding().watched_by(current(), || {
        let running = exec::start(Arc::clone(&call) as Arc<dyn Work>)?;
        wait(&call, running, options.on_exec_timeout)
    })
}

/// Waits for the callback until its deadline, and decides who was first.
fn wait<C: Callback>(
    call: &Call<C>,
    running: Running,
    on_exec_timeout: OnExecTimeout,
) -> Result<Answer> {
    let held = call.guard.holding();
    loop {
        // It may have been lost before it was watched.
        if held.loss().is_none() && running.wait(held.hold().deadline()) {
            running.collect();
            return call.answer.lock().take().ok_or(Error::CallbackFailed);
        }
        match held.expire() {
            // It was extended, or nothing happened.
            Verdict::InTime => {}
            // The callback is done but for publishing (C-8).
            Verdict::Committing | Verdict::Ended => nap(),
            Verdict::Taken => break,
            Verdict::Lost(_) => {
                held.free();
                break;
            }
        }
    }
    match on_exec_timeout {
        OnExecTimeout::Join => running.join(),
        OnExecTimeout::Abandon | OnExecTimeout::Kill => {
            held.hold().abandon();
            let late = held.loss() == Some(Error::ExecTimeout);
            running.abandon(late && on_exec_timeout == OnExecTimeout::Kill);
        }
    }
    Err(held.loss().unwrap_or(Error::ExecTimeout))
}

/// A callback on a worker, with all that outlives its caller.
struct Call<C: Callback> {
    guard: OnWorker,
    callback: C,
    view: C::View,
    answer: Mutex<Option<Answer>>,
}

impl<C: Callback> Work for Call<C> {
    fn run(&self) -> i32 {
        self.enter();
        self.callback.run(self.guard(), &self.view)
    }

    fn ended(&self, ending: Ending) {
        leave_call();
        self.guard.holding().hold().detach();
        let answer = match ending {
            Ending::Returned(code) => decide(self.guard(), code),
            Ending::ThreadEnded => Answer { code: 0, ..decide(self.guard(), -1) },
        };
        *self.answer.lock() = Some(answer);
    }
}

impl<C: Callback> Call<C> {
    /// Apart from `run`, whose frame must own nothing.
    fn enter(&self) {
        enter_call(self.guard.holding().hold().clone());
    }

    #[expect(unsafe_code, reason = "the guard is the callback's alone")]
    fn guard(&self) -> &Guard {
        // SAFETY: for `run` and `ended`, which one thread calls after the other.
        unsafe { self.guard.for_callback() }
    }
}

/// The callback has returned: with its writes, without them, or too late.
fn decide(guard: &Guard, code: i32) -> Answer {
    let end = match code {
        0 => guard.finish_shared(),
        _ => refused(guard),
    };
    answer(guard, code, end)
}

/// The callback wants nothing published.
fn refused<T>(guard: &Guard) -> Result<T> {
    guard.fail().and(Err(Error::CallbackFailed))
}

fn answer(guard: &Guard, code: i32, end: Result<Option<Box<[u8]>>>) -> Answer {
    match end {
        Ok(data) => Answer { end: Ok(()), code, data },
        Err(Error::CallbackFailed) => Answer { end: Err(Error::CallbackFailed), code, data: None },
        // A lock that was taken away by the clock is a timeout to the call, however it is seen.
        Err(error) => Answer::without_callback(guard.holding().loss().unwrap_or(error)),
    }
}

/// A guard that holds nothing yet.
///
/// WHY: always inline. A guard that is handed from frame to frame is copied each time, right after
/// it was written.
#[inline(always)]
fn empty_handed(
    kind: Kind,
    table: Arc<Opened>,
    ids: &LockIds<'_>,
    options: &Options,
) -> Result<Guard> {
    let default = || LockTable::default_of_process();
    let lock_table = options.lock_table.clone().unwrap_or_else(default);
    let (owner, thread_id) = options.owner.resolve();
    let is_call = kind != Kind::Acquired;
    let mut hold =
        HoldRef::new(|| Hold::new(options.exec, options.fail, owner, is_call, thread_id));
    if let (LockIds::One(id), Some(hold)) = (ids, hold.get_mut()) {
        hold.set_only(id.to_id()?);
    }
    Ok(Guard::new(kind, table, Locked::nothing_yet(lock_table, hold)))
}

/// The locks that are held, with the names of their tables; of one table, or of all.
pub fn locks(lock_table: &LockTable, table: Option<&Opened>) -> Vec<(LockInfo, Option<String>)> {
    let locks = lock_table.locks(table.map(|table| table.id()));
    let named = |lock: LockInfo| {
        let name = registry::name_of(lock.table);
        (lock, name)
    };
    locks.into_iter().map(named).collect()
}

/// Takes the lock of `key` away from its holder; `Error::NotFound` if nobody holds it.
pub fn force_release(lock_table: &LockTable, table: &Opened, key: &[u8]) -> Result<()> {
    lock_table.force_release(LockIdRef { table: table.id(), key: KeyRef::new(key)? })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::clock::Timeout;
    use crate::registry::OpenTable;
    use crate::table::TableOptions;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Its lock is taken away by somebody who comes to free it later, or never; it goes on.
    struct Robbed {
        say_goes_on: Sender<()>,
        may_end: Mutex<Receiver<()>>,
    }

    impl Callback for Robbed {
        type View = ();

        fn arrange(&self, _: Snapshot) -> Result<()> {
            Ok(())
        }

        fn run(&self, guard: &Guard, (): &()) -> i32 {
            assert_eq!(guard.hold().revoke(), Verdict::Taken);
            self.may_end.lock().recv().expect("it is told");
            self.say_goes_on.send(()).expect("it is waited for");
            0
        }
    }

    /// A call that returns leaves no lock of its own behind, whoever it was that took it away.
    #[test]
    fn a_call_that_lost_its_lock_sees_to_it_that_it_is_free() {
        let table = OpenTable::create(TableOptions::default()).unwrap();
        let lock_table = LockTable::new();
        let never = Timeout::INFINITE;
        let options = Options {
            wait: Timeout::millis(0),
            exec: never,
            lock_table: Some(lock_table.clone()),
            ..Options::default()
        };
        let (say_goes_on, goes_on) = channel();
        let (let_end, may_end) = channel();
        let callback = Robbed { say_goes_on, may_end: Mutex::new(may_end) };
        let answer = with_lock(table.enter(), &[b"k"], &options, callback);
        assert_eq!(answer.end, Err(Error::Revoked));
        acquire(table.enter(), &[b"k"], &options).expect("it is free").release().unwrap();
        let_end.send(()).unwrap();
        goes_on.recv().unwrap();
    }
}
