//! What a head's variable part has behind the block table: sections, each of a
//! kind. `docs/object-format.md` has the tables.

use std::collections::BTreeMap;

use bytes::Bytes;
use rampuddle_protocol::Field;

use crate::error::Error;

/// What a user has written beside an object's bytes: values of any bytes, by
/// names of 1 to 255 bytes without control characters. All of it has at most
/// 64 KiB, with 8 bytes for each name.
pub type Metadata = BTreeMap<String, Bytes>;

/// The section with the user's metadata.
pub(crate) const SECTION_METADATA: u16 = 1;
/// The section that says when the object ends.
pub(crate) const SECTION_EXPIRY: u16 = 2;
/// The section with the checksum of the whole object.
pub(crate) const SECTION_CRC32C: u16 = 3;
/// Kinds with this bit may not be skipped by who does not know them.
pub(crate) const SECTION_MUST_BE_KNOWN: u16 = 1 << 15;
/// All metadata of an object, as it is encoded.
pub(crate) const METADATA_BYTES_MAX: u64 = 64 << 10;
/// The longest name in metadata.
pub(crate) const METADATA_NAME_BYTES_MAX: usize = 255;

/// What stands before the bytes of a section, and before those of an entry of
/// the metadata: a number of two bytes, two reserved ones, a length of four.
const PREFIX_BYTES: usize = 8;

const DO_NOT_FIT: &str = "its sections do not fit its variable part";
const WRONG_LENGTH: &str = "a section of it does not have the length of its kind";
const BAD_METADATA: &str = "its metadata makes no sense";

/// What the sections of a head say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sections {
    /// What the user wrote; no section when there is nothing.
    pub(crate) metadata: Metadata,
    /// When the object ends, in milliseconds since the epoch.
    pub(crate) expires_ms: Option<u64>,
    /// The checksum of all bytes of the object, as they are without a codec.
    pub(crate) crc32c: Option<u32>,
}

impl Sections {
    /// Their bytes, by ascending kind; none when they say nothing.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.metadata.is_empty() {
            push(&mut out, SECTION_METADATA, &encode_metadata(&self.metadata));
        }
        if let Some(expires_ms) = self.expires_ms {
            push(&mut out, SECTION_EXPIRY, &expires_ms.to_le_bytes());
        }
        if let Some(crc32c) = self.crc32c {
            push(&mut out, SECTION_CRC32C, &crc32c.to_le_bytes());
        }
        out
    }

    /// Reads sections to the end of `bytes`; says what is wrong with them. Those
    /// that are not known are skipped when they may be.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut sections = Self::default();
        let mut seen = 0_u8;
        while let Some((kind, length)) = take_prefix(&mut bytes).ok_or(DO_NOT_FIT)? {
            let content = take(&mut bytes, length).ok_or(DO_NOT_FIT)?;
            if !(SECTION_METADATA..=SECTION_CRC32C).contains(&kind) {
                if kind & SECTION_MUST_BE_KNOWN != 0 {
                    return Err("it has a section that this client must know and does not");
                }
                continue;
            }
            if seen & 1 << kind != 0 {
                return Err("it has a section twice");
            }
            seen |= 1 << kind;
            sections.fill(kind, content)?;
        }
        Ok(sections)
    }

    fn fill(&mut self, kind: u16, content: &[u8]) -> Result<(), &'static str> {
        match kind {
            SECTION_METADATA => self.metadata = decode_metadata(content).ok_or(BAD_METADATA)?,
            SECTION_EXPIRY => {
                let bytes = content.try_into().map_err(|_| WRONG_LENGTH)?;
                self.expires_ms = Some(u64::from_le_bytes(bytes));
            }
            _ => {
                let bytes = content.try_into().map_err(|_| WRONG_LENGTH)?;
                self.crc32c = Some(u32::from_le_bytes(bytes));
            }
        }
        Ok(())
    }
}

/// Whether metadata may be written.
pub(crate) fn check_metadata(metadata: &Metadata) -> Result<(), Error> {
    if let Some(name) = metadata.keys().find(|name| !is_name(name)) {
        return Err(Error::BadOption {
            option: "metadata name",
            found: format!("\"{}\"", name.escape_debug()),
            expected: "1 to 255 bytes without control characters",
        });
    }
    let lengths = metadata.iter().map(|(name, value)| PREFIX_BYTES + name.len() + value.len());
    let bytes = lengths.fold(0, usize::saturating_add) as u64;
    if bytes > METADATA_BYTES_MAX {
        let what = "the metadata of an object, with 8 bytes for each name,";
        return Err(Error::TooLarge { what, bytes, limit: METADATA_BYTES_MAX });
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=METADATA_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

fn encode_metadata(metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in metadata {
        push_prefix(&mut out, name.len() as u16, value.len());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }
    out
}

fn decode_metadata(mut bytes: &[u8]) -> Option<Metadata> {
    if bytes.len() as u64 > METADATA_BYTES_MAX {
        return None;
    }
    let mut metadata = Metadata::new();
    while let Some((name_bytes, value_bytes)) = take_prefix(&mut bytes)? {
        let name = str::from_utf8(take(&mut bytes, name_bytes.into())?).ok()?;
        let value = take(&mut bytes, value_bytes)?;
        // In order, and so each name once: one encoding for one content.
        let is_next = metadata.last_key_value().is_none_or(|(last, _)| **last < *name);
        if !is_name(name) || !is_next {
            return None;
        }
        metadata.insert(name.to_owned(), Bytes::copy_from_slice(value));
    }
    Some(metadata)
}

fn push(out: &mut Vec<u8>, kind: u16, content: &[u8]) {
    push_prefix(out, kind, content.len());
    out.extend_from_slice(content);
}

fn push_prefix(out: &mut Vec<u8>, number: u16, length: usize) {
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

/// The next prefix: its number and length. `Some(None)` = the end; `None` = what
/// is left is too short.
#[expect(clippy::option_option, reason = "the end is no failure")]
fn take_prefix(bytes: &mut &[u8]) -> Option<Option<(u16, u32)>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let prefix = take(bytes, PREFIX_BYTES as u32)?;
    Some(Some((u16::take(prefix), u32::take(&prefix[4..]))))
}

fn take<'b>(bytes: &mut &'b [u8], length: u32) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(length as usize)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{Random, SeededRandom};

    fn full() -> Sections {
        let entry = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
        Sections {
            metadata: [entry("type", b"text/plain"), entry("ä", b"\0\xff"), entry("empty", b"")]
                .into(),
            expires_ms: Some(1_767_225_600_000),
            crc32c: Some(7),
        }
    }

    fn section(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, kind, content);
        out
    }

    #[test]
    fn sections_read_back_and_say_nothing_in_no_bytes() {
        assert_eq!(Sections::default().encode(), b"");
        assert_eq!(Sections::decode(b""), Ok(Sections::default()));
        assert_eq!(Sections::decode(&full().encode()), Ok(full()));
        for part in [
            Sections { metadata: full().metadata, ..Sections::default() },
            Sections { expires_ms: full().expires_ms, ..Sections::default() },
            Sections { crc32c: full().crc32c, ..Sections::default() },
        ] {
            assert_eq!(Sections::decode(&part.encode()), Ok(part));
        }
    }

    #[test]
    fn a_section_that_is_not_known_is_skipped_unless_it_says_that_it_must_be_known() {
        for kind in [0, 4, 0x7fff] {
            let bytes = [section(kind, b"later"), full().encode(), section(kind, b"")].concat();
            assert_eq!(Sections::decode(&bytes), Ok(full()), "kind {kind}");
        }
        for kind in [0x8000, 0x8001, 0xffff] {
            let bytes = [full().encode(), section(kind, b"")].concat();
            assert!(Sections::decode(&bytes).unwrap_err().contains("must know"), "kind {kind}");
        }
    }

    #[test]
    fn what_does_not_fit_or_comes_twice_is_refused() {
        let whole = full().encode();
        let mut wholes = 0;
        for end in 0..whole.len() {
            match Sections::decode(&whole[..end]) {
                Ok(_) => wholes += 1,
                Err(problem) => assert_eq!(problem, DO_NOT_FIT),
            }
        }
        assert_eq!(wholes, 3, "only whole sections are fewer sections");
        for kind in SECTION_METADATA..=SECTION_CRC32C {
            let content: &[u8] = [&b""[..], &[0; 8], &[0; 4]][usize::from(kind) - 1];
            let twice = [section(kind, content), section(kind, content)].concat();
            assert_eq!(Sections::decode(&twice), Err("it has a section twice"));
            if kind != SECTION_METADATA {
                let longer = section(kind, &[content, b"x"].concat());
                assert_eq!(Sections::decode(&longer), Err(WRONG_LENGTH));
            }
        }
        let mut lying = section(9, b"bytes");
        lying[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Sections::decode(&lying), Err(DO_NOT_FIT));
    }

    fn entry(name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_prefix(&mut out, name.len() as u16, value.len());
        [&out, name, value].concat()
    }

    #[test]
    fn metadata_that_nobody_may_write_is_not_read() {
        let long = [b'n'; METADATA_NAME_BYTES_MAX + 1];
        let much = vec![0; METADATA_BYTES_MAX as usize - PREFIX_BYTES];
        for bad in [
            entry(b"", b"x"),
            entry(&long, b"x"),
            entry(b"a\nb", b"x"),
            entry(b"\xff", b"x"),
            entry(b"n", &much),
            [entry(b"b", b""), entry(b"a", b"")].concat(),
            [entry(b"a", b"1"), entry(b"a", b"2")].concat(),
            entry(b"a", b"cut")[..9].to_vec(),
            vec![0; 7],
        ] {
            let read = Sections::decode(&section(SECTION_METADATA, &bad));
            assert_eq!(read, Err(BAD_METADATA), "{:?}", &bad[..bad.len().min(20)]);
        }
        let just = section(SECTION_METADATA, &entry(b"n", &much[1..]));
        assert_eq!(Sections::decode(&just).unwrap().metadata.len(), 1);
    }

    #[test]
    fn metadata_that_would_not_be_read_is_not_written() {
        let one = |name: &str, length: usize| -> Metadata {
            [(name.to_owned(), Bytes::from(vec![0; length]))].into()
        };
        assert!(check_metadata(&one(&"n".repeat(255), 5)).is_ok());
        for name in ["", "a\tb", "\u{85}", &"n".repeat(256)] {
            let refused = check_metadata(&one(name, 5)).unwrap_err().to_string();
            assert!(refused.contains("metadata name"), "{refused}");
        }
        let room = METADATA_BYTES_MAX as usize - PREFIX_BYTES - 1;
        assert!(check_metadata(&one("n", room)).is_ok());
        let refused = check_metadata(&one("n", room + 1)).unwrap_err();
        assert!(matches!(refused, Error::TooLarge { bytes: 65_537, limit: 65_536, .. }));
    }

    #[test]
    fn damaged_sections_are_read_or_refused_and_never_more() {
        let seed = 20_260_101;
        println!("seed {seed}");
        let random = SeededRandom::new(seed);
        let whole = full().encode();
        let (mut read, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut draw = [0; 4];
            random.fill(&mut draw);
            let mut bytes = whole.clone();
            let at = usize::from(u16::from_le_bytes([draw[0], draw[1]])) % bytes.len();
            bytes[at] = draw[2];
            bytes.truncate(bytes.len() - usize::from(draw[3] % 4) * 3);
            match Sections::decode(&bytes) {
                // What was read says nothing that its bytes have no room for.
                Ok(sections) => {
                    assert!(sections.encode().len() <= bytes.len());
                    read += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(read > 500 && refused > 500, "{read} read, {refused} refused");
    }
}
