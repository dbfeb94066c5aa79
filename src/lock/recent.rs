//! Entries that a thread gave back recently, kept in the index for its next call.
//!
//! WHY: most callers come back to the same keys. Making an entry and reclaiming it costs more than
//! everything else that an uncontended lock does.
//!
//! Invariants
//! I1. At most `PLACES` entries; one that must go is evicted by whoever puts another into its place.
//!     So an unlocked key costs memory only while its entry is one of these.
//! I2. An entry in here may be held, waited for or dead by now: it is worth a try, no more.

use crate::key::LockIdRef;
use crate::lock::entry::EntryRef;
use crate::lock::index::Listed;

/// Enough for a few nested locks.
const PLACES: usize = 8;

/// Entries by their key. One place for a key: a look is one comparison.
#[derive(Debug, Default)]
pub(super) struct Recent([Option<EntryRef>; PLACES]);

impl Recent {
    /// The entry of `id`, if it is in here.
    pub(super) fn take(&mut self, id: LockIdRef<'_>) -> Option<EntryRef> {
        id.key.place(&mut self.0).take_if(|entry| entry.is(id))
    }

    /// Keeps an entry. Returns the one that must go for it.
    pub(super) fn keep(&mut self, entry: EntryRef) -> Option<EntryRef> {
        let place = entry.id().key.by_ref().place(&mut self.0);
        // Given back by this thread before, and taken by another in between.
        if place.as_ref().is_some_and(|kept| kept.ptr_eq(&entry)) {
            return None;
        }
        place.replace(entry)
    }

    /// Takes all out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = EntryRef> {
        self.0.iter_mut().filter_map(Option::take)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::clock::Timeout;
    use crate::key::{Key, LockId};
    use crate::lock::entry::Entry;
    use crate::lock::hold::Hold;
    use crate::lock::hold_ref::HoldRef;
    use crate::lock::index::Node;
    use crate::lock::owner::OwnerId;

    fn entry(key: u32) -> EntryRef {
        let key = Key::new(&key.to_ne_bytes()).expect("a short key");
        let never = Timeout::INFINITE;
        let hold = HoldRef::new(|| Hold::new(never, never, OwnerId::None, false, 0));
        Node::try_new(Entry::held_by(LockId { table: 1, key }, hold)).expect("memory")
    }

    /// One that is kept comes back for its own key alone; one that goes is told (I1).
    #[test]
    fn each_comes_back_once_or_goes() {
        let mut recent = Recent::default();
        let entries: Vec<_> = (0..100).map(entry).collect();
        let mut gone = Vec::new();
        for (number, kept) in entries.iter().enumerate() {
            for other in &entries[number..] {
                assert!(recent.take(other.id().by_ref()).is_none(), "nobody kept it");
            }
            gone.extend(recent.keep(kept.clone()));
            assert!(recent.keep(kept.clone()).is_none(), "it is there");
        }
        for entry in &entries {
            let was_told = gone.iter().any(|gone| gone.ptr_eq(entry));
            match recent.take(entry.id().by_ref()) {
                Some(taken) => assert!(taken.ptr_eq(entry) && !was_told),
                None => assert!(was_told),
            }
            assert!(recent.take(entry.id().by_ref()).is_none(), "once");
        }
        assert_eq!(recent.drain().count(), 0);
    }
}
