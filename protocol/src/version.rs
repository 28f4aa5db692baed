//! Versions: a hybrid logical time and who wrote.

use std::fmt;

use crate::Field;

/// The version of a value. Greater wins everywhere, in any order of arrival.
///
/// `time` is a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks
/// and Consistent Snapshots", 2014): 48 bits of milliseconds since 1970, then
/// a 16-bit counter. Clients draw versions; servers never do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
    pub time: u64,
    /// Drawn at random by each writing client.
    pub writer: u64,
}

impl Version {
    /// No version: less than every version that was drawn.
    pub const NONE: Self = Self { time: 0, writer: 0 };

    const COUNTER_BITS: u32 = 16;

    /// The first version of a millisecond.
    pub const fn from_unix_ms(unix_ms: u64, writer: u64) -> Self {
        Self { time: unix_ms << Self::COUNTER_BITS, writer }
    }

    /// Milliseconds since 1970.
    pub const fn unix_ms(self) -> u64 {
        self.time >> Self::COUNTER_BITS
    }

    /// Whether this is [`Version::NONE`].
    pub const fn is_none(self) -> bool {
        self.time == 0 && self.writer == 0
    }
}

impl Field for Version {
    const BYTES: usize = 16;
    #[inline]
    fn put(&self, out: &mut [u8]) {
        self.time.put(out);
        self.writer.put(&mut out[8..]);
    }
    #[inline]
    fn take(bytes: &[u8]) -> Self {
        Self { time: u64::take(bytes), writer: u64::take(&bytes[8..]) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}-{:016x}", self.time, self.writer)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Version({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_times_are_greater_whoever_wrote() {
        let early = Version::from_unix_ms(1_000, u64::MAX);
        let late = Version::from_unix_ms(1_001, 0);
        assert!(late > early && early > Version::NONE);
        assert_eq!(late.unix_ms(), 1_001);
    }
}
