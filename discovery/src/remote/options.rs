//! The options behind a URL: `?name=value&name=value`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::url::{UrlProblem, masked};

/// The options of one URL, each of which has a meaning there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    values: BTreeMap<&'static str, String>,
}

impl Options {
    /// Reads what follows the question mark of `url`. An option that is not one of
    /// `known`, comes twice or has no value is refused.
    pub(crate) fn parse(
        url: &str,
        query: &str,
        known: &[&'static str],
    ) -> Result<Self, UrlProblem> {
        let mut values = BTreeMap::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(name) = known.iter().find(|known| **known == name) else {
                let option = unless_secret(url, name);
                return Err(UrlProblem::UnknownOption { option, known: known.join(", ") });
            };
            let value = percent_decoded(value)?;
            if value.is_empty() {
                return Err(UrlProblem::Option { option: name, expected: "a value behind =" });
            }
            if values.insert(*name, value).is_some() {
                return Err(UrlProblem::Option { option: name, expected: "it once only" });
            }
        }
        Ok(Self { values })
    }

    /// The value of an option.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of an option that names a file.
    pub(crate) fn file(&self, name: &str) -> Result<Option<PathBuf>, UrlProblem> {
        let absolute = |path| std::path::absolute(path).map_err(UrlProblem::NoCurrentDirectory);
        self.get(name).map(absolute).transpose()
    }

    /// The options as they stand behind a URL, with the question mark; nothing when
    /// there are none. They have no secrets, only where those are.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.values {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.extend([name, "=", &percent_encoded(value)]);
        }
        text
    }
}

/// A part of a URL for a message, unless it may be a part of a password: a password that
/// has a question mark in it lies where options are.
fn unless_secret(url: &str, part: &str) -> String {
    if masked(url).contains(part) { part.to_owned() } else { "...".to_owned() }
}

/// The text with each `%41` replaced by the byte that it stands for.
pub(crate) fn percent_decoded(text: &str) -> Result<String, UrlProblem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or(UrlProblem::Escape)?;
        bytes.push(hexadecimal(digits).ok_or(UrlProblem::Escape)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| UrlProblem::Escape)
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let value = value(digits[0])? * 16 + value(digits[1])?;
    u8::try_from(value).ok()
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => encoded.push(char::from(byte)),
            b'.' | b'_' | b'-' | b'/' | b':' | b',' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["ca", "tls"];

    fn parse(query: &str) -> Result<Options, UrlProblem> {
        Options::parse(&format!("etcd://h?{query}"), query, KNOWN)
    }

    #[test]
    fn options_are_read_and_written_alike() {
        let options = parse("tls=on&ca=/etc/a%20b%26c.pem").unwrap();
        assert_eq!(options.get("ca"), Some("/etc/a b&c.pem"));
        assert_eq!(options.get("tls"), Some("on"));
        assert_eq!(options.file("ca").unwrap(), Some("/etc/a b&c.pem".into()));
        assert_eq!(parse(&options.to_text()[1..]).unwrap(), options);
        assert_eq!(parse("").unwrap().to_text(), "");
    }

    #[test]
    fn an_option_that_is_not_known_is_refused_with_those_that_are() {
        for (query, told) in [
            ("colour=blue", "\"colour\" is no option here: expected some of ca, tls"),
            ("ca=a&ca=b", "its option ca: expected it once only"),
            ("ca", "its option ca: expected a value behind ="),
            ("ca=%4", "not two hexadecimal digits"),
            ("ca=%zz", "not two hexadecimal digits"),
            ("ca=%ff", "not two hexadecimal digits"),
        ] {
            let error = parse(query).unwrap_err().to_string();
            assert!(error.contains(told), "{query}: {error}");
        }
    }

    #[test]
    fn a_part_of_a_password_is_not_repeated() {
        let url = "etcd://user:open?sesame@h";
        let error = Options::parse(url, "sesame@h", KNOWN).unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{error}");
    }
}
