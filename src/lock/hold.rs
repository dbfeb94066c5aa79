//! A hold: one holding of a lock, from the attempt to the end. Its one word decides every race
//! about it: in time or too late, committed or revoked, extended or expired.
//!
//! The word is `deadline << 3 | state`, so that a decision about a state is also a decision about
//! the deadline it was taken by.
//!
//! | State      | Meaning                                       | Left by, to                       |
//! |------------|-----------------------------------------------|-----------------------------------|
//! | TAKING     | its locks are waited for; no deadline         | taker: OPEN, ENDED; anyone: REVOKED |
//! | OPEN       | held; writes are staged                       | holder: OPEN (later deadline), COMMITTING, ENDED; anyone: EXPIRED (deadline past), REVOKED |
//! | COMMITTING | staged writes are being published; no user code | holder: OPEN, ENDED             |
//! | ENDED      | given back                                    | never                             |
//! | EXPIRED    | taken away because its time was over          | never                             |
//! | REVOKED    | taken away by force                           | never                             |
//!
//! Invariants
//! I1. One final state is reached, once: every step is a compare-exchange from a word seen.
//! I2. Whoever makes the final step frees the locks. Others may do it too: an entry frees the lock
//!     of its holder only, so nobody frees a successor's.
//! I3. Writes are published in COMMITTING only, which nobody but the holder leaves. So nothing is
//!     published after EXPIRED or REVOKED (C-8).
//! I4. EXPIRED is reached from a word whose own deadline had passed: an extension that was granted
//!     first wins, one that comes later is refused.
//! I5. Start and the other locks of a hold are written before OPEN, and read after; so is the token,
//!     unless the taker of a free lock opened it ahead (I6).
//! I6. A taker opens its hold before it has the lock only while nobody else knows the hold. Its
//!     token, drawn when it has the lock, counts only if the hold is in force afterwards: then no
//!     successor has drawn before. If the clock took the lock away before that, whoever did so has
//!     drawn a token for it first, before any for a successor.

use crate::clock::{Deadline, Moment, Timeout};
use crate::error::{Error, Result};
use crate::key::LockId;
use crate::lock::owner::{self, Call, OwnerId, Place};
use crate::process::Generation;
use crate::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};
use crate::sync::{Arc, Mutex, OnceLock, Thread, nap};

const TAKING: u64 = 0;
const OPEN: u64 = 1;
const COMMITTING: u64 = 2;
const ENDED: u64 = 3;
const EXPIRED: u64 = 4;
const REVOKED: u64 = 5;

const STATE: u64 = 0b111;
const DEADLINE_SHIFT: u32 = 3;

/// A state and the deadline it stands under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn new(state: u64, deadline: Deadline) -> Self {
        Self(deadline.as_bits() << DEADLINE_SHIFT | state)
    }

    fn state(self) -> u64 {
        self.0 & STATE
    }

    fn deadline(self) -> Deadline {
        Deadline::from_bits(self.0 >> DEADLINE_SHIFT)
    }

    fn with(self, state: u64) -> Self {
        Self(self.0 & !STATE | state)
    }

    fn standing(self, now: Moment) -> Standing {
        match self.state() {
            EXPIRED => Standing::Lost(Lost::Expired),
            REVOKED => Standing::Lost(Lost::Revoked),
            _ if self.deadline().is_past(now) => Standing::Late,
            _ => Standing::Live,
        }
    }
}

/// How a hold was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Its time was over.
    Expired,
    /// By force.
    Revoked,
}

/// How a hold stands at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Live,
    /// Past its deadline, and not taken away yet.
    Late,
    Lost(Lost),
}

/// Whether the holder may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Until `commit_end`.
    Open,
    Late,
    Lost(Lost),
}

/// The answer to an attempt to take a hold away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Taken away by this attempt, which must free the locks (I2).
    Taken,
    /// Its deadline has not passed.
    InTime,
    /// A commit is under way: try again soon.
    Committing,
    /// It had ended.
    Ended,
    /// It was lost before.
    Lost(Lost),
}

/// One holding of one lock or several.
#[derive(Debug)]
pub(crate) struct Hold {
    word: AtomicU64,
    token: AtomicU64,
    since: AtomicU64,
    fail: Timeout,
    exec: Timeout,
    pub(crate) owner: OwnerId,
    /// A call runs a callback, which is an owner by itself (C-13).
    pub(crate) is_call: bool,
    /// Whether the caller of a call waits for its callback.
    attached: AtomicBool,
    pub(crate) thread_id: u64,
    born: Generation,
    /// The only lock that it is for; `None` for several.
    id: Option<LockId>,
    rare: OnceLock<Box<Rare>>,
}

/// What few holds have.
#[derive(Debug, Default)]
struct Rare {
    /// Threads to wake when it is taken away: the caller that waits for its callback, and a
    /// holder that sleeps.
    watchers: Mutex<[Option<Thread>; 2]>,
    /// All locks of a hold that has several; unset for one.
    ids: OnceLock<Box<[LockId]>>,
    /// The callback as an owner, once it waits or holds something itself.
    owner: OnceLock<Arc<Call>>,
}

impl Hold {
    #[inline(always)] // See `HoldRef::new`.
    pub(crate) fn new(
        exec: Timeout,
        fail: Timeout,
        owner: OwnerId,
        is_call: bool,
        thread_id: u64,
    ) -> Self {
        Self {
            word: AtomicU64::new(Word::new(TAKING, Deadline::NEVER).0),
            token: AtomicU64::new(0),
            since: AtomicU64::new(0),
            fail,
            exec,
            owner,
            is_call,
            attached: AtomicBool::new(is_call),
            thread_id,
            born: Generation::current(),
            id: None,
            rare: OnceLock::new(),
        }
    }

    /// Taker, before anyone else knows it: it is for one lock.
    #[inline(always)]
    pub(crate) fn set_only(&mut self, id: LockId) {
        self.id = Some(id);
    }

    /// The only lock that it is for.
    pub(super) fn id(&self) -> Option<&LockId> {
        self.id.as_ref()
    }

    /// ORDERING: pairs with the Release of every step: who sees a state sees what came before.
    fn word(&self) -> Word {
        Word(self.word.load(Acquire))
    }

    /// ORDERING: Release publishes what the stepping side wrote before; Acquire shows it what the
    /// side before it wrote.
    fn step(&self, from: Word, to: Word) -> std::result::Result<(), Word> {
        self.word.compare_exchange(from.0, to.0, AcqRel, Acquire).map(drop).map_err(Word)
    }

    /// Taker: all locks are held from `now` on. `false` if the hold was revoked meanwhile.
    pub(super) fn open(&self, now: Moment, token: u64) -> bool {
        // ORDERING of both: published by the step below (I5).
        self.token.store(token, Relaxed);
        self.since.store(now.as_bits(), Relaxed);
        let taking = Word::new(TAKING, Deadline::NEVER);
        self.step(taking, Word::new(OPEN, now.after(self.exec))).is_ok()
    }

    /// Taker of one lock, before it asks for it: open from `now` on, if it gets it (I6).
    ///
    /// WHY: a lock that is got without waiting then costs one exchange less, and no waiter ever meets
    /// a holder of one lock that has no deadline yet.
    pub(super) fn open_ahead(&self, now: Moment) {
        // ORDERING of both: published with the lock.
        self.since.store(now.as_bits(), Relaxed);
        self.word.store(Word::new(OPEN, now.after(self.exec)).0, Relaxed);
    }

    /// Taker: it did not get the lock after `open_ahead`.
    pub(super) fn not_yet(&self) {
        // ORDERING: nobody else knows the hold.
        self.word.store(Word::new(TAKING, Deadline::NEVER).0, Relaxed);
    }

    /// Taker: the token it drew with the lock that it got after `open_ahead`. It stays without one if
    /// it has lost the lock meanwhile (I6).
    pub(super) fn set_token(&self, token: u64) {
        if self.is_in_force() {
            self.token.store(token, Relaxed); // ORDERING: for this thread, or with a hand-over.
        }
    }

    /// Whoever took it away by the clock, before the next holder draws: a token for it, if its taker
    /// has none yet (I6).
    #[inline]
    pub(super) fn set_token_of_expired(&self, draw: impl FnOnce() -> u64) {
        if self.token() == 0 {
            // ORDERING: pairs with `lost_at_once`. If the taker's own comes in between, it was drawn
            // before any successor's too, and stays.
            let _ = self.token.compare_exchange(0, draw(), Release, Relaxed);
        }
    }

    /// Taker, after `set_token`: it is without a token, so the lock is lost already. Who took it? If
    /// it was the clock, it has a token now (I6).
    #[cold]
    pub(super) fn lost_at_once(&self) -> Lost {
        loop {
            match self.standing(Moment::START) {
                // ORDERING: pairs with `set_token_of_expired`.
                Standing::Lost(Lost::Expired) if self.token.load(Acquire) == 0 => nap(),
                Standing::Lost(lost) => return lost,
                Standing::Live | Standing::Late => return Lost::Revoked, // Not without a token.
            }
        }
    }

    /// Taker: gave up. `false` if the hold was revoked meanwhile.
    pub(crate) fn give_up(&self) -> bool {
        let taking = Word::new(TAKING, Deadline::NEVER);
        self.step(taking, taking.with(ENDED)).is_ok()
    }

    pub(crate) fn standing(&self, now: Moment) -> Standing {
        self.word().standing(now)
    }

    /// Holder: moves the deadline to at least `now` + `exec`; never earlier, never back to life.
    pub(crate) fn extend(&self, now: Moment, exec: Timeout) -> Standing {
        let mut word = self.word();
        loop {
            match (word.state(), word.standing(now)) {
                (OPEN, Standing::Live) => {}
                (_, standing) => return standing,
            }
            let later = word.deadline().max(now.after(exec));
            match self.step(word, Word::new(OPEN, later)) {
                Ok(()) => return Standing::Live,
                Err(seen) => word = seen,
            }
        }
    }

    /// Holder: opens the gate to publishing, if in time.
    pub(crate) fn commit_begin(&self, now: Moment) -> Gate {
        let mut word = self.word();
        loop {
            match word.state() {
                OPEN if word.deadline().is_past(now) => return Gate::Late,
                OPEN => {}
                EXPIRED => return Gate::Lost(Lost::Expired),
                _ => return Gate::Lost(Lost::Revoked),
            }
            match self.step(word, word.with(COMMITTING)) {
                Ok(()) => return Gate::Open,
                Err(seen) => word = seen,
            }
        }
    }

    /// Holder: closes the gate. With `last` the hold has ended, and the holder frees the locks.
    pub(crate) fn commit_end(&self, last: bool) {
        let word = self.word();
        debug_assert_eq!(word.state(), COMMITTING);
        // I3: nobody else leaves COMMITTING, so a plain store is a step.
        // ORDERING: Release, as in `step`.
        self.word.store(word.with(if last { ENDED } else { OPEN }).0, Release);
    }

    /// Holder: gives it back without publishing. `Ok`: the holder frees the locks (I2).
    pub(crate) fn end(&self) -> std::result::Result<(), Lost> {
        let mut word = self.word();
        loop {
            match word.state() {
                OPEN => {}
                EXPIRED => return Err(Lost::Expired),
                _ => return Err(Lost::Revoked),
            }
            match self.step(word, word.with(ENDED)) {
                Ok(()) => return Ok(()),
                Err(seen) => word = seen,
            }
        }
    }

    /// Anyone: takes it away if its exec deadline has passed.
    pub(crate) fn expire(&self, now: Moment) -> Verdict {
        self.take_away(EXPIRED, |word| word.deadline().is_past(now))
    }

    /// Anyone: takes it away if its release time has passed (C-5).
    pub(crate) fn expire_overdue(&self, now: Moment) -> Verdict {
        self.take_away(EXPIRED, |word| word.deadline().plus(self.fail).is_past(now))
    }

    /// Anyone: takes it away.
    pub(crate) fn revoke(&self) -> Verdict {
        self.take_away(REVOKED, |_| true)
    }

    fn take_away(&self, to: u64, allowed: impl Fn(Word) -> bool) -> Verdict {
        let mut word = self.word();
        loop {
            match word.state() {
                ENDED => return Verdict::Ended,
                EXPIRED => return Verdict::Lost(Lost::Expired),
                REVOKED => return Verdict::Lost(Lost::Revoked),
                _ if !allowed(word) => return Verdict::InTime,
                COMMITTING => return Verdict::Committing,
                _ => {}
            }
            match self.step(word, word.with(to)) {
                Ok(()) => {
                    self.wake_watchers();
                    return Verdict::Taken;
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// When it may be taken away by a waiter; never while it is on its way in or out.
    pub(crate) fn release_time(&self) -> Deadline {
        let word = self.word();
        match word.state() {
            OPEN | COMMITTING => word.deadline().plus(self.fail),
            _ => Deadline::NEVER,
        }
    }

    /// The exec deadline.
    pub(crate) fn deadline(&self) -> Deadline {
        self.word().deadline()
    }

    /// Whether it is held, and by somebody who may still write.
    pub(crate) fn is_in_force(&self) -> bool {
        matches!(self.word().state(), TAKING | OPEN | COMMITTING)
    }

    /// Whether it is held with a deadline and a token.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.word().state(), OPEN | COMMITTING)
    }

    /// 0 before it has one.
    pub(crate) fn token(&self) -> u64 {
        self.token.load(Relaxed) // ORDERING: by I5.
    }

    pub(crate) fn since(&self) -> Moment {
        Moment::from_bits(self.since.load(Relaxed)) // ORDERING: by I5, after `word` showed OPEN.
    }

    /// `Error::Forked` in a child of the process that made it.
    pub(crate) fn enter(&self) -> Result<()> {
        if self.born.is_current() { Ok(()) } else { Err(Error::Forked) }
    }

    /// The callback of the call as an owner.
    pub(super) fn as_owner(&self) -> Arc<Call> {
        let owner = self.become_owner(|| Call::of(self.owner.clone()));
        // ORDERING: pairs with the fence in `abandon`: this side shows the owner, then looks whether
        // somebody waits for it; the other says that nobody does, then looks for an owner.
        fence(SeqCst);
        if !self.attached.load(Relaxed) {
            owner.cut();
        }
        Arc::clone(owner)
    }

    pub(super) fn become_owner(&self, make: impl FnOnce() -> Arc<Call>) -> &Arc<Call> {
        self.rare().owner.get_or_init(make)
    }

    /// Where its owners stand: the callback, if it is a call, and all above; `None` if it has none, or
    /// they do not count any more.
    pub(super) fn place(&self) -> Option<Place> {
        if !self.is_call || matches!(self.owner, OwnerId::None) {
            return owner::place(&self.owner);
        }
        match self.call() {
            Some(call) => owner::place(&OwnerId::Call(Arc::clone(call))),
            // It would stand where its caller stands.
            None if self.attached.load(Relaxed) => owner::place(&self.owner),
            None => None, // Nobody waits in its name.
        }
    }

    /// The callback as an owner, if it has become one.
    pub(super) fn call(&self) -> Option<&Arc<Call>> {
        self.rare.get().and_then(|rare| rare.owner.get())
    }

    /// The callback has ended. By the thread that ran it: nobody makes it an owner meanwhile. Where it
    /// stood, if that matters to waits.
    pub(super) fn detach(&self) -> Option<Place> {
        self.attached.store(false, Relaxed); // ORDERING: see `as_owner`.
        // A forked child does not lock what it inherited (C-16).
        self.call().filter(|_| self.enter().is_ok())?.cut()
    }

    /// The caller stopped waiting for its callback. As `detach`.
    pub(super) fn abandon(&self) -> Option<Place> {
        self.attached.store(false, Relaxed); // ORDERING: by the fence.
        fence(SeqCst); // ORDERING: pairs with `as_owner`.
        self.detach()
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// From here on `thread` is woken when the hold is taken away. Look at it again afterwards:
    /// it may have been taken away before.
    pub(crate) fn watch(&self, thread: Thread) {
        let mut watchers = self.rare().watchers.lock();
        if let Some(free) = watchers.iter_mut().find(|place| place.is_none()) {
            *free = Some(thread);
        }
        drop(watchers);
        // ORDERING: pairs with the fence in `wake_watchers`. This side writes itself down, then
        // looks at the word; the other changes the word, then looks who is written down.
        fence(SeqCst);
    }

    /// Ends what `watch` began.
    pub(crate) fn unwatch(&self, thread: &Thread) {
        for place in self.rare().watchers.lock().iter_mut() {
            if place.as_ref().is_some_and(|watcher| watcher.id() == thread.id()) {
                *place = None;
                return;
            }
        }
    }

    fn wake_watchers(&self) {
        fence(SeqCst); // ORDERING: pairs with `watch`.
        let Some(rare) = self.rare.get() else { return };
        let watchers = rare.watchers.lock().clone();
        for watcher in watchers.into_iter().flatten() {
            watcher.unpark();
        }
    }

    /// Taker of several locks, before `open`: what to free if somebody takes one away.
    pub(super) fn set_ids(&self, ids: Box<[LockId]>) {
        let first = self.rare().ids.set(ids);
        debug_assert!(first.is_ok(), "a hold is taken once");
    }

    /// All locks of a hold that has several.
    pub(super) fn ids(&self) -> &[LockId] {
        self.rare.get().and_then(|rare| rare.ids.get()).map_or(&[], |ids| ids)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn at(millis: u32) -> Moment {
        Moment::from_bits(Moment::START.after(Timeout::millis(millis)).as_bits())
    }

    fn open_hold() -> Hold {
        let hold = Hold::new(Timeout::millis(10), Timeout::millis(5), OwnerId::None, false, 0);
        assert!(hold.open(at(0), 1));
        hold
    }

    /// C-4, C-5: its caller takes it away at the exec deadline, others at the release time.
    #[test]
    fn each_deadline_is_its_own() {
        let hold = open_hold();
        assert_eq!(hold.standing(at(9)), Standing::Live);
        assert_eq!(hold.expire(at(9)), Verdict::InTime);
        assert_eq!(hold.standing(at(10)), Standing::Late);
        assert_eq!(hold.expire_overdue(at(14)), Verdict::InTime);
        assert_eq!(hold.expire_overdue(at(15)), Verdict::Taken);
        assert_eq!(hold.standing(at(0)), Standing::Lost(Lost::Expired));
        let hold = open_hold();
        assert_eq!(hold.expire(at(10)), Verdict::Taken);
        assert_eq!(hold.expire_overdue(at(15)), Verdict::Lost(Lost::Expired));
    }

    /// C-4: an extension never shortens, and never revives.
    #[test]
    fn an_extension_counts_from_now_while_there_is_time() {
        let hold = open_hold();
        assert_eq!(hold.extend(at(5), Timeout::millis(1)), Standing::Live);
        assert_eq!(hold.deadline(), at(0).after(Timeout::millis(10)));
        assert_eq!(hold.extend(at(5), Timeout::millis(10)), Standing::Live);
        assert_eq!(hold.deadline(), at(0).after(Timeout::millis(15)));
        assert_eq!(hold.extend(at(15), Timeout::millis(10)), Standing::Late);
        assert_eq!(hold.commit_begin(at(15)), Gate::Late);
        assert_eq!(hold.commit_begin(at(14)), Gate::Open);
        assert_eq!(hold.expire(at(20)), Verdict::Committing);
    }
}

/// Models: every interleaving of a holder and those who would take its lock away.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::{current, park};
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    const IN_TIME: Moment = Moment::START;

    /// An open hold with a deadline of 10 ms after `IN_TIME`, and a release time at once after.
    fn open_hold() -> Arc<Hold> {
        let exec = Timeout::millis(10);
        let hold = Hold::new(exec, Timeout::millis(0), OwnerId::None, false, 0);
        assert!(hold.open(IN_TIME, 1));
        Arc::new(hold)
    }

    /// Of three threads, the interleavings with few preemptions.
    fn check_with_two_preemptions(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(model);
    }

    fn at(millis: u32) -> Moment {
        Moment::from_bits(IN_TIME.after(Timeout::millis(millis)).as_bits())
    }

    /// One side ends the hold and frees the lock (I1, I2); nothing is published after it was
    /// taken away (I3), and the successor sees all that was published before.
    #[test]
    fn a_commit_races_with_the_deadline() {
        loom::model(|| {
            let hold = open_hold();
            let row = Arc::new(AtomicUsize::new(0));
            let freed = Arc::new(AtomicUsize::new(0));
            let holder = {
                let (hold, row, freed) = (Arc::clone(&hold), Arc::clone(&row), Arc::clone(&freed));
                thread::spawn(move || {
                    if hold.commit_begin(IN_TIME) == Gate::Open {
                        // Two steps: a successor between them would lose a write.
                        let seen = row.load(Relaxed);
                        row.store(seen + 1, Relaxed);
                        hold.commit_end(true);
                        freed.fetch_add(1, Relaxed);
                    }
                })
            };
            loop {
                match hold.expire_overdue(at(11)) {
                    Verdict::Taken => {
                        freed.fetch_add(1, Relaxed);
                        break;
                    }
                    Verdict::Ended => {
                        assert_eq!(row.load(Relaxed), 1, "published before the end");
                        break;
                    }
                    Verdict::Committing => thread::yield_now(),
                    verdict => panic!("{verdict:?}"),
                }
            }
            let before = row.load(Relaxed);
            holder.join().unwrap();
            assert_eq!(row.load(Relaxed), before, "a write after the lock was taken away");
            assert_eq!(freed.load(Relaxed), 1);
        });
    }

    /// An extension that was granted is never overruled by the deadline before it (I4).
    #[test]
    fn an_extension_races_with_the_deadline() {
        loom::model(|| {
            let hold = open_hold();
            let holder = {
                let hold = Arc::clone(&hold);
                thread::spawn(move || hold.extend(IN_TIME, Timeout::millis(100)) == Standing::Live)
            };
            let verdict = hold.expire(at(11));
            let extended = holder.join().unwrap();
            assert_ne!(extended, verdict == Verdict::Taken, "{verdict:?}");
        });
    }

    /// Of several who would end it, one does.
    #[test]
    fn three_sides_end_it_once() {
        loom::model(|| {
            let hold = open_hold();
            let holder = {
                let hold = Arc::clone(&hold);
                thread::spawn(move || hold.end().is_ok())
            };
            let waiter = {
                let hold = Arc::clone(&hold);
                thread::spawn(move || hold.expire_overdue(at(11)) == Verdict::Taken)
            };
            let forced = hold.revoke() == Verdict::Taken;
            let ends = [holder.join().unwrap(), waiter.join().unwrap(), forced];
            assert_eq!(ends.iter().filter(|ended| **ended).count(), 1);
        });
    }

    /// Whoever watches is woken when the hold is taken away: a lost wake-up is a deadlock, which the
    /// model reports.
    #[test]
    fn who_watches_is_woken() {
        loom::model(|| {
            let hold = open_hold();
            let watcher = {
                let hold = Arc::clone(&hold);
                thread::spawn(move || {
                    hold.watch(current());
                    while hold.is_in_force() {
                        park();
                    }
                    hold.unwatch(&current());
                })
            };
            assert_eq!(hold.revoke(), Verdict::Taken);
            watcher.join().unwrap();
        });
    }

    /// All who watch are woken, and who has stopped watching takes nobody else's place along.
    #[test]
    fn all_who_watch_are_woken() {
        check_with_two_preemptions(|| {
            let hold = open_hold();
            let watchers = Arc::new(AtomicUsize::new(0));
            let watch = || {
                let (hold, watchers) = (Arc::clone(&hold), Arc::clone(&watchers));
                thread::spawn(move || {
                    hold.watch(current());
                    watchers.fetch_add(1, Relaxed);
                    while hold.is_in_force() {
                        park();
                    }
                    hold.unwatch(&current());
                })
            };
            let before = watch();
            while watchers.load(Relaxed) == 0 {
                thread::yield_now();
            }
            hold.watch(current());
            hold.unwatch(&current());
            let after = watch();
            assert_eq!(hold.revoke(), Verdict::Taken);
            before.join().unwrap();
            after.join().unwrap();
        });
    }

    /// Whoever sees a hold open sees its token and since when it is held (I5).
    #[test]
    fn what_is_open_has_a_token_and_a_time() {
        loom::model(|| {
            let hold = Hold::new(Timeout::millis(10), Timeout::millis(0), OwnerId::None, false, 0);
            let hold = Arc::new(hold);
            let taker = {
                let hold = Arc::clone(&hold);
                thread::spawn(move || assert!(hold.open(at(5), 7)))
            };
            if hold.is_open() {
                assert_eq!((hold.token(), hold.since()), (7, at(5)));
            }
            taker.join().unwrap();
        });
    }

    /// A callback becomes an owner while its caller stops waiting for it: nobody is taken to wait for
    /// it afterwards (C-13).
    #[test]
    fn becoming_an_owner_races_with_being_abandoned() {
        loom::model(|| {
            let call =
                Hold::new(Timeout::INFINITE, Timeout::INFINITE, OwnerId::Logical(1), true, 0);
            let call = Arc::new(call);
            let callback = {
                let call = Arc::clone(&call);
                thread::spawn(move || call.as_owner())
            };
            call.abandon();
            assert!(callback.join().unwrap().is_detached());
        });
    }
}
