//! Who waits for whom, in the whole process: deadlocks are answered instead of waited out (C-13), and
//! waits are found by what may end them: a scope that is closed, a hold that is revoked.
//!
//! Every waiter is registered while it waits; a call that gets its lock at once never comes here.
//! An edge leads from a waiter's root (`owner`) to the entry it waits for, and from an entry to the
//! root of its holder. A waiter is in a cycle if a way along these edges comes back to its root.
//!
//! Invariants
//! I1. A waiter is registered after it joined its queue, and looks for a cycle after it was registered.
//!     Of the waiters of a cycle the last to be registered sees all others, and none of the cycle's
//!     edges changes any more while it looks.
//! I2. A cycle is confirmed with the states of all its entries held at once, and all its waiters
//!     registered: what is reported was the case at one moment. Only the owner of the registry's mutex
//!     ever holds more than one. Who confirms one ends its own registration in the same step, so of
//!     several who find a cycle one is refused.
//! I3. No user code runs, no one waits for a lock, and nobody searches under the registry's mutex. It is
//!     held for a step: a few lists, or all waits of one owner.
//! I4. A waiter stands in the lists of what it can be found by, under the keys that `Registered::key`
//!     gives. They change in `moved` alone, under the mutex.
//! I5. A waiter stands in `Root` of its present root: whoever cuts a way below which somebody is
//!     registered does so under the mutex, and moves them.
//! I6. Nobody needs to search unless somebody may wait for a lock that its own root holds. Such a lock
//!     is known in one of four ways. Its holder had it when the other was registered, or looked, after
//!     joining the queue: then the other stands in `Held`. It got it afterwards: then it is counted
//!     (`entry` I6, `owner` I3). The other polls, and has no place in the queue: while anyone polls,
//!     everybody searches. The root has changed by a cut since: who stands below a cut searches.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::lock::entry::EntryRef;
use crate::lock::hold_ref::HoldRef;
use crate::lock::lock_table::LockTable;
use crate::lock::owner::{self, OwnerNode, Place};
use crate::lock::queue::{Fate, Waiter};
use crate::lock::scope::{Scope, Stop};
use crate::memory;
use crate::process::PerProcess;
use crate::sync::{Arc, Mutex};

/// A waiter and what it waits for.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) waiter: Arc<Waiter>,
    pub(super) entry: EntryRef,
    pub(super) lock_table: LockTable,
    /// It has no place in the queue of the entry.
    pub(super) polls: bool,
}

/// What waits are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// Where the waiter stands.
    Root(OwnerNode),
    /// Its uppermost callback.
    Top(OwnerNode),
    /// Who held the lock when the waiter was registered.
    Held(OwnerNode),
    /// A scope that it is in, or its hold: what may end it.
    Ender(u64),
}

impl Key {
    fn of_scope(scope: &Scope) -> Self {
        Self::Ender(scope.id())
    }

    /// WHY: the top bit. No number of a scope has it.
    fn of_hold(hold: &HoldRef) -> Self {
        Self::Ender(1 << 63 | hold.as_ptr().addr() as u64)
    }
}

/// The numbers of a waiter's links; those by what may end it come after.
const ROOT: usize = 0;
const TOP: usize = 1;
const HELD: usize = 2;
const FIRST_ENDER: usize = 3;

/// Of a registered waiter; 0 is nobody's.
type Id = u32;

/// A place in a list: the waiters before and after it, or `OUT`.
#[derive(Debug, Clone, Copy)]
struct Link {
    before: Id,
    after: Id,
}

/// In no list. WHY: a number that no waiter has, in place of one more word.
const OUT: Link = Link { before: Id::MAX, after: 0 };

/// What may end a waiter, and its place among all that it may end.
#[derive(Debug, Clone, Copy)]
struct InEnder {
    ender: u64,
    link: Link,
}

/// What a waiter that has an owner is found by.
#[derive(Debug)]
struct Owned {
    place: Place,
    held_by: Option<OwnerNode>,
    links: [Link; FIRST_ENDER],
}

/// WHY: no more than it takes. Acquires that are pending without an owner may be many.
#[derive(Debug)]
struct Registered {
    wait: Wait,
    owned: Option<Box<Owned>>,
    /// What may end it, each once and in order.
    enders: Box<[InEnder]>,
}

impl Registered {
    fn key(&self, link: usize) -> Option<Key> {
        let owned = self.owned.as_deref();
        match link {
            ROOT => owned.map(|owned| Key::Root(owned.place.root)),
            TOP => owned.map(|owned| Key::Top(owned.place.top)),
            HELD => owned.and_then(|owned| owned.held_by).map(Key::Held),
            _ => self.enders.get(link - FIRST_ENDER).map(|place| Key::Ender(place.ender)),
        }
    }

    /// The number of the link that it has under a key.
    fn number(&self, key: Key) -> usize {
        match key {
            Key::Root(_) => ROOT,
            Key::Top(_) => TOP,
            Key::Held(_) => HELD,
            Key::Ender(id) => {
                let place = self.enders.binary_search_by_key(&id, |place| place.ender);
                FIRST_ENDER
                    + place.unwrap_or_else(|_| unreachable!("a waiter in a list not its own"))
            }
        }
    }

    fn link(&mut self, number: usize) -> Option<&mut Link> {
        match number.checked_sub(FIRST_ENDER) {
            None => self.owned.as_deref_mut().map(|owned| &mut owned.links[number]),
            Some(ender) => self.enders.get_mut(ender).map(|place| &mut place.link),
        }
    }

    /// How many links it may have.
    fn link_count(&self) -> usize {
        FIRST_ENDER + self.enders.len()
    }
}

/// Ids are drawn one after the other: they need no secret.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32);
    }
}

/// A list of waiters, the last to come first.
#[derive(Debug, Default)]
struct List {
    first: Id,
    len: usize,
}

#[derive(Debug, Default)]
struct Registry {
    last_id: Id,
    polling: usize,
    waits: HashMap<Id, Box<Registered>, BuildHasherDefault<IdHasher>>,
    lists: HashMap<Key, List>,
}

fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: PerProcess<Mutex<Registry>> = PerProcess::new();
    REGISTRY.get(Mutex::default)
}

impl Registry {
    /// `Error::NoMemory` changes nothing.
    fn insert(&mut self, wait: Box<Registered>) -> Result<Id> {
        self.waits.try_reserve(1).map_err(|_| Error::NoMemory)?;
        let links = wait.link_count();
        self.lists.try_reserve(links).map_err(|_| Error::NoMemory)?;
        let mut id = self.last_id;
        loop {
            id = id.wrapping_add(1);
            if id != 0 && id != OUT.before && !self.waits.contains_key(&id) {
                break;
            }
        }
        self.last_id = id;
        self.polling += usize::from(wait.wait.polls);
        self.waits.insert(id, wait);
        for link in 0..links {
            self.link(id, link);
        }
        Ok(id)
    }

    /// `None` if it is not there any more.
    fn remove(&mut self, id: Id) -> Option<Box<Registered>> {
        for link in 0..self.waits.get(&id)?.link_count() {
            self.unlink(id, link);
        }
        let wait = self.waits.remove(&id)?;
        self.polling -= usize::from(wait.wait.polls);
        shrink(&mut self.waits);
        shrink(&mut self.lists);
        Some(wait)
    }

    fn link(&mut self, id: Id, link: usize) {
        let Some(key) = self.waits.get(&id).and_then(|wait| wait.key(link)) else { return };
        let list = self.lists.entry(key).or_default();
        let after = mem::replace(&mut list.first, id);
        list.len += 1;
        self.set(id, key, |link| *link = Link { before: 0, after });
        self.set(after, key, |link| link.before = id);
    }

    fn unlink(&mut self, id: Id, link: usize) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        let Some(key) = wait.key(link) else { return };
        let Some(link) = wait.link(link) else { return };
        let Link { before, after } = mem::replace(link, OUT);
        if before == OUT.before {
            return;
        }
        self.set(before, key, |link| link.after = after);
        self.set(after, key, |link| link.before = before);
        let Some(list) = self.lists.get_mut(&key) else { return };
        list.len -= 1;
        if before == 0 {
            list.first = after;
        }
        if list.len == 0 {
            self.lists.remove(&key);
        }
    }

    /// Changes a waiter's link under a key; nothing for nobody.
    fn set(&mut self, id: Id, key: Key, change: impl FnOnce(&mut Link)) {
        if let Some(wait) = self.waits.get_mut(&id)
            && let Some(link) = wait.link(wait.number(key))
        {
            change(link);
        }
    }

    fn first(&self, key: Key) -> Option<Id> {
        self.lists.get(&key).map(|list| list.first)
    }

    /// The next in the list of `key`.
    fn after(&mut self, id: Id, key: Key) -> Option<Id> {
        let wait = self.waits.get_mut(&id)?;
        let after = wait.link(wait.number(key))?.after;
        (after != 0).then_some(after)
    }

    /// Whether a waiter with this place must look for a cycle (I6).
    fn must_search(&self, place: &Place) -> bool {
        place.was_cut
            || self.polling > 0
            || self.lists.contains_key(&Key::Held(place.root))
            || owner::may_be_awaited(place.root)
    }

    /// A way was cut in the list of `top`: who stands below it moves (I5).
    ///
    /// Without memory it stays where it was. Then a cycle through it may go unseen.
    fn moved(&mut self, top: OwnerNode) {
        let mut next = self.first(Key::Top(top));
        while let Some(id) = next {
            next = self.after(id, Key::Top(top));
            let Some(wait) = self.waits.get(&id) else { return };
            let place = owner::place(&wait.wait.waiter.hold.owner);
            let before = wait.owned.as_ref().map(|owned| owned.place);
            let Some(place) = place.filter(|place| Some(*place) != before) else { continue };
            if self.lists.try_reserve(2).is_err() {
                continue;
            }
            self.unlink(id, ROOT);
            self.unlink(id, TOP);
            if let Some(owned) = self.waits.get_mut(&id).and_then(|wait| wait.owned.as_mut()) {
                owned.place = place;
            }
            self.link(id, ROOT);
            self.link(id, TOP);
        }
    }
}

/// Gives memory back after a peak: amortised over what was removed. Without memory to move to it
/// stays as it is.
fn shrink<K: std::hash::Hash + Eq, V, S: std::hash::BuildHasher + Default>(
    map: &mut HashMap<K, V, S>,
) {
    const SMALL: usize = 64;
    if map.capacity() <= SMALL || map.len() * 8 > map.capacity() {
        return;
    }
    let mut smaller = HashMap::with_hasher(S::default());
    if smaller.try_reserve(map.len() * 2 + SMALL / 4).is_ok() {
        smaller.extend(map.drain());
        *map = smaller;
    }
}

/// Shows each scope that a wait is in.
pub(super) type EachScope<'a> = &'a dyn Fn(&mut dyn FnMut(&Scope));

/// A registered wait; dropping it ends the registration.
#[derive(Debug)]
pub(super) struct Registration {
    id: Id,
}

impl Registration {
    /// Registers a wait in `scopes`, under which it can be ended; `Error::Deadlock` if it closes a
    /// cycle.
    pub(super) fn new(wait: Wait, scopes: EachScope<'_>) -> Result<Self> {
        // After it has joined the queue: who holds the lock later is counted (I6).
        let held_by = wait.entry.holder().and_then(|(holder, _)| root_of(&holder));
        let (waiter, entry) = (Arc::clone(&wait.waiter), wait.entry.clone());
        // Who holds nothing has nothing to lose: only a hold of several is told by its address.
        let several = waiter.hold.id().is_none().then(|| Key::of_hold(&waiter.hold));
        let enders = in_enders(scopes, several)?;
        let mut registered = memory::boxed(Registered { wait, owned: None, enders })?;
        // The memory; its place is looked up under the mutex.
        let mut owned = match owner::place(&waiter.hold.owner) {
            Some(place) => {
                Some(memory::boxed(Owned { place, held_by, links: [OUT; FIRST_ENDER] })?)
            }
            None => None,
        };
        let (registration, must_search) = {
            let mut registry = registry().lock();
            // Under the mutex, so that a cut comes before or finds it (I5).
            let place = owner::place_of_waiter(&waiter.hold.owner);
            if let (Some(owned), Some(place)) = (&mut owned, place) {
                owned.place = place;
            }
            registered.owned = owned;
            let id = registry.insert(registered)?;
            (Self { id }, place.is_some_and(|place| registry.must_search(&place)))
        };
        if must_search && registration.is_in_cycle(&waiter, &entry)? {
            return Err(Error::Deadlock);
        }
        Ok(registration)
    }

    /// Whether the wait is in a cycle; then it is not registered any more.
    fn is_in_cycle(&self, waiter: &Arc<Waiter>, entry: &EntryRef) -> Result<bool> {
        let mut search = Search { id: self.id, waiter, entry, steps: Vec::new() };
        while let Some(last) = search.find_way()? {
            if search.is_cycle(last)? {
                return Ok(true);
            }
            // It was a cycle at no moment: somebody is on the move.
            if waiter.fate() != Fate::Waiting {
                break;
            }
            search.steps.clear();
        }
        Ok(false)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let wait = registry().lock().remove(self.id);
        drop(wait); // Outside the mutex: it may be the last reference to a lock table.
    }
}

fn in_enders(scopes: EachScope<'_>, hold: Option<Key>) -> Result<Box<[InEnder]>> {
    /// As most waits have.
    const FEW: usize = 2;
    let mut places = memory::list(FEW)?;
    let mut outcome = Ok(());
    let mut add = |key| {
        if let Key::Ender(ender) = key
            && outcome.is_ok()
        {
            outcome = memory::push(&mut places, InEnder { ender, link: OUT });
        }
    };
    hold.into_iter().for_each(&mut add);
    scopes(&mut |scope| add(Key::of_scope(scope)));
    outcome?;
    places.sort_unstable_by_key(|place| place.ender);
    places.dedup_by_key(|place| place.ender);
    Ok(places.into())
}

/// The root of who holds a lock by this hold. A revoked one has none.
fn root_of(holder: &HoldRef) -> Option<OwnerNode> {
    if holder.is_in_force() { holder.place().map(|place| place.root) } else { None }
}

fn root_of_waiter(waiter: &Waiter) -> Option<OwnerNode> {
    owner::place(&waiter.hold.owner).map(|place| place.root)
}

/// A waiter that was reached.
#[derive(Debug)]
struct Step {
    id: Id,
    waiter: Arc<Waiter>,
    entry: EntryRef,
    /// The step before it: 0 for the searcher, else the place of a step plus 1.
    from: usize,
}

/// A search for a way from a waiter back to itself. Its time and memory are those of the waits that it
/// reaches; its stack is that of one step.
struct Search<'a> {
    id: Id,
    waiter: &'a Arc<Waiter>,
    entry: &'a EntryRef,
    steps: Vec<Step>,
}

/// Where a search has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Seen {
    Root(OwnerNode),
    Entry(usize),
}

impl Seen {
    fn entry(entry: &EntryRef) -> Self {
        Self::Entry(entry.as_ptr().addr())
    }
}

impl Search<'_> {
    /// The step from which the way leads back, as `Step::from` says it.
    fn find_way(&mut self) -> Result<Option<usize>> {
        let mut seen = HashSet::new();
        let mut at = 0;
        loop {
            let entry = match at {
                0 => self.entry.clone(),
                _ => match self.steps.get(at - 1) {
                    Some(step) => step.entry.clone(),
                    None => return Ok(None),
                },
            };
            if self.follow(at, &entry, &mut seen)? {
                return Ok(Some(at));
            }
            at += 1;
        }
    }

    /// One step (I3): from `entry` to its holder, and to all that this one waits for. Whether the
    /// holder is the searcher.
    fn follow(&mut self, from: usize, entry: &EntryRef, seen: &mut HashSet<Seen>) -> Result<bool> {
        let mut see = |place| {
            seen.try_reserve(1).map_err(|_| Error::NoMemory)?;
            Ok(seen.insert(place))
        };
        let mut registry = registry().lock();
        // The roots under the mutex, too: a cut moves the waits with them (I5).
        let Some(root) = entry.holder().and_then(|(holder, _)| root_of(&holder)) else {
            return Ok(false);
        };
        if Some(root) == root_of_waiter(self.waiter) {
            return Ok(true);
        }
        let key = Key::Root(root);
        let mut next = registry.first(key);
        if next.is_none() {
            return Ok(false); // As mostly: it runs.
        }
        if from == 0 {
            see(Seen::entry(entry))?;
        }
        if !see(Seen::Root(root))? {
            return Ok(false);
        }
        while let Some(id) = next {
            next = registry.after(id, key);
            let Some(wait) = registry.waits.get(&id).map(|registered| &registered.wait) else {
                break;
            };
            if wait.waiter.fate() != Fate::Waiting || !see(Seen::entry(&wait.entry))? {
                continue; // On its way out, or nothing new.
            }
            let (waiter, entry) = (Arc::clone(&wait.waiter), wait.entry.clone());
            memory::push(&mut self.steps, Step { id, waiter, entry, from })?;
        }
        Ok(false)
    }

    /// Whether every step of the way to `last` leads to the next, and the last to the searcher, at one
    /// moment (I2). Then the searcher's registration has ended.
    fn is_cycle(&self, last: usize) -> Result<bool> {
        let back = |at: &usize| at.checked_sub(1).map(|step| self.steps[step].from);
        let ways = std::iter::successors(Some(last), back);
        // From the last entry to the searcher's own.
        let mut way = memory::list(ways.clone().count())?;
        way.extend(ways.map(|at| match at.checked_sub(1) {
            Some(step) => {
                let step = &self.steps[step];
                (step.id, &step.waiter, &step.entry)
            }
            None => (self.id, self.waiter, self.entry),
        }));
        let mut states = memory::list(way.len())?;

        let mut registry = registry().lock();
        let is_waiting = |(id, waiter, _): &(Id, &Arc<Waiter>, _)| {
            let registered = registry.waits.get(id);
            registered.is_some_and(|registered| Arc::ptr_eq(&registered.wait.waiter, waiter))
                && waiter.fate() == Fate::Waiting
        };
        states.extend(way.iter().map(|(_, _, entry)| entry.lock()));
        let roots = way.iter().map(|(_, waiter, _)| root_of_waiter(waiter));
        // The holder of an entry is the waiter of the next; of the last entry, the searcher.
        let mut next = root_of_waiter(self.waiter);
        let leads = states.iter().zip(roots).all(|(state, root)| {
            let holder = state.holder().and_then(root_of);
            holder.is_some() && holder == mem::replace(&mut next, root)
        });
        let is_cycle = leads && way.iter().all(is_waiting);
        drop(states);
        let own = if is_cycle { registry.remove(self.id) } else { None };
        drop(registry);
        drop(own); // Outside the mutex, as in `Registration::drop`.
        Ok(is_cycle)
    }
}

/// Ends every wait in a scope, with `Error::Closed` or with `Error::Stopped`. Who comes to wait later
/// sees that it is closed.
pub(crate) fn close(scope: &Scope) {
    scope.mark_closed();
    let fate = if scope.ends_with() == Error::Stopped { Fate::Stopped } else { Fate::Closed };
    expel(Key::of_scope(scope), fate);
}

impl Stop {
    /// Ends every wait under it with `Error::Stopped`, those too that are yet to come.
    pub fn request(&self) {
        close(self.scope());
    }
}

/// How many calls wait in a scope that is open.
pub(super) fn waiting(scope: &Scope) -> u64 {
    let registry = registry().lock();
    registry.lists.get(&Key::of_scope(scope)).map_or(0, |list| list.len as u64)
}

/// Ends the wait of a hold that was revoked while it waited for more locks.
pub(super) fn expel_hold(hold: &HoldRef) {
    expel(Key::of_hold(hold), Fate::Revoked);
}

/// Ends all waits that are found by `key`. Some at a time: others come and go in between. They are
/// taken from the list of `key` as they are told.
fn expel(key: Key, fate: Fate) {
    const AT_A_TIME: usize = 32;
    loop {
        let mut waits = [const { None::<Wait> }; AT_A_TIME];
        {
            let mut registry = registry().lock();
            for place in &mut waits {
                let Some(id) = registry.first(key) else { break };
                let Some(wait) = registry.waits.get(&id) else { break };
                *place = Some(wait.wait.clone());
                let link = wait.number(key);
                registry.unlink(id, link);
            }
        }
        if waits[0].is_none() {
            return;
        }
        let now = Moment::now();
        for wait in waits.into_iter().flatten() {
            let (expelled, deferred) = wait.entry.leave(&wait.waiter, fate, now);
            wait.lock_table.carry_out(&wait.entry, deferred);
            if expelled {
                wait.waiter.wake();
            }
        }
    }
}

/// A callback has ended. By the thread that ran it.
pub(crate) fn detach(hold: &HoldRef) {
    // Mostly nothing waits below it, and nothing begins to.
    match hold.call() {
        Some(call) if hold.enter().is_ok() && call.has_waits() => cut(|| hold.detach()),
        _ => drop(hold.detach()),
    }
}

/// A caller has stopped waiting for its callback, which may wait itself.
pub(crate) fn abandon(hold: &HoldRef) {
    cut(|| hold.abandon());
}

/// Cuts a way, and moves those below it, in one step (I5).
fn cut(cut: impl FnOnce() -> Option<Place>) {
    let mut registry = registry().lock();
    if let Some(before) = cut() {
        registry.moved(before.top);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[expect(clippy::unwrap_used, reason = "a panic fails the test")]
mod tests {
    use super::*;
    use crate::clock::{Deadline, Timeout};
    use crate::key::{Key as Bytes, LockId};
    use crate::lock::entry::Turn;
    use crate::lock::hold::{Hold, Verdict};
    use crate::lock::owner::{Call, OwnerId};
    use crate::lock::queue::Waker;
    use crate::sync::current;
    use std::sync::MutexGuard;
    use std::time::Duration;

    /// One registry is all there is, and what is measured here is its work.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock()
    }

    fn id(key: u32) -> LockId {
        LockId { table: 1, key: Bytes::new(&key.to_ne_bytes()).expect("memory") }
    }

    fn hold_of(owner: OwnerId) -> HoldRef {
        let never = Timeout::INFINITE;
        HoldRef::new(|| Hold::new(never, never, owner, false, 0))
    }

    /// What stands for one key now: its entry if it has one.
    fn entry(lock_table: &LockTable, key: u32) -> Option<EntryRef> {
        lock_table.find(id(key).by_ref()).unwrap()
    }

    /// Takes a key that is free; also before those who wait for it.
    fn take(lock_table: &LockTable, key: u32, owner: &OwnerId) -> Option<HoldRef> {
        let now = Moment::now();
        let mut hold = hold_of(owner.clone());
        let taken = match entry(lock_table, key) {
            None => {
                lock_table.list(id(key).by_ref(), &mut hold, true, now).expect("memory").is_some()
            }
            Some(entry) => {
                let (turn, deferred) = entry.arrive(&hold, true, false, now);
                lock_table.carry_out(&entry, deferred);
                turn == Turn::Taken
            }
        };
        taken.then_some(hold)
    }

    /// Somebody who waits, without a thread of its own.
    struct Waiting {
        key: u32,
        owner: OwnerId,
        waiter: Arc<Waiter>,
        entry: EntryRef,
        registration: Registration,
        polls: bool,
    }

    /// Begins to wait for a key that is held.
    fn begin(
        lock_table: &LockTable,
        key: u32,
        owner: &OwnerId,
        polls: bool,
        scope: Option<&Scope>,
    ) -> Result<Waiting> {
        let entry = entry(lock_table, key).expect("held");
        let waiter = Arc::new(Waiter::new(
            hold_of(owner.clone()),
            true,
            false,
            Deadline::NEVER,
            Waker::Thread(current()),
        ));
        if !polls {
            let (turn, deferred) = entry.join(&waiter, Moment::now());
            lock_table.carry_out(&entry, deferred);
            assert!(matches!(turn, Turn::Busy { .. }));
        }
        let wait = Wait {
            waiter: Arc::clone(&waiter),
            entry: entry.clone(),
            lock_table: lock_table.clone(),
            polls,
        };
        let scopes = |look: &mut dyn FnMut(&Scope)| {
            scope.into_iter().chain([lock_table.scope()]).for_each(look);
        };
        match Registration::new(wait, &scopes) {
            Ok(registration) => {
                Ok(Waiting { key, owner: owner.clone(), waiter, entry, registration, polls })
            }
            Err(error) => {
                let (_, deferred) = entry.leave(&waiter, Fate::Left, Moment::now());
                lock_table.carry_out(&entry, deferred);
                Err(error)
            }
        }
    }

    impl Waiting {
        fn end(self, lock_table: &LockTable) {
            let (_, deferred) = self.entry.leave(&self.waiter, Fate::Left, Moment::now());
            lock_table.carry_out(&self.entry, deferred);
            drop(self.registration);
        }
    }

    /// Nobody is registered, and no list is left.
    fn assert_empty() {
        let registry = registry().lock();
        assert!(registry.waits.is_empty() && registry.lists.is_empty() && registry.polling == 0);
        assert!(registry.waits.capacity() < 1000, "the memory of the peak is gone");
        assert!(registry.lists.capacity() < 1000);
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % end
        }
    }

    const KEYS: u32 = 7;

    /// What the registry must know, kept in the simplest way.
    struct Model {
        lock_table: LockTable,
        /// While anyone polls everybody searches: so not in every story.
        some_poll: bool,
        owners: Vec<OwnerId>,
        /// For each owner the one above it.
        above: Vec<Option<usize>>,
        holds: Vec<(u32, usize, HoldRef)>,
        waits: Vec<(usize, Waiting)>,
    }

    impl Model {
        fn root(&self, mut owner: usize) -> usize {
            while let Some(above) = self.above[owner] {
                owner = above;
            }
            owner
        }

        /// The root of the holder of what this one waits for.
        fn leads_to(&self, key: u32, entry: &EntryRef) -> Option<usize> {
            let now = self::entry(&self.lock_table, key)?;
            if !now.ptr_eq(entry) {
                return None; // One who polls has not looked again.
            }
            let hold = self.holds.iter().find(|(held, ..)| *held == key)?;
            hold.2.is_in_force().then(|| self.root(hold.1))
        }

        fn closes_cycle(&self, key: u32, owner: usize) -> bool {
            let Some(entry) = entry(&self.lock_table, key) else { return false };
            let me = self.root(owner);
            let mut reached: Vec<usize> = self.leads_to(key, &entry).into_iter().collect();
            let mut at = 0;
            while at < reached.len() {
                for (waiting, wait) in &self.waits {
                    if self.root(*waiting) == reached[at] && wait.waiter.fate() == Fate::Waiting {
                        let next = self.leads_to(wait.key, &wait.entry);
                        reached.extend(next.filter(|next| !reached.contains(next)));
                    }
                }
                at += 1;
            }
            reached.contains(&me)
        }

        /// Who was handed a lock holds it, and waits no more.
        fn grants(&mut self) {
            for (owner, wait) in mem::take(&mut self.waits) {
                match wait.waiter.fate() {
                    Fate::Granted => {
                        let hold = wait.waiter.hold.clone();
                        self.holds.push((wait.key, owner, hold));
                    }
                    _ => self.waits.push((owner, wait)),
                }
            }
        }

        fn step(&mut self, random: &mut Random, deadlocks: &mut usize) {
            let key = random.below(KEYS as usize) as u32;
            let owner = random.below(self.owners.len());
            match random.below(20) {
                0..10 if self.waits.len() < 30 => {
                    let is_held = self.holds.iter().any(|(held, ..)| *held == key);
                    if is_held {
                        let expected = self.closes_cycle(key, owner);
                        let polls = self.some_poll && random.below(3) == 0;
                        match begin(&self.lock_table, key, &self.owners[owner], polls, None) {
                            Ok(wait) => {
                                assert!(!expected, "a cycle was not seen");
                                self.waits.push((owner, wait));
                            }
                            Err(error) => {
                                assert_eq!(error, Error::Deadlock);
                                assert!(expected, "there is no cycle");
                                *deadlocks += 1;
                            }
                        }
                    } else if let Some(hold) = take(&self.lock_table, key, &self.owners[owner]) {
                        self.holds.push((key, owner, hold));
                    }
                }
                10..14 if !self.holds.is_empty() => {
                    let (key, _, hold) = self.holds.swap_remove(random.below(self.holds.len()));
                    if let Some(entry) = entry(&self.lock_table, key) {
                        self.lock_table.release(&entry, &hold);
                    }
                }
                14 if !self.waits.is_empty() => {
                    let (_, wait) = self.waits.swap_remove(random.below(self.waits.len()));
                    wait.end(&self.lock_table);
                }
                15 if !self.waits.is_empty() => {
                    let (_, wait) = &self.waits[random.below(self.waits.len())];
                    if !wait.polls {
                        let (_, deferred) = wait.entry.look(&wait.waiter, Moment::now());
                        self.lock_table.carry_out(&wait.entry, deferred);
                    }
                }
                16 if !self.holds.is_empty() => {
                    let (_, _, hold) = &self.holds[random.below(self.holds.len())];
                    hold.revoke();
                }
                17 if self.owners.len() < 24 => {
                    let call = Call::of(self.owners[owner].clone());
                    self.owners.push(OwnerId::Call(call));
                    self.above.push(Some(owner));
                }
                18 => {
                    if let OwnerId::Call(call) = &self.owners[owner] {
                        cut(|| call.cut());
                        self.above[owner] = None;
                    }
                }
                _ => {}
            }
            self.grants();
        }
    }

    /// Owners, keys and waits at random, with callbacks that are nested and abandoned, holders that go
    /// before the queue, waits that end, holds that are revoked: whoever closes a cycle is refused, and
    /// nobody else.
    #[test]
    fn every_cycle_is_seen_and_no_other() {
        let _alone = alone();
        let mut deadlocks = 0;
        for seed in 1..=60 {
            let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
            let mut owners: Vec<_> = (1..=5).map(|n| OwnerId::Thread(seed << 8 | n)).collect();
            owners.extend([OwnerId::Logical(1), OwnerId::Logical(2)]);
            let above = vec![None; owners.len()];
            let (holds, waits) = (Vec::new(), Vec::new());
            let (lock_table, some_poll) = (LockTable::new(), seed % 3 == 0);
            let mut model = Model { lock_table, some_poll, owners, above, holds, waits };
            for _ in 0..400 {
                model.step(&mut random, &mut deadlocks);
            }
            let lock_table = &model.lock_table;
            model.waits.drain(..).for_each(|(_, wait)| wait.end(lock_table));
            for (key, _, hold) in model.holds.drain(..) {
                if let Some(entry) = entry(lock_table, key) {
                    lock_table.release(&entry, &hold);
                }
            }
        }
        assert!(deadlocks > 150, "{deadlocks}: the story has too few cycles");
        assert_empty();
    }

    /// The time of `body` of `n`, and of four times as many: it does not grow as the square would. The
    /// best of some, since caches are shared.
    fn grows_with(n: u32, body: impl Fn(u32)) {
        let time = |n| {
            let run = |_| {
                let begin = now();
                body(n);
                now() - begin
            };
            (0..3).map(run).min().unwrap_or(Duration::ZERO)
        };
        let (once, four_times) = (time(n), time(4 * n));
        println!("{n}: {once:?}, {}: {four_times:?}", 4 * n);
        assert!(four_times < once * 12, "{once:?}, then {four_times:?}");
    }

    /// The processor time of this thread: others run beside it.
    #[expect(unsafe_code, reason = "a clock that std does not have")]
    fn now() -> Duration {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a valid place for the time.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    }

    /// Chains: owner i holds key i and waits for key i + 1.
    fn chain(order: impl Iterator<Item = u32>, n: u32) {
        let lock_table = LockTable::new();
        let owner = |i: u32| OwnerId::Logical(u64::from(i) + 1);
        let holds: Vec<_> =
            (0..=n).map(|i| take(&lock_table, i, &owner(i)).expect("free")).collect();
        let link = |i| begin(&lock_table, i + 1, &owner(i), false, None).expect("no cycle");
        let waits: Vec<_> = order.map(link).collect();
        assert_eq!(begin(&lock_table, 0, &owner(n), false, None).err(), Some(Error::Deadlock));
        waits.into_iter().for_each(|wait| wait.end(&lock_table));
        for (i, hold) in holds.iter().enumerate() {
            lock_table.release(&entry(&lock_table, i as u32).expect("held"), hold);
        }
    }

    #[test]
    fn a_chain_costs_its_length_from_either_end() {
        let _alone = alone();
        grows_with(2_000, |n| chain((0..n).rev(), n));
        grows_with(2_000, |n| chain(0..n, n));
        assert_empty();
    }

    /// Callbacks that are nested, of which each waits before it calls the next, and after.
    #[test]
    fn a_nest_costs_its_depth() {
        let _alone = alone();
        grows_with(2_000, |n| {
            let lock_table = LockTable::new();
            let hold = take(&lock_table, 0, &OwnerId::Logical(1)).unwrap();
            let wait = |call: &Arc<Call>| {
                let owner = OwnerId::Call(Arc::clone(call));
                begin(&lock_table, 0, &owner, false, None).unwrap().end(&lock_table);
            };
            let mut nest: Vec<Arc<Call>> = Vec::new();
            for _ in 0..n {
                let caller =
                    nest.last().map_or(OwnerId::Thread(1), |call| OwnerId::Call(Arc::clone(call)));
                let call = Call::of(caller);
                wait(&call);
                nest.push(call);
            }
            while let Some(call) = nest.pop() {
                wait(&call);
                cut(|| call.cut());
            }
            lock_table.release(&entry(&lock_table, 0).unwrap(), &hold);
        });
        assert_empty();
    }

    /// Many waits of one owner, of many scopes and holds: each is counted, found and ended by itself.
    #[test]
    fn many_waits_end_one_by_one() {
        let _alone = alone();
        grows_with(2_000, |n| {
            let lock_table = LockTable::new();
            let hold = take(&lock_table, 0, &OwnerId::Thread(1)).unwrap();
            let scopes: Vec<_> = (0..n).map(|_| Scope::new()).collect();
            let mut waits = Vec::new();
            for scope in &scopes {
                let owner = OwnerId::Logical(9);
                waits.push(begin(&lock_table, 0, &owner, false, Some(scope)).unwrap());
                assert_eq!(waiting(scope), 1);
            }
            assert_eq!(waiting(lock_table.scope()), u64::from(n));
            for (i, (scope, wait)) in scopes.iter().zip(&waits).enumerate() {
                match i % 3 {
                    0 => close(scope),
                    1 => {
                        assert_eq!(wait.waiter.hold.revoke(), Verdict::Taken);
                        expel_hold(&wait.waiter.hold);
                    }
                    _ => {}
                }
            }
            for (i, wait) in waits.iter().enumerate() {
                let fate = [Fate::Closed, Fate::Revoked, Fate::Waiting][i % 3];
                assert_eq!(wait.waiter.fate(), fate);
            }
            close(lock_table.scope());
            for (i, wait) in waits.drain(..).enumerate() {
                let fate = [Fate::Closed, Fate::Revoked, Fate::Closed][i % 3];
                assert_eq!(wait.waiter.fate(), fate);
                wait.end(&lock_table);
            }
            lock_table.release(&entry(&lock_table, 0).unwrap(), &hold);
        });
        assert_empty();
    }

    /// I6: a lock that goes to another holder while somebody polls it is counted nowhere.
    #[test]
    fn who_took_what_somebody_polls_searches() {
        let _alone = alone();
        // The default one: an entry stays at hand while nobody holds it.
        let lock_table = LockTable::default_of_process();
        let [polls, before, after] = [1, 2, 3].map(OwnerId::Logical);
        let first = take(&lock_table, 1, &before).unwrap();
        let other = take(&lock_table, 2, &polls).unwrap();
        let wait = begin(&lock_table, 1, &polls, true, None).unwrap();
        lock_table.release(&wait.entry, &first);
        let second = take(&lock_table, 1, &after).unwrap();
        assert!(entry(&lock_table, 1).is_some_and(|entry| entry.ptr_eq(&wait.entry)));
        assert_eq!(begin(&lock_table, 2, &after, false, None).err(), Some(Error::Deadlock));
        wait.end(&lock_table);
        for (key, hold) in [(1, second), (2, other)] {
            lock_table.release(&entry(&lock_table, key).unwrap(), &hold);
        }
        assert_empty();
    }

    /// Ten thousand callbacks of one owner wait, and are abandoned one by one.
    #[test]
    fn who_is_abandoned_is_found_without_looking_at_all() {
        let _alone = alone();
        grows_with(2_000, |n| {
            let lock_table = LockTable::new();
            let hold = take(&lock_table, 0, &OwnerId::Thread(1)).unwrap();
            let begin = |_| {
                let call = Call::of(OwnerId::Logical(9));
                let owner = OwnerId::Call(Arc::clone(&call));
                (call, super::tests::begin(&lock_table, 0, &owner, false, None).unwrap())
            };
            let waits: Vec<_> = (0..n).map(begin).collect();
            for (call, wait) in &waits {
                cut(|| call.cut());
                let place = owner::place(&wait.owner);
                let registry = registry().lock();
                let owned = registry.waits[&wait.registration.id].owned.as_ref();
                assert_eq!(owned.map(|owned| owned.place), place);
            }
            waits.into_iter().for_each(|(_, wait)| wait.end(&lock_table));
            lock_table.release(&entry(&lock_table, 0).unwrap(), &hold);
        });
        assert_empty();
    }
}
