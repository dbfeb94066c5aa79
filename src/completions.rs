//! Waiting for locks without a thread: pending acquires, and the queue that their completions are
//! fetched from (C-19).
//!
//! A pending acquire stands in the queue of its lock like a blocked thread. Where a thread would be
//! woken, its ticket comes onto the ready list of its completion queue, and whoever fetches polls
//! it; where a thread would wake by itself, its time is in the list of timers. There is no other
//! thread.
//!
//! | A pending acquire is | Meaning                             | Left by, to                        |
//! |----------------------|-------------------------------------|------------------------------------|
//! | idle                 | waits for a wake-up or its time     | poller: polled; withdraw, free: over |
//! | polled               | one thread sees what became of it   | that thread: idle, over            |
//! | over                 | its completion is in the done list  | never                              |
//!
//! Invariants
//! I1. A ticket is in `acquires` until it is over, and gets one completion, by whoever takes it out
//!     of there: the poller or withdraw. Free takes out all that are idle, and leaves the others to
//!     their pollers: who finds the queue closed ends what it has.
//! I2. One thread at a time polls. Who comes meanwhile leaves a note, and the poller goes by it:
//!     woken again, it is ready again; withdrawn, it ends with `Error::Stopped` whatever was seen,
//!     and a lock that was granted goes on.
//! I3. The ticket of an idle one that was woken is on the ready list: `is_ready` puts it there, or the
//!     poller by its note.
//! I4. While there is something to do, a thread in `wait` is awake, if there is one; and one of those
//!     that sleep wakes by the first timer's time. Who changes what there is to do, or goes with more
//!     left, sees to it.
//! I5. The descriptor is readable while the ready list or the done list is not empty, and from the
//!     first timer's time on: it is set before the mutex is let go of.
//! I6. The mutex is a leaf: nothing else is locked under it, nothing of others is dropped, and no
//!     pending acquire is polled.
//!
//! WHY: a note, and not a mutex for each pending acquire. Withdraw never waits for a poll.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::{Deadline, Moment, Timeout};
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::lock::Inbox;
use crate::sync::machine::{Mutex, MutexGuard};
use crate::sync::{Arc, Thread, current, park, park_timeout};

/// What is pending: an acquire, or what a model takes for one.
pub(crate) trait Acquire: Send + 'static {
    /// What it gives when it ends well.
    type Held: Send;

    /// Goes on as far as it can.
    fn poll(&mut self) -> Poll<Self::Held>;

    /// Leaves its queue, and is over. `false`: it has a fate already, which `poll` finds out.
    fn withdraw(&mut self) -> bool;
}

/// What a poll shows.
#[derive(Debug)]
pub(crate) enum Poll<T> {
    /// To be polled at this deadline, if it is not woken before.
    Until(Deadline),
    Over(Result<T>),
}

/// How a pending acquire ended.
#[derive(Debug)]
pub struct Completion<T> {
    /// The number that its beginning gave.
    pub ticket: u64,
    /// What its caller said.
    pub user_data: usize,
    /// What it holds, or why it holds nothing.
    pub end: Result<T>,
}

/// A pending acquire, as the queue keeps it.
struct Pending<A: Acquire> {
    course: Course<A>,
    user_data: usize,
    /// While it is pending.
    timer: Deadline,
}

enum Course<A: Acquire> {
    Pending(A),
    /// With the next in the done list.
    Over {
        ticket: u64,
        end: Result<A::Held>,
        next: Option<Box<Pending<A>>>,
    },
}

impl<A: Acquire> Pending<A> {
    fn poll(&mut self) -> Poll<A::Held> {
        match &mut self.course {
            Course::Pending(acquire) => acquire.poll(),
            Course::Over { .. } => unreachable!("what is over is not pending"),
        }
    }

    /// Ends it. `None`: it left; else how it had ended before it could.
    fn withdraw(&mut self) -> Option<Result<A::Held>> {
        loop {
            if let Course::Pending(acquire) = &mut self.course
                && acquire.withdraw()
            {
                return None;
            }
            if let Poll::Over(end) = self.poll() {
                return Some(end);
            }
        }
    }
}

/// What is over and was not fetched, in order.
///
/// WHY: linked through what is there already. A completion needs no memory to be told.
struct Done<A: Acquire> {
    /// The first to be fetched, linked to the next.
    first: Option<Box<Pending<A>>>,
    /// The last to come, linked to the one before, when there is nothing more of the others.
    last: Option<Box<Pending<A>>>,
    len: usize,
}

impl<A: Acquire> Done<A> {
    const fn new() -> Self {
        Self { first: None, last: None, len: 0 }
    }

    fn push(&mut self, mut over: Box<Pending<A>>) {
        if let Course::Over { next, .. } = &mut over.course {
            *next = self.last.take();
        }
        self.last = Some(over);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<Completion<A::Held>> {
        if self.first.is_none() {
            while let Some(mut pending) = self.last.take() {
                if let Course::Over { next, .. } = &mut pending.course {
                    self.last = mem::replace(next, self.first.take());
                }
                self.first = Some(pending);
            }
        }
        let Pending { course, user_data, .. } = *self.first.take()?;
        let Course::Over { ticket, end, next } = course else {
            unreachable!("what is pending is not over")
        };
        self.first = next;
        self.len -= 1;
        Some(Completion { ticket, user_data, end })
    }
}

/// What others have to say to a poller (I2).
#[derive(Debug, Default, Clone, Copy)]
struct Note {
    again: bool,
    withdrawn: bool,
}

/// Hashes tickets, which are numbers in a row.
#[derive(Debug, Default)]
struct ByTicket(u64);

impl Hasher for ByTicket {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a ticket is a number")
    }

    fn write_u64(&mut self, ticket: u64) {
        // Odd: tickets in a row differ in their last bits, and in the first.
        self.0 = ticket.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// A queue of completions.
pub(crate) struct Queue<A: Acquire>(Mutex<State<A>>);

struct State<A: Acquire> {
    /// By ticket; `None`: polled.
    acquires: HashMap<u64, Option<Box<Pending<A>>>, BuildHasherDefault<ByTicket>>,
    notes: BTreeMap<u64, Note>,
    /// Tickets. Some may be over by now, but not the first.
    ready: VecDeque<u64>,
    timers: BTreeSet<(Deadline, u64)>,
    done: Done<A>,
    /// By the time that each will wake by itself, and a number.
    sleepers: BTreeMap<(Deadline, u64), Thread>,
    last_sleeper: u64,
    descriptor: Option<Descriptor>,
    closed: bool,
}

impl<A: Acquire> fmt::Debug for Queue<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl<A: Acquire> Queue<A> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            acquires: HashMap::default(),
            notes: BTreeMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            done: Done::new(),
            sleepers: BTreeMap::new(),
            last_sleeper: 0,
            descriptor: None,
            closed: false,
        })))
    }

    /// Draws a ticket, which counts as polled until `settle` or `forget`.
    pub(crate) fn draw(&self) -> Result<u64> {
        /// WHY: one for all queues. A ticket of another queue is found to be one.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let mut state = self.0.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        // A wake-up cannot say that there is no memory.
        let pending = state.acquires.len() + 1;
        state.acquires.try_reserve(1).map_err(|_| Error::NoMemory)?;
        make_room(&mut state.ready, pending)?;
        let ticket = LAST.fetch_add(1, Relaxed) + 1;
        state.acquires.insert(ticket, None);
        Ok(ticket)
    }

    /// What drew `ticket` is not pending after all.
    pub(crate) fn forget(&self, ticket: u64) {
        let mut state = self.0.lock();
        state.acquires.remove(&ticket);
        state.notes.remove(&ticket);
        state.publish();
    }

    /// What drew `ticket` is pending from here on. `Error::Closed`: it was withdrawn at once.
    pub(crate) fn settle(
        &self,
        ticket: u64,
        acquire: A,
        until: Deadline,
        user_data: usize,
    ) -> Result<()> {
        let course = Course::Pending(acquire);
        let pending = Box::new(Pending { course, user_data, timer: Deadline::NEVER });
        let mut state = self.put_back(ticket, pending, Poll::Until(until));
        state.publish();
        if state.closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// Fetches up to `capacity` completions, and waits for the first. How many were given.
    pub(crate) fn wait(
        &self,
        capacity: usize,
        timeout: Timeout,
        mut give: impl FnMut(Completion<A::Held>),
    ) -> Result<usize> {
        let mut by = None;
        let mut state = self.0.lock();
        loop {
            // WHY: so many, and not as long as there is one. A lock that threads hand to each other all
            // the time wakes its head all the time.
            for _ in 0..state.ready.len().saturating_add(capacity) {
                if state.done.len >= capacity {
                    break;
                }
                let Some((ticket, mut pending)) = state.next() else { break };
                drop(state);
                let poll = pending.poll();
                state = self.put_back(ticket, pending, poll);
            }
            if state.closed {
                return Err(Error::Closed);
            }
            let mut count = 0;
            while count < capacity
                && let Some(completion) = state.done.pop()
            {
                give(completion);
                count += 1;
            }
            if count > 0 {
                state.shrink();
                state.publish();
                return Ok(count);
            }
            let now = Moment::now();
            let by = *by.get_or_insert_with(|| now.after(timeout));
            state.publish();
            if by.is_past(now) {
                return Err(Error::WaitTimeout);
            }
            if state.ready.is_empty() {
                state = self.sleep(state, by, now);
            }
        }
    }

    /// Sleeps until `by`, the first timer's time if nobody else does, or a wake-up.
    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<A>>,
        by: Deadline,
        now: Moment,
    ) -> MutexGuard<'a, State<A>> {
        let timer = state.first_timer();
        let until = if state.watched_until() <= timer { by } else { by.min(timer) };
        state.last_sleeper += 1;
        let place = (until, state.last_sleeper);
        state.sleepers.insert(place, current());
        drop(state);
        match until.remaining(now) {
            Some(left) => park_timeout(left),
            None => park(),
        }
        let mut state = self.0.lock();
        state.sleepers.remove(&place);
        state
    }

    /// Ends a pending acquire early. `Error::NotFound`: it has its completion, or is none of this
    /// queue.
    pub(crate) fn withdraw(&self, ticket: u64) -> Result<()> {
        let mut state = self.0.lock();
        let Some(place) = state.acquires.get_mut(&ticket) else { return Err(Error::NotFound) };
        let Some(mut pending) = place.take() else {
            // WHY: whatever its poller sees. Nobody waits for it here (I2).
            let before = state.note(ticket, Note { again: false, withdrawn: true });
            return if before.withdrawn { Err(Error::NotFound) } else { Ok(()) };
        };
        drop(state);
        let (end, answer) = match pending.withdraw() {
            None => (Err(Error::Stopped), Ok(())),
            Some(end) => (end, Err(Error::NotFound)),
        };
        self.put_back(ticket, pending, Poll::Over(end)).publish();
        answer
    }

    /// What was polled is idle or over: I1 and I2 are decided here.
    fn put_back(
        &self,
        ticket: u64,
        mut pending: Box<Pending<A>>,
        poll: Poll<A::Held>,
    ) -> MutexGuard<'_, State<A>> {
        let timer = pending.timer;
        // What was pending is dropped before the mutex is taken (I6).
        let until = match poll {
            Poll::Over(end) => {
                pending.course = Course::Over { ticket, end, next: None };
                None
            }
            Poll::Until(until) => Some(until),
        };
        let mut state = self.0.lock();
        let note = state.notes.remove(&ticket).unwrap_or_default();
        let withdrawn = note.withdrawn;
        state.timers.remove(&(timer, ticket));
        if state.closed || withdrawn {
            state.acquires.remove(&ticket);
            drop(state);
            if until.is_some() {
                drop(pending.withdraw());
            }
            // A lock that was granted goes on.
            pending.course = Course::Over { ticket, end: Err(Error::Stopped), next: None };
            state = self.0.lock();
            if !state.closed {
                state.done.push(pending);
            }
            return state;
        }
        match until {
            Some(until) => {
                pending.timer = until;
                if until != Deadline::NEVER {
                    state.timers.insert((until, ticket));
                }
                state.acquires.insert(ticket, Some(pending));
                if note.again {
                    state.ready.push_back(ticket);
                }
            }
            None => {
                state.acquires.remove(&ticket);
                state.done.push(pending);
            }
        }
        state
    }

    /// Ends all that is pending or was not fetched. Who waits is told.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let acquires = mem::take(&mut state.acquires);
        let mut done = mem::replace(&mut state.done, Done::new());
        let sleepers = mem::take(&mut state.sleepers);
        let descriptor = state.descriptor.take();
        state.ready = VecDeque::new();
        state.timers = BTreeSet::new();
        drop(state);
        for thread in sleepers.into_values() {
            thread.unpark();
        }
        drop(descriptor);
        for mut pending in acquires.into_values().flatten() {
            drop(pending.withdraw());
        }
        // WHY: one by one. A list that is dropped drops its first, which drops the next.
        while let Some(completion) = done.pop() {
            drop(completion);
        }
    }

    /// The descriptor, made when first asked for. `None`: none can be had.
    pub(crate) fn descriptor(&self) -> Option<i32> {
        let number = |state: &State<A>| state.descriptor.as_ref().map(Descriptor::number);
        if let Some(number) = number(&self.0.lock()) {
            return Some(number);
        }
        // WHY: not under the mutex, as its end is not. Both wait for a fork.
        let made = Descriptor::open();
        let mut state = self.0.lock();
        if state.descriptor.is_some() || state.closed {
            let number = number(&state);
            drop(state);
            return number; // Another thread's; ours ends here.
        }
        state.descriptor = made;
        state.publish();
        number(&state)
    }
}

/// Sees to it that `more` can come. WHY: by an eighth, not twice as much. Most of it is never used.
fn make_room<T>(list: &mut VecDeque<T>, more: usize) -> Result<()> {
    if list.capacity() - list.len() >= more {
        return Ok(());
    }
    list.try_reserve_exact(more + more / 8).map_err(|_| Error::NoMemory)
}

impl<A: Acquire> Inbox for Queue<A> {
    fn is_ready(&self, ticket: u64) {
        let mut state = self.0.lock();
        if !state.closed {
            state.ready.push_back(ticket);
            state.publish();
        }
    }
}

impl<A: Acquire> State<A> {
    /// Takes out what is to be polled next.
    fn next(&mut self) -> Option<(u64, Box<Pending<A>>)> {
        loop {
            let ticket = match self.ready.pop_front() {
                Some(ticket) => ticket,
                None => self.pop_timer()?,
            };
            match self.acquires.get_mut(&ticket).map(Option::take) {
                Some(Some(pending)) => return Some((ticket, pending)),
                Some(None) => {
                    self.note(ticket, Note { again: true, withdrawn: false });
                }
                None => {}
            }
        }
    }

    /// The first timer, if its time has come.
    fn pop_timer(&mut self) -> Option<u64> {
        let (at, _) = self.timers.first()?;
        if !at.is_past(Moment::now()) {
            return None;
        }
        self.timers.pop_first().map(|(_, ticket)| ticket)
    }

    /// Leaves a note for whoever polls `ticket`. What was noted before.
    fn note(&mut self, ticket: u64, more: Note) -> Note {
        let note = self.notes.entry(ticket).or_default();
        let before = *note;
        note.again |= more.again;
        note.withdrawn |= more.withdrawn;
        before
    }

    fn first_timer(&self) -> Deadline {
        self.timers.first().map_or(Deadline::NEVER, |(at, _)| *at)
    }

    /// When the first of those that sleep wakes by itself.
    fn watched_until(&self) -> Deadline {
        self.sleepers.first_key_value().map_or(Deadline::NEVER, |((until, _), _)| *until)
    }

    /// What there is to do may have changed: sees to I4 and I5.
    fn publish(&mut self) {
        while let Some(ticket) = self.ready.front()
            && !self.acquires.contains_key(ticket)
        {
            self.ready.pop_front();
        }
        let is_busy = !self.ready.is_empty() || self.done.len > 0;
        let timer = self.first_timer();
        if (is_busy || timer < self.watched_until())
            && let Some((_, thread)) = self.sleepers.pop_last()
        {
            thread.unpark();
        }
        if let Some(descriptor) = &mut self.descriptor {
            descriptor.set(is_busy, timer);
        }
    }

    /// Gives the memory of a peak back (C-23).
    fn shrink(&mut self) {
        /// WHY: twice as much again before the next time.
        fn target(len: usize, capacity: usize) -> Option<usize> {
            (capacity > 64 && len < capacity / 8).then_some(len * 2)
        }
        if let Some(target) = target(self.acquires.len(), self.acquires.capacity()) {
            self.acquires.shrink_to(target);
        }
        let pending = self.acquires.len() + self.ready.len();
        if let Some(target) = target(pending, self.ready.capacity()) {
            self.ready.shrink_to(target);
        }
    }
}
