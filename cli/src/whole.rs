//! Whole numbers with bounds, in flags and in the config file.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u64, const MAX: u64>(u64);

/// A text that is no such number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number from {min} to {max}")]
pub(crate) struct BadWhole {
    min: u64,
    max: u64,
}

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    const BAD: BadWhole = BadWhole { min: MIN, max: MAX };

    fn new(number: u64) -> Result<Self, BadWhole> {
        if (MIN..=MAX).contains(&number) { Ok(Self(number)) } else { Err(Self::BAD) }
    }

    /// The number as one of these, if it is.
    pub(crate) fn of(number: impl TryInto<u64>) -> Option<Self> {
        Self::new(number.try_into().ok()?).ok()
    }

    /// The number, in a type that its bounds fit.
    pub(crate) fn get<T: TryFrom<u64>>(self) -> T {
        T::try_from(self.0).ok().expect("the bounds fit the type")
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Whole<MIN, MAX> {
    type Err = BadWhole;

    fn from_str(text: &str) -> Result<Self, BadWhole> {
        // The parser of the standard library would let a plus sign through.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_plain).ok_or(Self::BAD).and_then(Self::new)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Whole<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeVisitor::<MIN, MAX>)
    }
}

struct WholeVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for WholeVisitor<MIN, MAX> {
    type Value = Whole<MIN, MAX>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a whole number from {MIN} to {MAX}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Whole::new(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Whole::of(number).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Replicas = Whole<1, 255>;

    #[test]
    fn numbers_out_of_bounds_and_what_is_no_number_are_told_what_is_expected() {
        for (text, number) in [("1", 1), ("255", 255), ("007", 7)] {
            assert_eq!(text.parse::<Replicas>().unwrap().get::<u8>(), number);
        }
        for text in ["", "0", "256", "-1", "+1", "1.5", "x", "18446744073709551616"] {
            let refused = text.parse::<Replicas>().unwrap_err().to_string();
            assert_eq!(refused, "expected a whole number from 1 to 255", "{text}");
        }
    }

    #[test]
    fn the_config_file_has_the_same_bounds() {
        #[derive(Debug, serde::Deserialize)]
        struct Config {
            replicas: Replicas,
        }
        let read = |text: &str| toml::from_str::<Config>(&format!("replicas = {text}"));
        assert_eq!(read("3").unwrap().replicas.get::<u8>(), 3);
        for text in ["0", "300", "-1", "1.5", "\"3\""] {
            let refused = read(text).unwrap_err().to_string();
            assert!(refused.contains("a whole number from 1 to 255"), "{text}: {refused}");
        }
    }
}
