//! Taking locks: one key or several, and the loop that waits.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock::{Deadline, Moment, Timeout};
use crate::error::{self, Error, Result};
use crate::key::{LockIdRef, LockIds};
use crate::lock::entry::{EntryRef, Turn};
use crate::lock::hold_ref::HoldRef;
use crate::lock::lock_table::LockTable;
use crate::lock::locked::{Entries, Locked};
use crate::lock::queue::{Fate, Waiter};
use crate::lock::scope::Scope;
use crate::lock::tokens;
use crate::lock::wait_mode::WaitMode;
use crate::lock::waits::{Registration, Wait};
use crate::sync::{Arc, current, park, park_timeout};

/// How often a caller looks before it joins the queue: about as long as an empty section takes.
const SPINS: u32 = 100;

/// How a caller waits.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) wait: Timeout,
    pub(crate) queue: WaitMode,
    pub(crate) spin_delay: Duration,
    /// The handle to the table.
    pub(crate) scope: &'a Scope,
}

/// What came of an attempt to get a lock.
enum Attempt {
    Taken(EntryRef),
    Busy(EntryRef),
}

impl Locked {
    /// Takes the locks of all `ids`: in the end all are held, or none.
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
                    return Err(Error::Revoked); // The lock has gone on already.
                }
                entries
            }
            LockIds::Many(ids) => Entries::Many(lock_table.take_all(ids, hold, by, request)?),
        };
        self.lock_table.count_acquired(self.len(), self.hold.thread_id);
        Ok(())
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
        // The one order that all callers take their locks in (C-18).
        let mut ids = error::list(ids.iter().copied().map(Ok))?;
        ids.sort_unstable_by_key(|id| id.key);
        let mut taken = Vec::new();
        taken.try_reserve_exact(ids.len()).map_err(|_| Error::NoMemory)?;
        let outcome = ids.into_iter().try_for_each(|id| {
            taken.push(self.take(id, hold, false, Moment::now(), by, request)?);
            Ok(())
        });
        let ids = || error::list(taken.iter().map(|entry| Ok(entry.id().clone())));
        match outcome.and_then(|()| ids()) {
            Ok(ids) => hold.set_ids(ids.into()),
            Err(error) => {
                hold.give_up();
                self.release_all(&taken, hold);
                return Err(error);
            }
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
            recent => {
                let strict = request.queue == WaitMode::Fifo;
                Claim { lock_table: self, id, hold, opens, strict, by, request }.take(now, recent)
            }
        }
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
        let entry = match self.attempt(self.strict, now, recent)? {
            Attempt::Taken(entry) => return Ok(entry),
            Attempt::Busy(entry) => entry,
        };
        let counters = self.lock_table.counters();
        if self.by.is_past(Moment::now()) {
            counters.wait_timeouts.fetch_add(1, Relaxed);
            return Err(Error::WaitTimeout);
        }
        counters.contended.fetch_add(1, Relaxed);
        let outcome = match self.request.queue {
            WaitMode::Polling => self.poll(entry),
            WaitMode::Fair | WaitMode::Fifo => self.queue(entry),
        };
        match outcome {
            Err(Error::WaitTimeout) => &counters.wait_timeouts,
            Err(Error::Deadlock) => &counters.deadlocks,
            _ => return outcome,
        }
        .fetch_add(1, Relaxed);
        outcome
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
            let find = || lock_table.find(id);
            let Some(entry) = recent.take().or_else(find) else {
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
    fn queue(&mut self, mut entry: EntryRef) -> Result<EntryRef> {
        if !self.strict && self.spin(&entry) {
            return Ok(entry);
        }
        loop {
            let waiter = self.waiter();
            let now = Moment::now();
            let (turn, deferred) = entry.join(&waiter, now);
            self.lock_table.carry_out(&entry, deferred);
            match turn {
                Turn::Taken => return Ok(entry),
                Turn::Busy { .. } => return self.wait(&entry, &waiter).map(|()| entry),
                Turn::Dead => {}
            }
            let now = Moment::now();
            match self.attempt_again(self.strict, now)? {
                Attempt::Taken(taken) => return Ok(taken),
                Attempt::Busy(busy) => entry = busy,
            }
        }
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

    /// Sleeps in the queue until the lock is got, or the wait is over.
    fn wait(&self, entry: &EntryRef, waiter: &Arc<Waiter>) -> Result<()> {
        let leave = || {
            let (left, deferred) = entry.leave(waiter, Fate::Left, Moment::now());
            self.lock_table.carry_out(entry, deferred);
            left
        };
        let _registration = match self.register(entry, waiter) {
            Ok(registration) => Some(registration),
            // Granted at the last moment: then it was no deadlock.
            Err(why) if leave() => return Err(why),
            Err(_) => None,
        };
        loop {
            match waiter.fate() {
                Fate::Granted => return Ok(()),
                Fate::Closed => return Err(Error::Closed),
                Fate::Revoked => return Err(Error::Revoked),
                Fate::Left | Fate::Waiting => {}
            }
            let now = Moment::now();
            let (turn, deferred) = entry.look(waiter, now);
            self.lock_table.carry_out(entry, deferred);
            let Turn::Busy { look_again } = turn else { return Ok(()) };
            if self.by.is_past(now) {
                if leave() {
                    return Err(Error::WaitTimeout);
                }
                continue;
            }
            sleep(self.by.min(look_again), now);
        }
    }

    /// Attempts now and then, with no place in the queue.
    fn poll(&mut self, mut entry: EntryRef) -> Result<EntryRef> {
        let waiter = self.waiter();
        let mut registration = Some(self.register(&entry, &waiter)?);
        loop {
            match waiter.fate() {
                Fate::Closed => return Err(Error::Closed),
                Fate::Revoked => return Err(Error::Revoked),
                Fate::Granted | Fate::Left | Fate::Waiting => {}
            }
            let now = Moment::now();
            let busy = match self.attempt_again(false, now)? {
                Attempt::Taken(taken) => return Ok(taken),
                Attempt::Busy(busy) => busy,
            };
            if self.by.is_past(now) {
                return Err(Error::WaitTimeout);
            }
            if !Arc::ptr_eq(&busy, &entry) {
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

    fn waiter(&self) -> Arc<Waiter> {
        Arc::new(Waiter::new(self.hold.clone(), self.opens, self.strict, current()))
    }

    fn register(&self, entry: &EntryRef, waiter: &Arc<Waiter>) -> Result<Registration> {
        let lock_table_scope = self.lock_table.scope();
        let registration = Registration::new(Wait {
            waiter: Arc::clone(waiter),
            entry: Arc::clone(entry),
            lock_table: self.lock_table.clone(),
            scopes: [self.request.scope.id(), lock_table_scope.id()],
        })?;
        let is_closed = self.request.scope.is_closed() || lock_table_scope.is_closed();
        if is_closed {
            return Err(Error::Closed);
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
        let scope = &Scope::new();
        let spin_delay = Duration::ZERO;
        let request = Request { wait: never, queue: WaitMode::Fifo, spin_delay, scope };
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
            assert!(lock_table.locks(None).is_empty(), "still locked");
            assert_eq!(waits::waiting(lock_table.scope()), 0, "still registered");
        });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::key::{Key, LockId};
    use crate::lock::hold::{Hold, Verdict};
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
        let (wait, scope) = (Timeout::millis(100), &Scope::new());
        locked.acquire(ids, &Request { wait, queue, spin_delay: Duration::ZERO, scope })
    }

    fn acquire_one(lock_table: &LockTable, key: &[u8], queue: WaitMode) -> Result<Locked> {
        let id = id(key);
        let mut locked = nothing_yet(lock_table, Some(id.clone()));
        acquire(&mut locked, &LockIds::One(id.by_ref()), queue).map(|()| locked)
    }

    /// C-3: one who insists on the order of arrival passes nobody, not even a head that has been woken
    /// and sleeps on.
    #[test]
    fn who_wants_the_strict_order_does_not_look_for_a_gap() {
        let lock_table = LockTable::new();
        let mut locked = acquire_one(&lock_table, b"k", WaitMode::Fair).unwrap();
        let [entry] = &lock_table.entries()[..] else { panic!("one lock") };
        let head = nothing_yet(&lock_table, Some(id(b"k")));
        let head = Arc::new(Waiter::new(head.hold().clone(), true, false, current()));
        let long_after_all = Moment::from_bits(1 << 60);
        let (turn, _) = entry.join(&head, long_after_all);
        assert!(matches!(turn, Turn::Busy { .. }));
        locked.hold().end().unwrap();
        locked.release_for_good();
        assert!(entry.looks_free(), "and its head does not look");
        let late = acquire_one(&lock_table, b"k", WaitMode::Fifo);
        assert_eq!(late.map(drop), Err(Error::WaitTimeout));
        assert!(head.fate() == Fate::Waiting && entry.looks_free());
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
            assert!(lock_table.locks(None).len() == 1, "the free key is free");
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
        let of_this_test = |entry: &&EntryRef| entry.id().table == TABLE;
        let listed = || lock_table.entries().iter().filter(of_this_test).count();
        std::thread::scope(|scope| {
            let visitor = scope.spawn(|| {
                for number in 0..100_u32 {
                    let id = LockId { table: TABLE, ..id(&number.to_ne_bytes()) };
                    let mut locked = nothing_yet(&lock_table, Some(id.clone()));
                    acquire(&mut locked, &LockIds::One(id.by_ref()), WaitMode::Fair).unwrap();
                    assert!(lock_table.find(id.by_ref()).is_some(), "looked at: it has an entry");
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
