//! Per-key exclusive locks with deadlines on in-memory table data.
//!
//! Arrows run downward only:
//!
//! ```text
//! ffi          the C ABI: the only door for C, C++ and every FFI
//!  |
//! begin        the story without a thread: begin, go on, complete
//!  |
//! with_lock    the story: wait, lock, run, commit, release
//!  |
//! guard        proof of holding; commit
//!  |
//! staged       what a holder wants written
//!  |
//! tables       one table, or several
//!  |
//! registry     handles to tables, and their names
//!  |
//! completions              what is pending, and what is to be fetched
//!  |
//! table   lock   exec      what is stored; who may touch it; where callbacks run
//!  |
//! options  key  bytes  memory  siphash  descriptor  process  clock  error  sync  parking
//! ```
//!
//! `table`, `lock` and `exec` do not know each other. One file each knows a crate: `table/map` flurry,
//! `table/epoch` and `lock/epoch` crossbeam-epoch.
//!
//! # Glossary
//!
//! - **table**: rows in memory, of type set, bag or duplicate bag.
//! - **tuple**: one `{key, value}`.
//! - **lock table**: where locks live, apart from the data.
//! - **entry**: the lock of one key, once a second caller has come near.
//! - **thin lock**: a lock without an entry: nobody but its holder has been near. Whoever else comes
//!   inflates it: makes its entry.
//! - **hold**: one holding of a lock, from the attempt to the end.
//! - **guard**: the handle that stands for a hold.
//! - **worker**: an internal thread that runs callbacks.
//! - **exec deadline**: acquisition plus exec timeout; the holder must be done.
//! - **release time**: exec deadline plus fail timeout; from here on a waiter may delete the lock.
//! - **pending acquire**: one that waits without a thread; a **completion** says how it ended.
//! - **stop**: what ends waits early.
//! - **token**: a number larger than that of every earlier lock of the same key.

mod begin;
mod bytes;
mod clock;
mod completions;
mod descriptor;
mod error;
mod exec;
mod ffi;
mod guard;
mod key;
mod lock;
mod memory;
mod options;
#[cfg(not(any(loom, shuttle)))]
mod parking;
mod process;
mod registry;
mod siphash;
mod staged;
mod sync;
mod table;
mod tables;
mod with_lock;

pub use begin::{Begin, Completions, Waiting};
pub use clock::Timeout;
pub use completions::Completion;
pub use error::{Error, Result};
pub use guard::Guard;
pub use key::Key;
pub use lock::{LockInfo, LockTable, Owner, Stats, Stop, WaitMode, raise_tokens};
pub use options::{OnExecTimeout, Options, RunOn};
pub use registry::{OpenTable, Opened};
pub use table::{Access, Cursor, Snapshot, Table, TableOptions, TableType, Tuples};
pub use tables::TableKey;
pub use with_lock::{
    Answer, Callback, acquire, acquire_across, force_release, force_release_token, locks,
    with_lock, with_locks_across,
};
