//! Tokens: what a program knows of those before this process.

use super::boundary::brief;
use super::status::etslock_status;
use crate::lock::raise_tokens;

/// Sees to it that every later token of this process is larger than `above`.
///
/// Tokens start from the wall clock: they are larger than those of earlier processes on this machine
/// as long as its clock is not set back (C-21). This is for everything else: call it at the start, with
/// the largest token that a system has seen that you hand tokens to. It acts on this process, and on
/// its locks in every lock table. Locks that are held keep their tokens, and so does whoever is getting
/// one meanwhile.
///
/// Threads:   any thread.
/// Blocks:    no.
/// Errors:    ETSLOCK_ERR_INVALID - `above` is larger than 2^64 - 2^60 - 1, which leaves no room for
///            later tokens; nothing changed. Below that they cannot run out.
/// Since:     0.2
#[unsafe(no_mangle)]
pub extern "C" fn etslock_token_raise(above: u64) -> etslock_status {
    brief(|| raise_tokens(above))
}
