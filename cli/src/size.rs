//! Sizes as people write them.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// The units, the largest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// More digits behind the point cannot be told apart in 64 bits.
const FRACTION_DIGITS_MAX: usize = 18;

/// A number of bytes: `65536`, `64KiB`, `1.5GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) u64);

/// A text that is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSize {
    /// It does not look like one.
    #[error("expected whole bytes, or a number with KiB, MiB, GiB or TiB, such as 64KiB or 1.5GiB")]
    Form,
    /// It has a part of a byte.
    #[error("this is not a whole number of bytes; expected for example 64KiB or 1.5GiB")]
    NotWhole,
    /// It does not fit.
    #[error("expected at most 18446744073709551615 bytes (64 bits)")]
    TooLarge,
}

impl FromStr for Size {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit_bytes(unit).ok_or(BadSize::Form)?;
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return Err(BadSize::Form),
            None => (number, ""),
        };
        if whole.is_empty() || fraction.contains('.') {
            return Err(BadSize::Form);
        }
        let whole: u64 = whole.parse().map_err(|_| BadSize::TooLarge)?;
        let bytes = u128::from(whole) * u128::from(unit) + fraction_bytes(fraction, unit)?;
        u64::try_from(bytes).map(Self).map_err(|_| BadSize::TooLarge)
    }
}

fn unit_bytes(text: &str) -> Option<u64> {
    if text.is_empty() {
        return Some(1);
    }
    let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    unit.map(|(_, bytes)| *bytes)
}

fn fraction_bytes(digits: &str, unit: u64) -> Result<u128, BadSize> {
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    if digits.len() > FRACTION_DIGITS_MAX {
        return Err(BadSize::NotWhole);
    }
    let number: u128 = digits.parse().map_err(|_| BadSize::Form)?;
    let (product, ten) = (number * u128::from(unit), 10_u128.pow(digits.len() as u32));
    if product.is_multiple_of(ten) { Ok(product / ten) } else { Err(BadSize::NotWhole) }
}

impl fmt::Display for Size {
    /// In the largest unit of which it is a whole number, so that it can be
    /// read back.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &&(&str, u64)| self.0 >= unit.1 && self.0.is_multiple_of(unit.1);
        match UNITS.iter().find(fits) {
            Some((name, unit)) if *unit > 1 => write!(formatter, "{}{name}", self.0 / unit),
            _ => write!(formatter, "{}", self.0),
        }
    }
}

/// `OFFSET:LENGTH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteRange {
    /// The first byte.
    pub(crate) offset: u64,
    /// How many.
    pub(crate) length: u64,
}

impl ByteRange {
    /// The bytes from the first to the one behind the last.
    pub(crate) fn bytes(self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':');
        let (offset, length) = parts.ok_or("expected OFFSET:LENGTH, such as 1MiB:64KiB")?;
        let size = |what: &str, text: &str| {
            text.parse().map(|Size(bytes)| bytes).map_err(|error| format!("the {what}: {error}"))
        };
        Ok(Self { offset: size("offset", offset)?, length: size("length", length)? })
    }
}

/// About as large, for people: `1.1 GiB`.
pub(crate) fn rounded(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit && *unit > 1) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// Takes `"1GiB"` and `1073741824`.
struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a size such as 65536 or \"1GiB\"")
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map(Size).map_err(|_| E::custom(BadSize::Form))
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases: [(&str, u64); 12] = [
            ("0", 0),
            ("65536", 65_536),
            ("12B", 12),
            ("64KiB", 65_536),
            ("64kib", 65_536),
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("1.50GiB", 3 << 29),
            ("2.0", 2),
            ("0.5KiB", 512),
            ("16777215TiB", 16_777_215 << 40),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "-1", "+1", "1e9", "12XB", "GiB", ".5GiB", "1.GiB", "1.2.3", "1 GiB", "1K"]
        {
            assert_eq!(text.parse::<Size>(), Err(BadSize::Form), "{text}");
        }
        for text in ["1.5", "0.3KiB", "1.0000000000000000001GiB"] {
            assert_eq!(text.parse::<Size>(), Err(BadSize::NotWhole), "{text}");
        }
        for text in ["18446744073709551616", "16777216TiB", "99999999999999999999999"] {
            assert_eq!(text.parse::<Size>(), Err(BadSize::TooLarge), "{text}");
        }
    }

    #[test]
    fn a_range_has_an_offset_and_a_length_that_do_not_wrap() {
        let range: ByteRange = "1KiB:2".parse().unwrap();
        assert_eq!(range.bytes(), 1024..1026);
        let range: ByteRange = "18446744073709551615:5".parse().unwrap();
        assert_eq!(range.bytes(), u64::MAX..u64::MAX);
        for text in ["", "5", ":", "1:", ":1", "-1:5", "0:-5", "0:1:2"] {
            assert!(text.parse::<ByteRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        for bytes in [0, 1, 1023, 1024, 3 << 29, 65_537, 1 << 40, u64::MAX] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        assert_eq!(Size(3 << 29).to_string(), "1536MiB");
        assert_eq!((rounded(3 << 29), rounded(5)), ("1.5 GiB".to_owned(), "5 B".to_owned()));
    }
}
