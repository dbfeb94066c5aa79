//! Adaptive spinning: looking for a moment before going to sleep, for as long as it has paid lately.

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::atomic::AtomicUsize;

/// How long it has paid lately to spin before sleeping. Used by one side, one thread at a time.
///
/// WHY: a wake-up costs as much as `FULL` looks at most, so more never pays. Where the other side is
/// slow to come, or has no core to run on, spinning only burns its time: the patience halves with
/// each failure, and is tried again for `BRIEF` looks now and then.
///
/// WHY: not none in a crowd. One caller and one worker that are awake serve each other for a time
/// slice, while the rest sleep: with eight callers on two cores seven times as many calls as without
/// (`make bench`, B7), beside threads that take all cores as well. `BRIEF` looks are less than it
/// costs to sleep and be woken on a busy core.
#[derive(Default)]
pub(super) struct Patience {
    spins: AtomicU32,
    waits: AtomicU32,
}

impl Patience {
    const FULL: u32 = 2_000;
    const BRIEF: u32 = 400;
    const TRIED_AGAIN: u32 = 16;

    /// Looks for a moment, at most `most` times. Whether `done` came true.
    pub(super) fn spin_until(&self, most: u32, mut done: impl FnMut() -> bool) -> bool {
        let spins = self.begin().min(most);
        let came = (0..spins).any(|_| {
            let came = done();
            if !came {
                std::hint::spin_loop();
            }
            came
        });
        self.end(spins, came);
        came
    }

    // ORDERING of both: guesses, which nothing else depends on.
    fn begin(&self) -> u32 {
        let waits = self.waits.load(Relaxed);
        self.waits.store(waits.wrapping_add(1), Relaxed);
        let least = if waits.is_multiple_of(Self::TRIED_AGAIN) { Self::BRIEF } else { 0 };
        self.spins.load(Relaxed).max(least)
    }

    fn end(&self, spins: u32, came: bool) {
        let now = self.spins.load(Relaxed);
        let next = if came { (spins.max(now) * 2).min(Self::FULL) } else { now / 2 };
        self.spins.store(next, Relaxed);
    }
}

/// How often either side of a call may look, with so many calls under way.
pub(super) fn most_spins(in_flight: usize) -> u32 {
    match cores() {
        1 => 0, // Nobody works while somebody spins.
        cores if in_flight > cores / 2 => Patience::BRIEF,
        _ => Patience::FULL,
    }
}

fn cores() -> usize {
    // WHY: no lock, which a fork could copy half-way. Who is first at the same time finds the same.
    static CORES: AtomicUsize = AtomicUsize::new(0);
    if cfg!(loom) {
        return 1; // Nobody spins in a model.
    }
    // ORDERING of both: a number.
    match CORES.load(Relaxed) {
        0 => {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
            CORES.store(cores, Relaxed);
            cores
        }
        cores => cores,
    }
}
