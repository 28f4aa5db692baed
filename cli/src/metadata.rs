//! Metadata of objects: as it is given, and as it is printed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;
use rampuddle_client::Metadata;
use serde::Serialize;

use crate::exit::refusal;
use crate::output::{escape, hex};

/// One `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    name: String,
    value: Bytes,
}

/// A word that is no such pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMeta {
    /// Nothing separates name and value.
    #[error("expected NAME=VALUE, such as type=text/plain")]
    Form,
    /// The name is no text.
    #[error("the name is not UTF-8; expected NAME=VALUE, of which only the value may be any bytes")]
    Name,
}

impl Meta {
    /// The name goes up to the first `=`.
    pub(crate) fn parse(given: OsString) -> Result<Self, BadMeta> {
        let bytes = Bytes::from(given.into_vec());
        let at = bytes.iter().position(|byte| *byte == b'=').ok_or(BadMeta::Form)?;
        let name = str::from_utf8(&bytes[..at]).map_err(|_| BadMeta::Name)?.to_owned();
        Ok(Self { name, value: bytes.slice(at + 1..) })
    }
}

/// All pairs together.
pub(crate) fn collect(given: &[Meta]) -> anyhow::Result<Metadata> {
    let mut metadata = Metadata::new();
    for Meta { name, value } in given {
        if metadata.insert(name.clone(), value.clone()).is_some() {
            let name = escape(name.as_bytes());
            return Err(refusal(format!("--meta has \"{name}\" twice; give each name once")));
        }
    }
    Ok(metadata)
}

/// Metadata in JSON: values by name, as they are when they are UTF-8, else
/// escaped, and then their bytes beside them.
#[derive(Debug, Serialize)]
pub(crate) struct JsonMetadata {
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata_hex: BTreeMap<String, String>,
}

impl JsonMetadata {
    pub(crate) fn new(metadata: &Metadata) -> Self {
        let shown = |value: &[u8]| match str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => escape(value),
        };
        let is_bytes = |(_, value): &(&String, &Bytes)| str::from_utf8(value).is_err();
        let all = metadata.iter().map(|(name, value)| (name.clone(), shown(value)));
        let bytes = metadata.iter().filter(is_bytes);
        let bytes = bytes.map(|(name, value)| (name.clone(), hex(value)));
        Self { metadata: all.collect(), metadata_hex: bytes.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[u8]) -> Result<Meta, BadMeta> {
        Meta::parse(OsString::from_vec(given.to_vec()))
    }

    #[test]
    fn a_pair_is_cut_at_its_first_equals_sign() {
        let meta = parse(b"a=b=\xff").unwrap();
        assert_eq!((&*meta.name, &meta.value[..]), ("a", &b"b=\xff"[..]));
        assert_eq!(parse(b"a=").unwrap().value, "");
        assert_eq!(parse(b"a"), Err(BadMeta::Form));
        assert_eq!(parse(b"\xff=a"), Err(BadMeta::Name));
        let twice = [parse(b"a=1").unwrap(), parse(b"a=2").unwrap()];
        assert!(collect(&twice).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn json_has_values_that_are_no_text_twice() {
        let pairs = [parse(b"a=\n").unwrap(), parse(b"b=x\xff").unwrap()];
        let json = |given: &[Meta]| {
            serde_json::to_string(&JsonMetadata::new(&collect(given).unwrap())).unwrap()
        };
        assert_eq!(json(&pairs[..1]), r#"{"metadata":{"a":"\n"}}"#);
        let both = r#"{"metadata":{"a":"\n","b":"x\\xff"},"metadata_hex":{"b":"78ff"}}"#;
        assert_eq!(json(&pairs), both);
    }
}
