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

#![expect(
    unsafe_code,
    reason = "a thread knows the call whose callback it runs by a pointer, and \
                                 what the system calls it by libc"
)]

use std::cell::Cell;
use std::collections::HashMap;
use std::ptr;

use crate::clock::Moment;
use crate::error::{Error, Result};
use crate::lock::entry::EntryRef;
use crate::lock::hold::Hold;
use crate::lock::hold_ref::HoldRef;
use crate::lock::lock_table::LockTable;
use crate::lock::queue::{Fate, Waiter};
use crate::lock::{hold_ref, reclaim, warm};
use crate::process::{PerProcess, Remembered};
use crate::sync::{Arc, Mutex};
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Who holds and waits, as a caller says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The calling thread, or the callback that runs on it.
    Current,
    /// Nobody: takes no part in deadlock detection.
    None,
    /// A task of the caller's own.
    Logical(u64),
}

/// An owner, resolved.
#[derive(Debug, Clone)]
pub(crate) enum Party {
    None,
    Thread(u64),
    Logical(u64),
    /// A callback.
    Call(Arc<Call>),
}

/// A callback as an owner, made when it first waits or holds something itself.
#[derive(Debug)]
pub(crate) struct Call {
    /// The owner that waits for it; nobody once that is over. WHY: forgotten then. What a callback
    /// began may outlive it, and must not keep all its ancestors.
    caller: Mutex<Party>,
}

impl Call {
    pub(super) fn of(caller: Party) -> Arc<Self> {
        Arc::new(Self { caller: Mutex::new(caller) })
    }

    /// Nobody waits for it any more.
    pub(super) fn detach(&self) {
        *self.caller.lock() = Party::None;
    }

    #[cfg(all(test, loom))]
    pub(super) fn is_detached(&self) -> bool {
        matches!(*self.caller.lock(), Party::None)
    }

    fn node(self: &Arc<Self>) -> Node {
        Node::Call(Arc::as_ptr(self).addr())
    }
}

impl Party {
    /// As `LockInfo::owner` shows it.
    pub(super) fn logical_id(&self) -> u64 {
        match self {
            Party::None => u64::MAX,
            Party::Logical(id) => *id,
            Party::Thread(_) | Party::Call(_) => 0,
        }
    }
}

/// Whom a thread stands in for.
struct Here {
    /// A number that no other thread of this process ever has; 0 before it is drawn. WHY: not the
    /// system's, which are used again.
    thread: Cell<u64>,
    /// The thread, as the system numbers it.
    system_id: Remembered<u64>,
    /// The hold of the call whose callback runs here, or null.
    call: Cell<*const Hold>,
}

thread_local! {
    /// Never destroyed, so that a thread keeps its number to its very end.
    static HERE: Here = const {
        Here {
            thread: Cell::new(0),
            system_id: Remembered::nothing(),
            call: Cell::new(ptr::null()),
        }
    };
}

/// The number of this thread.
pub(crate) fn thread_number() -> u64 {
    HERE.with(Here::number)
}

/// Whom a thread stands in for, to be handed to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    thread: u64,
    system_id: u64,
    call: *const Hold,
}

/// Whom this thread stands in for.
pub(crate) fn identity() -> Identity {
    HERE.with(|here| Identity {
        thread: here.number(),
        system_id: here.system_id(),
        call: here.call.get(),
    })
}

/// From here on this thread waits and holds in the name of another.
///
/// # Safety
/// The other thread does nothing else until this one ends: the call whose callback it runs, if any,
/// runs as long.
pub(crate) unsafe fn assume_identity(identity: Identity) {
    HERE.with(|here| {
        here.thread.set(identity.thread);
        here.system_id.set(identity.system_id);
        here.call.set(identity.call);
    });
}

/// Makes the thread-locals that locks need.
pub(crate) fn begin_thread() {
    hold_ref::begin_thread();
    reclaim::begin_thread();
    warm::begin_thread();
}

/// Runs `body` as the callback of the call that has `hold`.
pub(crate) fn inside_call<R>(hold: &HoldRef, body: impl FnOnce() -> R) -> R {
    struct Inside<'a> {
        here: &'a Here,
        before: *const Hold,
    }
    impl Drop for Inside<'_> {
        fn drop(&mut self) {
            self.here.call.set(self.before);
        }
    }
    HERE.with(|here| {
        let before = here.call.replace(hold.as_ptr());
        let _inside = Inside { here, before };
        body()
    })
}

/// From here on this thread runs the callback of the call that has `hold`, until `leave_call`.
pub(crate) fn enter_call(hold: HoldRef) {
    HERE.with(|here| here.call.set(hold.into_raw()));
}

/// Ends what `enter_call` began.
pub(crate) fn leave_call() {
    let hold = HERE.with(|here| here.call.replace(ptr::null()));
    if !hold.is_null() {
        // SAFETY: from `into_raw` in `enter_call`: on a worker every `inside_call` has ended by now.
        drop(unsafe { HoldRef::from_raw(hold.cast_mut()) });
    }
}

impl Here {
    #[inline]
    fn number(&self) -> u64 {
        if self.thread.get() == 0 {
            self.draw_number();
        }
        self.thread.get()
    }

    #[cold]
    fn draw_number(&self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.thread.set(NEXT.fetch_add(1, Relaxed));
    }

    #[inline]
    fn system_id(&self) -> u64 {
        self.system_id.get(Self::ask_system_id)
    }

    #[cold]
    fn ask_system_id() -> u64 {
        // SAFETY: a plain system call that cannot fail.
        unsafe { libc::syscall(libc::SYS_gettid) as u64 }
    }

    #[inline(always)] // See `with_lock::empty_handed`.
    fn party(&self) -> Party {
        if self.call.get().is_null() { Party::Thread(self.number()) } else { self.callback() }
    }

    /// The callback that runs here; in a child that it forked, the thread alone.
    #[cold]
    fn callback(&self) -> Party {
        // SAFETY: `inside_call` borrows it, and `enter_call` owns a reference, until they end.
        let call = unsafe { self.call.get().as_ref() };
        match call.filter(|call| call.enter().is_ok()) {
            Some(call) => Party::Call(call.as_owner()),
            // WHY: a thread of the parent may have been about to make it an owner (C-16).
            None => Party::Thread(self.number()),
        }
    }
}

impl Owner {
    /// Who it is, and the thread that says so, as the system numbers it.
    #[inline(always)]
    pub(crate) fn resolve(self) -> (Party, u64) {
        HERE.with(|here| {
            let party = match self {
                Owner::None => Party::None,
                Owner::Logical(id) => Party::Logical(id),
                Owner::Current => here.party(),
            };
            (party, here.system_id())
        })
    }
}

/// A node of the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    Thread(u64),
    Logical(u64),
    /// The address of the call, which an edge keeps alive.
    Call(usize),
}

/// The owners that stand behind a party: a callback, and whoever waits for it.
fn owners(party: &Party) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut party = party.clone();
    loop {
        match party {
            Party::None => return nodes,
            Party::Thread(id) => {
                nodes.push(Node::Thread(id));
                return nodes;
            }
            Party::Logical(id) => {
                nodes.push(Node::Logical(id));
                return nodes;
            }
            Party::Call(call) => {
                nodes.push(call.node());
                party = call.caller.lock().clone();
            }
        }
    }
}

/// The owners of a lock by its hold. A revoked one has none.
fn holders(hold: &HoldRef) -> Vec<Node> {
    match (&hold.party, hold.is_call) {
        _ if !hold.is_in_force() => Vec::new(),
        (Party::None, _) => Vec::new(),
        (party, false) => owners(party),
        (_, true) => owners(&Party::Call(hold.as_owner())),
    }
}

fn meet(a: &[Node], b: &[Node]) -> bool {
    a.iter().any(|node| b.contains(node))
}

/// Something that can be closed under its waiters: a handle to a table, or a lock table.
#[derive(Debug)]
pub(crate) struct Scope {
    id: u64,
    closed: AtomicBool,
}

impl Scope {
    pub(crate) fn new() -> Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        Self { id: IDS.fetch_add(1, Relaxed), closed: AtomicBool::new(false) }
    }

    /// Ends every wait in this scope with `Error::Closed`.
    pub(crate) fn close(&self) {
        // ORDERING: SeqCst, as in `is_closed`: a waiter registers, then looks; this marks, then
        // searches. One of the two sees the other.
        self.closed.store(true, SeqCst);
        expel(|wait| wait.scopes.contains(&self.id), Fate::Closed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(SeqCst) // ORDERING: pairs with `close`.
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

/// A waiter and what it waits for.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) waiter: Arc<Waiter>,
    pub(super) entry: EntryRef,
    pub(super) lock_table: LockTable,
    /// The handle to the table, and the lock table.
    pub(super) scopes: [u64; 2],
}

#[derive(Debug, Default)]
struct Registry {
    last_id: u64,
    waits: HashMap<u64, Wait>,
    by_owner: HashMap<Node, Vec<u64>>,
}

fn registry() -> &'static Mutex<Registry> {
    static REGISTRY: PerProcess<Mutex<Registry>> = PerProcess::new();
    REGISTRY.get(Mutex::default)
}

/// A registered wait; dropping it ends the registration.
#[derive(Debug)]
pub(super) struct Registration {
    id: u64,
    owners: Vec<Node>,
}

impl Registration {
    /// Registers a wait; `Error::Deadlock` if it closes a cycle.
    pub(super) fn new(wait: Wait) -> Result<Self> {
        let owners = owners(&wait.waiter.hold.party);
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

/// How many calls wait in a scope.
pub(super) fn waiting(scope: &Scope) -> u64 {
    let registry = registry().lock();
    registry.waits.values().filter(|wait| wait.scopes.contains(&scope.id)).count() as u64
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
        let (expelled, debts) = wait.entry.leave(&wait.waiter, fate, now);
        wait.lock_table.pay(&wait.entry, debts);
        if expelled {
            wait.waiter.wake();
        }
    }
}

/// One step of a walk: an entry, and the wait of its holder that leads on.
type Step = (EntryRef, Option<(Arc<Waiter>, Vec<Node>)>);

impl Registry {
    /// Whether `wait`, of `me`, waits for itself.
    fn closes_cycle(&self, me: &[Node], wait: &Wait) -> bool {
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
        me: &[Node],
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
                let waiting = owners(&next.waiter.hold.party);
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
fn is_cycle(me: &[Node], path: &[Step]) -> bool {
    let states: Vec<_> = path.iter().map(|(entry, _)| entry.lock()).collect();
    states.iter().zip(path).all(|(state, (_, next))| {
        let holders = state.holder().map_or_else(Vec::new, holders);
        match next {
            Some((waiter, waiting)) => waiter.fate() == Fate::Waiting && meet(&holders, waiting),
            None => meet(&holders, me),
        }
    })
}
