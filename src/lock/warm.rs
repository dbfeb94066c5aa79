//! Entries that this thread gave back lately, kept in the index for its next call.
//!
//! WHY: most callers come back to the same keys. Listing an entry and reclaiming it costs more than
//! everything else that an uncontended lock does.
//!
//! Invariants
//! I1. A thread keeps at most `PLACES` entries, of the default lock table alone; one that must go
//!     dies if nobody uses it. So an unlocked key costs memory only while it is one of these.
//! I2. An entry in here may be held, waited for or dead by now: it is worth a try, no more.
//! I3. What a forked child inherited is neither used nor freed.

use std::cell::RefCell;
use std::mem;

use crate::key::LockIdRef;
use crate::lock::entry::EntryRef;
use crate::lock::index::{Listed, NodeRef};
use crate::process::Generation;

/// Enough for a few nested locks.
const PLACES: usize = 8;

#[derive(Debug)]
struct Warm {
    born: Generation,
    /// One place for a key: a look is one comparison.
    entries: [Option<EntryRef>; PLACES],
}

thread_local! {
    static WARM: RefCell<Option<Warm>> = const { RefCell::new(None) };
}

/// The entry of `id`, if this thread gave it back lately.
pub(super) fn take(id: LockIdRef<'_>) -> Option<EntryRef> {
    let find = |warm: &mut Warm| id.key.place(&mut warm.entries).take_if(|entry| entry.is(id));
    let taken = WARM.try_with(|warm| match &mut *warm.borrow_mut() {
        Some(warm) if warm.born.is_current() => find(warm),
        _ => None,
    });
    taken.ok().flatten()
}

/// Keeps an entry. Returns the one that must go for it: itself if the thread is ending.
pub(super) fn keep(entry: EntryRef) -> Option<EntryRef> {
    let mut given = Some(entry);
    let leaves = WARM.try_with(|warm| {
        let mut warm = warm.borrow_mut();
        if !warm.as_ref().is_some_and(|warm| warm.born.is_current()) {
            let fresh = Warm { born: Generation::current(), entries: Default::default() };
            mem::forget(warm.replace(fresh)); // I3
        }
        let (warm, entry) = (warm.as_mut()?, given.take()?);
        let place = entry.id().key.by_ref().place(&mut warm.entries);
        // Given back by this thread before, and taken by another in between.
        if place.as_ref().is_some_and(|kept| NodeRef::ptr_eq(kept, &entry)) {
            return None;
        }
        place.replace(entry)
    });
    leaves.unwrap_or(given)
}

/// Makes the thread-local.
pub(super) fn begin_thread() {
    WARM.with(|_| ());
}

impl Drop for Warm {
    fn drop(&mut self) {
        if !self.born.is_current() {
            mem::forget(mem::take(&mut self.entries)); // I3
            return;
        }
        for entry in self.entries.iter_mut().filter_map(Option::take) {
            super::lock_table::LockTable::default_of_process().cool(&entry);
        }
    }
}
