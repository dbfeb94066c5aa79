//! Time: the only reader of the clock, and the arithmetic of deadlines.
//!
//! Invariants
//! I1. A `Moment` counts nanoseconds of the monotonic clock, which starts near 0 with the machine.
//! I2. A `Deadline` fits 61 bits, so that a state machine can keep one and its state in a word.
//! I3. Sums saturate: a deadline past 73 years is `NEVER`.

#![expect(unsafe_code, reason = "std has no coarse clock, and its clock costs half as much again")]

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A point on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Before every other.
    pub(crate) const START: Self = Self(0);

    pub(crate) fn now() -> Self {
        // In a model time stands still, or no run could be repeated.
        if cfg!(any(loom, shuttle)) { Self::START } else { read(libc::CLOCK_MONOTONIC) }
    }

    /// The time of the last tick: up to some milliseconds ago, for a fifth of the price.
    fn lately() -> Self {
        read(libc::CLOCK_MONOTONIC_COARSE)
    }

    /// Now, as far as it takes to tell whether `deadline` has passed.
    ///
    /// WHY: most deadlines are seconds away, and a look at the precise clock costs more than a
    /// staged write.
    pub(crate) fn now_against(deadline: Deadline) -> Self {
        /// More than any tick is late.
        const MARGIN: u64 = 100 * NANOS_PER_MILLI;
        if deadline == Deadline::NEVER {
            return Self::START;
        }
        let lately = Self::lately();
        if lately.0 + MARGIN < deadline.0 { lately } else { Self::now() }
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

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// When something must be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

fn read(clock: libc::clockid_t) -> Moment {
    let mut time = MaybeUninit::uninit();
    // SAFETY: a valid place, and clocks that every Linux has.
    unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    // SAFETY: written by the call, which cannot fail with these arguments.
    let libc::timespec { tv_sec, tv_nsec } = unsafe { time.assume_init() };
    Moment((tv_sec as u64 * NANOS_PER_SECOND + tv_nsec as u64).min(Deadline::NEVER.0))
}

/// The wall clock, in nanoseconds since 1970; 0 before that. Nothing is timed by it.
pub(crate) fn wall_nanos() -> u64 {
    // In a model time stands still.
    if cfg!(any(loom, shuttle)) {
        return 0;
    }
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

impl Deadline {
    pub(crate) const NEVER: Self = Self((1 << 61) - 1);

    pub(crate) fn is_past(self, now: Moment) -> bool {
        self != Self::NEVER && now.0 >= self.0
    }

    /// Time left; `None`: without end.
    pub(crate) fn remaining(self, now: Moment) -> Option<Duration> {
        (self != Self::NEVER).then(|| Duration::from_nanos(self.0.saturating_sub(now.0)))
    }

    /// As the system's clock counts it: seconds, and nanoseconds below one.
    pub(crate) fn since_start(self) -> (u64, u64) {
        (self.0 / NANOS_PER_SECOND, self.0 % NANOS_PER_SECOND)
    }

    pub(crate) fn plus(self, timeout: Timeout) -> Self {
        match u64::try_from(timeout.0) {
            Ok(millis) if self != Self::NEVER => {
                let nanos = millis.saturating_mul(NANOS_PER_MILLI);
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(i64);

impl Timeout {
    /// Without end.
    pub const INFINITE: Self = Self(-1);

    /// A number of milliseconds.
    pub const fn millis(millis: u32) -> Self {
        Self(millis as i64)
    }

    /// As C says it: -1 is infinite, other negative numbers are invalid.
    pub fn from_millis(millis: i64) -> Result<Self> {
        if millis >= -1 { Ok(Self(millis)) } else { Err(Error::Invalid) }
    }

    /// As C says it.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` if infinite.
    pub fn finite(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_millis)
    }

    /// The whole milliseconds that `left` begins; a part of one counts as one.
    pub(crate) fn left(left: Option<Duration>) -> Self {
        left.map_or(Self::INFINITE, |left| {
            let nanos = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            Self(nanos.div_ceil(NANOS_PER_MILLI) as i64)
        })
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

    /// The coarse clock is late by up to a tick; nobody is told that he has time by it who has none.
    #[test]
    fn a_deadline_that_has_passed_is_past_whichever_clock_is_read() {
        for _ in 0..100 {
            let deadline = Deadline(Moment::now().0 + NANOS_PER_MILLI / 10);
            while !deadline.is_past(Moment::now()) {}
            assert!(deadline.is_past(Moment::now_against(deadline)));
        }
        let deadline = Moment::now().after(Timeout::millis(3_600_000));
        assert!(!deadline.is_past(Moment::now_against(deadline)));
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
