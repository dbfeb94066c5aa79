//! Locks: one per locked key, in a table of its own, apart from the data.
//!
//! Arrows run downward only, from `inspect` to `wait_mode`:
//!
//! | file         | concept                                                              |
//! |--------------|----------------------------------------------------------------------|
//! | `inspect`    | looking at lock tables; force release; closing                       |
//! | `acquire`    | taking one lock or several; the loop that waits                      |
//! | `waits`      | who waits for whom, in the whole process: deadlocks                  |
//! | `locked`     | what a hold holds                                                    |
//! | `lock_table` | where locks live; how they are freed, and what that owes to others   |
//! | `recent`     | the entries that a thread gave back recently                         |
//! | `entry`      | the lock of one key: who holds it, who is next (state machine)       |
//! | `holder`     | the word that says who holds it while nobody waits (state machine)   |
//! | `queue`      | who waits for it, in order of arrival                                |
//! | `current`    | whom the running thread stands in for                                |
//! | `hold_ref`   | counted references to holds                                          |
//! | `hold`       | one holding of a lock: live, committing, over (state machine)        |
//! | `index`      | the lock-free index of thin locks and of entries                     |
//! | `epoch`      | pins; the only file that knows crossbeam-epoch                       |
//! | `owner`      | who holds and waits                                                  |
//! | `scope`      | what can be closed under its waiters                                 |
//! | `tokens`     | fencing tokens                                                       |
//! | `wait_mode`  | in which order waiters get their lock                                |
//!
//! Order of mutexes: the registry of `waits`, then an entry's state, then a hold's watchers or a
//! callback's caller. No mutex is held while user code runs.

mod acquire;
mod current;
mod entry;
mod epoch;
mod hold;
mod hold_ref;
mod holder;
mod index;
mod inspect;
mod lock_table;
mod locked;
mod owner;
mod queue;
mod recent;
/// Schedules of everything at once.
#[cfg(all(test, shuttle))]
mod scenario_model;
mod scope;
mod tokens;
mod wait_mode;
mod waits;

pub(crate) use acquire::{Begun, Pending, Progress, Request};
pub(crate) use current::{
    Identity, assume_identity, enter_call, identity, inside_call, leave_call, thread_number,
};
#[cfg(all(test, loom))]
pub(crate) use epoch::reclaim_all;
pub(crate) use hold::{Gate, Hold, Lost, Standing, Verdict};
pub(crate) use hold_ref::HoldRef;
pub use inspect::{LockInfo, Stats};
pub use lock_table::LockTable;
pub(crate) use locked::Locked;
pub use owner::Owner;
pub(crate) use queue::{Inbox, InboxRef, Waker};
pub use scope::Stop;
pub(crate) use scope::{Scope, Scopes};
pub use tokens::raise_tokens;
pub use wait_mode::WaitMode;
pub(crate) use waits::{abandon, close, detach};

/// Makes the thread-locals that locks need.
pub(crate) fn begin_thread() {
    hold_ref::begin_thread();
    epoch::begin_thread();
    lock_table::begin_thread();
}
