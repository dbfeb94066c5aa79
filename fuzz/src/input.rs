//! What the fuzzer chose: bytes, read one after the other as numbers, keys and values.

pub type Bytes = Vec<u8>;

/// The bytes that are left. Where there are none, every choice is 0, the plainest one.
#[derive(Debug)]
pub struct Input {
    bytes: Bytes,
    next: usize,
}

impl Input {
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), next: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.next >= self.bytes.len()
    }

    pub fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        byte
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// What is left, for several.
    pub fn split(self, parts: usize) -> Vec<Input> {
        let rest = self.bytes.get(self.next..).unwrap_or_default();
        let share = rest.len().div_ceil(parts).max(1);
        let mut shares = rest.chunks(share);
        (0..parts).map(|_| Input::new(shares.next().unwrap_or_default())).collect()
    }

    /// Few different ones, so that they meet; some are prefixes of others, or hold NUL bytes; some
    /// are too long to be kept in place.
    pub fn key(&mut self) -> Bytes {
        match self.below(16) {
            0..=3 => b"a".to_vec(),
            4..=6 => b"b".to_vec(),
            7..=9 => b"c".to_vec(),
            10 => b"".to_vec(),
            11 => b"a\0".to_vec(),
            12 => vec![b'k'; 16],
            13 => vec![b'k'; 17],
            14 => vec![b'a'; 300],
            _ => vec![self.byte(), 0, 7],
        }
    }

    pub fn keys(&mut self) -> Vec<Bytes> {
        (0..=self.below(6)).map(|_| self.key()).collect()
    }

    pub fn value(&mut self) -> Bytes {
        match self.below(16) {
            0..=3 => b"x".to_vec(),
            4..=6 => b"y".to_vec(),
            7 => b"".to_vec(),
            8 => 1i64.to_ne_bytes().to_vec(),
            9 => i64::MAX.to_ne_bytes().to_vec(),
            10 => vec![0; 16],
            11 => vec![0xff; 17],
            12 => vec![b'v'; 5000],
            _ => vec![self.byte()],
        }
    }
}
