//! Text from strangers, made fit for a terminal.

/// The longest text from a registry that a message repeats.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// The text, [`escaped`], and cut when it is long.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => escaped(&text[..end]) + "...",
        None => escaped(text),
    }
}

/// The text with control characters, directional marks and other invisible
/// things escaped. Doing it twice does no harm.
pub(crate) fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '"' | '\'' | '\\') {
            line.push(character);
        } else {
            line.extend(character.escape_debug());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_sees_no_escapes_and_no_novels() {
        assert_eq!(shown("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(shown("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(escaped(&escaped("a\x1bb")), "a\\u{1b}b");
        assert_eq!(shown(&"x".repeat(100_000)).len(), 203);
    }
}
