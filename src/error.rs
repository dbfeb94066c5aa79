//! What can go wrong, in Rust terms. `ffi/status.rs` gives each its number.

use std::fmt;

/// Why a call did not do what it was asked to do.
///
/// WHY: a whole word. A `Result` lies where its value would, and is copied in the pieces that value
/// and error have in common: next to a single byte, in odd ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Error {
    /// The lock was not free in time.
    WaitTimeout,
    /// The holder outlived its time.
    ExecTimeout,
    /// The callback returned a code that does not commit, or ended its thread.
    CallbackFailed,
    /// The guard's lock was taken away.
    Revoked,
    /// The wait could end only by a timeout.
    Deadlock,
    /// There is no such tuple, lock or name.
    NotFound,
    /// The key has a tuple, or the name is taken.
    Exists,
    /// The handle was freed during the call.
    Closed,
    /// The wait was told to stop.
    Stopped,
    /// A required pointer is NULL.
    Null,
    /// An argument is out of range.
    Invalid,
    /// A struct's size is not one this release can read.
    StructSize,
    /// The guard does not hold this key.
    NotCovered,
    /// The operation does not fit the table's type, or the value's.
    Type,
    /// The table is written through guards only.
    Guarded,
    /// Memory of the size asked for cannot be had.
    NoMemory,
    /// No thread could be started.
    NoThread,
    /// The handle was made before a fork.
    Forked,
}

/// The result of a fallible call.
pub type Result<T> = std::result::Result<T, Error>;

/// A list of `items`, whose number comes from the caller: `Error::NoMemory` if there is no room.
pub(crate) fn list<T>(items: impl ExactSizeIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(items.len()).map_err(|_| Error::NoMemory)?;
    for item in items {
        list.push(item?);
    }
    Ok(list)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::WaitTimeout => "the lock was not free in time",
            Error::ExecTimeout => "the holder of the lock outlived its time",
            Error::CallbackFailed => "the callback did not commit, or ended its thread",
            Error::Revoked => "the lock of this guard was taken away",
            Error::Deadlock => "the holder of the lock is, or waits for, the caller",
            Error::NotFound => "there is no such thing",
            Error::Exists => "it exists already",
            Error::Closed => "the handle was freed during the call",
            Error::Stopped => "the wait was told to stop",
            Error::Null => "a required pointer is NULL",
            Error::Invalid => "an argument is out of range",
            Error::StructSize => "the struct's size is not one this release can read",
            Error::NotCovered => "the guard does not hold this key",
            Error::Type => "the operation does not fit the type of the table or of the value",
            Error::Guarded => "the table is written through guards only",
            Error::NoMemory => "not enough memory",
            Error::NoThread => "no thread could be started",
            Error::Forked => "the handle was made before a fork",
        })
    }
}

impl std::error::Error for Error {}
