//! Counted references to a hold.
//!
//! WHY: not `Arc`. Every call makes a hold, shows it to one entry, and takes it back; here that
//! costs no atomic exchange as long as nobody else looked.
//!
//! Invariants
//! I1. The count is the number of references, those that lie in an entry's word included.
//! I2. A reference is made from another one. So who owns all that are counted is alone, and stays so
//!     until it makes one more or lets another thread see one.
//! I3. A thread keeps the memory of one hold at hand, and no more.

#![expect(unsafe_code, reason = "a reference count; argued from I1 and I2")]

use std::cell::Cell;
use std::fmt;
use std::mem::{self, MaybeUninit};
use std::ops::Deref;
use std::ptr::NonNull;

use crate::lock::hold::Hold;
use crate::lock::index::Sole;
use crate::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// A reference to a hold, which lives as long as it has one.
pub(crate) struct HoldRef(NonNull<Counted>);

struct Counted {
    count: AtomicUsize,
    hold: Hold,
    /// In a model: who is alone with the hold, or ends it, does so after all that was done with it.
    #[cfg(loom)]
    used: loom::cell::UnsafeCell<()>,
}

impl Counted {
    #[inline(always)]
    fn new(hold: Hold) -> Self {
        Self {
            count: AtomicUsize::new(1),
            hold,
            #[cfg(loom)]
            used: loom::cell::UnsafeCell::new(()),
        }
    }
}

thread_local! {
    /// The memory of a hold that ended on this thread, for its next one (I3).
    static SPARE: Cell<Option<Box<MaybeUninit<Counted>>>> = const { Cell::new(None) };
}

/// Makes the thread-local.
pub(super) fn begin_thread() {
    SPARE.with(|_| ());
}

// SAFETY: as for `Arc`: a hold may be used and dropped by any thread.
unsafe impl Send for HoldRef {}
// SAFETY: as above.
unsafe impl Sync for HoldRef {}

impl HoldRef {
    #[inline(always)]
    pub(crate) fn new(make: impl FnOnce() -> Hold) -> Self {
        // WHY: in its place from the start, and not moved there.
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let place = spare.unwrap_or_else(Box::new_uninit);
        let counted = Box::write(place, Counted::new(make()));
        Self(NonNull::from(Box::leak(counted)))
    }

    /// The hold, for the owner of the only reference.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> Option<&mut Hold> {
        // ORDERING: as in `drop`.
        if self.counted().count.load(Acquire) != 1 {
            return None;
        }
        #[cfg(loom)]
        self.counted().used.with_mut(|_| ());
        // SAFETY: alone, and so until this borrow ends (I2).
        Some(unsafe { &mut (*self.0.as_ptr()).hold })
    }

    fn counted(&self) -> &Counted {
        // SAFETY: alive by I1: this reference is counted.
        unsafe { self.0.as_ref() }
    }

    /// One more, by the owner of a reference that nobody else can use meanwhile.
    pub(super) fn clone_mut(&mut self) -> Self {
        let count = &self.counted().count;
        // ORDERING: alone (I2), so nobody else counts. Acquire pairs with the decrements of others:
        // the store ends their release sequence, and no later load would see what they did.
        if count.load(Acquire) != 1 {
            return self.clone();
        }
        count.store(2, Relaxed);
        Self(self.0)
    }

    /// Drops `other`, a reference to the same hold.
    pub(super) fn drop_other(&mut self, other: Self) {
        debug_assert!(self.is(&other));
        // ORDERING: pairs with the decrements of others, as in `clone_mut`. Two references in the
        // hands of one thread are all that are counted, so nobody else counts (I2).
        if self.counted().count.load(Acquire) == 2 {
            self.counted().count.store(1, Relaxed);
            mem::forget(other);
        }
    }

    /// Whether both are the same hold.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Where the hold lies.
    pub(super) fn as_ptr(&self) -> *mut Hold {
        // SAFETY: alive; only an address is taken.
        unsafe { &raw mut (*self.0.as_ptr()).hold }
    }

    /// Gives the reference away as a pointer.
    pub(super) fn into_raw(self) -> *mut Hold {
        let pointer = self.as_ptr();
        mem::forget(self);
        pointer
    }

    /// # Safety
    /// `pointer` came from `into_raw`, and nobody else takes it back.
    pub(super) unsafe fn from_raw(pointer: *mut Hold) -> Self {
        // SAFETY: the hold lies in a `Counted`.
        let counted = unsafe { pointer.byte_sub(mem::offset_of!(Counted, hold)) };
        // SAFETY: not null, as an address inside an object.
        Self(unsafe { NonNull::new_unchecked(counted.cast()) })
    }
}

// SAFETY: a hold lies in a box, and begins with a word.
unsafe impl Sole for HoldRef {
    fn as_pointer(&self) -> *mut () {
        self.as_ptr().cast()
    }

    fn into_pointer(self) -> *mut () {
        self.into_raw().cast()
    }

    unsafe fn from_pointer(pointer: *mut ()) -> Self {
        // SAFETY: the contract of `Sole` is that of `from_raw`.
        unsafe { Self::from_raw(pointer.cast()) }
    }
}

impl Deref for HoldRef {
    type Target = Hold;
    fn deref(&self) -> &Hold {
        #[cfg(loom)]
        self.counted().used.with(|_| ());
        &self.counted().hold
    }
}

impl Clone for HoldRef {
    fn clone(&self) -> Self {
        // ORDERING: the reference it is made from keeps the hold alive.
        self.counted().count.fetch_add(1, Relaxed);
        Self(self.0)
    }
}

impl Drop for HoldRef {
    fn drop(&mut self) {
        let count = &self.counted().count;
        // ORDERING: Acquire pairs with the Release of the other references' ends: what they did
        // comes before the end of the hold. The only one there is needs no exchange (I2).
        if count.load(Acquire) != 1 {
            if count.fetch_sub(1, Release) != 1 {
                return;
            }
            // WHY: no fence, which ThreadSanitizer does not understand. The zero that is read here
            // is the last of a row of exchanges that goes back to the last plain store, and whoever
            // stored saw what came before (`clone_mut`, `drop_other`).
            count.load(Acquire);
        }
        #[cfg(loom)]
        self.counted().used.with_mut(|_| ());
        // SAFETY: made by `new`, and this was the last reference.
        unsafe { self.0.drop_in_place() };
        // SAFETY: as above; its memory is a box's, with nothing in it any more.
        let place = unsafe { Box::from_raw(self.0.cast::<MaybeUninit<Counted>>().as_ptr()) };
        // A thread whose locals have ended gives it back to the system.
        let _ = SPARE.try_with(|spare| spare.set(Some(place)));
    }
}

impl fmt::Debug for HoldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Models: every interleaving of those who have references to one hold.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::clock::Timeout;
    use crate::lock::owner::{Call, OwnerId};
    use crate::sync::Arc;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;

    /// A hold, and what it alone refers to.
    fn hold() -> (HoldRef, Arc<Call>) {
        let call = Call::of(OwnerId::None);
        let owner = OwnerId::Call(Arc::clone(&call));
        let timeout = Timeout::INFINITE;
        (HoldRef::new(|| Hold::new(timeout, timeout, owner, false, 0)), call)
    }

    /// Somebody else looks at a hold that its owner shows to a word, and takes back: it lives as long
    /// as it has a reference, and no longer (I1).
    #[test]
    fn it_ends_once_and_with_its_last_reference() {
        loom::model(|| {
            let (mut mine, call) = hold();
            let in_word = mine.clone_mut();
            let seen = in_word.clone();
            let other = {
                let call = Arc::clone(&call);
                thread::spawn(move || {
                    let copy = seen.clone();
                    drop(seen);
                    if Arc::strong_count(&call) != 3 {
                        mem::forget(copy); // So that it ends once, and the model tells.
                        panic!("it ended before its last reference");
                    }
                })
            };
            mine.drop_other(in_word);
            drop(mine);
            other.join().unwrap();
            assert_eq!(Arc::strong_count(&call), 1);
        });
    }

    /// A hold ends after all that was done with it, whoever has the last reference (I1).
    #[test]
    fn its_end_is_after_all_uses() {
        loom::model(|| {
            let (mut mine, _) = hold();
            let seen = mine.clone();
            let other = thread::spawn(move || {
                seen.is_in_force();
                drop(seen);
            });
            let in_word = mine.clone_mut();
            mine.is_in_force();
            drop(in_word);
            drop(mine);
            other.join().unwrap();
        });
    }

    /// Nor is anything forgotten of the others by one who was alone, and shows the hold to a word again
    /// (I2).
    #[test]
    fn alone_again_is_after_all_others() {
        loom::model(|| {
            let (mut mine, _) = hold();
            let done = Arc::new(AtomicBool::new(false));
            let other = {
                let (seen, done) = (mine.clone(), Arc::clone(&done));
                thread::spawn(move || {
                    seen.is_in_force();
                    done.store(true, Relaxed);
                    drop(seen);
                })
            };
            loop {
                let in_word = mine.clone_mut();
                mine.drop_other(in_word);
                if mine.get_mut().is_some() {
                    break;
                }
                thread::yield_now();
            }
            assert!(done.load(Relaxed));
            other.join().unwrap();
        });
    }

    /// Who is alone with a hold sees all that the others did before (I2).
    #[test]
    fn alone_is_after_all_others() {
        loom::model(|| {
            let (mut mine, _) = hold();
            let done = Arc::new(AtomicBool::new(false));
            let other = {
                let (seen, done) = (mine.clone(), Arc::clone(&done));
                thread::spawn(move || {
                    seen.is_in_force();
                    done.store(true, Relaxed);
                    drop(seen);
                })
            };
            while mine.get_mut().is_none() {
                thread::yield_now();
            }
            assert!(done.load(Relaxed));
            other.join().unwrap();
        });
    }
}
