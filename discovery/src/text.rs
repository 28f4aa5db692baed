//! Text from strangers, made fit for a terminal.

/// The longest text from a registry that a message repeats.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// The longest part of an explanation, at its begin and at its end.
const EXPLAINED_CHARACTERS_MAX: usize = 300;

/// An explanation, [`escaped`]. Of a long one the middle is left out: parsers
/// repeat what they found and say behind it what they expected.
pub(crate) fn shown_ends(text: &str) -> String {
    let (begin, end) = (EXPLAINED_CHARACTERS_MAX, EXPLAINED_CHARACTERS_MAX - 1);
    let first = text.char_indices().nth(begin).map(|(at, _)| at);
    let last = text.char_indices().rev().nth(end).map(|(at, _)| at);
    match (first, last) {
        (Some(first), Some(last)) if first < last => {
            format!("{} ... {}", escaped(&text[..first]), escaped(&text[last..]))
        }
        _ => escaped(text),
    }
}

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

    #[test]
    fn of_a_long_explanation_the_end_is_kept() {
        let long = format!("unknown \"{}\", expected b", "ä".repeat(100_000));
        let shown = shown_ends(&long);
        assert!(shown.starts_with("unknown \"ä") && shown.ends_with("ä\", expected b"), "{shown}");
        assert_eq!(shown.chars().count(), 605);
        for length in [0, 1, 300, 600] {
            assert_eq!(shown_ends(&"x".repeat(length)).len(), length);
        }
        assert_eq!(shown_ends(&"x".repeat(601)).len(), 605);
    }
}
