//! Sees to it that a forked child knows that it is one (C-16).

use crate::descriptor;
use crate::exec;
use crate::key;
use crate::process;
use crate::sync::OnceLock;

/// From here on a fork is seen. Called before the first handle is made: there is nothing to tell
/// apart before.
pub(super) fn watch() {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        exec::prepare();
        key::prepare();
        // SAFETY: the handlers take and let go a mutex of our own and change an atomic.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
}

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
