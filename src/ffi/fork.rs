//! Sees to it that a fork copies nothing half-way, and that a child notices that it is one where
//! the kernel does not see to that (C-16).
//!
//! WHY: registered when the library is loaded. Handlers run in the order of their registration in
//! the child, and in the opposite one before the fork: so the library's come last before it, and
//! first after it, but for those of a program that registered its own before it loaded the library.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use crate::descriptor;
use crate::error::{Error, Result};
use crate::process;

/// From here on forks are seen. Called before a handle is made: there is nothing to tell apart
/// before. `Error::NoMemory` if there is none for the handlers.
pub(super) fn watch() -> Result<()> {
    // WHY: no lock, which a fork could copy half-way. Handlers that are registered twice do no harm.
    static WATCHING: AtomicBool = AtomicBool::new(false);
    // ORDERING: of both: a thread that sees the mark forks with the handlers.
    if WATCHING.load(Acquire) {
        return Ok(());
    }
    // SAFETY: the handlers take and let go a gate of our own and change atomics.
    let refusal = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    if refusal != 0 {
        return Err(Error::NoMemory);
    }
    WATCHING.store(true, Release);
    Ok(())
}

/// Called by the loader, on the thread that loads the library.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn at_load() {
        // Without memory: again before the first handle is made.
        let _ = watch();
    }
    at_load
};

unsafe extern "C" fn before() {
    process::before_fork();
}

unsafe extern "C" fn in_parent() {
    process::after_fork_in_parent();
}

unsafe extern "C" fn in_child() {
    process::after_fork_in_child();
    descriptor::after_fork_in_child();
}
