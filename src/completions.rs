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
use crate::lock::{Inbox, Waker};
use crate::sync::machine::{Mutex, MutexGuard};
use crate::sync::{Arc, Thread, current, park, park_timeout, planted};

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
#[derive(Debug)]
struct Pending<A> {
    acquire: A,
    user_data: usize,
    timer: Deadline,
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
    done: VecDeque<Completion<A::Held>>,
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
            done: VecDeque::new(),
            sleepers: BTreeMap::new(),
            last_sleeper: 0,
            descriptor: None,
            closed: false,
        })))
    }

    /// Draws a ticket, which counts as polled until `settle` or `forget`, and what wakes it.
    pub(crate) fn draw(self: &Arc<Self>) -> Result<(u64, Waker)> {
        /// WHY: one for all queues. A ticket of another queue is found to be one.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let mut state = self.0.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        // A wake-up cannot say that there is no memory.
        let pending = state.acquires.len() + 1;
        let room = |reserved: std::result::Result<(), _>| reserved.map_err(|_| Error::NoMemory);
        room(state.acquires.try_reserve(1))?;
        room(state.ready.try_reserve(pending))?;
        room(state.done.try_reserve(pending))?;
        let ticket = LAST.fetch_add(1, Relaxed) + 1;
        state.acquires.insert(ticket, None);
        Ok((ticket, Waker::Ticket(Arc::clone(self) as Arc<dyn Inbox>, ticket)))
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
        let pending = Box::new(Pending { acquire, user_data, timer: Deadline::NEVER });
        let mut state = self.put_back(ticket, pending, Poll::Until(until));
        state.publish();
        if state.closed { Err(Error::Closed) } else { Ok(()) }
    }

    /// Fetches up to `capacity` completions, and waits for the first. How many were given.
    pub(crate) fn wait(
        &self,
        capacity: usize,
        timeout: Timeout,
        give: impl FnMut(Completion<A::Held>),
    ) -> Result<usize> {
        let mut by = None;
        let mut state = self.0.lock();
        loop {
            // WHY: so many, and not as long as there is one. A lock that threads hand to each other all
            // the time wakes its head all the time.
            for _ in 0..state.ready.len().saturating_add(capacity) {
                if state.done.len() >= capacity {
                    break;
                }
                let Some((ticket, mut pending)) = state.next() else { break };
                drop(state);
                let poll = pending.acquire.poll();
                state = self.put_back(ticket, pending, poll);
            }
            if state.closed {
                return Err(Error::Closed);
            }
            if !state.done.is_empty() {
                let count = capacity.min(state.done.len());
                state.done.drain(..count).for_each(give);
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
        let (end, answer) = match withdraw(&mut pending.acquire) {
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
        pending: Box<Pending<A>>,
        poll: Poll<A::Held>,
    ) -> MutexGuard<'_, State<A>> {
        let (user_data, timer) = (pending.user_data, pending.timer);
        // What is over is dropped before the mutex is taken (I6).
        let mut poll = match poll {
            Poll::Over(end) => {
                drop(pending);
                Err(end)
            }
            Poll::Until(until) => Ok((pending, until)),
        };
        let mut state = self.0.lock();
        let note = state.notes.remove(&ticket).unwrap_or_default();
        if state.closed || note.withdrawn && !planted("withdrawn and granted") {
            state.acquires.remove(&ticket);
            state.timers.remove(&(timer, ticket));
            drop(state);
            if let Ok((pending, _)) = &mut poll {
                drop(withdraw(&mut pending.acquire));
            }
            // A lock that was granted goes on.
            drop(mem::replace(&mut poll, Err(Err(Error::Stopped))));
            state = self.0.lock();
            if state.closed {
                return state;
            }
        }
        match poll {
            Ok((mut pending, until)) => {
                state.timers.remove(&(timer, ticket));
                pending.timer = until;
                if until != Deadline::NEVER {
                    state.timers.insert((until, ticket));
                }
                state.acquires.insert(ticket, Some(pending));
                if note.again && !planted("woken while polled") {
                    state.ready.push_back(ticket);
                }
            }
            Err(end) => {
                state.acquires.remove(&ticket);
                state.timers.remove(&(timer, ticket));
                state.done.push_back(Completion { ticket, user_data, end });
            }
        }
        state
    }

    /// Ends all that is pending or was not fetched. Who waits is told.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        let acquires = mem::take(&mut state.acquires);
        let done = mem::take(&mut state.done);
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
            drop(withdraw(&mut pending.acquire));
        }
        drop(done);
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

/// Ends `acquire`. `None`: it left; else how it had ended before it could.
fn withdraw<A: Acquire>(acquire: &mut A) -> Option<Result<A::Held>> {
    loop {
        if acquire.withdraw() {
            return None;
        }
        if let Poll::Over(end) = acquire.poll() {
            return Some(end);
        }
    }
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
        let is_busy = !self.ready.is_empty() || !self.done.is_empty();
        let timer = self.first_timer();
        if (is_busy || timer < self.watched_until())
            && !planted("nobody is woken")
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
        if let Some(target) = target(self.ready.len(), self.ready.capacity()) {
            self.ready.shrink_to(target);
        }
        if let Some(target) = target(self.done.len(), self.done.capacity()) {
            self.done.shrink_to(target);
        }
    }
}
