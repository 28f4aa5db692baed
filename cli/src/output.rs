//! What is printed: text for people, JSON lines for programs, and names that do
//! no harm to a terminal.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use serde::Serialize;

use crate::exit::one_line;

/// Where a command prints. Results go to stdout, remarks to stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// JSON lines on stdout instead of text.
    pub(crate) json: bool,
    /// No remarks.
    pub(crate) quiet: bool,
}

/// Nobody reads stdout any more.
#[derive(Debug)]
pub(crate) struct ClosedOutput;

impl fmt::Display for ClosedOutput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("stdout is closed")
    }
}

impl std::error::Error for ClosedOutput {}

impl Output {
    /// One result: the object as a line of JSON, or the text.
    pub(crate) fn result(
        self,
        object: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        if self.json { self.json_line(object) } else { self.text(&text()) }
    }

    /// One compact object on a line of its own.
    pub(crate) fn json_line(self, object: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// The report of something that was done, as a line of JSON. That it cannot
    /// be written undoes nothing: the command ends as it would have ended.
    pub(crate) fn report(self, object: &impl Serialize) {
        match self.json_line(object) {
            Err(error) if !error.is::<ClosedOutput>() => complain(&one_line(&error)),
            _ => {}
        }
    }

    /// A line of text.
    pub(crate) fn text(self, line: &str) -> anyhow::Result<()> {
        self.bytes(format!("{line}\n").as_bytes())
    }

    /// Bytes as they are, at once.
    pub(crate) fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(stdout_error)
    }

    /// A remark on stderr, unless it is to be quiet.
    pub(crate) fn remark(self, line: &str) {
        if !self.quiet {
            to_stderr(line);
        }
    }
}

/// Says on stderr what went wrong.
pub(crate) fn complain(line: &str) {
    to_stderr(&format!("puddle: {line}"));
}

/// A line on stderr, as it is, in one piece. Who closed stderr does not want to
/// know.
pub(crate) fn to_stderr(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// What a failure to write to stdout is.
pub(crate) fn stdout_error(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ClosedOutput.into();
    }
    anyhow::Error::new(error).context("cannot write to stdout")
}

/// A name of any bytes, fit for a terminal: bytes that are not UTF-8 and
/// characters that are not seen, or that turn text around, are written `\xNN`.
pub(crate) fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_escaped(&mut text, character);
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text
}

/// The same for text.
pub(crate) fn escape_text(text: &str) -> String {
    escape(text.as_bytes())
}

fn push_escaped(text: &mut String, character: char) {
    if is_harmful(character) {
        push_bytes(text, character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        text.push(character);
    }
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Control characters, and those that are invisible or change the direction.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// A name in JSON: `name`, as it is when it is UTF-8, else escaped and with
/// `name_hex` beside it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JsonName {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
}

impl JsonName {
    /// The name of these bytes.
    pub(crate) fn new(name: &[u8]) -> Self {
        match std::str::from_utf8(name) {
            Ok(name) => Self { name: name.to_owned(), name_hex: None },
            Err(_) => Self { name: escape(name), name_hex: Some(hex(name)) },
        }
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `1 object`, `2 objects`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(escape("a/ä b.bin".as_bytes()), "a/ä b.bin");
        assert_eq!(escape(b"\x1b[2J\n\xff"), "\\x1b[2J\\x0a\\xff");
        assert_eq!(escape("a\u{202e}b\u{85}".as_bytes()), "a\\xe2\\x80\\xaeb\\xc2\\x85");
    }

    #[test]
    fn json_has_the_name_itself_or_both_of_its_forms() {
        let json = |name: &[u8]| serde_json::to_string(&JsonName::new(name)).unwrap();
        assert_eq!(json(b"a\n"), r#"{"name":"a\n"}"#);
        assert_eq!(json(b"a\xff"), r#"{"name":"a\\xff","name_hex":"61ff"}"#);
    }
}
