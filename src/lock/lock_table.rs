//! Lock tables: finding the entry of a key, and the loop that waits for it.

use std::mem;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::{Deadline, Moment, Timeout};
use crate::error::{self, Error, Result};
use crate::key::{Key, KeyRef, LockId, LockIdRef, LockIds};
use crate::lock::deadlock::{self, Registration, Scope, Wait};
use crate::lock::entry::{self, Debts, Entry, EntryRef, Turn};
use crate::lock::hold::{Hold, Standing, Verdict};
use crate::lock::hold_ref::HoldRef;
use crate::lock::index::{Index, Node, NodeRef, Seen};
use crate::lock::queue::{Fate, Waiter};
use crate::lock::tokens;
use crate::lock::warm;
use crate::options::Queue;
use crate::process::PerProcess;
use crate::sync::{Arc, current, nap, park, park_timeout, planted};

/// How often a caller looks before it joins the queue: about as long as an empty section takes.
const SPINS: u32 = 100;

/// How a caller waits.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) wait: Timeout,
    pub(crate) queue: Queue,
    pub(crate) spin_delay: Duration,
    /// The handle to the table.
    pub(crate) scope: &'a Scope,
}

/// Locks that a hold holds, and the table they live in.
#[derive(Debug)]
pub(crate) struct Locked {
    lock_table: LockTable,
    hold: HoldRef,
    entries: Entries,
}

/// What came of an attempt to get a lock.
enum Attempt {
    Taken(EntryRef),
    Busy(EntryRef),
}

#[derive(Debug)]
enum Entries {
    None,
    /// One lock without an entry, as far as its holder knows.
    Sole,
    One(EntryRef),
    Many(Box<[EntryRef]>),
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
                let entries = match lock_table.take_sole(*id, hold, now) {
                    true => Entries::Sole,
                    false => Entries::One(lock_table.take(*id, hold, true, now, by, request)?),
                };
                if hold.token() == 0 {
                    return Err(Error::Revoked); // The lock has gone on already.
                }
                entries
            }
            LockIds::Many(ids) => Entries::Many(lock_table.take_all(ids, hold, by, request)?),
        };
        self.lock_table.0.counters.acquired(self);
        Ok(())
    }

    pub(crate) fn hold(&self) -> &HoldRef {
        &self.hold
    }

    pub(crate) fn len(&self) -> usize {
        match &self.entries {
            Entries::None => 0,
            Entries::Sole | Entries::One(_) => 1,
            Entries::Many(entries) => entries.len(),
        }
    }

    /// A locked key; they are in the order of `KeyRef`.
    pub(crate) fn key(&self, index: usize) -> &Key {
        match (self.hold.id(), &self.entries) {
            (Some(id), _) => &id.key,
            (None, Entries::Many(entries)) => &entries[index].id().key,
            (None, _) => unreachable!("a hold for several locks that has none"),
        }
    }

    /// The place of a key, if it is locked.
    #[inline]
    pub(crate) fn position(&self, key: &[u8]) -> Result<Option<usize>> {
        if let Some(id) = self.hold.id() {
            return Ok(id.key.has_bytes(key).then_some(0));
        }
        let Entries::Many(entries) = &self.entries else { return Ok(None) };
        let key = KeyRef::new(key)?;
        Ok(entries.binary_search_by(|entry| entry.id().key.by_ref().cmp(&key)).ok())
    }

    /// Frees the locks, as far as they are still this hold's. To be called after the hold's final
    /// step: by whoever made it, and by whoever must be sure that it was done.
    pub(crate) fn release(&self) {
        match &self.entries {
            Entries::None => {}
            Entries::Sole => self.lock_table.release_sole(&self.hold),
            Entries::One(entry) => self.lock_table.release(entry, &self.hold),
            Entries::Many(entries) => self.lock_table.release_all(entries, &self.hold),
        }
    }

    /// As `release`, by the only owner.
    pub(crate) fn release_for_good(&mut self) {
        match mem::replace(&mut self.entries, Entries::None) {
            Entries::None => {}
            Entries::Sole => self.lock_table.give_up_sole(&mut self.hold),
            Entries::One(entry) => self.lock_table.give_up(entry, &mut self.hold),
            Entries::Many(entries) => self.lock_table.release_all(&entries, &self.hold),
        }
    }

    /// The final step came from the clock: counts it, and frees the locks.
    pub(crate) fn release_expired(&self) {
        self.lock_table.0.counters.exec_timeouts.fetch_add(1, Relaxed);
        self.release();
    }
}

/// A lock, as a snapshot shows it.
#[derive(Debug, Clone)]
pub struct LockInfo {
    /// The key.
    pub key: Key,
    /// The holder's token; 0 while it still waits for more keys.
    pub token: u64,
    /// Whether the holder is past its exec deadline.
    pub late: bool,
    /// Since when it is held.
    pub held_ms: i64,
    /// Time to the exec deadline.
    pub exec_remaining: Timeout,
    /// How many callers wait in the queue.
    pub waiters: u64,
    /// The logical owner, `u64::MAX` for none, 0 for a thread or a callback.
    pub owner: u64,
    /// The thread that acquired it, as the system numbers it.
    pub thread_id: u64,
    pub(crate) table: u64,
}

/// What happened in a lock table, and what is the case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Locks acquired.
    pub acquired: u64,
    /// Acquisitions that had to wait.
    pub contended: u64,
    /// Waits that ended at their timeout.
    pub wait_timeouts: u64,
    /// Holders that outlived their time.
    pub exec_timeouts: u64,
    /// Locks taken away by a waiter or by force.
    pub forced_releases: u64,
    /// Waits answered with `Error::Deadlock`.
    pub deadlocks: u64,
    /// Locks held.
    pub held: u64,
    /// Callers waiting.
    pub waiting: u64,
}

/// ORDERING of all: counters, read for their value alone.
#[derive(Debug, Default)]
struct Counters {
    acquired: [Padded; 8],
    contended: AtomicU64,
    wait_timeouts: AtomicU64,
    exec_timeouts: AtomicU64,
    forced_releases: AtomicU64,
    deadlocks: AtomicU64,
}

impl Counters {
    fn acquired(&self, locked: &Locked) {
        let shard = locked.hold.thread_id as usize % self.acquired.len();
        self.acquired[shard].0.fetch_add(locked.len() as u64, Relaxed);
    }
}

/// One shard of a counter that every acquisition touches, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded(AtomicU64);

/// Where locks live, apart from the data. A clone is the same table.
#[derive(Debug, Clone)]
pub struct LockTable(Ref);

/// WHY: the default one is never freed. Counting its users would be the one word that every call of
/// every thread writes to.
#[derive(Debug, Clone)]
enum Ref {
    OfProcess(&'static Inner),
    Own(Arc<Inner>),
}

impl Deref for Ref {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        match self {
            Ref::OfProcess(inner) => inner,
            Ref::Own(inner) => inner,
        }
    }
}

#[derive(Debug)]
struct Inner {
    index: Index<Entry>,
    scope: Scope,
    counters: Counters,
}

impl Inner {
    fn new() -> Self {
        Self { index: Index::new(), scope: Scope::new(), counters: Counters::default() }
    }
}

impl Default for LockTable {
    fn default() -> Self {
        Self::new()
    }
}

impl LockTable {
    /// A lock table of its own: the same key in two of them is two locks.
    pub fn new() -> Self {
        Self(Ref::Own(Arc::new(Inner::new())))
    }

    /// The one that is used when none is named.
    pub fn default_of_process() -> Self {
        static DEFAULT: PerProcess<Inner> = PerProcess::new();
        Self(Ref::OfProcess(DEFAULT.get(Inner::new)))
    }

    /// Ends every wait in this table with `Error::Closed`. Locks that are held live on.
    pub fn close(&self) {
        self.0.scope.close();
    }

    /// What `hold` holds in this table before it has got anything.
    pub(crate) fn nothing_yet(self, hold: HoldRef) -> Locked {
        Locked { lock_table: self, hold, entries: Entries::None }
    }

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
        let known = outcome.and_then(|()| error::list(taken.iter().map(|entry| Ok(entry.clone()))));
        match known {
            Ok(known) => hold.set_locks(known.into()),
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
            self.pay(entry, entry.holder_opened());
        }
        Ok(taken.into())
    }

    /// Takes the only lock of a hold, if nobody else is near: without an entry.
    #[inline(always)]
    fn take_sole(&self, id: LockIdRef<'_>, hold: &mut HoldRef, now: Moment) -> bool {
        let index = &self.0.index;
        let hash = id.hash();
        if !index.is_vacant(hash) {
            return false;
        }
        hold.open_ahead(now);
        let put = index.put_sole(hash, id, hold.clone_mut());
        let taken = put.map_err(|reference| hold.drop_other(reference)).is_ok();
        entry::opened_ahead(hash, hold, taken);
        taken
    }

    /// Frees a lock that was taken without an entry.
    fn release_sole(&self, hold: &HoldRef) {
        let Some(id) = hold.id() else { return };
        match self.0.index.take_sole(id.hash(), hold) {
            Some(reference) => drop(reference),
            // It has an entry now.
            None => {
                if let Some(entry) = self.0.index.find_node(id.hash(), id.by_ref()) {
                    self.release(&entry, hold);
                }
            }
        }
    }

    /// As `release_sole`, by the only owner.
    #[inline]
    fn give_up_sole(&self, hold: &mut HoldRef) {
        let hash = hold.id().map_or(0, LockId::hash);
        match self.0.index.take_sole(hash, hold) {
            Some(reference) => hold.drop_other(reference),
            None => self.release_sole(hold),
        }
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
        match self.warm(id) {
            Some(entry) if entry.take(hold, opens, now) => Ok(entry),
            warm => {
                let strict = request.queue == Queue::Fifo;
                Claim { lock_table: self, id, hold, opens, strict, by, request }.take(now, warm)
            }
        }
    }

    /// The entry of `id`, if this thread gave it back lately.
    fn warm(&self, id: LockIdRef<'_>) -> Option<EntryRef> {
        if self.is_of_process() { warm::take(id) } else { None }
    }

    /// Lists a new entry that `hold` holds; `None` if another one of the key came first.
    fn list(
        &self,
        id: LockIdRef<'_>,
        hold: &mut HoldRef,
        opens: bool,
        now: Moment,
    ) -> Result<Option<EntryRef>> {
        let entry = Node::new(Entry::held_by(id.to_id()?, hold.clone_mut()))?;
        if opens {
            hold.open_ahead(now);
        }
        let listed = self.0.index.insert(id.hash(), id, &entry);
        if opens {
            entry::opened_ahead(id.hash(), hold, listed == Ok(true));
        }
        Ok(listed?.then_some(entry))
    }

    fn release(&self, entry: &EntryRef, hold: &HoldRef) {
        self.pay(entry, entry.release(hold));
    }

    /// As `release`, with the caller's reference to the entry.
    fn give_up(&self, entry: EntryRef, hold: &mut HoldRef) {
        if self.is_of_process() && entry.give_back(hold) {
            if let Some(leaves) = warm::keep(entry) {
                self.cool(&leaves);
            }
        } else {
            self.release(&entry, hold);
        }
    }

    fn release_all(&self, entries: &[EntryRef], hold: &HoldRef) {
        for entry in entries {
            self.release(entry, hold);
        }
    }

    /// Carries out what a change of `entry` owes to others.
    pub(super) fn pay(&self, entry: &EntryRef, mut debts: Debts) {
        debts.wake();
        if debts.idle {
            let leaves = match self.is_of_process() {
                true => warm::keep(entry.clone()),
                false => Some(entry.clone()),
            };
            if let Some(leaves) = leaves {
                self.cool(&leaves);
            }
        }
        if debts.died {
            self.0.index.remove(entry.id().hash(), entry);
        }
        if let Some(evicted) = debts.evicted.take() {
            self.0.counters.exec_timeouts.fetch_add(1, Relaxed);
            self.0.counters.forced_releases.fetch_add(1, Relaxed);
            self.release_all(evicted.locks(), &evicted);
        }
    }

    /// An entry is not kept warm any more.
    pub(super) fn cool(&self, entry: &EntryRef) {
        self.pay(entry, entry.cool());
    }

    fn is_of_process(&self) -> bool {
        matches!(self.0, Ref::OfProcess(_))
    }

    /// Takes the lock of `id` away from its holder; `Error::NotFound` if nobody holds it.
    pub(crate) fn force_release(&self, id: LockIdRef<'_>) -> Result<()> {
        loop {
            let entry = self.0.index.find(id.hash(), id)?.ok_or(Error::NotFound)?;
            let (hold, _) = entry.holder().ok_or(Error::NotFound)?;
            match hold.revoke() {
                Verdict::Taken => {
                    self.0.counters.forced_releases.fetch_add(1, Relaxed);
                    deadlock::expel_hold(&hold);
                    self.release(&entry, &hold);
                    self.release_all(hold.locks(), &hold);
                    return Ok(());
                }
                // It runs no user code and takes no lock of ours: it is over soon (C-8).
                Verdict::Committing => nap(),
                // Its last owner is letting go; what comes next is another lock. `InTime` is no
                // answer to force.
                Verdict::Ended | Verdict::Lost(_) | Verdict::InTime => return Err(Error::NotFound),
            }
        }
    }

    /// The locks held now; of one table, or of all.
    pub(crate) fn locks(&self, table: Option<u64>) -> Result<Vec<LockInfo>> {
        let now = Moment::now();
        let wanted = |id: &&LockId| table.is_none_or(|table| id.table == table);
        let mut locks = Vec::new();
        let mut add = |id: &LockId, hold: &HoldRef, waiters| {
            if hold.is_in_force() {
                locks.try_reserve(1).map_err(|_| Error::NoMemory)?;
                locks.push(describe(id, hold, waiters, now));
            }
            Ok(())
        };
        self.0.index.visit(|seen| match seen {
            Seen::Sole(hold) => hold.id().filter(wanted).map_or(Ok(()), |id| add(id, &hold, 0)),
            Seen::Node(entry) => match Some(entry.id()).filter(wanted).and(entry.holder()) {
                Some((hold, waiters)) => add(entry.id(), &hold, waiters),
                None => Ok(()),
            },
        })?;
        Ok(locks)
    }

    /// How many locks are held now.
    fn held(&self) -> usize {
        self.0.index.count(|entry| entry.holder().is_some_and(|(hold, _)| hold.is_in_force()))
    }

    /// The counters, and what is the case.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.counters;
        Stats {
            acquired: counters.acquired.iter().map(|shard| shard.0.load(Relaxed)).sum(),
            contended: counters.contended.load(Relaxed),
            wait_timeouts: counters.wait_timeouts.load(Relaxed),
            exec_timeouts: counters.exec_timeouts.load(Relaxed),
            forced_releases: counters.forced_releases.load(Relaxed),
            deadlocks: counters.deadlocks.load(Relaxed),
            held: self.held() as u64,
            waiting: deadlock::waiting(&self.0.scope),
        }
    }
}

fn describe(id: &LockId, hold: &Hold, waiters: usize, now: Moment) -> LockInfo {
    let is_open = hold.is_open();
    LockInfo {
        key: id.key.clone(),
        token: if is_open { hold.token() } else { 0 },
        late: hold.standing(now) == Standing::Late,
        held_ms: if is_open { now.millis_since(hold.since()) } else { 0 },
        exec_remaining: Timeout::left(hold.deadline().remaining(now)),
        waiters: waiters as u64,
        owner: hold.party.logical_id(),
        thread_id: hold.thread_id,
        table: id.table,
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
    /// Takes the lock, and waits for it if it must. `warm`: its entry, if it is at hand.
    #[inline(never)] // WHY: most calls end before.
    fn take(mut self, now: Moment, warm: Option<EntryRef>) -> Result<EntryRef> {
        let entry = match self.attempt(self.strict, now, warm)? {
            Attempt::Taken(entry) => return Ok(entry),
            Attempt::Busy(entry) => entry,
        };
        let counters = &self.lock_table.0.counters;
        if self.by.is_past(Moment::now()) {
            counters.wait_timeouts.fetch_add(1, Relaxed);
            return Err(Error::WaitTimeout);
        }
        counters.contended.fetch_add(1, Relaxed);
        let outcome = match self.request.queue {
            Queue::Polling => self.poll(entry),
            Queue::Fair | Queue::Fifo => self.queue(entry),
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
        mut warm: Option<EntryRef>,
    ) -> Result<Attempt> {
        let (id, lock_table, opens) = (self.id, self.lock_table, self.opens);
        loop {
            let known = match warm.take() {
                Some(entry) => Some(entry),
                None => lock_table.0.index.find(id.hash(), id)?,
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
            let (turn, debts) = entry.arrive(self.hold, opens, strict, now);
            lock_table.pay(&entry, debts);
            match turn {
                Turn::Taken => return Ok(Attempt::Taken(entry)),
                Turn::Busy { .. } => return Ok(Attempt::Busy(entry)),
                Turn::Dead => {}
            }
        }
    }

    /// One more attempt.
    fn attempt_again(&mut self, strict: bool, now: Moment) -> Result<Attempt> {
        let warm = self.lock_table.warm(self.id);
        self.attempt(strict, now, warm)
    }

    /// Waits in the queue of `entry`.
    fn queue(&mut self, mut entry: EntryRef) -> Result<EntryRef> {
        if !self.strict && self.spin(&entry) {
            return Ok(entry);
        }
        loop {
            let waiter = self.waiter();
            let now = Moment::now();
            let (turn, debts) = entry.join(&waiter, now);
            self.lock_table.pay(&entry, debts);
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
                let (turn, debts) = entry.arrive(self.hold, self.opens, false, now);
                self.lock_table.pay(entry, debts);
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
            let (left, debts) = entry.leave(waiter, Fate::Left, Moment::now());
            self.lock_table.pay(entry, debts);
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
            let (turn, debts) = entry.look(waiter, now);
            self.lock_table.pay(entry, debts);
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
            if !NodeRef::ptr_eq(&busy, &entry) {
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
        let lock_table_scope = &self.lock_table.0.scope;
        let registration = Registration::new(Wait {
            waiter: Arc::clone(waiter),
            entry: entry.clone(),
            lock_table: self.lock_table.clone(),
            scopes: [self.request.scope.id(), lock_table_scope.id()],
        })?;
        let is_closed = self.request.scope.is_closed() || lock_table_scope.is_closed();
        if is_closed && !planted("wait without looking") {
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
    use crate::lock::deadlock::Party;
    use loom::thread;

    fn id() -> LockId {
        LockId { table: 1, key: Key::new(b"k").unwrap() }
    }

    /// Waits for the lock in the order of arrival: who spins, or may go first, asks the real clock.
    fn acquire(lock_table: &LockTable) -> Result<Locked> {
        let never = Timeout::INFINITE;
        let mut hold = HoldRef::new(|| Hold::new(never, never, Party::None, false, 0));
        hold.get_mut().unwrap().set_only(id());
        let mut locked = lock_table.clone().nothing_yet(hold);
        let scope = &Scope::new();
        let spin_delay = Duration::ZERO;
        let request = Request { wait: never, queue: Queue::Fifo, spin_delay, scope };
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
            assert_eq!(deadlock::waiting(&lock_table.0.scope), 0, "still registered");
        });
    }
}
