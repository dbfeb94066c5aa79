//! Per-key exclusive locks with deadlines on in-memory table data.
//!
//! Arrows run downward only:
//!
//! ```text
//! ffi          the C ABI: the only door for C, C++ and every FFI
//!  |
//! with_lock    the story: wait, lock, run, commit, release
//!  |
//! guard        proof of holding; commit
//!  |
//! staged       what a holder wants written
//!  |
//! registry     handles to tables, and their names
//!  |
//! table   lock   exec      what is stored; who may touch it; where callbacks run
//!  |
//! options  key  bytes  memory  siphash  process  clock  error  sync
//! ```
//!
//! `table`, `lock` and `exec` do not know each other. One file each knows a crate: `table/map` flurry,
//! `table/epoch` and `lock/reclaim` crossbeam-epoch.
//!
//! # Glossary
//!
//! - **table**: rows in memory, of type set, bag or duplicate bag.
//! - **tuple**: one `{key, value}`.
//! - **lock table**: where locks live, apart from the data.
//! - **entry**: the lock of one key, while somebody waits for it or looks closer.
//! - **sole**: a lock without an entry: nobody but its holder has been near.
//! - **hold**: one holding of a lock, from the attempt to the end.
//! - **guard**: the handle that stands for a hold.
//! - **worker**: an internal thread that runs callbacks.
//! - **exec deadline**: acquisition plus exec timeout; the holder must be done.
//! - **release time**: exec deadline plus fail timeout; from here on a waiter may delete the lock.
//! - **token**: a number larger than that of every earlier lock of the same key.

mod bytes;
mod clock;
mod error;
mod exec;
mod ffi;
mod guard;
mod key;
mod lock;
mod memory;
mod options;
mod process;
mod registry;
mod siphash;
mod staged;
mod sync;
mod table;
mod with_lock;

pub use clock::Timeout;
pub use error::{Error, Result};
pub use guard::Guard;
pub use key::Key;
pub use lock::{LockInfo, LockTable, Owner, Stats};
pub use options::{OnExecTimeout, Options, Queue, RunOn};
pub use registry::{OpenTable, Opened};
pub use table::{Access, Cursor, Snapshot, Table, TableOptions, TableType, Tuples};
pub use with_lock::{Answer, Callback, acquire, force_release, locks, with_lock};
