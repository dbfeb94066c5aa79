//! The lock of one key, while somebody holds it or waits for it.
//!
//! | Holder | Queue     | Meaning                                           | Left by, to          |
//! |--------|-----------|---------------------------------------------------|----------------------|
//! | some   | empty     | held                                              | release: idle        |
//! | some   | not empty | held, with waiters                                | release: free or held by the head |
//! | none   | not empty | free; the head was woken, a running thread may be first | arrival or head: held |
//! | none   | empty     | idle: its last holder may want it again           | arrival: held; cooling: dead |
//! | none   | empty     | dead: leaves the index, and never comes back      | never                |
//!
//! Invariants
//! I1. Holder, queue and death change under the mutex of the state alone.
//! I2. While the lock is free its head has been woken and has not gone back to sleep: whoever
//!     takes the head out of the queue without taking the lock wakes the next.
//! I3. The head will look again by the release time of the holder, at the latest: whoever makes
//!     a new holder or a new head wakes the head if it planned to sleep longer.
//! I4. A dead entry is never taken; whoever meets one looks the key up again.
//! I5. What a change owes to others (wake-ups of waiters, other locks to free) is paid after the
//!     mutex is let go.

use crate::clock::{Deadline, Moment};
use crate::key::LockId;
use crate::lock::hold::{self, Hold, Verdict};
use crate::lock::queue::{Fate, Queue, Waiter};
use crate::lock::reclaim::{Listed, Node};
use crate::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{Arc, Mutex, MutexGuard};

/// A shared reference to an entry, which keeps it in memory, though not in the index.
pub(crate) type EntryRef = Arc<Node<Entry>>;

/// The lock of one key.
#[derive(Debug)]
pub(crate) struct Entry {
    id: LockId,
    dead: AtomicBool,
    /// A hint for those who spin: nobody holds it.
    free: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    holder: Option<Arc<Hold>>,
    queue: Queue,
}

impl Listed for Entry {
    type Id = LockId;

    fn is(&self, id: &LockId) -> bool {
        // ORDERING: pairs with `die`. Seen late, the caller finds out under the mutex (I4).
        self.id == *id && !self.dead.load(Acquire)
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

/// Wake-ups and evictions to be carried out after the mutex is let go (I5).
#[derive(Debug, Default)]
#[must_use]
pub(super) struct Debts {
    wake: Option<Arc<Waiter>>,
    watch: Option<Arc<Waiter>>,
    /// A hold that lost this lock, and must lose its others.
    pub(super) evicted: Option<Arc<Hold>>,
    /// The entry died and must leave the index.
    pub(super) died: bool,
    /// The entry is idle: to be kept warm, or to die.
    pub(super) idle: bool,
}

impl Debts {
    /// Wakes whom it owes it to.
    pub(super) fn wake(&mut self) {
        for waiter in [self.wake.take(), self.watch.take()].into_iter().flatten() {
            waiter.wake();
        }
    }
}

impl Entry {
    /// A lock that `hold` is about to hold, not in the index yet.
    pub(super) fn held_by(id: LockId, hold: Arc<Hold>) -> Self {
        Self {
            id,
            dead: AtomicBool::new(false),
            free: AtomicBool::new(false),
            state: Mutex::new(State { holder: Some(hold), queue: Queue::default() }),
        }
    }

    pub(crate) fn id(&self) -> &LockId {
        &self.id
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether it is worth while to ask for the lock.
    pub(super) fn looks_free(&self) -> bool {
        self.free.load(Relaxed) || self.dead.load(Relaxed) // ORDERING: a hint.
    }

    /// Asks for the lock without waiting in the queue. `strict`: only if nobody waits.
    pub(super) fn arrive(
        &self,
        hold: &Arc<Hold>,
        opens: bool,
        strict: bool,
        now: Moment,
    ) -> (Turn, Debts) {
        let mut state = self.lock();
        let mut debts = Debts::default();
        let turn = self.arrive_locked(&mut state, hold, opens, strict, now, &mut debts);
        (turn, debts)
    }

    fn arrive_locked(
        &self,
        state: &mut State,
        hold: &Arc<Hold>,
        opens: bool,
        strict: bool,
        now: Moment,
        debts: &mut Debts,
    ) -> Turn {
        if self.is_dead() {
            return Turn::Dead;
        }
        self.evict_overdue(state, now, debts);
        // Deleting the lock is a release like any other: the head may have a right to it (C-3).
        let evicted = debts.evicted.is_some();
        let head_first =
            strict || state.queue.is_strict() || evicted && state.queue.must_hand_over(now);
        let may_pass = state.queue.is_empty() || !head_first;
        match state.holder {
            None if may_pass => {
                self.hand_to(state, hold, opens, now);
                self.watch(state, debts);
                Turn::Taken
            }
            None => {
                // The holder that is met next may be the head.
                self.pass_on(state, now, debts);
                Turn::Busy { look_again: next_look(state, now) }
            }
            Some(_) => Turn::Busy { look_again: next_look(state, now) },
        }
    }

    /// Asks for the lock, and joins the queue if it is busy.
    pub(super) fn join(&self, waiter: &Arc<Waiter>, now: Moment) -> (Turn, Debts) {
        let mut state = self.lock();
        let mut debts = Debts::default();
        let turn = self.arrive_locked(
            &mut state,
            &waiter.hold,
            waiter.opens,
            waiter.strict,
            now,
            &mut debts,
        );
        if let Turn::Busy { look_again } = turn {
            waiter.set_wakes_at(look_again);
            state.queue.push(Arc::clone(waiter), now);
        }
        (turn, debts)
    }

    /// A waiter in the queue looks whether its turn has come.
    pub(super) fn look(&self, waiter: &Arc<Waiter>, now: Moment) -> (Turn, Debts) {
        let mut state = self.lock();
        let mut debts = Debts::default();
        if waiter.fate() != Fate::Waiting {
            return (Turn::Busy { look_again: Deadline::NEVER }, debts);
        }
        let is_head = state.queue.is_head(waiter);
        if is_head {
            self.evict_overdue(&mut state, now, &mut debts);
        }
        if is_head && state.holder.is_none() {
            state.queue.remove(waiter, now);
            self.hand_to(&mut state, &waiter.hold, waiter.opens, now);
            waiter.decide(Fate::Granted);
            self.watch(&mut state, &mut debts);
            return (Turn::Taken, debts);
        }
        // Only the head watches the holder (I3).
        let look_again = if is_head { next_look(&state, now) } else { Deadline::NEVER };
        waiter.set_wakes_at(look_again);
        (Turn::Busy { look_again }, debts)
    }

    /// A waiter gives up or is told to, for `fate`. `false` if its fate was decided before.
    pub(super) fn leave(&self, waiter: &Arc<Waiter>, fate: Fate, now: Moment) -> (bool, Debts) {
        let mut state = self.lock();
        let mut debts = Debts::default();
        if waiter.fate() != Fate::Waiting {
            return (false, debts);
        }
        state.queue.remove(waiter, now);
        waiter.decide(fate);
        self.after_leaving(&mut state, now, &mut debts);
        (true, debts)
    }

    /// Frees the lock if `hold` holds it: to the head of the queue, or to whoever comes first.
    pub(super) fn release(&self, hold: &Arc<Hold>) -> Debts {
        let mut state = self.lock();
        let mut debts = Debts::default();
        // A thief has it: not ours to free (C-6).
        if !state.holder.as_ref().is_some_and(|holder| hold::same(holder, hold)) {
            return debts;
        }
        state.holder = None;
        self.free.store(true, Relaxed); // ORDERING: a hint.
        if state.queue.is_empty() {
            debts.idle = true;
        } else {
            self.pass_on(&mut state, Moment::now(), &mut debts);
        }
        debts
    }

    /// Nobody keeps the entry warm any more: it dies if it is idle.
    pub(super) fn cool(&self) -> Debts {
        let state = self.lock();
        let mut debts = Debts::default();
        if state.holder.is_none() && state.queue.is_empty() && !self.is_dead() {
            self.die(&mut debts);
        }
        debts
    }

    /// A holder got its deadline after it got the lock: the head may have to look earlier.
    pub(super) fn holder_opened(&self) -> Debts {
        let mut state = self.lock();
        let mut debts = Debts::default();
        self.watch(&mut state, &mut debts);
        debts
    }

    /// The holder and the number of waiters.
    pub(super) fn holder(&self) -> Option<(Arc<Hold>, usize)> {
        let state = self.lock();
        state.holder.as_ref().map(|holder| (Arc::clone(holder), state.queue.len()))
    }

    /// Deletes the lock of a holder that is past its release time (C-5).
    fn evict_overdue(&self, state: &mut State, now: Moment, debts: &mut Debts) {
        let overdue = |holder: &Arc<Hold>| {
            holder.release_time().is_past(now) && holder.expire_overdue(now) == Verdict::Taken
        };
        debts.evicted = state.holder.take_if(|holder| overdue(holder));
    }

    /// The lock is free and there are waiters: hands it to the head, or wakes the head to take it.
    fn pass_on(&self, state: &mut State, now: Moment, debts: &mut Debts) {
        if !state.queue.must_hand_over(now) {
            debts.wake = state.queue.head().cloned();
            return;
        }
        if let Some(head) = state.queue.pop(now) {
            // The fate last: it is read without the mutex.
            self.hand_to(state, &head.hold, head.opens, now);
            head.decide(Fate::Granted);
            self.watch(state, debts);
            debts.wake = Some(head);
        }
    }

    /// Somebody left the queue: keeps I2 and I3.
    fn after_leaving(&self, state: &mut State, now: Moment, debts: &mut Debts) {
        match (&state.holder, state.queue.is_empty()) {
            (Some(_), _) => self.watch(state, debts),
            (None, true) => self.die(debts),
            (None, false) => self.pass_on(state, now, debts),
        }
    }

    fn hand_to(&self, state: &mut State, hold: &Arc<Hold>, opens: bool, now: Moment) {
        if opens {
            // Refused only if the hold was revoked while it waited, which its owner finds out.
            hold.open(now);
        }
        state.holder = Some(Arc::clone(hold));
        self.free.store(false, Relaxed); // ORDERING: a hint.
    }

    /// Keeps I3.
    fn watch(&self, state: &mut State, debts: &mut Debts) {
        if let (Some(holder), Some(head)) = (&state.holder, state.queue.head())
            && holder.release_time() < head.wakes_at()
        {
            debts.watch = Some(Arc::clone(head));
        }
    }

    /// ORDERING: pairs with `is`.
    fn die(&self, debts: &mut Debts) {
        self.dead.store(true, Release);
        debts.died = true;
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Relaxed) // ORDERING: under the mutex (I1).
    }
}

impl State {
    pub(super) fn holder(&self) -> Option<&Arc<Hold>> {
        self.holder.as_ref()
    }
}

/// When the holder may be evicted. A commit that is under way by then gets a little longer.
fn next_look(state: &State, now: Moment) -> Deadline {
    let release_time = state.holder.as_ref().map_or(Deadline::NEVER, |h| h.release_time());
    if release_time.is_past(now) { now.after(EVICTION_GRACE) } else { release_time }
}

/// How long to leave a commit that is under way at the release time before looking again.
const EVICTION_GRACE: crate::clock::Timeout = crate::clock::Timeout::millis(1);
