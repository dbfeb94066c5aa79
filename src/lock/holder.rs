//! Who holds a lock, in one word: taken and given back by one compare-exchange while nobody waits.
//!
//! | Word      | Meaning                                      | Left by, to                           |
//! |-----------|----------------------------------------------|---------------------------------------|
//! | FREE      | nobody holds it, nobody waits                | taker: a pointer; claimer: CLAIMED; last keeper: DEAD |
//! | a pointer | held by this hold, nobody waits              | this hold: FREE; claimer: CLAIMED     |
//! | CLAIMED   | the entry's state says who holds it          | claimer: any                          |
//! | VACANT    | so it does, and nobody holds it              | claimer: any                          |
//! | DEAD      | it leaves the index, and never comes back    | never                                 |
//!
//! The claimer is whoever owns the mutex of the entry's state.
//!
//! Invariants
//! I1. A pointer in the word is a reference to its hold. Who takes the pointer out owns it.
//! I2. CLAIMED and VACANT are entered and left by the claimer alone. While nobody waits it leaves
//!     them before it lets go of the mutex.
//! I3. A hold gives back the pointer to itself only, and a pointer to it cannot come back: it is
//!     taken once, and its address is in use while anybody could give it back.

#![expect(unsafe_code, reason = "a reference in an atomic word; argued from I1")]

use std::ptr;

use crate::lock::hold::Hold;
use crate::lock::hold_ref::HoldRef;
use crate::sync::atomic::{
    AtomicPtr,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

const FREE: *mut Hold = ptr::null_mut();
const CLAIMED: *mut Hold = ptr::without_provenance_mut(1);
const VACANT: *mut Hold = ptr::without_provenance_mut(2);
const DEAD: *mut Hold = ptr::without_provenance_mut(3);

/// Whether a word is a pointer. WHY: no hold lies at an address as low as a state's.
fn is_pointer(word: *mut Hold) -> bool {
    word > DEAD
}

/// What a claimer finds.
#[derive(Debug)]
pub(super) enum Found {
    /// The word said who holds it, and does so no longer.
    Holder(Option<HoldRef>),
    /// It was claimed before: there are waiters, and the state says all.
    Claimed,
    Dead,
}

/// What giving back came to.
#[derive(Debug)]
pub(super) enum GaveBack {
    /// With the word's reference.
    Done(HoldRef),
    /// Somebody else holds it, or nobody.
    NotHolder,
    /// Claim it to find out.
    Claimed,
}

/// What became of an entry that nobody wants.
#[derive(Debug)]
pub(super) enum Parting {
    /// It leaves the index.
    Died,
    /// Somebody holds it, and will give it back; or it was dead.
    InUse,
    /// Claim it to find out.
    Claimed,
}

/// Who holds a lock.
#[derive(Debug)]
pub(super) struct Holder(AtomicPtr<Hold>);

impl Holder {
    pub(super) fn new(hold: HoldRef) -> Self {
        Self(AtomicPtr::new(hold.into_raw()))
    }

    /// A hint: `take` would succeed.
    pub(super) fn is_free(&self) -> bool {
        self.0.load(Relaxed) == FREE // ORDERING: a hint.
    }

    /// Taker: takes it if it is free and nobody waits.
    pub(super) fn take(&self, hold: &mut HoldRef) -> bool {
        let pointer = hold.clone_mut().into_raw();
        // ORDERING: Acquire pairs with `give_back` and `settle`: the holder before is done. Release
        // shows a claimer the hold.
        let taken = self.0.compare_exchange(FREE, pointer, AcqRel, Relaxed).is_ok();
        if !taken {
            // SAFETY: the reference just made, which did not become the word's.
            hold.drop_other(unsafe { HoldRef::from_raw(pointer) });
        }
        taken
    }

    /// Holder: gives it back if nobody waits.
    pub(super) fn give_back(&self, hold: &HoldRef) -> GaveBack {
        let pointer = hold.as_ptr();
        // ORDERING: Release pairs with `take` and `claim`. Acquire pairs with `settle`: a claimer is
        // done with the hold, whose memory may be another's at once.
        match self.0.compare_exchange(pointer, FREE, AcqRel, Relaxed) {
            // SAFETY: the word's reference, which this exchange took out (I1).
            Ok(taken) => GaveBack::Done(unsafe { HoldRef::from_raw(taken) }),
            // VACANT too: a claimer that is about to say so may have granted the lock to `hold`.
            Err(CLAIMED | VACANT) => GaveBack::Claimed,
            Err(_) => GaveBack::NotHolder,
        }
    }

    /// Claimer: from here on the state says who holds it.
    pub(super) fn claim(&self) -> Found {
        // ORDERING: Acquire pairs with `take`, `give_back` and `settle`.
        let mut word = self.0.load(Acquire);
        loop {
            match word {
                CLAIMED | VACANT => return Found::Claimed,
                DEAD => return Found::Dead,
                _ => {}
            }
            match self.0.compare_exchange(word, CLAIMED, AcqRel, Acquire) {
                Ok(taken) if is_pointer(taken) => {
                    // SAFETY: the word's reference, which this exchange took out (I1).
                    return Found::Holder(Some(unsafe { HoldRef::from_raw(taken) }));
                }
                Ok(_) => return Found::Holder(None),
                Err(seen) => word = seen,
            }
        }
    }

    /// Claimer: nobody waits any more, so the word says again who holds it.
    pub(super) fn settle(&self, holder: Option<HoldRef>) {
        let word = holder.map_or(FREE, HoldRef::into_raw);
        self.0.store(word, Release); // ORDERING: pairs with `take` and `claim`.
    }

    /// Claimer: there are waiters, so the state goes on saying who holds it.
    pub(super) fn stay_claimed(&self, is_vacant: bool) {
        // ORDERING: a hint; the rest is under the mutex.
        self.0.store(if is_vacant { VACANT } else { CLAIMED }, Relaxed);
    }

    /// Claimer: nobody holds it, nobody waits, and it is to leave the index.
    pub(super) fn die(&self) {
        self.0.store(DEAD, Release); // ORDERING: pairs with `is_dead`.
    }

    /// Anyone: it is to leave the index if nobody holds it, as far as the word says that.
    pub(super) fn die_if_free(&self) -> Parting {
        // ORDERING: as in `die`.
        match self.0.compare_exchange(FREE, DEAD, Release, Relaxed) {
            Ok(_) => Parting::Died,
            // WHY: by the word that the exchange met. Whoever claimed it may be gone at the next
            // look, and have left it free.
            Err(CLAIMED | VACANT) => Parting::Claimed,
            Err(_) => Parting::InUse,
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.load(Acquire) == DEAD // ORDERING: pairs with `die`.
    }

    /// A hint for those who spin: it is worth while to ask for the lock.
    pub(super) fn looks_free(&self) -> bool {
        matches!(self.0.load(Relaxed), FREE | VACANT | DEAD) // ORDERING: a hint.
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let word = self.0.load(Relaxed); // ORDERING: nobody else has it.
        if is_pointer(word) {
            // SAFETY: the word's reference (I1).
            drop(unsafe { HoldRef::from_raw(word) });
        }
    }
}
