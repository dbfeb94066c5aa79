//! The queue of a lock: its waiters in order of arrival.
//!
//! Invariants
//! I1. A waiter is in the queue from `push` until it is granted the lock, gives up or is told to.
//!     Who leaves is never granted the lock afterwards (C-2).
//! I2. A verdict is given once, by whoever takes the waiter out of the queue.
//! I3. Everything here happens under the mutex of the lock's entry.

use std::collections::BTreeMap;

use crate::clock::{Deadline, Moment, Timeout};
use crate::lock::hold_ref::HoldRef;
use crate::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
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
    thread: Thread,
    fate: AtomicU8,
    /// Its place in the queue; 0 for none.
    ticket: AtomicU64,
    /// When it will look again by itself.
    wakes_at: AtomicU64,
}

impl Waiter {
    pub(super) fn new(hold: HoldRef, opens: bool, strict: bool, thread: Thread) -> Self {
        let (ticket, wakes_at) = (AtomicU64::new(0), AtomicU64::new(0));
        let fate = AtomicU8::new(Fate::Waiting as u8);
        Self { hold, opens, strict, thread, fate, ticket, wakes_at }
    }

    pub(super) fn wake(&self) {
        self.thread.unpark();
    }

    /// ORDERING: pairs with `decide`: who sees a fate sees what its giver did before.
    pub(super) fn fate(&self) -> Fate {
        match self.fate.load(Acquire) {
            1 => Fate::Granted,
            2 => Fate::Left,
            3 => Fate::Closed,
            4 => Fate::Revoked,
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

/// WHY: an ordered map. Ten thousand waiters that time out in the middle cost ten thousand times
/// a few steps.
#[derive(Debug)]
struct Waiters {
    by_ticket: BTreeMap<u64, Arc<Waiter>>,
    last_ticket: u64,
    strict: usize,
    head_since: Moment,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiters| waiters.by_ticket.len())
    }

    /// Whether somebody in here insists on the order of arrival.
    pub(super) fn is_strict(&self) -> bool {
        self.0.as_ref().is_some_and(|waiters| waiters.strict > 0)
    }

    /// Puts a waiter at the end.
    pub(super) fn push(&mut self, waiter: Arc<Waiter>, now: Moment) {
        let waiters = self.0.get_or_insert_with(|| {
            let by_ticket = BTreeMap::new();
            Box::new(Waiters { by_ticket, last_ticket: 0, strict: 0, head_since: now })
        });
        if waiters.by_ticket.is_empty() {
            waiters.head_since = now;
        }
        waiters.strict += usize::from(waiter.strict);
        waiters.last_ticket += 1;
        // ORDERING: under the mutex of the entry (I3).
        waiter.ticket.store(waiters.last_ticket, Relaxed);
        waiters.by_ticket.insert(waiters.last_ticket, waiter);
    }

    fn first(&self) -> Option<(u64, &Arc<Waiter>)> {
        let (ticket, waiter) = self.0.as_ref()?.by_ticket.first_key_value()?;
        Some((*ticket, waiter))
    }

    pub(super) fn head(&self) -> Option<&Arc<Waiter>> {
        self.first().map(|(_, waiter)| waiter)
    }

    pub(super) fn is_head(&self, waiter: &Waiter) -> bool {
        self.first().is_some_and(|(head, _)| head == waiter.ticket())
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

    /// Takes a waiter out, wherever it stands, if it is in here.
    pub(super) fn remove(&mut self, waiter: &Waiter, now: Moment) {
        let was_head = self.is_head(waiter);
        let Some(waiters) = &mut self.0 else { return };
        if waiters.by_ticket.remove(&waiter.ticket()).is_none() {
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
        Arc::new(Waiter::new(hold, true, strict, current()))
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
