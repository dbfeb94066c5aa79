//! Who waits for whom, in the whole process: deadlocks are answered instead of waited out (C-13).
//!
//! Every waiter is registered while it waits; a call that gets its lock at once never comes here.
//! An edge leads from a waiter's owner to the entry it waits for, and from an entry to the owner
//! of its holder. A new waiter closes a cycle if the walk along these edges comes back to it.
//!
//! Invariants
//! I1. A waiter is registered after it joined its queue. Of the waiters of a cycle the last to
//!     register sees all others.
//! I2. A cycle is confirmed with the states of all its entries held at once: what is reported was
//!     the case at one moment. Only the owner of the registry's mutex ever holds more than one.
//! I3. No user code runs, and no one waits for a lock, under the registry's mutex.

use std::collections::HashMap;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::lock::entry::EntryRef;
use crate::lock::hold_ref::HoldRef;
use crate::lock::lock_table::LockTable;
use crate::lock::owner::{OwnerId, OwnerNode, owners};
use crate::lock::queue::{Fate, Waiter};
use crate::lock::scope::Scope;
use crate::process::PerProcess;
use crate::sync::{Arc, Mutex};

/// The owners of a lock by its hold. A revoked one has none.
fn holders(hold: &HoldRef) -> Vec<OwnerNode> {
    match (&hold.owner, hold.is_call) {
        _ if !hold.is_in_force() => Vec::new(),
        (OwnerId::None, _) => Vec::new(),
        (owner, false) => owners(owner),
        (_, true) => owners(&OwnerId::Call(hold.as_owner())),
    }
}

fn meet(a: &[OwnerNode], b: &[OwnerNode]) -> bool {
    a.iter().any(|node| b.contains(node))
}

/// A waiter and what it waits for.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) waiter: Arc<Waiter>,
    pub(super) entry: EntryRef,
    pub(super) lock_table: LockTable,
    /// The handles to the tables, and the lock table.
    pub(super) scopes: Vec<u64>,
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u64,
    waits: HashMap<u64, Wait>,
    by_owner: HashMap<OwnerNode, Vec<u64>>,
}

fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: PerProcess<Mutex<Registry>> = PerProcess::new();
    REGISTRY.get(Mutex::default)
}

/// A registered wait; dropping it ends the registration.
#[derive(Debug)]
pub(super) struct Registration {
    id: u64,
    owners: Vec<OwnerNode>,
}

impl Registration {
    /// Registers a wait; `Error::Deadlock` if it closes a cycle.
    pub(super) fn new(wait: Wait) -> Result<Self> {
        let owners = owners(&wait.waiter.hold.owner);
        let mut registry = registry().lock();
        if registry.closes_cycle(&owners, &wait) {
            return Err(Error::Deadlock);
        }
        registry.last_id += 1;
        let id = registry.last_id;
        for owner in &owners {
            registry.by_owner.entry(*owner).or_default().push(id);
        }
        registry.waits.insert(id, wait);
        Ok(Self { id, owners })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let wait = {
            let mut registry = registry().lock();
            for owner in &self.owners {
                if let Some(ids) = registry.by_owner.get_mut(owner) {
                    ids.retain(|id| *id != self.id);
                    if ids.is_empty() {
                        registry.by_owner.remove(owner);
                    }
                }
            }
            registry.waits.remove(&self.id)
        };
        drop(wait); // Outside the mutex: it may be the last reference to a lock table.
    }
}

/// Ends every wait in a scope with `Error::Closed`.
pub(crate) fn close(scope: &Scope) {
    scope.mark_closed();
    expel(|wait| wait.scopes.contains(&scope.id()), Fate::Closed);
}

/// How many calls wait in a scope.
pub(super) fn waiting(scope: &Scope) -> u64 {
    let registry = registry().lock();
    registry.waits.values().filter(|wait| wait.scopes.contains(&scope.id())).count() as u64
}

/// Ends the wait of a hold that was revoked while it waited for more locks.
pub(super) fn expel_hold(hold: &HoldRef) {
    expel(|wait| wait.waiter.hold.is(hold), Fate::Revoked);
}

fn expel(matches: impl Fn(&Wait) -> bool, fate: Fate) {
    let waits: Vec<Wait> =
        registry().lock().waits.values().filter(|wait| matches(wait)).cloned().collect();
    if waits.is_empty() {
        return;
    }
    let now = Moment::now();
    for wait in waits {
        let (expelled, deferred) = wait.entry.leave(&wait.waiter, fate, now);
        wait.lock_table.carry_out(&wait.entry, deferred);
        if expelled {
            wait.waiter.wake();
        }
    }
}

/// One step of a walk: an entry, and the wait of its holder that leads on.
type Step = (EntryRef, Option<(Arc<Waiter>, Vec<OwnerNode>)>);

impl Registry {
    /// Whether `wait`, of `me`, waits for itself.
    fn closes_cycle(&self, me: &[OwnerNode], wait: &Wait) -> bool {
        if me.is_empty() {
            return false;
        }
        let mut path = Vec::new();
        let mut seen = Vec::new();
        self.walk(me, &wait.entry, &mut path, &mut seen) && is_cycle(me, &path)
    }

    /// Looks for a way from the holder of `entry` back to `me`; leaves it in `path`.
    fn walk(
        &self,
        me: &[OwnerNode],
        entry: &EntryRef,
        path: &mut Vec<Step>,
        seen: &mut Vec<usize>,
    ) -> bool {
        let address = Arc::as_ptr(entry).addr();
        if seen.contains(&address) {
            return false;
        }
        seen.push(address);
        let Some((holder, _)) = entry.holder() else { return false };
        let holders = holders(&holder);
        path.push((Arc::clone(entry), None));
        if meet(&holders, me) {
            return true;
        }
        for owner in &holders {
            for next in self.by_owner.get(owner).into_iter().flatten() {
                let next = &self.waits[next];
                let waiting = owners(&next.waiter.hold.owner);
                if !waiting.contains(owner) || next.waiter.fate() != Fate::Waiting {
                    continue; // Detached, or on its way out.
                }
                let step = path.len() - 1;
                path[step].1 = Some((Arc::clone(&next.waiter), waiting));
                if self.walk(me, &next.entry, path, seen) {
                    return true;
                }
                path.truncate(step + 1);
            }
        }
        path.pop();
        false
    }
}

/// Whether every step of `path` leads to the next, and the last to `me`, at one moment (I2).
fn is_cycle(me: &[OwnerNode], path: &[Step]) -> bool {
    let states: Vec<_> = path.iter().map(|(entry, _)| entry.lock()).collect();
    states.iter().zip(path).all(|(state, (_, next))| {
        let holders = state.holder().map_or_else(Vec::new, holders);
        match next {
            Some((waiter, waiting)) => waiter.fate() == Fate::Waiting && meet(&holders, waiting),
            None => meet(&holders, me),
        }
    })
}
