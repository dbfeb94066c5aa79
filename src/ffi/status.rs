//! Statuses: the numbers that every fallible call answers with, their names and their sentences.

use std::ffi::{CStr, c_char};

use crate::error::Error;

/// What a call answers: ETSLOCK_OK is 0, the other values are those of etslock_status_code.
///
/// A plain int32_t, so that later releases may add values: keep a default branch.
///
/// Since:     0.1
pub type etslock_status = i32;

/// Every status that this release gives.
///
/// 1 to 19 are outcomes that a correct program meets; 20 to 39 are the caller's bugs, and nothing
/// changed; 40 to 59 come from the environment; 90 is a bug of the library. Later releases may add
/// some: accept unknown positive ones in a default branch.
///
/// Since:     0.1
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum etslock_status_code {
    /// Done.
    ETSLOCK_OK = 0,
    /// The lock was not free in time; the callback never ran (C-2).
    ETSLOCK_WAIT_TIMEOUT = 1,
    /// The callback or holder outlived its time; nothing was written since its last commit (C-4).
    ETSLOCK_EXEC_TIMEOUT = 2,
    /// The callback returned a code that does not commit (0 does, or options.commit_code), or ended
    /// its thread; nothing was written since its last commit (C-7).
    ETSLOCK_CALLBACK_FAILED = 3,
    /// This guard's lock was taken away; nothing was written since its last commit (C-8).
    ETSLOCK_REVOKED = 4,
    /// The wait could end only by a timeout: the holder is yourself, or waits for you (C-13).
    ETSLOCK_DEADLOCK = 5,
    /// There is no such tuple, lock, name or index; or the cursor is at its end.
    ETSLOCK_NOT_FOUND = 6,
    /// The key has a tuple already, or the name is taken.
    ETSLOCK_EXISTS = 7,
    /// The table handle or the lock table was freed while this call waited (C-14).
    ETSLOCK_CLOSED = 8,
    /// Queued: a completion will tell (C-19). Since 0.2.
    ETSLOCK_PENDING = 9,
    /// This wait was told to stop, or withdrawn; the callback never ran. Since 0.2.
    ETSLOCK_STOPPED = 10,
    /// It was sent to the store, and there is no answer: done or not done, the store knows. Since
    /// 0.2.
    ETSLOCK_UNKNOWN = 11,
    /// A pointer that must not be NULL is NULL.
    ETSLOCK_ERR_NULL = 20,
    /// An argument is outside its range, or a reserved field is not 0.
    ETSLOCK_ERR_INVALID = 21,
    /// struct_size is smaller than in the first release, or an unknown tail is not zero: was the
    /// struct made with its init function?
    ETSLOCK_ERR_STRUCT_SIZE = 22,
    /// The guard does not hold this key (C-18).
    ETSLOCK_ERR_NOT_COVERED = 23,
    /// The operation does not fit the type of the table, or of the value.
    ETSLOCK_ERR_TYPE = 24,
    /// The table is ETSLOCK_GUARDED: it takes writes through a guard only.
    ETSLOCK_ERR_GUARDED = 25,
    /// The store of this table cannot do that. Since 0.2.
    ETSLOCK_ERR_UNSUPPORTED = 26,
    /// Memory of the size asked for cannot be had (C-17).
    ETSLOCK_ERR_NO_MEMORY = 40,
    /// No thread could be started for the callback; the lock was released (C-17).
    ETSLOCK_ERR_NO_THREAD = 41,
    /// The handle was made before a fork, and this is the child (C-16).
    ETSLOCK_ERR_FORKED = 42,
    /// The store cannot be reached, or refuses; nothing changed. Since 0.2.
    ETSLOCK_ERR_STORE = 43,
    /// A bug of the library, caught before it could cross into your code: please report it (C-17).
    ETSLOCK_ERR_PANIC = 90,
}

use etslock_status_code::*;

impl From<Error> for etslock_status_code {
    fn from(error: Error) -> Self {
        match error {
            Error::WaitTimeout => ETSLOCK_WAIT_TIMEOUT,
            Error::ExecTimeout => ETSLOCK_EXEC_TIMEOUT,
            Error::CallbackFailed => ETSLOCK_CALLBACK_FAILED,
            Error::Revoked => ETSLOCK_REVOKED,
            Error::Deadlock => ETSLOCK_DEADLOCK,
            Error::NotFound => ETSLOCK_NOT_FOUND,
            Error::Exists => ETSLOCK_EXISTS,
            Error::Closed => ETSLOCK_CLOSED,
            Error::Stopped => ETSLOCK_STOPPED,
            Error::Null => ETSLOCK_ERR_NULL,
            Error::Invalid => ETSLOCK_ERR_INVALID,
            Error::StructSize => ETSLOCK_ERR_STRUCT_SIZE,
            Error::NotCovered => ETSLOCK_ERR_NOT_COVERED,
            Error::Type => ETSLOCK_ERR_TYPE,
            Error::Guarded => ETSLOCK_ERR_GUARDED,
            Error::NoMemory => ETSLOCK_ERR_NO_MEMORY,
            Error::NoThread => ETSLOCK_ERR_NO_THREAD,
            Error::Forked => ETSLOCK_ERR_FORKED,
        }
    }
}

/// Every status with its name and its sentence, in order of value.
const TEXTS: [(etslock_status_code, &CStr, &CStr); 24] = [
    (ETSLOCK_OK, c"ETSLOCK_OK", c"done"),
    (ETSLOCK_WAIT_TIMEOUT, c"ETSLOCK_WAIT_TIMEOUT", c"the lock was not free in time"),
    (ETSLOCK_EXEC_TIMEOUT, c"ETSLOCK_EXEC_TIMEOUT", c"the holder of the lock outlived its time"),
    (
        ETSLOCK_CALLBACK_FAILED,
        c"ETSLOCK_CALLBACK_FAILED",
        c"the callback did not commit, or ended its thread",
    ),
    (ETSLOCK_REVOKED, c"ETSLOCK_REVOKED", c"the lock of this guard was taken away"),
    (
        ETSLOCK_DEADLOCK,
        c"ETSLOCK_DEADLOCK",
        c"the lock is held by the caller, or by a holder that waits for the caller",
    ),
    (ETSLOCK_NOT_FOUND, c"ETSLOCK_NOT_FOUND", c"there is no such thing"),
    (ETSLOCK_EXISTS, c"ETSLOCK_EXISTS", c"it exists already"),
    (ETSLOCK_CLOSED, c"ETSLOCK_CLOSED", c"the handle was freed during the call"),
    (ETSLOCK_PENDING, c"ETSLOCK_PENDING", c"queued: a completion will tell"),
    (ETSLOCK_STOPPED, c"ETSLOCK_STOPPED", c"the wait was told to stop"),
    (ETSLOCK_UNKNOWN, c"ETSLOCK_UNKNOWN", c"the store did not answer: it was done, or it was not"),
    (ETSLOCK_ERR_NULL, c"ETSLOCK_ERR_NULL", c"a required pointer is NULL"),
    (ETSLOCK_ERR_INVALID, c"ETSLOCK_ERR_INVALID", c"an argument is out of range"),
    (
        ETSLOCK_ERR_STRUCT_SIZE,
        c"ETSLOCK_ERR_STRUCT_SIZE",
        c"struct_size is too small, or a field that this release does not know is set",
    ),
    (ETSLOCK_ERR_NOT_COVERED, c"ETSLOCK_ERR_NOT_COVERED", c"the guard does not hold this key"),
    (
        ETSLOCK_ERR_TYPE,
        c"ETSLOCK_ERR_TYPE",
        c"the operation does not fit the type of the table or of the value",
    ),
    (ETSLOCK_ERR_GUARDED, c"ETSLOCK_ERR_GUARDED", c"the table is written through guards only"),
    (
        ETSLOCK_ERR_UNSUPPORTED,
        c"ETSLOCK_ERR_UNSUPPORTED",
        c"the store of this table cannot do that",
    ),
    (ETSLOCK_ERR_NO_MEMORY, c"ETSLOCK_ERR_NO_MEMORY", c"not enough memory"),
    (ETSLOCK_ERR_NO_THREAD, c"ETSLOCK_ERR_NO_THREAD", c"no thread could be started"),
    (ETSLOCK_ERR_FORKED, c"ETSLOCK_ERR_FORKED", c"the handle was made before a fork"),
    (
        ETSLOCK_ERR_STORE,
        c"ETSLOCK_ERR_STORE",
        c"the store cannot be reached, or refuses; nothing changed",
    ),
    (ETSLOCK_ERR_PANIC, c"ETSLOCK_ERR_PANIC", c"a bug in etslock: please report it"),
];

/// The row of `status` in `TEXTS`.
fn texts(
    status: etslock_status,
) -> Option<&'static (etslock_status_code, &'static CStr, &'static CStr)> {
    TEXTS.iter().find(|(code, _, _)| *code as etslock_status == status)
}

/// The name of a status, such as "ETSLOCK_WAIT_TIMEOUT".
///
/// A number that this release does not know gives "ETSLOCK_STATUS_UNKNOWN"; NULL is never returned.
///
/// Ownership: the string is static; never free it.
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.1
#[unsafe(no_mangle)]
pub extern "C" fn etslock_status_name(status: etslock_status) -> *const c_char {
    texts(status).map_or(c"ETSLOCK_STATUS_UNKNOWN", |(_, name, _)| name).as_ptr()
}

/// What a status means, in a sentence in English.
///
/// A number that this release does not know gives "unknown status"; NULL is never returned. The
/// wording may change from release to release; compare numbers, not texts.
///
/// Ownership: the string is static; never free it.
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.1
#[unsafe(no_mangle)]
pub extern "C" fn etslock_status_text(status: etslock_status) -> *const c_char {
    texts(status).map_or(c"unknown status", |(_, _, text)| text).as_ptr()
}

/// The version of the library that runs, such as "0.1.0".
///
/// ETSLOCK_VERSION is the version of the header that the program was compiled with. The two may
/// differ; the ABI stays compatible as long as the soname of the library is the same.
///
/// Ownership: the string is static; never free it.
/// Threads:   any thread.
/// Blocks:    no.
/// Since:     0.1
#[unsafe(no_mangle)]
pub extern "C" fn etslock_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("the package version holds a NUL"),
        };
    VERSION.as_ptr()
}
