//! SipHash-1-3, the keyed hash of the standard library, over bytes that are at hand at once.
//!
//! WHY: not the standard library's own. It takes bytes in portions, which costs short keys more than
//! the hash itself.

/// The seed of a hash, known to nobody outside of this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed(pub(crate) u64, pub(crate) u64);

impl Seed {
    pub(crate) fn hash(self, bytes: &[u8]) -> u64 {
        let mut state = State {
            v0: self.0 ^ 0x736f_6d65_7073_6575,
            v1: self.1 ^ 0x646f_7261_6e64_6f6d,
            v2: self.0 ^ 0x6c79_6765_6e65_7261,
            v3: self.1 ^ 0x7465_6462_7974_6573,
        };
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state.absorb(u64::from_le_bytes(*word));
        }
        let mut last = (bytes.len() as u64) << 56;
        for (place, byte) in rest.iter().enumerate() {
            last |= u64::from(*byte) << (8 * place);
        }
        state.absorb(last);
        state.finish()
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    fn absorb(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hasher};

    /// The hasher that the standard library makes without a seed is SipHash-1-3 with zeros.
    #[test]
    fn every_length_hashes_as_in_the_standard_library() {
        let source: Vec<u8> = (0..100).map(|n: u8| n.wrapping_mul(37)).collect();
        for len in 0..source.len() {
            let mut hasher = DefaultHasher::new();
            hasher.write(&source[..len]);
            assert_eq!(Seed(0, 0).hash(&source[..len]), hasher.finish(), "{len} bytes");
        }
    }

    #[test]
    fn each_half_of_the_seed_counts() {
        let hashes = [Seed(0, 0), Seed(1, 0), Seed(0, 1)].map(|seed| seed.hash(b"key"));
        assert!(hashes[0] != hashes[1] && hashes[0] != hashes[2] && hashes[1] != hashes[2]);
    }
}
