//! Tokens: a shared secret with a name and a role.

use std::fmt;
use std::path::PathBuf;

use rampuddle_protocol::Role;

/// The longest key id: its field in the handshake.
const KEY_ID_BYTES_MAX: usize = 16;
/// A shorter secret could be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// A token: what a client shows knowledge of, without ever sending it.
///
/// A token file has one line, `KEY_ID:ROLE:SECRET`:
///
/// - `KEY_ID` names the token on the server: 1 to 16 bytes of `A-Z a-z 0-9 . _ -`;
/// - `ROLE` is `read`, `write` or `admin`: what the client asks for;
/// - `SECRET` is the rest of the line, at least 16 bytes. An even number of
///   hexadecimal digits, at least 32, stands for the bytes that they write out;
///   anything else is taken as it is.
///
/// Space around the line is ignored; so are empty lines and lines that begin
/// with `#`.
#[derive(Clone)]
pub struct Token {
    key_id: String,
    role: Role,
    secret: Vec<u8>,
}

/// Why a token cannot be used. Never says what it found: that may be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// What is there is not a file.
    #[error("the token file {} is not a file", .path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// The file belongs to somebody else.
    #[error(
        "the token file {} belongs to user {owner}: expected user {user}, who runs this, or root; \
         make a copy of your own, with mode 600",
        .path.display()
    )]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs this.
        user: u32,
    },
    /// Others on this machine may read or write the file.
    #[error(
        "others may read or write the token file {} (mode {mode:04o}): run chmod 600 on it",
        .path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is no token in the file.
    #[error("the token file {} has no token: expected lines KEY_ID:ROLE:SECRET", .path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
    /// There are several, and one was wanted.
    #[error(
        "the token file {} has {count} tokens: a client shows one; put that into a file of its own",
        .path.display()
    )]
    Several {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A line of the file is no token.
    #[error("line {number} of the token file {}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        number: usize,
        /// What is wrong with it.
        source: Box<TokenError>,
    },
    /// There is not exactly one line.
    #[error("a token is one line KEY_ID:ROLE:SECRET, found {lines}")]
    Lines {
        /// How many there are.
        lines: usize,
    },
    /// A part is missing.
    #[error("a token is KEY_ID:ROLE:SECRET, a part is missing")]
    Parts,
    /// A bad key id.
    #[error("a token's key id has 1 to {KEY_ID_BYTES_MAX} of A-Z a-z 0-9 . _ -")]
    KeyId,
    /// A bad role.
    #[error("a token's role is read, write or admin")]
    Role,
    /// A secret that could be guessed.
    #[error("a token's secret has at least {SECRET_BYTES_MIN} bytes, found {bytes}")]
    Secret {
        /// Its length.
        bytes: usize,
    },
}

impl Token {
    /// A token from its parts.
    ///
    /// # Errors
    /// When the key id or the secret is not as a token file wants it.
    pub fn new(
        key_id: impl Into<String>,
        role: Role,
        secret: impl Into<Vec<u8>>,
    ) -> Result<Self, TokenError> {
        let (key_id, secret) = (key_id.into(), secret.into());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=KEY_ID_BYTES_MAX).contains(&key_id.len()) || !key_id.bytes().all(allowed) {
            return Err(TokenError::KeyId);
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(TokenError::Secret { bytes: secret.len() });
        }
        Ok(Self { key_id, role, secret })
    }

    /// Reads the text of a token file with one token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let lines = text.lines().map(str::trim);
        let lines: Vec<&str> =
            lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let [line] = lines[..] else {
            return Err(TokenError::Lines { lines: lines.len() });
        };
        let mut parts = line.splitn(3, ':');
        let (Some(key_id), Some(role), Some(secret)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts);
        };
        let role = match role {
            "read" => Role::Read,
            "write" => Role::Write,
            "admin" => Role::Admin,
            _ => return Err(TokenError::Role),
        };
        Self::new(key_id, role, unhexed(secret).unwrap_or_else(|| secret.as_bytes().to_vec()))
    }

    /// The name under which the server knows the token.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The role asked for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The secret: never print it.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    pub(crate) fn padded_key_id(&self) -> [u8; KEY_ID_BYTES_MAX] {
        let mut padded = [0; KEY_ID_BYTES_MAX];
        padded[..self.key_id.len()].copy_from_slice(self.key_id.as_bytes());
        padded
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut token = formatter.debug_struct("Token");
        token.field("key_id", &self.key_id).field("role", &self.role).finish_non_exhaustive()
    }
}

fn unhexed(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let is_hex = digits.len() >= 2 * SECRET_BYTES_MIN
        && digits.len().is_multiple_of(2)
        && digits.iter().all(u8::is_ascii_hexdigit);
    let value = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
    is_hex.then_some(())?;
    digits.chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_line_has_key_id_role_and_secret() {
        let token = Token::parse("# made by hand\n\n lab:write:a secret: with colons \n").unwrap();
        assert_eq!((token.key_id(), token.role()), ("lab", Role::Write));
        assert_eq!(token.secret(), b"a secret: with colons");
        assert_eq!(&token.padded_key_id(), b"lab\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let token = Token::parse("k:admin:000102030405060708090a0b0c0d0eFF").unwrap();
        assert_eq!(token.secret(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
    }

    #[test]
    fn bad_tokens_are_refused_without_saying_the_secret() {
        let bad = [
            "",
            "a:b",
            "a:root:0123456789abcdef",
            ":read:0123456789abcdef",
            "12345678901234567:read:0123456789abcdef",
            "a b:read:0123456789abcdef",
            "a:read:topsecret",
            "a:read:0123456789abcdef\nb:read:0123456789abcdef",
        ];
        for text in bad {
            let error = Token::parse(text).unwrap_err();
            assert!(!error.to_string().contains("topsecret"), "{text}");
        }
        let token = Token::parse("a:read:quite a good secret").unwrap();
        assert!(!format!("{token:?}").contains("good"));
    }
}
