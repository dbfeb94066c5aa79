//! Fencing tokens: a number larger than that of every earlier lock of the same key (C-21).
//!
//! A source is a word that says its next token. Tokens of source `s` are `s` modulo `SOURCES`.
//!
//! Invariants
//! I1. A key always draws from the same source, by its hash; each draw is larger than those before.
//! I2. Who draws for a key holds its lock, or finds afterwards that it has lost it. So whoever holds it
//!     next has drawn later.
//! I3. A token is what one step took from one source, and names it by its remainder: no two holders
//!     in the process have the same.
//! I4. Whoever holds several keys has drawn from the source of each. Its token is the largest draw,
//!     and before it uses it no source of its keys has a smaller one left.
//! I5. Before the first draw of a process every source is at the wall clock in nanoseconds, or past
//!     it. A draw moves a source by `SOURCES`, and a word that all cores want cannot be exchanged once
//!     in so many nanoseconds for long: so a source is behind the clock when the process ends, and
//!     the next life of the program begins above it.
//! I6. No source is ever moved past `HIGHEST`, save by draws. There is room for some 30 years of
//!     them, as fast as they can come: no source wraps.
//!
//! WHY: several sources. One alone would be the word that every lock of every thread writes to.

use crate::clock;
use crate::error::{Error, Result};
use crate::process::PerProcess;
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

/// What tokens can be raised above (I6).
const HIGHEST: u64 = u64::MAX - (1 << 60);

/// WHY: from `SOURCES` on. 0 is no token.
static ALL: [Source; SOURCES as usize] = {
    let mut all = [const { Source(AtomicU64::new(0)) }; SOURCES as usize];
    let mut source = 0;
    while source < all.len() {
        all[source] = Source(AtomicU64::new(SOURCES + source as u64));
        source += 1;
    }
    all
};

impl Source {
    /// Sees to it that the source, which is number `number`, has only tokens above `token` left.
    fn raise(&self, number: u64, token: u64) {
        let next = token + 1;
        self.0.fetch_max(next + number.wrapping_sub(next) % SOURCES, AcqRel);
    }
}

/// Sees to it that every token from here on is larger than `token`.
fn raise_all(token: u64) {
    for (number, source) in (0..).zip(&ALL) {
        source.raise(number, token);
    }
}

/// To be called before the first draw of a process (I5).
pub(super) fn start() {
    static STARTED: PerProcess<()> = PerProcess::new();
    STARTED.get(pass_the_clock);
}

fn pass_the_clock() {
    raise_all(clock::wall_nanos().min(HIGHEST));
}

/// Every later token of this process is larger than `above`; `Error::Invalid` if there would be no
/// room for them (I6).
pub fn raise_tokens(above: u64) -> Result<()> {
    if above > HIGHEST {
        return Err(Error::Invalid);
    }
    raise_all(above);
    Ok(())
}

/// A token for a holder of the one key that has this hash.
#[inline]
pub(super) fn draw(hash: u64) -> u64 {
    // Nothing else here is a point of a schedule. WHY: not a yield, after which others go first.
    #[cfg(shuttle)]
    shuttle::sync::atomic::AtomicBool::new(false).load(std::sync::atomic::Ordering::Relaxed);
    ALL[(hash % SOURCES) as usize].0.fetch_add(SOURCES, AcqRel)
}

/// A token for a holder of the keys that have these hashes; at least one (I4).
pub(super) fn draw_for_all(hashes: impl Iterator<Item = u64>) -> u64 {
    let used = hashes.fold(0_u32, |used, hash| used | 1 << (hash % SOURCES));
    let sources = || (0..SOURCES).filter(|number| used >> number & 1 == 1);
    // WHY: a draw from each, not a look. Somebody who was evicted from one of these keys, and draws
    // late, then has a smaller token, or sees its eviction.
    let token = sources().map(draw).max().unwrap_or_else(|| draw(0));
    for number in sources() {
        ALL[number as usize].raise(number, token);
    }
    token
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::{Barrier, Mutex};
    use std::thread;

    const KEYS: u64 = 40;

    /// The hashes of one key or several, by chance.
    fn some_keys(seed: &mut u64) -> Vec<u64> {
        let mut random = |below: u64| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (*seed >> 33) % below
        };
        let first = random(KEYS);
        // Neighbours: never the same key twice, and every mixture of sources.
        (0..1 + random(4)).map(|more| (first + 7 * more) % KEYS).collect()
    }

    fn draw_for(keys: &[u64]) -> u64 {
        match keys {
            [key] => draw(*key),
            keys => draw_for_all(keys.iter().copied()),
        }
    }

    #[test]
    fn tokens_of_a_key_grow_whatever_else_is_locked_with_it() {
        let mut last = [0; KEYS as usize];
        let mut seed = 1;
        for round in 0..10_000 {
            let keys = some_keys(&mut seed);
            let token = draw_for(&keys);
            for key in keys {
                assert!(last[key as usize] < token, "round {round}");
                last[key as usize] = token;
            }
        }
    }

    /// Threads that share sources and no key, and threads that share keys: no token twice, and those
    /// of a key grow in the order of its holders.
    #[test]
    fn tokens_are_unique_and_grow_by_key_whoever_draws_beside() {
        const THREADS: u64 = 4;
        let held: Vec<_> = (0..KEYS).map(|_| Mutex::new(0)).collect();
        let together = Barrier::new(THREADS as usize);
        let draws = |mut seed: u64| {
            together.wait();
            let mut drawn = Vec::new();
            for _ in 0..20_000 {
                let mut keys = some_keys(&mut seed);
                keys.sort_unstable();
                let mut last: Vec<_> =
                    keys.iter().map(|key| held[*key as usize].lock().unwrap()).collect();
                let token = draw_for(&keys);
                for last in &mut last {
                    assert!(**last < token, "{keys:?}");
                    **last = token;
                }
                drawn.push(token);
            }
            drawn
        };
        let drawn: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                (1..=THREADS).map(|seed| scope.spawn(move || draws(seed))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let unique: HashSet<_> = drawn.iter().collect();
        assert_eq!(unique.len(), drawn.len());
    }

    #[test]
    fn a_source_keeps_its_remainder_and_is_never_moved_back() {
        let source = Source(AtomicU64::new(16 + 3));
        for above in [0, 19, 20, 34, 35, 36, 7, 1 << 40, HIGHEST] {
            let before = source.0.load(Relaxed);
            source.raise(3, above);
            let next = source.0.load(Relaxed);
            assert_eq!(next % SOURCES, 3);
            assert!(next > above && next >= before && next - before.max(above) <= SOURCES);
        }
    }

    #[test]
    fn there_is_room_above_the_highest_and_not_beyond() {
        assert_eq!(raise_tokens(HIGHEST + 1), Err(Error::Invalid));
        assert_eq!(raise_tokens(u64::MAX), Err(Error::Invalid));
        let next = draw(5);
        assert!(next < HIGHEST, "nothing was changed");
        assert_eq!(raise_tokens(next + 1_000_000), Ok(()));
        assert!((0..SOURCES).all(|key| draw(key) > next + 1_000_000));
    }

    #[test]
    fn the_first_token_is_past_the_wall_clock() {
        let before = clock::wall_nanos();
        // As `start` does, which another test may have called long before.
        pass_the_clock();
        assert!((0..SOURCES).all(|key| draw(key) > before));
    }
}
