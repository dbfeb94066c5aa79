//! The queue of a lock: its waiters in order of arrival.
//!
//! Invariants
//! I1. A waiter is in the queue from `push` until it is granted the lock, gives up or is told to.
//!     Who leaves is never granted the lock afterwards (C-2).
//! I2. A verdict is given once, by whoever takes the waiter out of the queue.
//! I3. Everything here happens under the mutex of the lock's entry.
//! I4. A pending acquire that was woken is on its inbox's list once, until it is polled.

use std::collections::BTreeMap;

use crate::clock::{Deadline, Moment, Timeout};
use crate::lock::hold_ref::HoldRef;
use crate::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use crate::sync::{Arc, Thread};

/// Once a waiter has been head for so long, the next release hands it the lock (C-3).
const HANDOVER_AFTER: Timeout = Timeout::millis(2);

/// What became of a waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    Waiting = 0,
    /// The lock is its own.
    Granted = 1,
    /// It gave up.
    Left = 2,
    /// The handle or lock table it waits through was closed.
    Closed = 3,
    /// The locks it holds already, or its claim to this one, were taken away by force.
    Revoked = 4,
    /// It was told to stop.
    Stopped = 5,
    /// Its turn came after its wait deadline: it was passed over (C-2).
    TimedOut = 6,
}

/// Who looks after a waiter, and is woken when there is something to see.
#[derive(Debug, Clone)]
pub(crate) enum Waker {
    /// A blocked thread.
    Thread(Thread),
    /// Whoever polls the pending acquire that has this ticket.
    Ticket(InboxRef, u64),
}

/// WHY: one word. Every pending acquire has one.
pub(crate) type InboxRef = Arc<Arc<dyn Inbox>>;

/// Where pending acquires are polled.
pub(crate) trait Inbox: std::fmt::Debug + Send + Sync {
    /// The pending acquire that has `ticket` is to be polled. No mutex of a lock is held.
    fn is_ready(&self, ticket: u64);
}

/// Somebody who waits for a lock.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) hold: HoldRef,
    /// Whether this is the only lock of the hold, to be opened when it is granted. A hold of several
    /// is opened by its taker, when it has the last.
    pub(super) opens: bool,
    /// Wants the strict order of arrival.
    pub(super) strict: bool,
    /// Its wait deadline.
    pub(super) by: Deadline,
    waker: Waker,
    /// Whether a pending one is on its inbox's list (I4).
    woken: AtomicBool,
    fate: AtomicU8,
    /// Its place in the queue; 0 for none.
    ticket: AtomicU64,
    /// When it will look again by itself.
    wakes_at: AtomicU64,
}

impl Waiter {
    pub(super) fn new(
        hold: HoldRef,
        opens: bool,
        strict: bool,
        by: Deadline,
        waker: Waker,
    ) -> Self {
        let (ticket, wakes_at) = (AtomicU64::new(0), AtomicU64::new(0));
        let (fate, woken) = (AtomicU8::new(Fate::Waiting as u8), AtomicBool::new(false));
        Self { hold, opens, strict, by, waker, woken, fate, ticket, wakes_at }
    }

    pub(super) fn wake(&self) {
        match &self.waker {
            Waker::Thread(thread) => thread.unpark(),
            // ORDERING: pairs with `polled`: who swallows a wake-up here is seen by the poll that
            // comes after the one before.
            Waker::Ticket(inbox, ticket) => {
                if !self.woken.swap(true, AcqRel) {
                    inbox.is_ready(*ticket);
                }
            }
        }
    }

    /// A pending one is about to be polled: whoever wakes it from now on is heard (I4).
    pub(super) fn polled(&self) {
        // ORDERING: pairs with `wake`. An exchange, so that it reads the last wake-up.
        self.woken.swap(false, AcqRel);
    }

    pub(super) fn is_pending(&self) -> bool {
        matches!(self.waker, Waker::Ticket(..))
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// ORDERING: pairs with `decide`: who sees a fate sees what its giver did before.
    pub(super) fn fate(&self) -> Fate {
        match self.fate.load(Acquire) {
            1 => Fate::Granted,
            2 => Fate::Left,
            3 => Fate::Closed,
            4 => Fate::Revoked,
            5 => Fate::Stopped,
            6 => Fate::TimedOut,
            _ => Fate::Waiting,
        }
    }

    /// ORDERING: pairs with `fate`.
    pub(super) fn decide(&self, fate: Fate) {
        self.fate.store(fate as u8, Release);
    }

    fn ticket(&self) -> u64 {
        self.ticket.load(Relaxed) // ORDERING: under the mutex of the entry (I3).
    }

    // ORDERING of both: under the mutex of the entry (I3).
    pub(super) fn set_wakes_at(&self, deadline: Deadline) {
        self.wakes_at.store(deadline.as_bits(), Relaxed);
    }

    pub(super) fn wakes_at(&self) -> Deadline {
        Deadline::from_bits(self.wakes_at.load(Relaxed))
    }
}

/// Waiters in order of arrival.
///
/// WHY: allocated when the first waiter comes; most locks never have one.
#[derive(Debug, Default)]
pub(super) struct Queue(Option<Box<Waiters>>);

/// WHY: ordered maps. Ten thousand waiters that time out in the middle cost ten thousand times a
/// few steps. Two: whoever looks for the first blocked thread does not count ten thousand pending
/// acquires before it.
#[derive(Debug)]
struct Waiters {
    blocked: BTreeMap<u64, Arc<Waiter>>,
    pending: BTreeMap<u64, Arc<Waiter>>,
    last_ticket: u64,
    strict: usize,
    head_since: Moment,
}

impl Waiters {
    fn kind(&mut self, waiter: &Waiter) -> &mut BTreeMap<u64, Arc<Waiter>> {
        if waiter.is_pending() { &mut self.pending } else { &mut self.blocked }
    }

    fn first(&self) -> Option<(u64, &Arc<Waiter>)> {
        let blocked = self.blocked.first_key_value();
        let pending = self.pending.first_key_value();
        let (ticket, waiter) = match (blocked, pending) {
            (Some(blocked), Some(pending)) => {
                if blocked.0 < pending.0 {
                    blocked
                } else {
                    pending
                }
            }
            (blocked, pending) => blocked.or(pending)?,
        };
        Some((*ticket, waiter))
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiters| waiters.blocked.len() + waiters.pending.len())
    }

    /// Whether somebody in here insists on the order of arrival.
    pub(super) fn is_strict(&self) -> bool {
        self.0.as_ref().is_some_and(|waiters| waiters.strict > 0)
    }

    /// Puts a waiter at the end.
    pub(super) fn push(&mut self, waiter: Arc<Waiter>, now: Moment) {
        let waiters = self.0.get_or_insert_with(|| {
            let (blocked, pending) = (BTreeMap::new(), BTreeMap::new());
            Box::new(Waiters { blocked, pending, last_ticket: 0, strict: 0, head_since: now })
        });
        if waiters.first().is_none() {
            waiters.head_since = now;
        }
        waiters.strict += usize::from(waiter.strict);
        waiters.last_ticket += 1;
        let ticket = waiters.last_ticket;
        // ORDERING: under the mutex of the entry (I3).
        waiter.ticket.store(ticket, Relaxed);
        waiters.kind(&waiter).insert(ticket, waiter);
    }

    fn first(&self) -> Option<(u64, &Arc<Waiter>)> {
        self.0.as_ref()?.first()
    }

    pub(super) fn head(&self) -> Option<&Arc<Waiter>> {
        self.first().map(|(_, waiter)| waiter)
    }

    pub(super) fn is_head(&self, waiter: &Waiter) -> bool {
        self.first().is_some_and(|(head, _)| head == waiter.ticket())
    }

    /// The first blocked thread, if the head is a pending acquire.
    pub(super) fn deputy(&self) -> Option<&Arc<Waiter>> {
        let head = self.head()?;
        let (_, first) = self.0.as_ref()?.blocked.first_key_value()?;
        head.is_pending().then_some(first)
    }

    /// Whether `waiter` is the deputy of the head.
    pub(super) fn is_deputy(&self, waiter: &Waiter) -> bool {
        self.deputy().is_some_and(|deputy| deputy.ticket() == waiter.ticket())
    }

    /// Whether the next release must hand the lock to the head.
    pub(super) fn must_hand_over(&self, now: Moment) -> bool {
        self.0.as_ref().is_some_and(|waiters| {
            waiters.strict > 0 || waiters.head_since.after(HANDOVER_AFTER).is_past(now)
        })
    }

    pub(super) fn pop(&mut self, now: Moment) -> Option<Arc<Waiter>> {
        let head = Arc::clone(self.head()?);
        self.remove(&head, now);
        Some(head)
    }

    /// Takes out the head if its wait deadline has passed.
    pub(super) fn pop_overdue(&mut self, now: Moment) -> Option<Arc<Waiter>> {
        if !self.head()?.by.is_past(now) {
            return None;
        }
        self.pop(now)
    }

    /// Takes a waiter out, wherever it stands, if it is in here.
    pub(super) fn remove(&mut self, waiter: &Waiter, now: Moment) {
        let was_head = self.is_head(waiter);
        let Some(waiters) = &mut self.0 else { return };
        if waiters.kind(waiter).remove(&waiter.ticket()).is_none() {
            return;
        }
        waiters.strict -= usize::from(waiter.strict);
        if was_head {
            waiters.head_since = now;
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::lock::hold::Hold;
    use crate::lock::owner::OwnerId;
    use crate::sync::current;

    fn waiter(strict: bool) -> Arc<Waiter> {
        let never = Timeout::INFINITE;
        let hold = HoldRef::new(|| Hold::new(never, never, OwnerId::None, false, 0));
        let waker = Waker::Thread(current());
        Arc::new(Waiter::new(hold, true, strict, Deadline::NEVER, waker))
    }

    fn at(millis: u32) -> Moment {
        Moment::from_bits(Moment::START.after(Timeout::millis(millis)).as_bits())
    }

    #[test]
    fn waiters_come_out_in_the_order_in_which_they_came() {
        let mut queue = Queue::default();
        let waiters = [(); 4].map(|()| waiter(false));
        for waiter in &waiters {
            queue.push(Arc::clone(waiter), at(0));
        }
        queue.remove(&waiters[1], at(0));
        queue.remove(&waiters[1], at(0));
        assert_eq!(queue.len(), 3);
        for expected in [0, 2, 3] {
            assert!(queue.is_head(&waiters[expected]));
            assert!(Arc::ptr_eq(&queue.pop(at(0)).unwrap(), &waiters[expected]));
        }
        assert!(queue.is_empty() && queue.pop(at(0)).is_none());
    }

    /// C-3: two milliseconds as head, not in the queue, nor since somebody else was.
    #[test]
    fn a_head_has_to_have_been_head_for_two_milliseconds() {
        let mut queue = Queue::default();
        let [first, second] = [(); 2].map(|()| waiter(false));
        queue.push(Arc::clone(&first), at(10));
        queue.push(Arc::clone(&second), at(10));
        assert!(!queue.must_hand_over(at(11)) && queue.must_hand_over(at(12)));
        queue.remove(&second, at(12));
        assert!(queue.must_hand_over(at(12)), "the head is still the same");
        queue.push(second, at(12));
        queue.remove(&first, at(13));
        assert!(!queue.must_hand_over(at(14)) && queue.must_hand_over(at(15)));
        queue.pop(at(15));
        queue.push(first, at(20));
        assert!(!queue.must_hand_over(at(21)) && queue.must_hand_over(at(22)));
    }

    /// C-3: as long as one who insists on the order is in here, and no longer.
    #[test]
    fn a_queue_is_strict_while_somebody_in_it_is() {
        let mut queue = Queue::default();
        let [fair, strict, other] = [false, true, true].map(waiter);
        queue.push(fair, at(0));
        assert!(!queue.is_strict());
        queue.push(Arc::clone(&strict), at(0));
        queue.push(Arc::clone(&other), at(0));
        assert!(queue.is_strict() && queue.must_hand_over(at(0)));
        queue.remove(&strict, at(0));
        assert!(queue.is_strict());
        queue.remove(&other, at(0));
        assert!(!queue.is_strict() && !queue.must_hand_over(at(0)));
    }
}
