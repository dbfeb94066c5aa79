//! Fencing tokens: a number larger than that of every earlier lock of the same key.
//!
//! Invariants
//! I1. A key always draws from the same source, by its hash; each draw is larger than those before.
//! I2. Who draws for a key holds its lock, or finds afterwards that it has lost it. So whoever holds it
//!     next has drawn later.
//! I3. No two holders in the process draw the same token: it says which source it came from.
//!
//! WHY: several sources. One alone would be the word that every lock of every thread writes to.

use std::sync::atomic::{
    AtomicU64,
    // ORDERING of all draws: with each other. Whoever draws sees that it was evicted by one who has
    // drawn before (I6 of `hold`).
    Ordering::AcqRel,
};

#[derive(Debug)]
#[repr(align(64))]
struct Source(AtomicU64);

const SOURCES: u64 = 16;

static ALL: [Source; SOURCES as usize] = [const { Source(AtomicU64::new(1)) }; SOURCES as usize];

fn token(draw: u64, source: u64) -> u64 {
    draw * SOURCES + source
}

/// A token for a holder of the one key that has this hash.
pub(super) fn draw(hash: u64) -> u64 {
    let source = hash % SOURCES;
    // Nothing else here is a point of a schedule. WHY: not a yield, after which others go first.
    #[cfg(shuttle)]
    shuttle::sync::atomic::AtomicBool::new(false).load(std::sync::atomic::Ordering::Relaxed);
    token(ALL[source as usize].0.fetch_add(1, AcqRel), source)
}

/// A token for a holder of the keys that have these hashes; at least one.
pub(super) fn draw_for_all(hashes: impl Iterator<Item = u64> + Clone) -> u64 {
    let sources = || hashes.clone().map(|hash| (hash % SOURCES) as usize);
    let first = sources().next().unwrap_or(0);
    let draw = sources().map(|source| ALL[source].0.fetch_add(1, AcqRel)).max().unwrap_or(0);
    // What is drawn from now on for any of the keys is larger (I1).
    for source in sources() {
        ALL[source].0.fetch_max(draw + 1, AcqRel);
    }
    token(draw, first as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_key_grow_whatever_else_is_locked_with_it() {
        let mut last = [0; 40];
        for round in 0..1_000_u64 {
            let (a, b) = (round * 7 % 40, (round * 13 + 1) % 40); // Never the same.
            let token = match round % 3 {
                0 => draw(a),
                _ => draw_for_all([a, b].into_iter()),
            };
            let keys = if round % 3 == 0 { vec![a] } else { vec![a, b] };
            for key in keys {
                assert!(last[key as usize] < token, "round {round}");
                last[key as usize] = token;
            }
        }
    }
}
