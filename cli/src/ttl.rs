//! Lengths of time as people write them.

use std::str::FromStr;
use std::time::Duration;

/// The units, in seconds.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

/// How long an object lives: `90s`, `15m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ttl(pub(crate) Duration);

/// A text that is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number with s, m, h or d, such as 90s, 15m, 2h or 7d, at most 3650d")]
pub(crate) struct BadTtl;

impl FromStr for Ttl {
    type Err = BadTtl;

    fn from_str(text: &str) -> Result<Self, BadTtl> {
        let end = text.char_indices().next_back().ok_or(BadTtl)?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == end.1).ok_or(BadTtl)?;
        let number = &text[..end.0];
        let is_whole = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse::<u64>().ok().filter(|_| is_whole).ok_or(BadTtl)?;
        let seconds = number.checked_mul(*unit).ok_or(BadTtl)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_numbers_with_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800)] {
            assert_eq!(text.parse(), Ok(Ttl(Duration::from_secs(seconds))));
        }
        for text in [
            "",
            "s",
            "90",
            "1.5h",
            "-1s",
            "+1s",
            "1 s",
            "1w",
            "1S",
            "7\u{b5}",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            assert_eq!(text.parse::<Ttl>(), Err(BadTtl), "{text:?}");
        }
    }
}
