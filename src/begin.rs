//! The story without a thread: begin to wait for locks, go on when there is something to see, and
//! complete (C-19).

use std::time::Duration;

use crate::clock::Timeout;
use crate::completions::{Acquire, Completion, Poll, Queue};
use crate::error::{Error, Result};
use crate::guard::{Guard, Kind};
use crate::key::LockIds;
use crate::lock::{
    Begun, Inbox, InboxRef, Owner, Pending, Progress, Request, Stop, WaitMode, Waker,
};
use crate::options::Options;
use crate::registry::Opened;
use crate::sync::Arc;
use crate::tables::{TableKey, Tables};
use crate::with_lock::{across, nothing_yet};

/// A queue of completions. Dropping it withdraws what is pending, and cancels what was not fetched.
#[derive(Debug)]
pub struct Completions {
    queue: Arc<Queue<PendingAcquire>>,
    inbox: InboxRef,
}

/// What came of beginning.
#[derive(Debug)]
pub enum Begin {
    /// Got at once; no completion follows.
    Held(Guard),
    /// The completion will have this ticket.
    Pending(u64),
}

impl Default for Completions {
    fn default() -> Self {
        Self::new()
    }
}

impl Completions {
    /// An empty one.
    pub fn new() -> Self {
        let queue = Queue::new();
        let inbox = Arc::new(Arc::clone(&queue) as Arc<dyn Inbox>);
        Self { queue, inbox }
    }

    /// What a call keeps while it waits.
    pub fn enter(&self) -> Waiting {
        Waiting(Arc::clone(&self.queue))
    }

    /// A descriptor that is readable while there is something to fetch or to see to. `None`: none can
    /// be had.
    pub fn descriptor(&self) -> Option<i32> {
        self.queue.descriptor()
    }

    /// Ends a pending acquire with `Error::Stopped`. `Error::NotFound`: it has its completion.
    pub fn withdraw(&self, ticket: u64) -> Result<()> {
        self.queue.withdraw(ticket)
    }

    /// Begins to acquire the locks of `keys`.
    #[inline(always)]
    pub fn begin(
        &self,
        table: Arc<Opened>,
        keys: &[&[u8]],
        options: &Options,
        user_data: usize,
    ) -> Result<Begin> {
        let ids = LockIds::new(table.id(), keys)?;
        self.begin_all(Tables::one(table), &ids, options, user_data)
    }

    /// Begins to acquire the locks of `keys`, of several tables (C-20); at least one.
    pub fn begin_across(
        &self,
        keys: &[TableKey<'_>],
        options: &Options,
        user_data: usize,
    ) -> Result<Begin> {
        let (tables, ids) = across(keys)?;
        self.begin_all(tables, &ids, options, user_data)
    }

    #[inline(always)]
    fn begin_all(
        &self,
        tables: Tables,
        ids: &LockIds<'_>,
        options: &Options,
        user_data: usize,
    ) -> Result<Begin> {
        if options.queue == WaitMode::Polling {
            return Err(Error::Invalid);
        }
        // Tasks of an event loop share a thread.
        let owner = if options.owner == Owner::Current { Owner::None } else { options.owner };
        let mut locked = nothing_yet(Kind::Acquired, ids, options, owner)?;
        let (handles, stop) = (tables.handles(), options.stop.as_ref().map(Stop::scope));
        let (wait, queue, spin_delay) = (options.wait, options.queue, Duration::ZERO);
        let request = Request { wait, queue, spin_delay, handles, stop };
        let mut drawn = None;
        let begun = locked.begin(ids, &request, || {
            let ticket = *drawn.insert(self.queue.draw()?);
            Ok(Waker::Ticket(Arc::clone(&self.inbox), ticket))
        });
        match (begun, drawn) {
            (Ok(Begun::Pending(pending, until)), Some(ticket)) => {
                let acquire = PendingAcquire { pending, tables, stop: options.stop.clone() };
                self.queue
                    .settle(ticket, acquire, until, user_data)
                    .map(|()| Begin::Pending(ticket))
            }
            (begun, drawn) => {
                if let Some(ticket) = drawn {
                    self.queue.forget(ticket);
                }
                begun.map(|_| Begin::Held(Guard::new(Kind::Acquired, tables, locked)))
            }
        }
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A queue of completions as a call knows it.
#[derive(Debug)]
pub struct Waiting(Arc<Queue<PendingAcquire>>);

impl Waiting {
    /// Fetches up to `capacity` completions, and waits for the first. How many were given.
    pub fn wait(
        &self,
        capacity: usize,
        timeout: Timeout,
        give: impl FnMut(Completion<Box<Guard>>),
    ) -> Result<usize> {
        self.0.wait(capacity, timeout, give)
    }
}

/// A pending acquire.
#[derive(Debug)]
struct PendingAcquire {
    pending: Pending,
    tables: Tables,
    stop: Option<Stop>,
}

impl Acquire for PendingAcquire {
    type Held = Box<Guard>;

    fn poll(&mut self) -> Poll<Box<Guard>> {
        // Its wait deadline stands already.
        let (wait, queue) = (Timeout::INFINITE, self.pending.wait_mode());
        let Self { pending, tables, stop } = self;
        let (handles, stop) = (tables.handles(), stop.as_ref().map(Stop::scope));
        let request = Request { wait, queue, spin_delay: Duration::ZERO, handles, stop };
        match pending.poll(&request) {
            Ok(Progress::Until(until)) => Poll::Until(until),
            Ok(Progress::Held(locked)) => {
                let guard = Guard::new(Kind::Acquired, tables.clone(), locked);
                Poll::Over(Ok(Box::new(guard)))
            }
            Err(error) => Poll::Over(Err(error)),
        }
    }

    fn withdraw(&mut self) -> bool {
        self.pending.withdraw()
    }
}
