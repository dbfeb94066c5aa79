//! The lock of one key, while somebody holds it or waits for it.
//!
//! While nobody waits, one word says who holds it (`holder`), and is all that taking and giving back
//! touch. With a waiter, and while somebody looks closer, the state says it, under its mutex.
//!
//! | Holder | Queue     | Meaning                                           | Left by, to          |
//! |--------|-----------|---------------------------------------------------|----------------------|
//! | some   | empty     | held                                              | release: idle        |
//! | some   | not empty | held, with waiters                                | release: free or held by the head |
//! | none   | not empty | free; the head was woken, a running thread may be first | arrival or head: held |
//! | none   | empty     | idle: its last holder may want it again           | arrival: held; eviction: dead |
//! | none   | empty     | dead: leaves the index, and never comes back      | never                |
//!
//! Invariants
//! I1. Holder, queue and death change under the mutex of the state alone, once the word is claimed;
//!     before that by the word's compare-exchanges alone.
//! I2. While the lock is free its head has been woken and has not gone back to sleep: whoever
//!     takes the head out of the queue without taking the lock wakes the next.
//! I3. The head will look again by the release time of the holder, at the latest: whoever makes
//!     a new holder or a new head wakes the head if it planned to sleep longer. If the head is a
//!     pending acquire, I2 and I3 hold for the first blocked thread too, its deputy.
//! I4. A dead entry is never taken; whoever meets one looks the key up again.
//! I5. What a change owes to others (wake-ups of waiters, other locks to free) is paid after the
//!     mutex is let go.
//! I6. While there is a queue, whoever became the holder meanwhile is counted as awaited: it is not
//!     known to those who look for deadlocks otherwise (`waits`).
//! I7. Nobody is granted the lock, or woken to take it, after the end of its wait (C-2).
//!
//! A pending acquire is a waiter like any other: the head is woken to take a free lock, so that a
//! busy event loop does not keep it from everybody else, and is handed it once it was head for long
//! enough, or where the order is strict. WHY: a deputy. A thread that was woken runs soon; a loop
//! may be busy for long, and those behind it must not pay for it with more than the order asks for.

use std::mem;
use std::ops::{Deref, DerefMut};

use crate::clock::{Deadline, Moment};
use crate::key::{LockId, LockIdRef};
use crate::lock::hold::Verdict;
use crate::lock::hold_ref::HoldRef;
use crate::lock::holder::{Found, GaveBack, Holder, Parting};
use crate::lock::index::{Listed, NodeRef};
use crate::lock::owner::Awaited;
use crate::lock::queue::{Fate, Queue, Waiter};
use crate::lock::tokens;
use crate::sync::Arc;
use crate::sync::machine::{Mutex, MutexGuard};

/// A shared reference to an entry, which keeps it in memory, though not in the index.
pub(crate) type EntryRef = NodeRef<Entry>;

/// The lock of one key.
#[derive(Debug)]
pub(crate) struct Entry {
    id: LockId,
    word: Holder,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// While the word is claimed.
    holder: Option<HoldRef>,
    queue: Queue,
    dead: bool,
    /// That the holder came while others waited (I6).
    awaited: Awaited,
}

/// The state of an entry whose word is claimed. Dropping it settles the word.
#[derive(Debug)]
pub(super) struct Claimed<'a> {
    word: &'a Holder,
    state: MutexGuard<'a, State>,
}

impl Deref for Claimed<'_> {
    type Target = State;
    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Claimed<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if self.queue.is_empty() {
            self.awaited.clear();
        }
        if self.dead {
            self.word.die();
        } else if self.queue.is_empty() {
            let holder = self.holder.take();
            self.word.settle(holder);
        } else {
            self.word.stay_claimed(self.holder.is_none());
        }
    }
}

impl Listed for Entry {
    type Id<'a> = LockIdRef<'a>;
    type Sole = HoldRef;

    fn of_sole(hold: HoldRef) -> Self {
        let id = hold.id().cloned();
        Self::held_by(id.unwrap_or_else(|| unreachable!("a sole hold is for one lock")), hold)
    }

    fn is(&self, id: LockIdRef<'_>) -> bool {
        self.id.is(id) && !self.is_dead()
    }

    fn is_dead(&self) -> bool {
        self.word.is_dead()
    }

    fn sole_is(hold: &HoldRef, id: LockIdRef<'_>) -> bool {
        hold.id().is_some_and(|own| own.is(id))
    }

    fn hash_of(id: LockIdRef<'_>, number: u32) -> u64 {
        id.hash_number(number)
    }

    fn hash(&self, number: u32) -> u64 {
        self.id.by_ref().hash_number(number)
    }

    fn sole_hash(hold: &HoldRef, number: u32) -> u64 {
        hold.id().map_or(0, |id| id.by_ref().hash_number(number))
    }
}

/// What came of asking for the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is yours.
    Taken,
    /// Somebody holds it, until this moment at the latest as far as one knows.
    Busy { look_again: Deadline },
    /// This entry is no more.
    Dead,
}

/// What is to be carried out after the mutex is let go (I5).
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Deferred {
    wake: Option<Arc<Waiter>>,
    watch: Option<Arc<Waiter>>,
    deputy: Option<Arc<Waiter>>,
    /// Those whose turn came too late (I7).
    overdue: Vec<Arc<Waiter>>,
    /// A hold that lost this lock, and must lose its others.
    pub(super) expired: Option<HoldRef>,
    /// The entry died and must leave the index.
    pub(super) died: bool,
    /// The entry is idle: to be kept, or to die.
    pub(super) idle: bool,
}

impl Deferred {
    /// Wakes whom it owes it to.
    pub(super) fn wake(&mut self) {
        let first = [self.wake.take(), self.watch.take(), self.deputy.take()];
        for waiter in first.into_iter().flatten().chain(mem::take(&mut self.overdue)) {
            waiter.wake();
        }
    }
}

impl Entry {
    /// A lock that `hold` is about to hold, not in the index yet.
    pub(super) fn held_by(id: LockId, hold: HoldRef) -> Self {
        Self { id, word: Holder::new(hold), state: Mutex::new(State::default()) }
    }

    pub(crate) fn id(&self) -> &LockId {
        &self.id
    }

    pub(super) fn lock(&self) -> Claimed<'_> {
        let mut state = self.state.lock();
        match self.word.claim() {
            Found::Holder(holder) => state.holder = holder,
            Found::Claimed => {}
            Found::Dead => state.dead = true,
        }
        Claimed { word: &self.word, state }
    }

    /// Whether it is worth while to ask for the lock.
    pub(super) fn looks_free(&self) -> bool {
        self.word.looks_free()
    }

    /// Takes the lock if it is free and nobody waits.
    #[inline]
    pub(super) fn take(&self, hold: &mut HoldRef, opens: bool, now: Moment) -> bool {
        if !self.word.is_free() {
            return false;
        }
        if opens {
            hold.open_ahead(now);
        }
        let taken = self.word.take(hold);
        if opens {
            opened_ahead(self.id.hash(), hold, taken);
        }
        taken
    }

    /// Opens the only lock of a hold that nobody but its waiter knows yet.
    fn open(&self, hold: &HoldRef, now: Moment) {
        hold.open(now, tokens::draw(self.id.hash()));
    }

    /// Frees the lock if `hold` holds it and nobody waits.
    pub(super) fn give_back(&self, hold: &mut HoldRef) -> bool {
        match self.word.give_back(hold) {
            GaveBack::Done(other) => {
                hold.drop_other(other);
                true
            }
            GaveBack::NotHolder | GaveBack::Claimed => false,
        }
    }

    /// Asks for the lock without waiting in the queue. `strict`: only if nobody waits.
    pub(super) fn arrive(
        &self,
        hold: &HoldRef,
        opens: bool,
        strict: bool,
        now: Moment,
    ) -> (Turn, Deferred) {
        let mut deferred = Deferred::default();
        let mut state = self.lock();
        let turn = self.arrive_locked(&mut state, hold, opens, strict, now, &mut deferred);
        (turn, deferred)
    }

    fn arrive_locked(
        &self,
        state: &mut State,
        hold: &HoldRef,
        opens: bool,
        strict: bool,
        now: Moment,
        deferred: &mut Deferred,
    ) -> Turn {
        if state.dead {
            return Turn::Dead;
        }
        self.expire_overdue(state, now, deferred);
        if state.holder.is_none() {
            self.drop_overdue(state, now, deferred);
        }
        // Deleting the lock is a release like any other: the head may have a right to it (C-3).
        let expired = deferred.expired.is_some();
        let head_first =
            strict || state.queue.is_strict() || expired && state.queue.must_hand_over(now);
        let may_pass = state.queue.is_empty() || !head_first;
        match state.holder {
            None if may_pass => {
                self.hand_to(state, hold, opens, now);
                self.watch(state, deferred);
                Turn::Taken
            }
            None => {
                // The holder that is met next may be the head.
                self.pass_on(state, now, deferred);
                Turn::Busy { look_again: next_look(state, now) }
            }
            Some(_) => Turn::Busy { look_again: next_look(state, now) },
        }
    }

    /// Asks for the lock, and joins the queue if it is busy.
    pub(super) fn join(&self, waiter: &Arc<Waiter>, now: Moment) -> (Turn, Deferred) {
        let mut state = self.lock();
        let mut deferred = Deferred::default();
        let turn = self.arrive_locked(
            &mut state,
            &waiter.hold,
            waiter.opens,
            waiter.strict,
            now,
            &mut deferred,
        );
        if let Turn::Busy { look_again } = turn {
            waiter.set_wakes_at(look_again);
            state.queue.push(Arc::clone(waiter), now);
            // It insists on the order, and the head has not come yet to take a free lock.
            if state.holder.is_none() {
                self.pass_on(&mut state, now, &mut deferred);
            }
        }
        (turn, deferred)
    }

    /// A waiter in the queue looks whether its turn has come.
    pub(super) fn look(&self, waiter: &Arc<Waiter>, now: Moment) -> (Turn, Deferred) {
        let mut state = self.lock();
        let mut deferred = Deferred::default();
        if waiter.fate() != Fate::Waiting {
            return (Turn::Busy { look_again: Deadline::NEVER }, deferred);
        }
        let is_head = state.queue.is_head(waiter);
        let watches = is_head || state.queue.is_deputy(waiter);
        if watches {
            self.expire_overdue(&mut state, now, &mut deferred);
        }
        if watches && state.holder.is_none() {
            if !is_head {
                self.drop_overdue(&mut state, now, &mut deferred);
            }
            let expired = deferred.expired.is_some();
            let queue = &state.queue;
            let head_first = queue.is_strict() || expired && queue.must_hand_over(now);
            if queue.is_head(waiter) || !head_first && waiter.fate() == Fate::Waiting {
                state.queue.remove(waiter, now);
                self.hand_to(&mut state, &waiter.hold, waiter.opens, now);
                waiter.decide(Fate::Granted);
                self.watch(&mut state, &mut deferred);
                return (Turn::Taken, deferred);
            }
            self.pass_on(&mut state, now, &mut deferred);
        }
        if waiter.fate() != Fate::Waiting {
            return (Turn::Busy { look_again: Deadline::NEVER }, deferred);
        }
        // Only the head watches the holder, and its deputy (I3).
        let watches = state.queue.is_head(waiter) || state.queue.is_deputy(waiter);
        let look_again = if watches { next_look(&state, now) } else { Deadline::NEVER };
        waiter.set_wakes_at(look_again);
        (Turn::Busy { look_again }, deferred)
    }

    /// A waiter gives up or is told to, for `fate`. `false` if its fate was decided before.
    pub(super) fn leave(&self, waiter: &Arc<Waiter>, fate: Fate, now: Moment) -> (bool, Deferred) {
        let mut state = self.lock();
        let mut deferred = Deferred::default();
        if waiter.fate() != Fate::Waiting {
            return (false, deferred);
        }
        state.queue.remove(waiter, now);
        waiter.decide(fate);
        self.after_leaving(&mut state, now, &mut deferred);
        (true, deferred)
    }

    /// Frees the lock if `hold` holds it: to the head of the queue, or to whoever comes first.
    pub(super) fn release(&self, hold: &HoldRef) -> Deferred {
        let mut deferred = Deferred::default();
        match self.word.give_back(hold) {
            GaveBack::Done(_) => deferred.idle = true,
            GaveBack::NotHolder => {}
            GaveBack::Claimed => self.release_claimed(hold, &mut deferred),
        }
        deferred
    }

    fn release_claimed(&self, hold: &HoldRef, deferred: &mut Deferred) {
        let mut state = self.lock();
        // A thief has it: not ours to free (C-6).
        if !state.holder.as_ref().is_some_and(|holder| holder.is(hold)) {
            return;
        }
        state.holder = None;
        if state.queue.is_empty() {
            deferred.idle = true;
        } else {
            self.pass_on(&mut state, Moment::now(), deferred);
        }
    }

    /// Nobody keeps the entry any more: it dies if it is idle.
    pub(super) fn evict(&self) -> Deferred {
        let mut deferred = Deferred::default();
        match self.word.die_if_free() {
            Parting::Died => deferred.died = true,
            Parting::InUse => {}
            Parting::Claimed => {
                let mut state = self.lock();
                if state.holder.is_none() && state.queue.is_empty() && !state.dead {
                    state.die(&mut deferred);
                }
            }
        }
        deferred
    }

    /// A holder got its deadline after it got the lock: the head may have to look earlier.
    pub(super) fn holder_opened(&self) -> Deferred {
        let mut state = self.lock();
        let mut deferred = Deferred::default();
        self.watch(&mut state, &mut deferred);
        deferred
    }

    /// The holder and the number of waiters.
    pub(super) fn holder(&self) -> Option<(HoldRef, usize)> {
        let state = self.lock();
        state.holder.as_ref().map(|holder| (holder.clone(), state.queue.len()))
    }

    /// Deletes the lock of a holder that is past its release time (C-5).
    fn expire_overdue(&self, state: &mut State, now: Moment, deferred: &mut Deferred) {
        let overdue = |holder: &HoldRef| {
            holder.release_time().is_past(now) && holder.expire_overdue(now) == Verdict::Taken
        };
        deferred.expired = state.holder.take_if(|holder| overdue(holder));
        if let Some(expired) = &deferred.expired {
            expired.set_token_of_expired(|| tokens::draw(self.id.hash()));
        }
    }

    /// The lock is free and there are waiters: hands it to the head, or wakes the head to take it.
    fn pass_on(&self, state: &mut State, now: Moment, deferred: &mut Deferred) {
        self.drop_overdue(state, now, deferred);
        if state.queue.is_empty() {
            deferred.idle = true;
            return;
        }
        if !state.queue.must_hand_over(now) {
            deferred.wake = state.queue.head().cloned();
            deferred.deputy = state.queue.deputy().cloned();
            return;
        }
        if let Some(head) = state.queue.pop(now) {
            // The fate last: it is read without the mutex.
            self.hand_to(state, &head.hold, head.opens, now);
            head.decide(Fate::Granted);
            self.watch(state, deferred);
            deferred.wake = Some(head);
        }
    }

    /// The lock is free: those at the head of the queue whose time is over have waited in vain (I7).
    fn drop_overdue(&self, state: &mut State, now: Moment, deferred: &mut Deferred) {
        while let Some(overdue) = state.queue.pop_overdue(now) {
            overdue.decide(Fate::TimedOut);
            deferred.overdue.push(overdue);
        }
    }

    /// Somebody left the queue: keeps I2 and I3.
    fn after_leaving(&self, state: &mut State, now: Moment, deferred: &mut Deferred) {
        match (&state.holder, state.queue.is_empty()) {
            (Some(_), _) => self.watch(state, deferred),
            (None, true) => state.die(deferred),
            (None, false) => self.pass_on(state, now, deferred),
        }
    }

    fn hand_to(&self, state: &mut State, hold: &HoldRef, opens: bool, now: Moment) {
        if opens {
            self.open(hold, now);
        }
        state.holder = Some(hold.clone());
        if !state.queue.is_empty() {
            state.awaited.set(hold.place().map(|place| place.root));
        }
    }

    /// Keeps I3.
    fn watch(&self, state: &mut State, deferred: &mut Deferred) {
        let Some(holder) = &state.holder else { return };
        let sleeps_too_long = |waiter: &&Arc<Waiter>| holder.release_time() < waiter.wakes_at();
        deferred.watch = state.queue.head().filter(sleeps_too_long).cloned();
        deferred.deputy = state.queue.deputy().filter(sleeps_too_long).cloned();
    }
}

/// A hold that was opened ahead got its lock, whose identity has this hash, or did not.
#[inline]
pub(super) fn opened_ahead(hash: u64, hold: &HoldRef, taken: bool) {
    match taken {
        true => hold.set_token(tokens::draw(hash)),
        false => hold.not_yet(),
    }
}

impl State {
    pub(super) fn holder(&self) -> Option<&HoldRef> {
        self.holder.as_ref()
    }

    fn die(&mut self, deferred: &mut Deferred) {
        self.dead = true;
        deferred.died = true;
    }
}

/// When the holder's time is over (I3). A commit that is under way by then gets a little longer.
fn next_look(state: &State, now: Moment) -> Deadline {
    let Some(holder) = &state.holder else { return Deadline::NEVER };
    let release_time = holder.release_time();
    if release_time.is_past(now) { now.after(COMMIT_GRACE) } else { release_time }
}

/// How long to leave a commit that is under way at the release time before looking again.
const COMMIT_GRACE: crate::clock::Timeout = crate::clock::Timeout::millis(1);

/// What a change of a lock owes to others, step by step.
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::clock::Timeout;
    use crate::key::Key;
    use crate::lock::hold::Hold;
    use crate::lock::owner::OwnerId;
    use crate::lock::queue::Waker;
    use crate::sync::current;

    /// Later than the clock that a release reads: so nobody has been head for long by then.
    const NOW: Moment = Moment::from_bits(1 << 60);

    fn after(millis: u32) -> Moment {
        Moment::from_bits(NOW.after(Timeout::millis(millis)).as_bits())
    }

    fn hold(exec: Timeout) -> HoldRef {
        HoldRef::new(|| Hold::new(exec, Timeout::millis(0), OwnerId::None, false, 0))
    }

    /// A lock that is held for 10 ms, or for ever.
    fn held_for(exec: Timeout) -> (Entry, HoldRef) {
        let id = LockId { table: 1, key: Key::new(b"k").expect("a short key") };
        let mut holder = hold(exec);
        let entry = Entry::held_by(id, holder.clone_mut());
        entry.open(&holder, NOW);
        (entry, holder)
    }

    const TEN: Timeout = Timeout::millis(10);

    fn waiter(strict: bool) -> Arc<Waiter> {
        let waker = Waker::Thread(current());
        Arc::new(Waiter::new(hold(TEN), true, strict, Deadline::NEVER, waker))
    }

    fn join(entry: &Entry, strict: bool, now: Moment) -> Arc<Waiter> {
        let waiter = waiter(strict);
        let (turn, _) = entry.join(&waiter, now);
        assert!(matches!(turn, Turn::Busy { .. }));
        waiter
    }

    fn is(given: &Option<Arc<Waiter>>, waiter: &Arc<Waiter>) -> bool {
        given.as_ref().is_some_and(|given| Arc::ptr_eq(given, waiter))
    }

    fn holds(entry: &Entry, waiter: &Waiter) -> bool {
        entry.holder().is_some_and(|(holder, _)| holder.is(&waiter.hold))
    }

    /// C-3: whoever insists on the order of arrival keeps to it himself.
    #[test]
    fn a_strict_newcomer_passes_nobody() {
        let (entry, holder) = held_for(TEN);
        let head = join(&entry, false, NOW);
        let deferred = entry.release(&holder);
        assert!(is(&deferred.wake, &head) && entry.holder().is_none(), "woken, to take it");
        let (turn, deferred) = entry.arrive(&hold(TEN), true, true, NOW);
        assert!(matches!(turn, Turn::Busy { .. }));
        assert!(is(&deferred.wake, &head) && entry.looks_free());
        let (turn, _) = entry.arrive(&hold(TEN), true, false, NOW);
        assert_eq!(turn, Turn::Taken, "others may");
    }

    /// C-3: nor does anybody pass a strict waiter, while the lock is vacant.
    #[test]
    fn a_newcomer_does_not_pass_strict_waiters_while_the_lock_is_vacant() {
        let (entry, holder) = held_for(TEN);
        let head = join(&entry, false, NOW);
        let _ = entry.release(&holder);
        assert!(entry.holder().is_none(), "the head was woken, and has not come yet");
        let _strict = join(&entry, true, NOW);
        assert!(holds(&entry, &head) && head.fate() == Fate::Granted, "it is its turn");
        let (turn, _) = entry.arrive(&hold(TEN), true, false, NOW);
        assert!(matches!(turn, Turn::Busy { .. }));
    }

    /// C-3: nor is a strict waiter passed by one who comes to take an overdue lock away.
    #[test]
    fn a_newcomer_does_not_pass_strict_waiters_at_the_release_time() {
        let (entry, _holder) = held_for(TEN);
        let head = join(&entry, true, NOW);
        let (turn, deferred) = entry.arrive(&hold(TEN), true, false, after(10));
        assert!(matches!(turn, Turn::Busy { .. }) && deferred.expired.is_some());
        assert!(is(&deferred.wake, &head) && holds(&entry, &head));
        assert_eq!(head.fate(), Fate::Granted);
    }

    /// C-3: nor is a head that has waited for two milliseconds.
    #[test]
    fn a_newcomer_does_not_pass_a_head_that_has_a_right_to_the_lock() {
        let (entry, _holder) = held_for(TEN);
        let head = join(&entry, false, NOW);
        let (turn, _) = entry.arrive(&hold(TEN), true, false, after(10));
        assert!(matches!(turn, Turn::Busy { .. }) && holds(&entry, &head));
    }

    /// C-6: who has lost the lock frees nothing of its successor's.
    #[test]
    fn a_stale_release_changes_nothing() {
        let (entry, mut holder) = held_for(TEN);
        let [first, _second] = [true, true].map(|strict| join(&entry, strict, NOW));
        let (turn, deferred) = entry.look(&first, after(10));
        assert!(turn == Turn::Taken && deferred.expired.is_some());
        let deferred = entry.release(&holder);
        assert!(deferred.wake.is_none() && !deferred.idle && holds(&entry, &first));
        assert!(!entry.give_back(&mut holder) && holds(&entry, &first));
    }

    /// A hold that was opened ahead, and did not get the lock, waits for it like any other.
    #[test]
    fn what_did_not_get_the_lock_has_not_opened() {
        let hold = hold(TEN);
        hold.open_ahead(NOW);
        opened_ahead(0, &hold, false);
        assert!(!hold.is_open() && hold.token() == 0);
        assert!(hold.open(NOW, 1) && hold.token() == 1);
    }

    /// I3: a head that sleeps for ever behind a holder without an end is told of one that has one.
    #[test]
    fn a_new_holder_is_watched() {
        // Handed over.
        let (entry, holder) = held_for(Timeout::INFINITE);
        let [first, second] = [true, true].map(|strict| join(&entry, strict, NOW));
        let deferred = entry.release(&holder);
        assert!(holds(&entry, &first) && is(&deferred.watch, &second));

        // Taken by the head that was woken.
        let (entry, holder) = held_for(Timeout::INFINITE);
        let [first, second] = [false, false].map(|strict| join(&entry, strict, NOW));
        let _ = entry.release(&holder);
        let (turn, deferred) = entry.look(&first, NOW);
        assert!(turn == Turn::Taken && is(&deferred.watch, &second));

        // Taken by one who was faster.
        let (entry, holder) = held_for(Timeout::INFINITE);
        let head = join(&entry, false, NOW);
        let _ = entry.release(&holder);
        let (turn, deferred) = entry.arrive(&hold(TEN), true, false, NOW);
        assert!(turn == Turn::Taken && is(&deferred.watch, &head));
    }

    /// I3: so is the next of a head that leaves.
    #[test]
    fn a_new_head_watches() {
        let (entry, _holder) = held_for(TEN);
        let [first, second] = [false, false].map(|strict| join(&entry, strict, NOW));
        let _ = entry.look(&second, NOW);
        assert_eq!(second.wakes_at(), Deadline::NEVER, "it is not its turn to watch");
        let (left, deferred) = entry.leave(&first, Fate::Left, NOW);
        assert!(left && is(&deferred.watch, &second));
    }

    /// I3: and a head whose holder has a deadline only now.
    #[test]
    fn a_holder_that_opens_late_is_watched() {
        let id = LockId { table: 1, key: Key::new(b"k").unwrap() };
        let mut holder = hold(TEN);
        let entry = Entry::held_by(id, holder.clone_mut());
        let head = join(&entry, false, NOW);
        assert_eq!(head.wakes_at(), Deadline::NEVER);
        assert!(holder.open(NOW, 1));
        assert!(is(&entry.holder_opened().watch, &head));
    }

    /// I4: what is dead stays so, and is nobody's.
    #[test]
    fn a_dead_entry_is_never_taken() {
        let (entry, mut holder) = held_for(TEN);
        assert!(entry.give_back(&mut holder));
        assert!(entry.evict().died);
        assert!(!entry.evict().died, "once");
        let mut late = hold(TEN);
        assert!(!entry.take(&mut late, true, NOW));
        assert_eq!(entry.arrive(&late, true, false, NOW).0, Turn::Dead);
        assert_eq!(entry.join(&waiter(true), NOW).0, Turn::Dead);
        assert!(late.give_up(), "it has not opened");
    }

    /// An entry whose last waiter leaves while nobody holds it dies; one that is held lives on.
    #[test]
    fn the_last_to_leave_a_free_lock_ends_it() {
        let (entry, holder) = held_for(TEN);
        let head = join(&entry, false, NOW);
        assert!(!entry.evict().died, "held");
        let _ = entry.release(&holder);
        assert!(!entry.evict().died, "waited for");
        let (left, deferred) = entry.leave(&head, Fate::Left, NOW);
        assert!(left && deferred.died);
    }
}

/// Models: every interleaving of those who want the lock of one key.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::clock::Timeout;
    use crate::key::Key;
    use crate::lock::hold::{Gate, Hold, Lost};
    use crate::lock::owner::OwnerId;
    use crate::lock::queue::Waker;
    use crate::sync::{current, park};
    use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use loom::thread;

    /// What the lock protects, and what came of it.
    struct Scene {
        entry: Entry,
        /// Changed in two steps: one who comes in between loses a write.
        row: AtomicUsize,
        deaths: AtomicUsize,
        /// Whether waiters are handed the lock, or woken to take it.
        strict: bool,
    }

    /// A lock that is held.
    fn scene(strict: bool) -> (Arc<Scene>, HoldRef) {
        let id = LockId { table: 1, key: Key::new(b"k").unwrap() };
        let mut hold = hold();
        let entry = Entry::held_by(id, hold.clone_mut());
        entry.open(&hold, NOW);
        let (row, deaths) = (AtomicUsize::new(0), AtomicUsize::new(0));
        (Arc::new(Scene { entry, row, deaths, strict }), hold)
    }

    const NOW: Moment = Moment::START;

    fn waiter(hold: &HoldRef, strict: bool) -> Waiter {
        let waker = Waker::Thread(current());
        Waiter::new(hold.clone(), true, strict, Deadline::NEVER, waker)
    }

    fn hold() -> HoldRef {
        let exec = Timeout::millis(10);
        HoldRef::new(|| Hold::new(exec, Timeout::millis(0), OwnerId::None, false, 0))
    }

    /// Past the release time of every hold that was opened at `NOW`.
    fn late() -> Moment {
        Moment::from_bits(NOW.after(Timeout::millis(11)).as_bits())
    }

    impl Scene {
        fn carry_out(&self, mut deferred: Deferred) {
            deferred.wake();
            if let Some(expired) = deferred.expired.take() {
                drop(expired);
            }
            if deferred.idle {
                let deferred = self.entry.evict();
                self.carry_out(deferred);
            }
            if deferred.died {
                self.deaths.fetch_add(1, Relaxed);
            }
        }

        /// Waits for the lock; `false` if the entry has died.
        fn acquire(&self, hold: &mut HoldRef) -> bool {
            if self.entry.take(hold, true, NOW) {
                return true;
            }
            let waiter = Arc::new(waiter(hold, self.strict));
            let (turn, deferred) = self.entry.join(&waiter, NOW);
            self.carry_out(deferred);
            match turn {
                Turn::Taken => return true,
                Turn::Dead => return false,
                Turn::Busy { .. } => {}
            }
            loop {
                if waiter.fate() == Fate::Granted {
                    return true;
                }
                let (turn, deferred) = self.entry.look(&waiter, NOW);
                self.carry_out(deferred);
                if turn == Turn::Taken {
                    return true;
                }
                park();
            }
        }

        /// Joins the queue and gives up at once. Whether it was granted the lock before it could.
        fn give_up(&self, hold: &HoldRef) -> bool {
            let waiter = Arc::new(waiter(hold, self.strict));
            let (turn, deferred) = self.entry.join(&waiter, NOW);
            self.carry_out(deferred);
            match turn {
                Turn::Taken => return true,
                Turn::Dead => return false,
                Turn::Busy { .. } => {}
            }
            let (left, deferred) = self.entry.leave(&waiter, Fate::Left, NOW);
            self.carry_out(deferred);
            assert_eq!(left, waiter.fate() == Fate::Left);
            !left
        }

        /// Adds one to the row if the holder is in time, and gives the lock back. Whether it did.
        fn commit(&self, hold: &HoldRef) -> bool {
            let landed = hold.commit_begin(NOW) == Gate::Open;
            if landed {
                let seen = self.row.load(Relaxed);
                self.row.store(seen + 1, Relaxed);
                hold.commit_end(true);
                self.carry_out(self.entry.release(hold));
            }
            landed
        }

        /// Acquires, commits and releases. How many writes landed.
        fn call(&self) -> usize {
            let mut hold = hold();
            usize::from(self.acquire(&mut hold) && self.commit(&hold))
        }

        fn assert_at_rest(&self, writes: usize) {
            assert_eq!(self.row.load(Relaxed), writes, "a write was lost");
            assert!(self.entry.holder().is_none(), "still held");
            // Nobody keeps it: whoever gave it back has evicted it.
            assert_eq!(self.deaths.load(Relaxed), 1, "an idle entry dies, and once");
        }
    }

    /// Every interleaving of two threads; of more, those with few preemptions. Waiters are woken to
    /// take the lock, or handed it.
    fn check(threads: usize, model: impl Fn(Arc<Scene>, HoldRef) + Send + Sync + 'static) {
        let model = Arc::new(model);
        for strict in [false, true] {
            let model = Arc::clone(&model);
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = (threads > 2).then_some(2);
            builder.check(move || {
                let (scene, hold) = scene(strict);
                model(scene, hold);
            });
        }
    }

    /// A holder, and one who wants the lock: it is woken (I2), and nobody loses a write.
    #[test]
    fn one_holder_at_a_time_and_the_waiter_is_woken() {
        check(2, |scene, hold| {
            let caller = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || scene.call())
            };
            let held = usize::from(scene.commit(&hold));
            let writes = held + caller.join().unwrap();
            scene.assert_at_rest(writes);
        });
    }

    /// One who looks who holds it, beside a holder that gives it back: who looks evicts nothing, so
    /// the holder must.
    #[test]
    fn an_idle_entry_dies_whoever_looks_at_it() {
        check(2, |scene, hold| {
            let looker = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || drop(scene.entry.holder()))
            };
            assert!(!scene.entry.evict().died, "it is held");
            let held = usize::from(scene.commit(&hold));
            looker.join().unwrap();
            scene.assert_at_rest(held);
        });
    }

    /// A holder gives the lock back under the mutex; one who takes it by the word alone sees all that
    /// was done before.
    #[test]
    fn what_was_given_back_under_the_mutex_is_seen_by_the_word() {
        loom::model(|| {
            let (scene, hold) = scene(false);
            let next = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || {
                    let mut hold = super::model::hold();
                    if scene.entry.take(&mut hold, true, NOW) {
                        assert_eq!(scene.row.load(Relaxed), 1);
                    }
                })
            };
            scene.row.store(1, Relaxed);
            scene.entry.release_claimed(&hold, &mut Deferred::default());
            next.join().unwrap();
        });
    }

    /// One who looks who holds it and evicts the entry, beside a holder that comes twice: what is
    /// idle dies once (I4), what is held does not.
    #[test]
    fn those_who_only_look_change_nothing() {
        check(2, |scene, hold| {
            let looker = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || {
                    drop(scene.entry.holder());
                    let deferred = scene.entry.evict();
                    scene.carry_out(deferred);
                })
            };
            let held = usize::from(scene.commit(&hold));
            let again = scene.call();
            looker.join().unwrap();
            scene.assert_at_rest(held + again);
        });
    }

    /// One waiter gives up while another waits and the holder lets go: who gave up is never granted
    /// the lock, and the other one is not forgotten.
    #[test]
    fn a_waiter_that_gives_up_leaves_no_trace() {
        check(3, |scene, hold| {
            let impatient = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || {
                    let hold = super::model::hold();
                    usize::from(scene.give_up(&hold) && scene.commit(&hold))
                })
            };
            let patient = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || scene.call())
            };
            let held = usize::from(scene.commit(&hold));
            let writes = held + impatient.join().unwrap() + patient.join().unwrap();
            scene.assert_at_rest(writes);
        });
    }

    /// A waiter takes the lock of a holder that is past its release time, while that one commits:
    /// both writes land, or the holder's is refused; it never frees its successor's lock (C-6).
    #[test]
    fn an_overdue_holder_races_with_its_heir() {
        check(2, |scene, hold| {
            let heir = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || {
                    let mut hold = super::model::hold();
                    let (turn, deferred) = scene.entry.arrive(&hold, true, false, late());
                    scene.carry_out(deferred);
                    match turn {
                        Turn::Taken => usize::from(scene.commit(&hold)),
                        // A commit is under way, or was.
                        Turn::Busy { .. } | Turn::Dead => usize::from(
                            scene.entry.take(&mut hold, true, NOW) && scene.commit(&hold),
                        ),
                    }
                })
            };
            let held = usize::from(scene.commit(&hold));
            if held == 0 {
                // Late, and nothing of its own to free.
                scene.carry_out(scene.entry.release(&hold));
            }
            let writes = held + heir.join().unwrap();
            scene.assert_at_rest(writes);
        });
    }

    /// The clock takes the lock away from one who has not drawn a token yet: it has one all the same,
    /// below that of its heir (I6 of `hold`).
    #[test]
    fn a_lock_is_lost_before_its_token_is_drawn() {
        check(2, |scene, before| {
            assert!(before.end().is_ok());
            let _stays_idle = scene.entry.release(&before);
            let taker = {
                let scene = Arc::clone(&scene);
                thread::spawn(move || {
                    let mut hold = super::model::hold();
                    if !scene.entry.take(&mut hold, true, NOW) {
                        return None;
                    }
                    if hold.token() == 0 {
                        assert_eq!(hold.lost_at_once(), Lost::Expired);
                    }
                    assert_ne!(hold.token(), 0);
                    Some(hold)
                })
            };
            let heir = super::model::hold();
            let (turn, deferred) = scene.entry.arrive(&heir, true, false, late());
            scene.carry_out(deferred);
            if let (Some(taker), Turn::Taken) = (taker.join().unwrap(), turn) {
                assert!(!taker.is_in_force());
                assert!(taker.token() < heir.token());
            }
        });
    }
}
