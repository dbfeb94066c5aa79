//! Time: the only reader of the clock, and the arithmetic of deadlines.
//!
//! Invariants
//! I1. A `Moment` counts nanoseconds of the monotonic clock since the library first asked.
//! I2. A `Deadline` fits 61 bits, so that a state machine can keep one and its state in a word.
//! I3. Sums saturate: a deadline past 73 years is `NEVER`.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sync::OnceLock;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// A point on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// When the library first asked.
    pub(crate) const START: Self = Self(0);

    #[expect(clippy::disallowed_methods, reason = "the only reader of the clock")]
    pub(crate) fn now() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = START.get_or_init(Instant::now);
        Self(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).min(Deadline::NEVER.0))
    }

    pub(crate) fn after(self, timeout: Timeout) -> Deadline {
        Deadline(self.0).plus(timeout)
    }

    pub(crate) fn millis_since(self, earlier: Moment) -> i64 {
        (self.0.saturating_sub(earlier.0) / NANOS_PER_MILLI) as i64
    }

    pub(crate) fn as_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// When something must be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    pub(crate) const NEVER: Self = Self((1 << 61) - 1);

    pub(crate) fn is_past(self, now: Moment) -> bool {
        self != Self::NEVER && now.0 >= self.0
    }

    /// Time left; `None`: without end.
    pub(crate) fn remaining(self, now: Moment) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_nanos(self.0.saturating_sub(now.0)))
    }

    pub(crate) fn plus(self, timeout: Timeout) -> Self {
        match timeout.finite() {
            Some(timeout) if self != Self::NEVER => {
                let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
                Self(self.0.saturating_add(nanos).min(Self::NEVER.0))
            }
            _ => Self::NEVER,
        }
    }

    pub(crate) fn as_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// How long something may take: milliseconds, or without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timeout(Option<u64>);

impl Timeout {
    /// Without end.
    pub const INFINITE: Self = Self(None);

    /// A number of milliseconds.
    pub const fn millis(millis: u32) -> Self {
        Self(Some(millis as u64))
    }

    /// As C says it: -1 is infinite, other negative numbers are invalid.
    pub fn from_millis(millis: i64) -> Result<Self> {
        match millis {
            -1 => Ok(Self::INFINITE),
            _ => u64::try_from(millis).map(|m| Self(Some(m))).map_err(|_| Error::Invalid),
        }
    }

    /// As C says it.
    pub fn as_millis(self) -> i64 {
        self.0.map_or(-1, |millis| i64::try_from(millis).unwrap_or(i64::MAX))
    }

    /// `None` if infinite.
    pub fn finite(self) -> Option<Duration> {
        self.0.map(Duration::from_millis)
    }

    /// The whole milliseconds that `left` begins; a part of one counts as one.
    pub(crate) fn left(left: Option<Duration>) -> Self {
        Self(left.map(|left| {
            u64::try_from(left.as_nanos()).unwrap_or(u64::MAX).div_ceil(NANOS_PER_MILLI)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_to_never() {
        let now = Moment::now();
        assert_eq!(now.after(Timeout::from_millis(i64::MAX).unwrap()), Deadline::NEVER);
        assert_eq!(now.after(Timeout::INFINITE), Deadline::NEVER);
        assert!(!Deadline::NEVER.is_past(now));
        assert_eq!(now.after(Timeout::millis(1)).plus(Timeout::INFINITE), Deadline::NEVER);
    }

    #[test]
    fn only_minus_one_is_infinite() {
        assert_eq!(Timeout::from_millis(-1), Ok(Timeout::INFINITE));
        assert_eq!(Timeout::from_millis(-2), Err(Error::Invalid));
        assert_eq!(Timeout::from_millis(i64::MIN), Err(Error::Invalid));
    }

    #[test]
    fn zero_is_past_at_once_and_a_part_of_a_millisecond_is_left() {
        let now = Moment::now();
        assert!(now.after(Timeout::millis(0)).is_past(now));
        assert_eq!(Timeout::left(Some(Duration::from_nanos(1))), Timeout::millis(1));
        assert_eq!(Timeout::left(Some(Duration::ZERO)), Timeout::millis(0));
    }
}
