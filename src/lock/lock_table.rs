//! Lock tables: where locks live, how they are freed, and what their changes owe to others.

use std::cell::RefCell;
use std::mem;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clock::Moment;
use crate::error::Result;
use crate::key::{LockId, LockIdRef};
use crate::lock::entry::{self, Deferred, Entry, EntryRef};
use crate::lock::epoch;
use crate::lock::hold_ref::HoldRef;
use crate::lock::index::{Index, Node, Seen};
use crate::lock::recent::Recent;
use crate::lock::scope::Scope;
use crate::lock::tokens;
use crate::process::{Generation, PerProcess};
use crate::sync::Arc;

/// ORDERING of all: counters, read for their value alone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    acquired: [Padded; 8],
    pub(super) contended: AtomicU64,
    pub(super) wait_timeouts: AtomicU64,
    pub(super) exec_timeouts: AtomicU64,
    pub(super) forced_releases: AtomicU64,
    pub(super) deadlocks: AtomicU64,
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

/// The entries of the default lock table that a thread keeps. A thread that ends evicts them.
#[derive(Debug)]
struct RecentOfThread {
    born: Generation,
    entries: Recent,
}

impl RecentOfThread {
    fn new() -> Self {
        Self { born: Generation::current(), entries: Recent::default() }
    }
}

impl Drop for RecentOfThread {
    fn drop(&mut self) {
        if !self.born.is_current() {
            mem::forget(mem::take(&mut self.entries)); // See `keep_recent`.
            return;
        }
        let lock_table = LockTable::default_of_process();
        for entry in self.entries.drain() {
            lock_table.evict(&entry);
        }
    }
}

thread_local! {
    static RECENT: RefCell<Option<RecentOfThread>> = const { RefCell::new(None) };
}

/// Makes the thread-local.
pub(super) fn begin_thread() {
    RECENT.with(|_| ());
}

impl Inner {
    fn new() -> Self {
        tokens::start();
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

    /// The entry of `id`, which a thin lock gets now; `Error::NoMemory` if there is none for it.
    pub(super) fn find(&self, id: LockIdRef<'_>) -> Result<Option<EntryRef>> {
        self.0.index.find(id.hash(), id)
    }

    /// The entry of `id`, if it has one.
    fn find_entry(&self, id: LockIdRef<'_>) -> Option<EntryRef> {
        self.0.index.find_node(id.hash(), id)
    }

    /// Shows every entry, dead ones too, and every thin lock, which stays one.
    pub(super) fn visit(&self, visitor: impl FnMut(Seen<'_, Entry>) -> Result<()>) -> Result<()> {
        self.0.index.visit(visitor)
    }

    /// How many locks are held now.
    pub(super) fn held(&self) -> usize {
        self.0.index.count(|entry| entry.holder().is_some_and(|(hold, _)| hold.is_in_force()))
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.0.scope
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// How many locks were acquired so far.
    pub(super) fn acquired(&self) -> u64 {
        self.0.counters.acquired.iter().map(|shard| shard.0.load(Relaxed)).sum()
    }

    #[inline]
    pub(super) fn count_acquired(&self, locks: usize, thread_id: u64) {
        let shards = &self.0.counters.acquired;
        shards[thread_id as usize % shards.len()].0.fetch_add(locks as u64, Relaxed);
    }

    pub(super) fn count_exec_timeout(&self) {
        self.0.counters.exec_timeouts.fetch_add(1, Relaxed);
    }

    fn is_of_process(&self) -> bool {
        matches!(self.0, Ref::OfProcess(_))
    }

    /// Takes the only lock of a hold, if nobody else is near: without an entry.
    #[inline(always)]
    pub(super) fn take_thin(&self, id: LockIdRef<'_>, hold: &mut HoldRef, now: Moment) -> bool {
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
    pub(super) fn release_thin(&self, hold: &HoldRef) {
        let Some(id) = hold.id() else { return };
        match self.0.index.take_sole(id.hash(), hold) {
            Some(reference) => drop(reference),
            // It has an entry now.
            None => {
                if let Some(entry) = self.find_entry(id.by_ref()) {
                    self.release(&entry, hold);
                }
            }
        }
    }

    /// As `release_thin`, by the only owner.
    #[inline]
    pub(super) fn give_up_thin(&self, hold: &mut HoldRef) {
        let hash = hold.id().map_or(0, LockId::hash);
        match self.0.index.take_sole(hash, hold) {
            Some(reference) => hold.drop_other(reference),
            None => self.release_thin(hold),
        }
    }

    /// Lists a new entry that `hold` holds; `None` if another one of the key came first.
    pub(super) fn list(
        &self,
        id: LockIdRef<'_>,
        hold: &mut HoldRef,
        opens: bool,
        now: Moment,
    ) -> Result<Option<EntryRef>> {
        let entry = Node::try_new(Entry::held_by(id.to_id()?, hold.clone_mut()))?;
        if opens {
            hold.open_ahead(now);
        }
        let listed = self.0.index.insert(id.hash(), id, &entry);
        if opens {
            entry::opened_ahead(id.hash(), hold, listed == Ok(true));
        }
        Ok(listed?.then_some(entry))
    }

    pub(super) fn release(&self, entry: &EntryRef, hold: &HoldRef) {
        self.carry_out(entry, entry.release(hold));
    }

    /// As `release`, with the caller's reference to the entry.
    pub(super) fn give_up(&self, entry: EntryRef, hold: &mut HoldRef) {
        if self.is_of_process() && entry.give_back(hold) {
            self.idle(entry);
        } else {
            self.release(&entry, hold);
        }
    }

    pub(super) fn release_all(&self, entries: &[EntryRef], hold: &HoldRef) {
        for entry in entries {
            self.release(entry, hold);
        }
    }

    /// Carries out what a change of `entry` owes to others.
    pub(super) fn carry_out(&self, entry: &EntryRef, mut deferred: Deferred) {
        deferred.wake();
        if deferred.idle {
            self.idle(entry.clone());
        }
        if deferred.died {
            self.0.index.remove(entry.id().hash(), entry);
            if !entry.id().key.is_short() {
                epoch::collect();
            }
        }
        if let Some(expired) = deferred.expired.take() {
            self.0.counters.exec_timeouts.fetch_add(1, Relaxed);
            self.0.counters.forced_releases.fetch_add(1, Relaxed);
            self.release_others(&expired);
        }
    }

    /// The entry of `id`, if this thread gave it back recently.
    pub(super) fn recent(&self, id: LockIdRef<'_>) -> Option<EntryRef> {
        if !self.is_of_process() {
            return None;
        }
        let taken = RECENT.try_with(|recent| match &mut *recent.borrow_mut() {
            Some(recent) if recent.born.is_current() => recent.entries.take(id),
            _ => None,
        });
        taken.ok().flatten()
    }

    /// Keeps an idle entry for this thread's next call. Returns the one that must be evicted for it:
    /// itself if the thread is ending, or the lock table is not the default one.
    fn keep_recent(&self, entry: EntryRef) -> Option<EntryRef> {
        // A long key is not kept for a call that may never come (C-15).
        if !self.is_of_process() || !entry.id().key.is_short() {
            return Some(entry);
        }
        let mut given = Some(entry);
        let leaves = RECENT.try_with(|recent| {
            let mut recent = recent.borrow_mut();
            if !recent.as_ref().is_some_and(|recent| recent.born.is_current()) {
                // What a forked child inherited is neither used nor freed (C-16).
                mem::forget(recent.replace(RecentOfThread::new()));
            }
            recent.as_mut()?.entries.keep(given.take()?)
        });
        leaves.unwrap_or(given)
    }

    /// Frees the locks of a hold that lost one of several.
    pub(super) fn release_others(&self, hold: &HoldRef) {
        for id in hold.ids() {
            if let Some(entry) = self.find_entry(id.by_ref()) {
                self.release(&entry, hold);
            }
        }
    }

    /// An entry that nobody holds or waits for: is kept for this thread's next call.
    fn idle(&self, entry: EntryRef) {
        if let Some(leaves) = self.keep_recent(entry) {
            self.evict(&leaves);
        }
    }

    /// An entry is not kept any more: it dies if nobody uses it.
    fn evict(&self, entry: &EntryRef) {
        self.carry_out(entry, entry.evict());
    }
}
