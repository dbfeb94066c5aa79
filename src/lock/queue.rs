//! The queue of a lock: its waiters in order of arrival.
//!
//! Invariants
//! I1. A waiter is in the queue from `push` until it is granted the lock, gives up or is told to.
//!     Who leaves is never granted the lock afterwards (C-2).
//! I2. A verdict is given once, by whoever takes the waiter out of the queue.
//! I3. Everything here happens under the mutex of the lock's entry.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Deadline, Moment};
use crate::lock::hold::Hold;
use crate::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::sync::{Arc, Thread};

/// Once a waiter has been head for so long, the next release hands it the lock (C-3).
const HEAD_PATIENCE: Duration = Duration::from_millis(2);

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
    pub(super) hold: Arc<Hold>,
    /// Whether this is the only lock of the hold, or the last of several: to be opened when granted.
    pub(super) opens: bool,
    /// Wants the strict order of arrival.
    pub(super) strict: bool,
    thread: Thread,
    fate: AtomicU8,
    /// When it will look again by itself.
    wakes_at: AtomicU64,
}

impl Waiter {
    pub(super) fn new(hold: Arc<Hold>, opens: bool, strict: bool, thread: Thread) -> Self {
        let (fate, wakes_at) = (AtomicU8::new(Fate::Waiting as u8), AtomicU64::new(0));
        Self { hold, opens, strict, thread, fate, wakes_at }
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
/// WHY: an ordered map. Ten thousand waiters that time out in the middle cost ten thousand times
/// a few steps; an empty one allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    last_ticket: u64,
    strict: usize,
    head_since: Option<Moment>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether somebody in here insists on the order of arrival.
    pub(super) fn is_strict(&self) -> bool {
        self.strict > 0
    }

    /// Puts a waiter at the end. The ticket takes it out again.
    pub(super) fn push(&mut self, waiter: Arc<Waiter>, now: Moment) -> u64 {
        if self.waiters.is_empty() {
            self.head_since = Some(now);
        }
        self.strict += usize::from(waiter.strict);
        self.last_ticket += 1;
        self.waiters.insert(self.last_ticket, waiter);
        self.last_ticket
    }

    pub(super) fn head(&self) -> Option<&Arc<Waiter>> {
        self.waiters.first_key_value().map(|(_, waiter)| waiter)
    }

    pub(super) fn is_head(&self, ticket: u64) -> bool {
        self.waiters.first_key_value().is_some_and(|(head, _)| *head == ticket)
    }

    /// Whether the next release must hand the lock to the head.
    pub(super) fn must_hand_over(&self, now: Moment) -> bool {
        self.is_strict()
            || self.head_since.is_some_and(|since| {
                now.as_bits() - since.as_bits().min(now.as_bits())
                    >= HEAD_PATIENCE.as_nanos() as u64
            })
    }

    pub(super) fn pop(&mut self, now: Moment) -> Option<Arc<Waiter>> {
        let (ticket, _) = self.waiters.first_key_value()?;
        self.remove(*ticket, now)
    }

    /// Takes a waiter out, wherever it stands; `None` if it had left.
    pub(super) fn remove(&mut self, ticket: u64, now: Moment) -> Option<Arc<Waiter>> {
        let was_head = self.is_head(ticket);
        let waiter = self.waiters.remove(&ticket)?;
        self.strict -= usize::from(waiter.strict);
        if was_head {
            self.head_since = Some(now);
        }
        Some(waiter)
    }

    /// Takes out every waiter that `matches`.
    pub(super) fn remove_if(
        &mut self,
        now: Moment,
        matches: impl Fn(&Arc<Waiter>) -> bool,
    ) -> Option<Arc<Waiter>> {
        let ticket = *self.waiters.iter().find(|(_, waiter)| matches(waiter))?.0;
        self.remove(ticket, now)
    }
}
