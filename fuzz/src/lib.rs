//! Random programs that use the C API, decoded from bytes.
//!
//! A program is a script for one thread, whose every answer a reference model predicts (`script`
//! and what stands beside it), or scripts for several, after which the tables must hold what the
//! answers said (`threads`).

// For its exported symbols.
use etslock as _;

mod api;
mod begun;
mod calls;
mod guards;
mod input;
mod locks;
mod lonely;
mod model;
mod scenes;
mod script;
mod tables;
mod threads;
mod world;
mod wrong;

use input::Input;

/// Runs the program that the bytes tell.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(8) {
        6 => threads::run(input, 2),
        7 => threads::run(input, 3),
        _ => script::run(input),
    }
}

/// In place of the system's: the library seeds its hashes with it, and so the order in which it
/// takes several locks. An input that failed has to fail again.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: what its callers promise.
    unsafe { buffer.write_bytes(0x5a, len) };
    len.cast_signed()
}

/// Whether to make a mistake, so that one can see that it is found: PLANTED names it.
fn planted(mistake: &str) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("PLANTED").ok());
    PLANTED.as_deref() == Some(mistake)
}
