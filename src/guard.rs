//! Guards: proof of holding, staged writes, commit.
//!
//! A guard talks to the store of its table in four verbs: acquire (`with_lock`), read, commit if
//! still the holder, release.
//!
//! Invariants
//! I1. Writes are staged in the guard; they reach the table between `commit_begin` and
//!     `commit_end` of the hold, and nowhere else (C-7, C-8).
//! I2. Whoever makes the hold's final step frees the locks; `ended` says what that step was.
//! I3. A guard covers the keys of its locks and no other.
//! I4. What is pending belongs to the holder: one thread at a time. Whoever else knows the guard asks
//!     only what it holds.

#![expect(unsafe_code, reason = "a caller looks at the guard of its callback; argued from I4")]

use std::cell::RefCell;
use std::mem;

use crate::bytes::{Bytes, boxed_copy};
use crate::clock::{Moment, Timeout};
use crate::error::{self, Error, Result};
use crate::key::{Key, LockIdRef, LockIds};
use crate::lock::{Gate, Hold, HoldRef, Locked, Lost, Request, Standing, Stop, Verdict};
use crate::options::Options;
use crate::registry::Opened;
use crate::staged::Staged;
use crate::sync::{Thread, current, park, park_timeout};
use crate::table::{Snapshot, Spot, Table, Tuples, Write};
use crate::tables::Tables;

/// What a guard stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A call that returned it: the user ends it.
    Acquired,
    /// A callback on the calling thread.
    OnCaller,
    /// A callback on a worker: it is revoked at its deadline.
    OnWorker,
}

/// Fenced access to the locked keys. Any thread may use it, one thread at a time.
///
/// Dropping an acquired guard cancels it.
#[derive(Debug)]
pub struct Guard {
    holding: Holding,
    pending: RefCell<Pending>,
}

/// What is held, and where its writes go.
#[derive(Debug)]
pub(crate) struct Holding {
    kind: Kind,
    tables: Tables,
    locked: Locked,
}

/// What takes effect if the holder ends well.
#[derive(Debug, Default)]
struct Pending {
    staged: Staged,
    /// Where the tuples were found, if the guard has one key.
    spot: Option<Spot>,
    /// What the callback hands to the caller of its call.
    result: Option<Box<[u8]>>,
}

impl Guard {
    #[inline(always)] // See `with_lock::empty_handed`.
    pub(crate) fn new(kind: Kind, tables: Tables, locked: Locked) -> Self {
        Self { holding: Holding { kind, tables, locked }, pending: RefCell::default() }
    }

    /// Waits for the locks of `ids`, and takes them: the beginning of every holder.
    #[inline(always)]
    pub(crate) fn acquire(&mut self, ids: &LockIds<'_>, options: &Options) -> Result<()> {
        let Options { wait, queue, spin_delay, .. } = *options;
        let Holding { tables, locked, .. } = &mut self.holding;
        let (handles, stop) = (tables.handles(), options.stop.as_ref().map(Stop::scope));
        locked.acquire(ids, &Request { wait, queue, spin_delay, handles, stop })
    }

    pub(crate) fn holding(&self) -> &Holding {
        &self.holding
    }

    pub(crate) fn hold(&self) -> &HoldRef {
        self.holding.hold()
    }

    pub(crate) fn is_acquired(&self) -> bool {
        self.holding.kind == Kind::Acquired
    }

    /// `Error::Forked` in a child of the process that made it.
    pub(crate) fn enter(&self) -> Result<()> {
        self.hold().enter()
    }

    /// The current tuples of a key, with this guard's unpublished writes applied.
    ///
    /// As for all that name no table: the guard's keys must be of one, or it is `Error::Invalid`.
    pub fn lookup(&self, key: &[u8]) -> Result<Tuples> {
        self.look_up(self.covered(key)?)
    }

    /// As `lookup`, of a key of `table`.
    pub fn lookup_in(&self, table: &Opened, key: &[u8]) -> Result<Tuples> {
        self.look_up(self.covered_in(table, key)?)
    }

    fn look_up(&self, index: usize) -> Result<Tuples> {
        self.status()?;
        let table = self.holding.table(index);
        let tuples = table.snapshot(self.holding.locked.id(index).key.by_ref())?;
        let mut pending = self.pending.borrow_mut();
        pending.staged.preview(index, tuples, table.table_type())?.present()
    }

    /// Stages the insertion of a tuple.
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let index = self.covered(key)?;
        self.stage(index, || Ok(Write::Insert(Bytes::copy_of(value)?)))
    }

    /// As `insert`, of a key of `table`.
    pub fn insert_in(&self, table: &Opened, key: &[u8], value: &[u8]) -> Result<()> {
        let index = self.covered_in(table, key)?;
        self.stage(index, || Ok(Write::Insert(Bytes::copy_of(value)?)))
    }

    /// Stages the removal of all tuples of a key.
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        let index = self.covered(key)?;
        self.stage(index, || Ok(Write::Delete))
    }

    /// As `delete`, of a key of `table`.
    pub fn delete_in(&self, table: &Opened, key: &[u8]) -> Result<()> {
        let index = self.covered_in(table, key)?;
        self.stage(index, || Ok(Write::Delete))
    }

    /// Stages the removal of every instance of one tuple.
    pub fn delete_tuple(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let index = self.covered(key)?;
        self.stage(index, || Ok(Write::DeleteTuple(Bytes::copy_of(value)?)))
    }

    /// As `delete_tuple`, of a key of `table`.
    pub fn delete_tuple_in(&self, table: &Opened, key: &[u8], value: &[u8]) -> Result<()> {
        let index = self.covered_in(table, key)?;
        self.stage(index, || Ok(Write::DeleteTuple(Bytes::copy_of(value)?)))
    }

    /// Publishes the staged writes and keeps the lock.
    pub fn commit(&self) -> Result<()> {
        self.enter()?;
        let mut pending = self.pending.borrow_mut();
        if pending.staged.is_empty() {
            return self.status();
        }
        self.holding.publish(&pending.staged, pending.spot, false)?;
        pending.staged.clear();
        Ok(())
    }

    /// Forgets the unpublished writes.
    pub fn rollback(&self) -> Result<()> {
        self.status()?;
        self.pending.borrow_mut().staged.clear();
        Ok(())
    }

    /// Publishes the staged writes and frees the lock.
    pub fn release(mut self) -> Result<()> {
        self.finish().map(drop)
    }

    /// Forgets the staged writes and frees the lock.
    pub fn cancel(self) -> Result<()> {
        self.let_go();
        Ok(())
    }

    /// Sets what a call hands to its caller; the last one counts.
    pub fn set_result(&self, data: &[u8]) -> Result<()> {
        if self.is_acquired() {
            return Err(Error::Invalid);
        }
        self.status()?;
        self.pending.borrow_mut().result = Some(boxed_copy(data)?);
        Ok(())
    }

    /// Moves the exec deadline to at least `exec` from now: never earlier, never back to life.
    pub fn extend(&self, exec: Timeout) -> Result<()> {
        self.holding.answer(self.hold().extend(Moment::now(), exec))
    }

    /// Sleeps; wakes early, and says so, when the guard is late or revoked.
    pub fn sleep(&self, time: Timeout) -> Result<()> {
        let until = Moment::now().after(time);
        let thread = current();
        self.holding.watched_by(thread, || {
            loop {
                let now = Moment::now();
                self.status()?;
                if until.is_past(now) {
                    return Ok(());
                }
                match until.min(self.hold().deadline()).remaining(now) {
                    Some(left) => park_timeout(left),
                    None => park(),
                }
            }
        })
    }

    /// `Ok` when live, `Error::ExecTimeout` when late, `Error::Revoked` when revoked.
    pub fn status(&self) -> Result<()> {
        self.holding.status()
    }

    /// Time to the exec deadline; 0 when late or revoked.
    pub fn remaining(&self) -> Timeout {
        let now = Moment::now();
        match self.hold().standing(now) {
            Standing::Live => Timeout::left(self.hold().deadline().remaining(now)),
            Standing::Late | Standing::Lost(_) => Timeout::millis(0),
        }
    }

    /// A number larger than that of every earlier lock of the same key.
    pub fn token(&self) -> u64 {
        self.hold().token()
    }

    /// The tuples of the keys `wanted`, which the guard covers, as they are now.
    #[inline(always)]
    pub(crate) fn read(&self, wanted: &LockIds<'_>) -> Result<Snapshot> {
        let tuples = |id: &LockIdRef<'_>| self.holding.tables.by_id(|| id.table).snapshot(id.key);
        Ok(match wanted {
            LockIds::One(id) => {
                let table = self.holding.tables.by_id(|| id.table);
                let (tuples, spot) = table.snapshot_at(id.key)?;
                self.pending.borrow_mut().spot = spot;
                Snapshot::One(tuples)
            }
            LockIds::Many(ids) => Snapshot::Many(error::list(ids.iter().map(tuples))?),
        })
    }

    /// Commits and frees the lock, if in time. The end of every successful holder that is its guard's
    /// only owner. Returns what the callback set.
    pub(crate) fn finish(&mut self) -> Result<Option<Box<[u8]>>> {
        let pending = self.pending.get_mut();
        match self.holding.publish(&pending.staged, pending.spot, true) {
            Ok(()) => {
                self.holding.locked.release_for_good();
                Ok(pending.result.take())
            }
            // Nothing more can be done with it.
            Err(error) => {
                self.let_go();
                Err(error)
            }
        }
    }

    /// As `finish`, while others look at the guard.
    pub(crate) fn finish_shared(&self) -> Result<Option<Box<[u8]>>> {
        let Pending { staged, spot, result } = mem::take(&mut *self.pending.borrow_mut());
        match self.holding.publish(&staged, spot, true) {
            Ok(()) => {
                self.holding.locked.release();
                Ok(result)
            }
            Err(error) => {
                self.let_go();
                Err(error)
            }
        }
    }

    /// Frees the lock without publishing. Says if the holder was too late, or had lost it.
    pub(crate) fn fail(&self) -> Result<()> {
        self.enter()?;
        let standing = self.hold().standing(Moment::now());
        self.let_go();
        self.holding.answer(standing)
    }

    /// Ends the hold if it has not ended, and frees the locks if it was this that ended it (I2).
    fn let_go(&self) {
        // What a forked child inherited is not its own to end (C-16).
        if self.enter().is_err() {
            self.holding.tables.leak();
            return;
        }
        let hold = self.hold();
        if !hold.is_in_force() {
            return;
        }
        self.pending.borrow_mut().staged.clear();
        let now = Moment::now_against(hold.deadline());
        if hold.standing(now) == Standing::Late {
            self.holding.expire();
        } else if hold.end().is_ok() {
            self.holding.locked.release();
        }
    }

    /// The place of a key among the guard's (I3).
    #[inline(always)]
    fn covered(&self, key: &[u8]) -> Result<usize> {
        let Holding { tables, locked, .. } = &self.holding;
        locked.position(key, || Ok(tables.only()?.id()))?.ok_or(Error::NotCovered)
    }

    /// The place of a key of `table` among the guard's (I3). Every handle to a table will do.
    fn covered_in(&self, table: &Opened, key: &[u8]) -> Result<usize> {
        self.holding.locked.position_in(table.id(), key)?.ok_or(Error::NotCovered)
    }

    /// WHY: always inline, so that a small value is written once, where it stays.
    #[inline(always)]
    fn stage(&self, index: usize, write: impl FnOnce() -> Result<Write>) -> Result<()> {
        self.status()?;
        let r#type = self.holding.table(index).table_type();
        self.pending.borrow_mut().staged.push(index, write, r#type)
    }
}

impl Holding {
    pub(crate) fn hold(&self) -> &HoldRef {
        self.locked.hold()
    }

    /// The table of the key at this place.
    #[inline(always)]
    fn table(&self, index: usize) -> &Opened {
        self.tables.by_id(|| self.locked.id(index).table)
    }

    /// Runs `body` while `thread` is woken when the hold is taken away.
    pub(crate) fn watched_by<R>(&self, thread: Thread, body: impl FnOnce() -> R) -> R {
        self.hold().watch(thread.clone());
        let answer = body();
        self.hold().unwatch(&thread);
        answer
    }

    /// The hold was lost: sees to it that the locks are free by now, whoever it was that took it
    /// away. Freeing them twice is harmless, for only their holder's are freed.
    pub(crate) fn free(&self) {
        self.locked.release();
    }

    /// How a call that ran a callback reports the loss of its lock.
    pub(crate) fn loss(&self) -> Option<Error> {
        match self.hold().standing(Moment::START) {
            Standing::Lost(Lost::Revoked) => Some(Error::Revoked),
            Standing::Lost(Lost::Expired) => Some(Error::ExecTimeout),
            Standing::Live | Standing::Late => None,
        }
    }

    /// How it stands by the clock.
    fn status(&self) -> Result<()> {
        let hold = self.hold();
        self.answer(hold.standing(Moment::now_against(hold.deadline())))
    }

    /// What a standing means to this kind of guard.
    fn answer(&self, standing: Standing) -> Result<()> {
        match (standing, self.kind) {
            (Standing::Live, _) => Ok(()),
            // A worker's guard goes from live to revoked.
            (Standing::Late, Kind::OnWorker) => {
                self.expire();
                Err(Error::Revoked)
            }
            (Standing::Late, _) => Err(Error::ExecTimeout),
            (Standing::Lost(_), _) => Err(Error::Revoked),
        }
    }

    /// Takes the hold away from the callback if its time is over (C-4).
    pub(crate) fn expire(&self) -> Verdict {
        let verdict = self.hold().expire(Moment::now());
        if verdict == Verdict::Taken {
            self.locked.release_expired();
        }
        verdict
    }

    /// Publishes the staged writes (I1). `last`: and ends the hold.
    fn publish(&self, staged: &Staged, spot: Option<Spot>, last: bool) -> Result<()> {
        if self.tables.are_one() {
            let table = self.tables.first();
            self.publish_in(|_| table, staged, spot, last)
        } else {
            self.publish_in(|index| self.table(index), staged, spot, last)
        }
    }

    /// As `publish`. `table`: that of the key at a place.
    #[inline(always)] // WHY: most guards are of one table, and look for none.
    fn publish_in<'a>(
        &'a self,
        table: impl Fn(usize) -> &'a Opened,
        staged: &'a Staged,
        spot: Option<Spot>,
        last: bool,
    ) -> Result<()> {
        let locked = &self.locked;
        let hold = locked.hold();
        hold.enter()?;
        let place = |index| -> (&Table, &Key) { (table(index), &locked.id(index).key) };
        // Before the gate: nothing but publishing happens behind it.
        let ready = staged.prepare(spot, place)?;
        match hold.commit_begin(Moment::now_against(hold.deadline())) {
            Gate::Open => {}
            Gate::Late => return self.answer(Standing::Late),
            Gate::Lost(lost) => return self.answer(Standing::Lost(lost)),
        }
        {
            let mut gate = OpenGate { hold, last: false };
            ready.publish()?;
            gate.last = last;
        }
        staged.tidy(place);
        Ok(())
    }
}

/// The guard of a callback that runs on one thread, while its caller waits on another.
pub(crate) struct OnWorker(Guard);

// SAFETY: what is held may be used by any thread; what is pending, by the callback's alone (I4).
unsafe impl Sync for OnWorker {}

impl OnWorker {
    pub(crate) fn new(guard: Guard) -> Self {
        Self(guard)
    }

    /// For any thread.
    pub(crate) fn holding(&self) -> &Holding {
        self.0.holding()
    }

    /// # Safety
    /// For the callback's thread alone.
    pub(crate) unsafe fn for_callback(&self) -> &Guard {
        &self.0
    }
}

/// Closes the gate, also when publishing panicked: nobody else could, and others wait for it.
struct OpenGate<'a> {
    hold: &'a Hold,
    last: bool,
}

impl Drop for OpenGate<'_> {
    fn drop(&mut self) {
        self.hold.commit_end(self.last);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.let_go();
    }
}
