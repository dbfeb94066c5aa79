//! Locks: one entry per locked key, in a table of its own, apart from the data.
//!
//! | file         | concept                                                              |
//! |--------------|----------------------------------------------------------------------|
//! | `hold`       | one holding of a lock: live, committing, over (state machine)        |
//! | `hold_ref`   | counted references to holds                                          |
//! | `entry`      | the lock of one key: who holds it, who is next (state machine)       |
//! | `holder`     | the word that says who holds it while nobody waits (state machine)   |
//! | `queue`      | who waits for it, in order of arrival                                |
//! | `lock_table` | finding the entry of a key; the loop that waits                      |
//! | `deadlock`   | who waits for whom, in the whole process                             |
//! | `tokens`     | fencing tokens                                                       |
//! | `warm`       | the entries that a thread gave back lately                           |
//! | `reclaim`    | the lock-free index of sole holds and of entries; the only file that |
//! |              | knows the epochs                                                     |
//!
//! Order of mutexes: `deadlock`'s registry, then an entry's state, then a hold's watchers or a
//! callback's caller. No mutex is held while user code runs.

mod deadlock;
mod entry;
mod hold;
mod hold_ref;
mod holder;
mod lock_table;
mod queue;
mod reclaim;
/// Schedules of everything at once.
#[cfg(all(test, shuttle))]
mod story_model;
mod tokens;
mod warm;

pub use deadlock::Owner;
pub(crate) use deadlock::{
    Identity, Scope, assume_identity, begin_thread, enter_call, identity, inside_call, leave_call,
    thread_number,
};
pub(crate) use hold::{Gate, Hold, Lost, Standing, Verdict};
pub(crate) use hold_ref::HoldRef;
pub use lock_table::{LockInfo, LockTable, Stats};
pub(crate) use lock_table::{Locked, Request};
