//! Sees to it that a forked child knows that it is one (C-16).

use crate::process::Generation;
use crate::sync::OnceLock;

/// From here on a fork is seen. Called before the first handle is made: there is nothing to tell
/// apart before.
pub(super) fn watch() {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        // SAFETY: the handler does one store to an atomic, which may be done after a fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

unsafe extern "C" fn in_child() {
    Generation::next();
}
