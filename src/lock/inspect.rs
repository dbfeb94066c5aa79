//! Looking at lock tables, and what is done to locks from outside.

use std::sync::atomic::Ordering::Relaxed;

use crate::clock::{Moment, Timeout};
use crate::error::{Error, Result};
use crate::key::{Key, LockId, LockIdRef};
use crate::lock::hold::{Hold, Standing, Verdict};
use crate::lock::hold_ref::HoldRef;
use crate::lock::index::Seen;
use crate::lock::lock_table::LockTable;
use crate::lock::waits;
use crate::sync::nap;

/// A lock, as a snapshot shows it.
#[derive(Debug, Clone)]
pub struct LockInfo {
    /// The key.
    pub key: Key,
    /// The holder's token; 0 while it still waits for more keys.
    pub token: u64,
    /// Whether the holder is past its exec deadline.
    pub late: bool,
    /// Since when it is held.
    pub held_ms: i64,
    /// Time to the exec deadline.
    pub exec_remaining: Timeout,
    /// How many callers wait in the queue.
    pub waiters: u64,
    /// The logical owner, `u64::MAX` for none, 0 for a thread or a callback.
    pub owner: u64,
    /// The thread that acquired it, as the system numbers it.
    pub thread_id: u64,
    pub(crate) table: u64,
}

/// What happened in a lock table, and what is the case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Locks acquired.
    pub acquired: u64,
    /// Acquisitions that had to wait.
    pub contended: u64,
    /// Waits that ended at their timeout.
    pub wait_timeouts: u64,
    /// Holders that outlived their time.
    pub exec_timeouts: u64,
    /// Locks taken away by a waiter or by force.
    pub forced_releases: u64,
    /// Waits answered with `Error::Deadlock`.
    pub deadlocks: u64,
    /// Locks held.
    pub held: u64,
    /// Callers waiting.
    pub waiting: u64,
}

impl LockTable {
    /// Ends every wait in this table with `Error::Closed`. Locks that are held live on.
    pub fn close(&self) {
        waits::close(self.scope());
    }

    /// Takes the lock of `id` away from its holder; `Error::NotFound` if nobody holds it, or none
    /// with a token that is `wanted`.
    pub(crate) fn force_release(
        &self,
        id: LockIdRef<'_>,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<()> {
        loop {
            let entry = self.find(id)?.ok_or(Error::NotFound)?;
            let (hold, _) = entry.holder().ok_or(Error::NotFound)?;
            // A hold never gets another token, and it is the hold that is revoked below, whoever may
            // hold the lock by then.
            if !wanted(hold.token()) {
                return Err(Error::NotFound);
            }
            match hold.revoke() {
                Verdict::Taken => {
                    self.counters().forced_releases.fetch_add(1, Relaxed);
                    waits::expel_hold(&hold);
                    self.release(&entry, &hold);
                    self.release_others(&hold);
                    return Ok(());
                }
                // It runs no user code and takes no lock of ours: it is over soon (C-8).
                Verdict::Committing => nap(),
                // Its last owner is letting go; what comes next is another lock. `InTime` is no
                // answer to force.
                Verdict::Ended | Verdict::Lost(_) | Verdict::InTime => return Err(Error::NotFound),
            }
        }
    }

    /// The locks held now; of one table, or of all.
    pub(crate) fn locks(&self, table: Option<u64>) -> Result<Vec<LockInfo>> {
        let now = Moment::now();
        let wanted = |id: &&LockId| table.is_none_or(|table| id.table == table);
        let mut locks = Vec::new();
        let mut add = |id: &LockId, hold: &HoldRef, waiters| {
            if hold.is_in_force() {
                locks.try_reserve(1).map_err(|_| Error::NoMemory)?;
                locks.push(describe(id, hold, waiters, now));
            }
            Ok(())
        };
        self.visit(|seen| match seen {
            Seen::Sole(hold) => hold.id().filter(wanted).map_or(Ok(()), |id| add(id, &hold, 0)),
            Seen::Node(entry) => match Some(entry.id()).filter(wanted).and(entry.holder()) {
                Some((hold, waiters)) => add(entry.id(), &hold, waiters),
                None => Ok(()),
            },
        })?;
        Ok(locks)
    }

    /// The counters, and what is the case.
    pub fn stats(&self) -> Stats {
        let counters = self.counters();
        Stats {
            acquired: self.acquired(),
            contended: counters.contended.load(Relaxed),
            wait_timeouts: counters.wait_timeouts.load(Relaxed),
            exec_timeouts: counters.exec_timeouts.load(Relaxed),
            forced_releases: counters.forced_releases.load(Relaxed),
            deadlocks: counters.deadlocks.load(Relaxed),
            held: self.held() as u64,
            waiting: waits::waiting(self.scope()),
        }
    }
}

fn describe(id: &LockId, hold: &Hold, waiters: usize, now: Moment) -> LockInfo {
    let is_open = hold.is_open();
    LockInfo {
        key: id.key.clone(),
        token: if is_open { hold.token() } else { 0 },
        late: hold.standing(now) == Standing::Late,
        held_ms: if is_open { now.millis_since(hold.since()) } else { 0 },
        exec_remaining: Timeout::left(hold.deadline().remaining(now)),
        waiters: waiters as u64,
        owner: hold.owner.logical_id(),
        thread_id: hold.thread_id,
        table: id.table,
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::lock::hold::Hold;
    use crate::lock::hold_ref::HoldRef;
    use crate::lock::locked::Locked;
    use crate::lock::owner::OwnerId;

    /// Whoever takes a lock away frees it a moment later: it is nobody's from the first.
    #[test]
    fn a_lock_that_was_taken_away_is_not_held() {
        let lock_table = LockTable::new();
        let id = LockId { table: 1, key: Key::new(b"k").unwrap() };
        let never = Timeout::INFINITE;
        let mut hold = HoldRef::new(|| Hold::new(never, never, OwnerId::None, false, 0));
        hold.get_mut().unwrap().set_only(id.clone());
        assert!(lock_table.take_thin(id.by_ref(), &mut hold, Moment::now()));
        assert_eq!(lock_table.locks(None).unwrap().len(), 1);
        assert_eq!(hold.revoke(), Verdict::Taken);
        assert!(lock_table.locks(None).unwrap().is_empty());
        assert_eq!(lock_table.force_release(id.by_ref(), |_| true), Err(Error::NotFound));
        let locked = Locked::nothing_yet(lock_table.clone(), hold);
        lock_table.release_thin(locked.hold());
    }
}
