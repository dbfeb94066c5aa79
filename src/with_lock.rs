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
    self, Hold, HoldRef, LockInfo, LockTable, Locked, Owner, Verdict, enter_call, inside_call,
    leave_call,
};
use crate::options::{OnExecTimeout, Options, RunOn};
use crate::registry::{self, Opened};
use crate::sync::{Arc, Mutex, current, nap};
use crate::table::Snapshot;
use crate::tables::{TableKey, Tables};

/// What runs while the lock is held.
pub trait Callback: Send + Sync + 'static {
    /// The tuples of the keys, as it wants to see them.
    type View: Send + Sync + 'static;

    /// Gets the tuples of the keys, as of acquisition and in the order given, before anything runs.
    /// If it fails, nothing runs.
    fn arrange(&self, tuples: Snapshot) -> Result<Self::View>;

    /// Runs, and returns `Options::commit_code` for success. On a worker it may be unwound by cancellation or
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
    in_one(table, keys, options, callback).unwrap_or_else(Answer::without_callback)
}

#[inline(always)]
fn in_one(
    table: Arc<Opened>,
    keys: &[&[u8]],
    options: &Options,
    callback: impl Callback,
) -> Result<Answer> {
    let ids = LockIds::new(table.id(), keys)?;
    run(Tables::one(table), &ids, options, callback)
}

/// Runs `callback` while holding the locks of `keys`, of several tables (C-20); at least one.
pub fn with_locks_across(
    keys: &[TableKey<'_>],
    options: &Options,
    callback: impl Callback,
) -> Answer {
    let outcome = across(keys).and_then(|(tables, ids)| run(tables, &ids, options, callback));
    outcome.unwrap_or_else(Answer::without_callback)
}

#[inline(always)]
fn run(
    tables: Tables,
    ids: &LockIds<'_>,
    options: &Options,
    callback: impl Callback,
) -> Result<Answer> {
    match (options.run_on, options.on_exec_timeout) {
        (RunOn::Caller, OnExecTimeout::Kill) => Err(Error::Invalid),
        (RunOn::Caller, _) => on_caller(tables, ids, options, &callback),
        (RunOn::Worker, _) => on_worker(tables, ids, options, callback),
    }
}

/// Acquires the locks of `keys`, and returns a guard that the user ends.
pub fn acquire(table: Arc<Opened>, keys: &[&[u8]], options: &Options) -> Result<Guard> {
    let ids = LockIds::new(table.id(), keys)?;
    take(Tables::one(table), &ids, options)
}

/// Acquires the locks of `keys`, of several tables (C-20); at least one.
pub fn acquire_across(keys: &[TableKey<'_>], options: &Options) -> Result<Guard> {
    let (tables, ids) = across(keys)?;
    take(tables, &ids, options)
}

/// What keys of several tables are to a guard.
pub(crate) fn across<'a>(keys: &[TableKey<'a>]) -> Result<(Tables, LockIds<'a>)> {
    let ids = LockIds::across(keys.iter().map(|(table, key)| (table.id(), *key)))?;
    Ok((Tables::of_keys(keys)?, ids))
}

#[inline(always)]
fn take(tables: Tables, ids: &LockIds<'_>, options: &Options) -> Result<Guard> {
    let mut guard = empty_handed(Kind::Acquired, tables, ids, options)?;
    match guard.acquire(ids, options) {
        // Lost to the clock in the moment it was got, as it may be in the next: the guard says so.
        Ok(()) | Err(Error::ExecTimeout) => Ok(guard),
        Err(error) => Err(error),
    }
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
    tables: Tables,
    ids: &LockIds<'_>,
    options: &Options,
    callback: &impl Callback,
) -> Result<Answer> {
    let mut guard = empty_handed(Kind::OnCaller, tables, ids, options)?;
    let view = begin(&mut guard, ids, options, callback)?;

    let code = {
        let _ends = Ends(&guard);
        inside_call(guard.hold(), || callback.run(&guard, &view))
    };

    let end = if code == options.commit_code { guard.finish() } else { refused(&guard) };
    Ok(answer(&guard, code, end))
}

/// The end of a callback on the calling thread, also when it panics.
struct Ends<'a>(&'a Guard);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        lock::detach(self.0.hold());
    }
}

/// On a worker the call returns at the deadline, whatever the callback does.
#[inline(never)]
fn on_worker(
    tables: Tables,
    ids: &LockIds<'_>,
    options: &Options,
    callback: impl Callback,
) -> Result<Answer> {
    let mut guard = empty_handed(Kind::OnWorker, tables, ids, options)?;
    let view = begin(&mut guard, ids, options, &callback)?;

    let (guard, commit_code) = (OnWorker::new(guard), options.commit_code);
    let call = Arc::new(Call { guard, callback, view, commit_code, answer: Mutex::new(None) });
    let running = exec::start(Arc::clone(&call) as Arc<dyn Work>)?;
    // WHY: before the lock is watched. Who is awake needs nobody to wake it, and most calls end while
    // their callers look.
    if running.spin() && call.guard.holding().loss().is_none() {
        return collect(&call, running);
    }
    call.guard.holding().watched_by(current(), || wait(&call, running, options.on_exec_timeout))
}

/// The callback has ended.
fn collect<C: Callback>(call: &Call<C>, running: Running) -> Result<Answer> {
    running.collect();
    call.answer.lock().take().ok_or(Error::CallbackFailed)
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
        if held.loss().is_none() && running.sleep(held.hold().deadline()) {
            return collect(call, running);
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
            lock::abandon(held.hold());
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
    commit_code: i32,
    answer: Mutex<Option<Answer>>,
}

impl<C: Callback> Work for Call<C> {
    fn run(&self) -> i32 {
        self.enter();
        self.callback.run(self.guard(), &self.view)
    }

    fn ended(&self, ending: Ending) {
        leave_call();
        lock::detach(self.guard.holding().hold());
        let guard = self.guard();
        // With its writes, without them, or too late.
        let (code, end) = match ending {
            Ending::Returned(code) if code == self.commit_code => (code, guard.finish_shared()),
            Ending::Returned(code) => (code, refused(guard)),
            // No code at all, whichever publishes.
            Ending::ThreadEnded => (0, refused(guard)),
            Ending::NeverBegan => (0, never_began(guard)),
        };
        *self.answer.lock() = Some(answer(guard, code, end));
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

/// No thread could begin the callback.
fn never_began<T>(guard: &Guard) -> Result<T> {
    guard.fail().and(Err(Error::NoThread))
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
fn empty_handed(kind: Kind, tables: Tables, ids: &LockIds<'_>, options: &Options) -> Result<Guard> {
    Ok(Guard::new(kind, tables, nothing_yet(kind, ids, options, options.owner)?))
}

/// What such a guard holds.
#[inline(always)] // As `empty_handed`.
pub(crate) fn nothing_yet(
    kind: Kind,
    ids: &LockIds<'_>,
    options: &Options,
    owner: Owner,
) -> Result<Locked> {
    let default = || LockTable::default_of_process();
    let lock_table = options.lock_table.clone().unwrap_or_else(default);
    let (owner, thread_id) = owner.resolve();
    let is_call = kind != Kind::Acquired;
    let mut hold =
        HoldRef::new(|| Hold::new(options.exec, options.fail, owner, is_call, thread_id));
    if let (LockIds::One(id), Some(hold)) = (ids, hold.get_mut()) {
        hold.set_only(id.to_id()?);
    }
    Ok(Locked::nothing_yet(lock_table, hold))
}

/// The locks that are held, with the names of their tables; of one table, or of all.
pub fn locks(
    lock_table: &LockTable,
    table: Option<&Opened>,
) -> Result<Vec<(LockInfo, Option<String>)>> {
    let locks = lock_table.locks(table.map(|table| table.id()))?;
    let named = |lock: LockInfo| {
        let name = registry::name_of(lock.table);
        (lock, name)
    };
    Ok(locks.into_iter().map(named).collect())
}

/// Takes the lock of `key` away from its holder; `Error::NotFound` if nobody holds it.
pub fn force_release(lock_table: &LockTable, table: &Opened, key: &[u8]) -> Result<()> {
    lock_table.force_release(LockIdRef { table: table.id(), key: KeyRef::new(key)? }, |_| true)
}

/// As `force_release`, of the holder that has this token; `Error::NotFound` if it is not the holder.
pub fn force_release_token(
    lock_table: &LockTable,
    table: &Opened,
    key: &[u8],
    token: u64,
) -> Result<()> {
    // 0 is the token of those who have none yet.
    let wanted = |held| held == token && token != 0;
    lock_table.force_release(LockIdRef { table: table.id(), key: KeyRef::new(key)? }, wanted)
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
