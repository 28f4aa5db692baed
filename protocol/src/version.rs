//! Versions: a hybrid logical time and who wrote.

use std::fmt;
use std::str::FromStr;

use crate::Field;

/// The version of a value. Greater wins everywhere, in any order of arrival.
///
/// `time` is a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks
/// and Consistent Snapshots", 2014): 48 bits of milliseconds since 1970, then
/// 16 bits of its fraction and a counter within that. Clients draw versions; servers never do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    /// Milliseconds since 1970 in the upper 48 bits; in the lower 16 the fraction of
    /// one, as far as the writer's clock knows it, and a counter.
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

/// A text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadVersion;

impl fmt::Display for BadVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("expected TIME-WRITER, each of 16 hexadecimal digits")
    }
}

impl std::error::Error for BadVersion {}

impl FromStr for Version {
    type Err = BadVersion;

    /// Reads what [`Display`](fmt::Display) prints.
    ///
    /// # Errors
    /// When it is anything else.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let (time, writer) = text.split_once('-').ok_or(BadVersion)?;
        Ok(Self { time: half(time)?, writer: half(writer)? })
    }
}

fn half(digits: &str) -> Result<u64, BadVersion> {
    let is_half = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_half.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    number.ok_or(BadVersion)
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

    #[test]
    fn a_version_reads_back_as_it_is_printed_and_nothing_else_does() {
        let version = Version { time: 0x019b_76da_a800_0003, writer: 0x1122_3344_5566_7788 };
        assert_eq!(version.to_string().parse(), Ok(version));
        assert_eq!(Version::NONE.to_string().parse(), Ok(Version::NONE));
        let upper = version.to_string().to_uppercase();
        assert_eq!(upper.parse(), Ok(version));
        let plus = format!("+{}", &version.to_string()[1..]);
        for text in
            ["", "-", "1-2", &plus, &format!("{version}0"), &format!(" {version}"), "\u{ff}-"]
        {
            assert_eq!(text.parse::<Version>(), Err(BadVersion), "{text:?}");
        }
    }
}
