//! Which process this is: what must be fresh in a forked child, and how a handle from before the
//! fork is told from one made after it (C-16).
//!
//! What is remembered of a process or of its threads goes through here: `PerProcess` for values,
//! `Remembered` for what a thread knows. A child never touches a lock, a queue or a thread of its
//! parent: it begins with its own.
//!
//! Invariants
//! I1. No two processes of a line of forks have the same generation, and none has `UNKNOWN`: the
//!     number comes from a counter that a child inherits as it stands.
//! I2. The number of this process lies in a page that the kernel wipes in a child. So every child
//!     notices by itself, whoever made it and in whatever order handlers run: after `_Fork` and
//!     `clone` as well, though not where parent and child share their memory (`vfork`).
//! I3. Where the kernel does not wipe the page, the handlers of `ffi::fork` do: then only `fork` is
//!     noticed, and only from those on.
//! I4. Nothing here can be copied half-way: every value is made aside and put in place by one step.

#![expect(unsafe_code, reason = "a page that the kernel wipes; values that live for ever")]

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::sync::nap;

/// What is 0 in a child (I2). A page of its own, of the largest size that the system may have.
#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(align(65536)))]
struct Wiped {
    generation: AtomicU32,
    gate: Gate,
}

static WIPED: Wiped = Wiped {
    generation: AtomicU32::new(UNKNOWN),
    gate: Gate { inside: AtomicUsize::new(0), times: AtomicU32::new(0) },
};

/// Of a process that has not asked yet which it is.
const UNKNOWN: u32 = 0;

/// The process that something was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Generation(u32);

impl Generation {
    #[inline]
    pub(crate) fn current() -> Self {
        // ORDERING: says nothing of anything else.
        match WIPED.generation.load(Relaxed) {
            UNKNOWN => Self::draw(),
            known => Self(known),
        }
    }

    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self.0 == WIPED.generation.load(Relaxed) // ORDERING: as in `current`.
    }

    #[cold]
    fn draw() -> Self {
        wipe_in_children();
        let drawn = Self::next();
        // ORDERING: a number, whoever drew it.
        match WIPED.generation.compare_exchange(UNKNOWN, drawn.0, Relaxed, Relaxed) {
            Ok(_) => drawn,
            Err(known) => Self(known),
        }
    }

    /// WHY: drawn before it is put in place. A child that is copied in between draws another (I1).
    fn next() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(UNKNOWN);
        Self(LAST.fetch_add(1, Relaxed) + 1) // ORDERING: only to be different.
    }
}

/// Has the kernel wipe the page in every child from here on, and in theirs. Refused by kernels
/// before 4.14 and by some emulations: I3.
fn wipe_in_children() {
    let page = (&raw const WIPED).cast_mut().cast();
    // SAFETY: whole pages that hold nothing but `WIPED`, for which all zeroes are valid: it is
    // aligned and padded to the largest size of a page.
    unsafe { libc::madvise(page, size_of::<Wiped>(), libc::MADV_WIPEONFORK) };
}

/// The generation in which a handle was last made.
static HANDLES: AtomicU32 = AtomicU32::new(UNKNOWN);

/// A handle is being made in this process.
pub(crate) fn handle_is_made() -> Generation {
    let current = Generation::current();
    // ORDERING: pairs with nothing: who gets a handle from another thread gets this with it.
    if HANDLES.load(Relaxed) != current.0 {
        HANDLES.store(current.0, Relaxed);
    }
    current
}

/// Whether any handle can be live here. `false`: those that there are were inherited.
pub(crate) fn has_handles() -> bool {
    HANDLES.load(Relaxed) == Generation::current().0
}

/// Entered by threads that must not be copied half-way, and by a fork; by one at a time, any number
/// of times. WHY: a fork runs handlers of the program's inside, which may call the library.
struct Gate {
    /// The thread inside, by an address that is its own; or 0.
    inside: AtomicUsize,
    /// How often it entered; its own.
    times: AtomicU32,
}

impl Gate {
    fn enter(&self) {
        let me = Self::me();
        loop {
            // ORDERING: Acquire pairs with `leave`: what was made inside is seen inside.
            match self.inside.compare_exchange(0, me, Acquire, Relaxed) {
                Ok(_) => break,
                Err(inside) if inside == me => break,
                Err(_) => nap(),
            }
        }
        self.times.fetch_add(1, Relaxed);
    }

    /// Nothing in a child, where nobody is inside.
    fn leave(&self) {
        if self.inside.load(Relaxed) == Self::me() && self.times.fetch_sub(1, Relaxed) == 1 {
            self.inside.store(0, Release); // ORDERING: pairs with `enter`.
        }
    }

    /// A number that no other living thread has. Needs nothing that ends with a thread.
    fn me() -> usize {
        thread_local! {
            static ME: Cell<u8> = const { Cell::new(0) };
        }
        ME.with(|me| ptr::from_ref(me).addr())
    }
}

/// Lets `body` make thread-locals while no thread forks, and sees to it that none does while they
/// end: thread-locals end in reverse order, so `Ends` comes before those of `body`, and `Ended`
/// after them. Once a thread.
pub(crate) fn undisturbed_by_fork(body: impl FnOnce()) {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            WIPED.gate.enter();
        }
    }
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            WIPED.gate.leave();
        }
    }
    thread_local! {
        static ENDED: Ended = const { Ended };
        static ENDS: Ends = const { Ends };
    }
    while_nobody_forks(|| {
        ENDED.with(|_| ());
        body();
        ENDS.with(|_| ());
    });
}

/// Runs `body` while no other thread forks. It must not wait for a thread that does.
pub(crate) fn while_nobody_forks<R>(body: impl FnOnce() -> R) -> R {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            WIPED.gate.leave();
        }
    }
    WIPED.gate.enter();
    let _inside = Inside;
    body()
}

/// The generation of the process that forks.
static FORKING: AtomicU32 = AtomicU32::new(UNKNOWN);

/// To be called before a fork, by the thread that forks.
pub(crate) fn before_fork() {
    WIPED.gate.enter();
    FORKING.store(Generation::current().0, Relaxed); // ORDERING: for this thread.
}

/// To be called after a fork, in the parent.
pub(crate) fn after_fork_in_parent() {
    WIPED.gate.leave();
}

/// To be called after a fork, in the child.
pub(crate) fn after_fork_in_child() {
    if WIPED.generation.load(Relaxed) == FORKING.load(Relaxed) {
        // ORDERING: a child has one thread. Not wiped: I3.
        WIPED.gate.times.store(0, Relaxed);
        WIPED.gate.inside.store(0, Relaxed);
        WIPED.generation.store(Generation::next().0, Relaxed);
    }
}

/// A value that each process of a line of forks has one of its own. It costs the same in each.
///
/// WHY: aligned, as `Made` is. What every call reads must not lie beside what others write.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct PerProcess<T> {
    latest: AtomicPtr<Made<T>>,
}

#[repr(C, align(64))]
struct Made<T> {
    value: Aligned<T>,
    born: Generation,
    /// The parent's. WHY: kept, though never looked at, so that who searches for leaks finds none.
    _inherited: *mut Made<T>,
}

#[repr(align(64))]
struct Aligned<T>(T);

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { latest: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl<T: Send + Sync> PerProcess<T> {
    /// The value of this process. `make` may run more than once, in threads that are first at the
    /// same time; one value stays.
    #[inline]
    pub(crate) fn get(&'static self, make: fn() -> T) -> &'static T {
        // ORDERING: pairs with `put`.
        let latest = self.latest.load(Acquire);
        // SAFETY: null, or put there by `put`, and never freed.
        match unsafe { latest.as_ref() } {
            Some(made) if made.born.is_current() => &made.value.0,
            _ => self.put(latest, make),
        }
    }

    #[cold]
    fn put(&self, mut latest: *mut Made<T>, make: fn() -> T) -> &'static T {
        let born = Generation::current();
        let mine =
            Box::into_raw(Box::new(Made { value: Aligned(make()), born, _inherited: latest }));
        loop {
            // ORDERING: Release shows the value to `get`; Acquire shows another's to this thread.
            match self.latest.compare_exchange(latest, mine, AcqRel, Acquire) {
                Ok(_) => {
                    // SAFETY: made above, in place now, and never freed.
                    return unsafe { &(*mine).value.0 };
                }
                Err(seen) => {
                    // SAFETY: as in `get`.
                    if let Some(made) = unsafe { seen.as_ref() }
                        && made.born == born
                    {
                        // SAFETY: made above; nobody else has seen it.
                        drop(unsafe { Box::from_raw(mine) });
                        return &made.value.0;
                    }
                    latest = seen;
                }
            }
        }
    }
}

/// What a thread remembers; a child has forgotten it.
pub(crate) struct Remembered<T>(Cell<Option<(Generation, T)>>);

impl<T: Copy> Remembered<T> {
    pub(crate) const fn nothing() -> Self {
        Self(Cell::new(None))
    }

    #[inline]
    pub(crate) fn get(&self, find_out: impl FnOnce() -> T) -> T {
        match self.0.get() {
            Some((born, value)) if born.is_current() => value,
            _ => {
                let value = find_out();
                self.set(value);
                value
            }
        }
    }

    pub(crate) fn set(&self, value: T) {
        self.0.set(Some((Generation::current(), value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_per_process() {
        static VALUES: PerProcess<u32> = PerProcess::new();
        assert_eq!(VALUES.get(|| 1), &1);
        assert_eq!(VALUES.get(|| 2), &1);
    }

    #[test]
    fn threads_that_are_first_at_the_same_time_have_one_value() {
        static VALUES: PerProcess<AtomicUsize> = PerProcess::new();
        let place = || ptr::from_ref(VALUES.get(AtomicUsize::default)).addr();
        let places: Vec<_> = std::thread::scope(|threads| {
            let first: Vec<_> = (0..8).map(|_| threads.spawn(place)).collect();
            first.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
    }

    #[test]
    fn the_gate_opens_again_after_as_many_leaves_as_entries() {
        static GATE: Gate = Gate { inside: AtomicUsize::new(0), times: AtomicU32::new(0) };
        GATE.enter();
        GATE.enter();
        GATE.leave();
        assert_eq!(GATE.inside.load(Relaxed), Gate::me());
        GATE.leave();
        assert_eq!(GATE.inside.load(Relaxed), 0);
        GATE.leave(); // In a child nobody is inside.
        std::thread::scope(|threads| threads.spawn(|| GATE.enter()).join().unwrap());
        assert_ne!(GATE.inside.load(Relaxed), 0);
    }

    #[test]
    fn what_is_remembered_is_found_out_once() {
        let number = Remembered::nothing();
        assert_eq!(number.get(|| 1), 1);
        assert_eq!(number.get(|| 2), 1);
        number.set(3);
        assert_eq!(number.get(|| 4), 3);
    }
}
