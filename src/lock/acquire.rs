//! Taking locks: one key or several, by a thread that waits, or by a pending acquire that is polled.
//!
//! A wait is a machine of two steps. `join` puts a waiter into the queue; `look` says what became of
//! it, or when to look again by itself. A thread sleeps in between. A pending acquire is kept by its
//! inbox, and polled when its waiter was woken, or the time has come.
//!
//! Invariants
//! I1. A waiter that `join` left in a queue is looked at until it has a fate, or leaves.
//! I2. In the end all locks of a hold are held, or none (C-18).

use std::mem;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock::{Deadline, Moment, Timeout};
use crate::error::{self, Error, Result};
use crate::key::{LockId, LockIdRef, LockIds};
use crate::lock::entry::{EntryRef, Turn};
use crate::lock::hold::Lost;
use crate::lock::hold_ref::HoldRef;
use crate::lock::lock_table::LockTable;
use crate::lock::locked::{Entries, Locked};
use crate::lock::queue::{Fate, Waiter, Waker};
use crate::lock::scope::{Scope, Scopes};
use crate::lock::tokens;
use crate::lock::wait_mode::WaitMode;
use crate::lock::waits::{Registration, Wait};
use crate::memory;
use crate::sync::{Arc, current, park, park_timeout};

/// How often a caller looks before it joins the queue: about as long as an empty section takes.
const SPINS: u32 = 100;

/// How a caller waits.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) wait: Timeout,
    pub(crate) queue: WaitMode,
    pub(crate) spin_delay: Duration,
    /// The handles to the tables.
    pub(crate) handles: &'a dyn Scopes,
    /// What ends the wait early.
    pub(crate) stop: Option<&'a Scope>,
}

/// What came of an attempt to get a lock.
enum Attempt {
    Taken(EntryRef),
    Busy(EntryRef),
}

/// What came of joining a queue.
enum Joined {
    Taken(EntryRef),
    Waits(Waiting),
}

/// A waiter in the queue of an entry, or one that polls it.
#[derive(Debug)]
struct Waiting {
    entry: EntryRef,
    waiter: Arc<Waiter>,
    /// `None`: it has a fate already.
    registration: Option<Registration>,
}

/// What a look at a waiter shows.
enum Look {
    Taken,
    /// Not before this deadline, as of this moment.
    Until(Deadline, Moment),
}

/// How far a pending acquire has come.
#[derive(Debug)]
pub(crate) enum Progress {
    /// All locks are held.
    Held(Locked),
    /// To be polled at this deadline, if it is not woken before.
    Until(Deadline),
}

/// What came of beginning.
#[derive(Debug)]
pub(crate) enum Begun {
    /// All locks are held.
    Held,
    /// The rest is to be polled, at this deadline if not before.
    Pending(Pending, Deadline),
}

/// Locks on their way to a hold. It is in a queue: `poll` it to the end, or `withdraw` it.
///
/// WHY: no more than it takes. There may be ten thousand.
#[derive(Debug)]
pub(crate) struct Pending {
    lock_table: LockTable,
    waiting: Waiting,
    /// `None` for one lock.
    several: Option<Box<Several>>,
}

/// Several locks, as far as they are taken.
#[derive(Debug)]
struct Several {
    /// Those that are left, the next one last.
    left: Vec<LockId>,
    taken: Vec<EntryRef>,
}

impl Locked {
    /// Takes the locks of all `ids`: in the end all are held, or none. `Error::ExecTimeout`: the only
    /// one was got, and taken away by the clock in the same moment; the hold has a token.
    #[inline(always)]
    pub(crate) fn acquire(&mut self, ids: &LockIds<'_>, request: &Request<'_>) -> Result<()> {
        let Self { lock_table, hold, entries } = self;
        let now = Moment::now();
        let by = now.after(request.wait);
        *entries = match ids {
            LockIds::One(id) => {
                let entries = match lock_table.take_thin(*id, hold, now) {
                    true => Entries::Thin,
                    false => Entries::One(lock_table.take(*id, hold, true, now, by, request)?),
                };
                if hold.token() == 0 {
                    return Err(self.lost_at_once()); // The lock has gone on already.
                }
                entries
            }
            LockIds::Many(ids) => Entries::Many(lock_table.take_all(ids, hold, by, request)?),
        };
        self.lock_table.count_acquired(self.len(), self.hold.thread_id);
        Ok(())
    }

    /// As `acquire`, without waiting: what is not free becomes pending, and will wake `waker`, which
    /// is asked for only then.
    #[inline(always)]
    pub(crate) fn begin(
        &mut self,
        ids: &LockIds<'_>,
        request: &Request<'_>,
        waker: impl FnOnce() -> Result<Waker>,
    ) -> Result<Begun> {
        let Self { lock_table, hold, entries } = self;
        let now = Moment::now();
        let by = now.after(request.wait);
        match ids {
            LockIds::One(id) => {
                if lock_table.take_thin(*id, hold, now) {
                    *entries = Entries::Thin;
                } else {
                    let claim = lock_table.claim(*id, hold, true, by, request);
                    match claim.begin(now, waker)? {
                        (Joined::Taken(entry), _) => *entries = Entries::One(entry),
                        (Joined::Waits(waiting), until) => {
                            return Ok(lock_table.pending(waiting, None, until));
                        }
                    }
                }
                if hold.token() == 0 {
                    self.unless_revoked_at_once()?; // The lock has gone on already.
                    return Ok(Begun::Held);
                }
            }
            LockIds::Many(ids) => {
                let mut left = error::list(in_order(ids)?.into_iter().rev().map(LockIdRef::to_id))?;
                let mut taken = memory::list(ids.len())?;
                let begun = lock_table.begin_all(&mut left, &mut taken, hold, by, request, waker);
                match begun {
                    Ok(None) => *entries = Entries::Many(lock_table.open_all(taken, hold)?),
                    Ok(Some((waiting, until))) => {
                        let several = Box::new(Several { left, taken });
                        return Ok(lock_table.pending(waiting, Some(several), until));
                    }
                    Err(error) => return Err(lock_table.take_back(&taken, hold, error)),
                }
            }
        }
        self.lock_table.count_acquired(self.len(), self.hold.thread_id);
        Ok(Begun::Held)
    }
}

impl Pending {
    /// Goes on as far as it can. After an error it is over, and holds nothing.
    pub(crate) fn poll(&mut self, request: &Request<'_>) -> Result<Progress> {
        let Self { lock_table, waiting, several } = self;
        let mut hold = waiting.waiter.hold.clone();
        let until = lock_table.poll(waiting, several.as_deref_mut(), &mut hold, request);
        let entries = match (until, several) {
            (Ok(Some(until)), _) => return Ok(Progress::Until(until)),
            (Ok(None), None) => Entries::One(waiting.entry.clone()),
            (Ok(None), Some(several)) => {
                Entries::Many(lock_table.open_all(mem::take(&mut several.taken), &hold)?)
            }
            (Err(error), None) => return Err(error),
            (Err(error), Some(several)) => {
                return Err(lock_table.take_back(&several.taken, &hold, error));
            }
        };
        let mut locked = Locked::nothing_yet(lock_table.clone(), hold);
        locked.entries = entries;
        if locked.hold.token() == 0 {
            locked.unless_revoked_at_once()?;
            return Ok(Progress::Held(locked));
        }
        lock_table.count_acquired(locked.len(), locked.hold.thread_id);
        Ok(Progress::Held(locked))
    }

    /// Leaves its queue. `false`: its waiter has a fate already; `poll` says which. If it left it is
    /// over, and holds nothing.
    pub(crate) fn withdraw(&mut self) -> bool {
        let Self { lock_table, waiting: Waiting { entry, waiter, registration }, several } = self;
        let left = lock_table.leave(entry, waiter);
        if left {
            drop(registration.take());
            if let Some(several) = several {
                let _ = lock_table.take_back(&several.taken, &waiter.hold, Error::Stopped);
            }
        }
        left
    }

    /// Whether it wants the strict order of arrival.
    pub(crate) fn wait_mode(&self) -> WaitMode {
        if self.waiting.waiter.strict { WaitMode::Fifo } else { WaitMode::Fair }
    }
}

/// The one order that all callers take their locks in (C-18).
fn in_order<'a>(ids: &[LockIdRef<'a>]) -> Result<Vec<LockIdRef<'a>>> {
    let mut ids = error::list(ids.iter().copied().map(Ok))?;
    ids.sort_unstable();
    Ok(ids)
}

impl Locked {
    /// The only lock was got, and has gone on already: that is for the guard to say if the clock took
    /// it.
    #[cold]
    fn unless_revoked_at_once(&self) -> Result<()> {
        match self.lost_at_once() {
            Error::Revoked => Err(Error::Revoked),
            _ => Ok(()),
        }
    }

    #[cold]
    fn lost_at_once(&self) -> Error {
        match self.hold.lost_at_once() {
            Lost::Revoked => Error::Revoked,
            Lost::Expired => {
                self.lock_table.count_acquired(1, self.hold.thread_id);
                Error::ExecTimeout
            }
        }
    }
}

impl LockTable {
    /// Takes several locks; the hold opens when it has the last (C-18).
    fn take_all(
        &self,
        ids: &[LockIdRef<'_>],
        hold: &mut HoldRef,
        by: Deadline,
        request: &Request<'_>,
    ) -> Result<Box<[EntryRef]>> {
        let ids = in_order(ids)?;
        let mut taken = memory::list(ids.len())?;
        let outcome = ids.into_iter().try_for_each(|id| {
            taken.push(self.take(id, hold, false, Moment::now(), by, request)?);
            Ok(())
        });
        match outcome {
            Ok(()) => self.open_all(taken, hold),
            Err(error) => Err(self.take_back(&taken, hold, error)),
        }
    }

    /// As `take_all`, of those that are left, as far as it goes without waiting.
    fn begin_all(
        &self,
        left: &mut Vec<LockId>,
        taken: &mut Vec<EntryRef>,
        hold: &mut HoldRef,
        by: Deadline,
        request: &Request<'_>,
        waker: impl FnOnce() -> Result<Waker>,
    ) -> Result<Option<(Waiting, Deadline)>> {
        let mut waker = Some(waker);
        while let Some(id) = left.pop() {
            let claim = self.claim(id.by_ref(), hold, false, by, request);
            let waker = || waker.take().unwrap_or_else(|| unreachable!("it waits once"))();
            match claim.begin(Moment::now(), waker)? {
                (Joined::Taken(entry), _) => taken.push(entry),
                (Joined::Waits(waiting), until) => return Ok(Some((waiting, until))),
            }
        }
        Ok(None)
    }

    fn pending(&self, waiting: Waiting, several: Option<Box<Several>>, until: Deadline) -> Begun {
        Begun::Pending(Pending { lock_table: self.clone(), waiting, several }, until)
    }

    /// Looks at a waiter, and goes on to the next of several locks. `None`: all are taken.
    fn poll(
        &self,
        waiting: &mut Waiting,
        mut several: Option<&mut Several>,
        hold: &mut HoldRef,
        request: &Request<'_>,
    ) -> Result<Option<Deadline>> {
        loop {
            waiting.waiter.polled();
            let by = waiting.waiter.by;
            let id = waiting.entry.id().by_ref();
            let claim = self.claim(id, hold, several.is_none(), by, request);
            let look = claim.look(waiting);
            claim.count(&look);
            if let Ok(Look::Until(until, _)) = look {
                return Ok(Some(until));
            }
            drop(waiting.registration.take());
            look?;
            let Some(Several { left, taken }) = several.as_deref_mut() else { return Ok(None) };
            taken.push(waiting.entry.clone());
            let waker = || Ok(waiting.waiter.waker().clone());
            match self.begin_all(left, taken, hold, by, request, waker)? {
                Some((next, _)) => *waiting = next,
                None => return Ok(None),
            }
        }
    }

    /// A hold has all its locks.
    fn open_all(&self, taken: Vec<EntryRef>, hold: &HoldRef) -> Result<Box<[EntryRef]>> {
        match error::list(taken.iter().map(|entry| Ok(entry.id().clone()))) {
            Ok(ids) => hold.set_ids(ids.into()),
            Err(error) => return Err(self.take_back(&taken, hold, error)),
        }
        let token = tokens::draw_for_all(taken.iter().map(|entry| entry.id().hash()));
        if !hold.open(Moment::now(), token) {
            self.release_all(&taken, hold);
            return Err(Error::Revoked);
        }
        for entry in &taken {
            self.carry_out(entry, entry.holder_opened());
        }
        Ok(taken.into())
    }

    /// A hold cannot get all its locks: gives back those that it has.
    fn take_back(&self, taken: &[EntryRef], hold: &HoldRef, error: Error) -> Error {
        hold.give_up();
        self.release_all(taken, hold);
        error
    }

    /// Takes one lock, and waits for it if it must.
    #[inline(always)]
    fn take(
        &self,
        id: LockIdRef<'_>,
        hold: &mut HoldRef,
        opens: bool,
        now: Moment,
        by: Deadline,
        request: &Request<'_>,
    ) -> Result<EntryRef> {
        match self.recent(id) {
            Some(entry) if entry.take(hold, opens, now) => Ok(entry),
            recent => self.claim(id, hold, opens, by, request).take(now, recent),
        }
    }

    #[inline(always)]
    fn claim<'a>(
        &'a self,
        id: LockIdRef<'a>,
        hold: &'a mut HoldRef,
        opens: bool,
        by: Deadline,
        request: &'a Request<'a>,
    ) -> Claim<'a> {
        let strict = request.queue == WaitMode::Fifo;
        Claim { lock_table: self, id, hold, opens, strict, by, request }
    }

    /// A waiter gives up. `false`: its fate was decided before.
    fn leave(&self, entry: &EntryRef, waiter: &Arc<Waiter>) -> bool {
        let (left, deferred) = entry.leave(waiter, Fate::Left, Moment::now());
        self.carry_out(entry, deferred);
        left
    }
}

/// A caller that has to look for its lock, and perhaps to wait for it.
struct Claim<'a> {
    lock_table: &'a LockTable,
    id: LockIdRef<'a>,
    hold: &'a mut HoldRef,
    opens: bool,
    strict: bool,
    by: Deadline,
    request: &'a Request<'a>,
}

impl Claim<'_> {
    /// Takes the lock, and waits for it if it must. `recent`: its entry, if it is at hand.
    #[inline(never)] // WHY: most calls end before.
    fn take(mut self, now: Moment, recent: Option<EntryRef>) -> Result<EntryRef> {
        let entry = match self.first_attempt(now, recent)? {
            Attempt::Taken(entry) => return Ok(entry),
            Attempt::Busy(entry) => entry,
        };
        let outcome = match self.request.queue {
            WaitMode::Polling => self.poll(entry),
            WaitMode::Fair | WaitMode::Fifo => self.wait(entry),
        };
        self.count(&outcome);
        outcome
    }

    /// As `take`, without waiting: a waiter in the queue, and when to look at it.
    #[inline(always)]
    fn begin(
        mut self,
        now: Moment,
        waker: impl FnOnce() -> Result<Waker>,
    ) -> Result<(Joined, Deadline)> {
        let never = Deadline::NEVER;
        let recent = match self.lock_table.recent(self.id) {
            Some(entry) if entry.take(self.hold, self.opens, now) => {
                return Ok((Joined::Taken(entry), never));
            }
            recent => recent,
        };
        let entry = match self.first_attempt(now, recent)? {
            Attempt::Taken(entry) => return Ok((Joined::Taken(entry), never)),
            Attempt::Busy(entry) => entry,
        };
        let outcome = self.enqueue(entry, &waker()?);
        self.count(&outcome);
        outcome
    }

    /// Joins the queue of `entry`, and looks once.
    fn enqueue(&mut self, entry: EntryRef, waker: &Waker) -> Result<(Joined, Deadline)> {
        let waiting = match self.join(entry, waker)? {
            Joined::Taken(entry) => return Ok((Joined::Taken(entry), Deadline::NEVER)),
            Joined::Waits(waiting) => waiting,
        };
        Ok(match self.look(&waiting)? {
            Look::Taken => (Joined::Taken(waiting.entry), Deadline::NEVER),
            Look::Until(until, _) => (Joined::Waits(waiting), until),
        })
    }

    /// Counts how a wait ended.
    fn count<T>(&self, outcome: &Result<T>) {
        let counters = self.lock_table.counters();
        match outcome {
            Err(Error::WaitTimeout) => &counters.wait_timeouts,
            Err(Error::Deadlock) => &counters.deadlocks,
            _ => return,
        }
        .fetch_add(1, Relaxed);
    }

    /// The attempt that is always made (C-2).
    fn first_attempt(&mut self, now: Moment, recent: Option<EntryRef>) -> Result<Attempt> {
        let attempt = self.attempt(self.strict, now, recent)?;
        if let Attempt::Busy(_) = attempt {
            let counters = self.lock_table.counters();
            if self.by.is_past(Moment::now()) {
                counters.wait_timeouts.fetch_add(1, Relaxed);
                return Err(Error::WaitTimeout);
            }
            counters.contended.fetch_add(1, Relaxed);
        }
        Ok(attempt)
    }

    /// One attempt.
    fn attempt(
        &mut self,
        strict: bool,
        now: Moment,
        mut recent: Option<EntryRef>,
    ) -> Result<Attempt> {
        let (id, lock_table, opens) = (self.id, self.lock_table, self.opens);
        loop {
            let known = match recent.take() {
                Some(entry) => Some(entry),
                None => lock_table.find(id)?,
            };
            let Some(entry) = known else {
                if let Some(entry) = lock_table.list(id, self.hold, opens, now)? {
                    return Ok(Attempt::Taken(entry));
                }
                continue;
            };
            if entry.take(self.hold, opens, now) {
                return Ok(Attempt::Taken(entry));
            }
            let (turn, deferred) = entry.arrive(self.hold, opens, strict, now);
            lock_table.carry_out(&entry, deferred);
            match turn {
                Turn::Taken => return Ok(Attempt::Taken(entry)),
                Turn::Busy { .. } => return Ok(Attempt::Busy(entry)),
                Turn::Dead => {}
            }
        }
    }

    /// One more attempt.
    fn attempt_again(&mut self, strict: bool, now: Moment) -> Result<Attempt> {
        let recent = self.lock_table.recent(self.id);
        self.attempt(strict, now, recent)
    }

    /// Waits in the queue of `entry`.
    fn wait(&mut self, entry: EntryRef) -> Result<EntryRef> {
        if !self.strict && self.spin(&entry) {
            return Ok(entry);
        }
        let waiting = match self.join(entry, &Waker::Thread(current()))? {
            Joined::Taken(entry) => return Ok(entry),
            Joined::Waits(waiting) => waiting,
        };
        loop {
            match self.look(&waiting)? {
                Look::Taken => return Ok(waiting.entry),
                Look::Until(until, now) => sleep(until, now),
            }
        }
    }

    /// Joins the queue of `entry`, or of what has come into its place.
    fn join(&mut self, mut entry: EntryRef, waker: &Waker) -> Result<Joined> {
        loop {
            let waiter = self.waiter(waker);
            let now = Moment::now();
            let (turn, deferred) = entry.join(&waiter, now);
            self.lock_table.carry_out(&entry, deferred);
            match turn {
                Turn::Taken => return Ok(Joined::Taken(entry)),
                Turn::Busy { .. } => return self.enlist(entry, waiter).map(Joined::Waits),
                Turn::Dead => {}
            }
            let now = Moment::now();
            match self.attempt_again(self.strict, now)? {
                Attempt::Taken(taken) => return Ok(Joined::Taken(taken)),
                Attempt::Busy(busy) => entry = busy,
            }
        }
    }

    /// Registers the wait of a waiter that is in the queue.
    fn enlist(&self, entry: EntryRef, waiter: Arc<Waiter>) -> Result<Waiting> {
        let registration = match self.register(&entry, &waiter) {
            Ok(registration) => Some(registration),
            Err(why) if self.lock_table.leave(&entry, &waiter) => return Err(why),
            // Granted at the last moment: then it was no deadlock.
            Err(_) => None,
        };
        Ok(Waiting { entry, waiter, registration })
    }

    /// Looks for a moment whether the lock is given back. Whether it was got.
    fn spin(&mut self, entry: &EntryRef) -> bool {
        for _ in 0..SPINS {
            if entry.looks_free() {
                let now = Moment::now();
                if entry.take(self.hold, self.opens, now) {
                    return true;
                }
                let (turn, deferred) = entry.arrive(self.hold, self.opens, false, now);
                self.lock_table.carry_out(entry, deferred);
                match turn {
                    Turn::Taken => return true,
                    Turn::Dead => return false,
                    Turn::Busy { .. } => {}
                }
            }
            std::hint::spin_loop();
        }
        false
    }

    /// What became of a waiter, or when to look again if it is not woken before.
    fn look(&self, waiting: &Waiting) -> Result<Look> {
        let Waiting { entry, waiter, .. } = waiting;
        loop {
            match waiter.fate() {
                Fate::Granted => return Ok(Look::Taken),
                Fate::Closed => return Err(Error::Closed),
                Fate::Stopped => return Err(Error::Stopped),
                Fate::Revoked => return Err(Error::Revoked),
                Fate::TimedOut => return Err(Error::WaitTimeout),
                Fate::Left | Fate::Waiting => {}
            }
            let now = Moment::now();
            let (turn, deferred) = entry.look(waiter, now);
            self.lock_table.carry_out(entry, deferred);
            let Turn::Busy { look_again } = turn else { return Ok(Look::Taken) };
            if self.by.is_past(now) {
                if self.lock_table.leave(entry, waiter) {
                    return Err(Error::WaitTimeout);
                }
                continue;
            }
            return Ok(Look::Until(self.by.min(look_again), now));
        }
    }

    /// Attempts now and then, with no place in the queue.
    fn poll(&mut self, mut entry: EntryRef) -> Result<EntryRef> {
        let waiter = self.waiter(&Waker::Thread(current()));
        let mut registration = Some(self.register(&entry, &waiter)?);
        loop {
            match waiter.fate() {
                Fate::Closed => return Err(Error::Closed),
                Fate::Stopped => return Err(Error::Stopped),
                Fate::Revoked => return Err(Error::Revoked),
                Fate::TimedOut | Fate::Granted | Fate::Left | Fate::Waiting => {}
            }
            let now = Moment::now();
            let busy = match self.attempt_again(false, now)? {
                Attempt::Taken(taken) => return Ok(taken),
                Attempt::Busy(busy) => busy,
            };
            if self.by.is_past(now) {
                return Err(Error::WaitTimeout);
            }
            if !busy.ptr_eq(&entry) {
                drop(registration.take());
                registration = Some(self.register(&busy, &waiter)?);
                entry = busy;
            }
            match self.request.spin_delay {
                Duration::ZERO => std::thread::yield_now(),
                delay => park_timeout(self.by.remaining(now).map_or(delay, |left| left.min(delay))),
            }
        }
    }

    fn waiter(&self, waker: &Waker) -> Arc<Waiter> {
        let hold = self.hold.clone();
        Arc::new(Waiter::new(hold, self.opens, self.strict, self.by, waker.clone()))
    }

    /// All that the wait ends with, if it is closed.
    fn each_scope(&self, look: &mut dyn FnMut(&Scope)) {
        look(self.lock_table.scope());
        self.request.handles.each(look);
        self.request.stop.into_iter().for_each(look);
    }

    fn register(&self, entry: &EntryRef, waiter: &Arc<Waiter>) -> Result<Registration> {
        let wait = Wait {
            waiter: Arc::clone(waiter),
            entry: entry.clone(),
            lock_table: self.lock_table.clone(),
            polls: self.request.queue == WaitMode::Polling,
        };
        let registration = Registration::new(wait, &|look| self.each_scope(look))?;
        let mut closed = None;
        self.each_scope(&mut |scope| {
            if scope.is_closed() && closed.is_none() {
                closed = Some(scope.ends_with());
            }
        });
        if let Some(closed) = closed {
            return Err(closed);
        }
        if !self.hold.is_in_force() {
            return Err(Error::Revoked);
        }
        Ok(registration)
    }
}

/// Sleeps until `deadline`, a wake-up, or for no reason.
fn sleep(deadline: Deadline, now: Moment) {
    match deadline.remaining(now) {
        Some(left) => park_timeout(left),
        None => park(),
    }
}

/// A handle to nothing.
#[cfg(test)]
#[derive(Debug)]
struct Handle(Scope);

#[cfg(test)]
impl Scopes for Handle {
    fn each(&self, look: &mut dyn FnMut(&Scope)) {
        look(&self.0);
    }
}

/// Model: callers of a lock table, beside those who close it. From the sole lock to the queue it is
/// the code that runs.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::key::{Key, LockId};
    use crate::lock::hold::Hold;
    use crate::lock::owner::OwnerId;
    use crate::lock::waits;
    use loom::thread;

    fn id() -> LockId {
        LockId { table: 1, key: Key::new(b"k").unwrap() }
    }

    /// Waits for the lock in the order of arrival: who spins, or may go first, asks the real clock.
    fn acquire(lock_table: &LockTable) -> Result<Locked> {
        let never = Timeout::INFINITE;
        let mut hold = HoldRef::new(|| Hold::new(never, never, OwnerId::None, false, 0));
        hold.get_mut().unwrap().set_only(id());
        let mut locked = Locked::nothing_yet(lock_table.clone(), hold);
        let handles = &Handle(Scope::new());
        let spin_delay = Duration::ZERO;
        let queue = WaitMode::Fifo;
        let request = Request { wait: never, queue, spin_delay, handles, stop: None };
        locked.acquire(&LockIds::One(id().by_ref()), &request).map(|()| locked)
    }

    /// Gives the lock back, if nobody took it away. Its token.
    fn release(mut locked: Locked) -> u64 {
        if locked.hold().end().is_ok() {
            locked.release_for_good();
        }
        locked.hold().token()
    }

    /// A caller comes to wait while the lock table is closed: it is told, or sees it.
    #[test]
    fn closing_races_with_waiting() {
        loom::model(|| {
            let lock_table = LockTable::new();
            let holder = acquire(&lock_table).unwrap();
            let waiter = {
                let lock_table = lock_table.clone();
                thread::spawn(move || acquire(&lock_table).map(release))
            };
            lock_table.close();
            assert_eq!(waiter.join().unwrap(), Err(Error::Closed));
            release(holder);
            assert!(lock_table.locks(None).unwrap().is_empty(), "still locked");
            assert_eq!(waits::waiting(lock_table.scope()), 0, "still registered");
            drop(lock_table);
            crate::lock::reclaim_all();
        });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::key::{Key, LockId};
    use crate::lock::hold::{Hold, Verdict};
    use crate::lock::index::Seen;
    use crate::lock::owner::OwnerId;

    fn id(key: &[u8]) -> LockId {
        LockId { table: 1, key: Key::new(key).expect("a short key") }
    }

    fn nothing_yet(lock_table: &LockTable, only: Option<LockId>) -> Locked {
        nothing_yet_of(OwnerId::None, lock_table, only)
    }

    fn nothing_yet_of(owner: OwnerId, lock_table: &LockTable, only: Option<LockId>) -> Locked {
        let never = Timeout::INFINITE;
        let mut hold = HoldRef::new(|| Hold::new(never, never, owner, false, 0));
        if let Some(id) = only {
            hold.get_mut().expect("a new hold").set_only(id);
        }
        Locked::nothing_yet(lock_table.clone(), hold)
    }

    fn acquire(locked: &mut Locked, ids: &LockIds<'_>, queue: WaitMode) -> Result<()> {
        let (wait, handles) = (Timeout::millis(100), &Handle(Scope::new()));
        let spin_delay = Duration::ZERO;
        locked.acquire(ids, &Request { wait, queue, spin_delay, handles, stop: None })
    }

    fn acquire_one(lock_table: &LockTable, key: &[u8], queue: WaitMode) -> Result<Locked> {
        let id = id(key);
        let mut locked = nothing_yet(lock_table, Some(id.clone()));
        acquire(&mut locked, &LockIds::One(id.by_ref()), queue).map(|()| locked)
    }

    /// C-3: one who insists on the order of arrival passes nobody, not even a head that has been woken
    /// and sleeps on: that one is handed the lock.
    #[test]
    fn who_wants_the_strict_order_does_not_look_for_a_gap() {
        let lock_table = LockTable::new();
        let mut locked = acquire_one(&lock_table, b"k", WaitMode::Fair).unwrap();
        let entry = lock_table.find(id(b"k").by_ref()).unwrap().expect("it is held");
        let head = nothing_yet(&lock_table, Some(id(b"k")));
        let waker = Waker::Thread(current());
        let head = Waiter::new(head.hold().clone(), true, false, Deadline::NEVER, waker);
        let head = Arc::new(head);
        let long_after_all = Moment::from_bits(1 << 60);
        let (turn, _) = entry.join(&head, long_after_all);
        assert!(matches!(turn, Turn::Busy { .. }));
        locked.hold().end().unwrap();
        locked.release_for_good();
        assert!(entry.looks_free(), "and its head does not look");
        let late = acquire_one(&lock_table, b"k", WaitMode::Fifo);
        assert_eq!(late.map(drop), Err(Error::WaitTimeout));
        assert!(head.fate() == Fate::Granted, "it is its turn, now that the order counts");
    }

    /// C-18: force can strike a holder of some keys before anybody knows that it waits for more.
    #[test]
    fn who_was_revoked_before_it_came_to_wait_does_not_wait() {
        let lock_table = LockTable::new();
        let _held = acquire_one(&lock_table, b"k", WaitMode::Fair).unwrap();
        for queue in [WaitMode::Fair, WaitMode::Fifo, WaitMode::Polling] {
            let mut locked = nothing_yet(&lock_table, None);
            assert_eq!(locked.hold().revoke(), Verdict::Taken);
            let [free, held] = [id(b"free"), id(b"k")];
            let ids = LockIds::Many(vec![free.by_ref(), held.by_ref()]);
            assert_eq!(acquire(&mut locked, &ids, queue), Err(Error::Revoked), "{queue:?}");
            assert!(lock_table.locks(None).unwrap().len() == 1, "the free key is free");
        }
        let mut locked = nothing_yet(&lock_table, None);
        assert_eq!(locked.hold().revoke(), Verdict::Taken);
        let [one, two] = [id(b"free"), id(b"free too")];
        let ids = LockIds::Many(vec![one.by_ref(), two.by_ref()]);
        assert_eq!(acquire(&mut locked, &ids, WaitMode::Fair), Err(Error::Revoked));
        for key in [&b"free"[..], b"free too"] {
            assert!(acquire_one(&lock_table, key, WaitMode::Fair).is_ok(), "it is free");
        }
    }

    /// C-18: a call that does not get all of its keys leaves none of them locked.
    #[test]
    fn who_does_not_get_all_holds_none() {
        let lock_table = LockTable::new();
        let keys = [&b"a"[..], b"b", b"c"];
        for held in keys {
            let holder = acquire_one(&lock_table, held, WaitMode::Fair).unwrap();
            let ids = keys.map(id);
            let ids = LockIds::Many(ids.iter().map(LockId::by_ref).collect());
            let mut all = nothing_yet(&lock_table, None);
            assert_eq!(acquire(&mut all, &ids, WaitMode::Fair), Err(Error::WaitTimeout));
            for key in keys.iter().filter(|key| **key != held) {
                let mut one = acquire_one(&lock_table, key, WaitMode::Fair).expect("it is free");
                one.hold().end().unwrap();
                one.release_for_good();
            }
            holder.hold().end().unwrap();
            holder.release();
        }
    }

    /// C-15: what a thread keeps for its next call is little, and goes with the thread.
    #[test]
    fn idle_entries_are_few_and_go_with_their_thread() {
        const TABLE: u64 = u64::MAX;
        let lock_table = LockTable::default_of_process();
        let listed = || {
            let mut count = 0;
            let counted = lock_table.visit(|seen| {
                let id = match &seen {
                    Seen::Sole(hold) => hold.id(),
                    Seen::Node(entry) => Some(entry.id()),
                };
                count += usize::from(id.is_some_and(|id| id.table == TABLE));
                Ok(())
            });
            counted.map(|()| count).unwrap()
        };
        std::thread::scope(|scope| {
            let visitor = scope.spawn(|| {
                for number in 0..100_u32 {
                    let id = LockId { table: TABLE, ..id(&number.to_ne_bytes()) };
                    let mut locked = nothing_yet(&lock_table, Some(id.clone()));
                    acquire(&mut locked, &LockIds::One(id.by_ref()), WaitMode::Fair).unwrap();
                    let entry = lock_table.find(id.by_ref()).unwrap();
                    assert!(entry.is_some(), "looked at: it has an entry");
                    locked.hold().end().unwrap();
                    locked.release_for_good();
                }
                listed()
            });
            let kept = visitor.join().unwrap();
            assert!((1..=8).contains(&kept), "{kept} idle entries");
        });
        assert_eq!(listed(), 0);
    }

    /// C-13: an owner waits for a lock that it was robbed of, and that nobody has freed yet.
    #[test]
    fn who_was_revoked_holds_nothing_back() {
        let lock_table = LockTable::new();
        let [mut before, mut again] =
            [(); 2].map(|()| nothing_yet_of(OwnerId::Logical(7), &lock_table, Some(id(b"k"))));
        let wanted = id(b"k");
        let ids = LockIds::One(wanted.by_ref());
        acquire(&mut before, &ids, WaitMode::Fair).unwrap();
        assert_eq!(acquire(&mut again, &ids, WaitMode::Fair), Err(Error::Deadlock));
        assert_eq!(before.hold().revoke(), Verdict::Taken);
        assert_eq!(acquire(&mut again, &ids, WaitMode::Fair), Err(Error::WaitTimeout));
        before.release();
        acquire(&mut again, &ids, WaitMode::Fair).unwrap();
    }
}
