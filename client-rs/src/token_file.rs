//! Token files: secrets that nobody else on this machine may read.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use crate::token::{Token, TokenError};

/// The longest token file that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// What only the file's owner may do.
const OTHERS: u32 = 0o077;

impl Token {
    /// The one token in a file: what a client shows. Blocks for as long as
    /// reading a small file does.
    ///
    /// # Errors
    /// When there is none or more than one, or others may read the file.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        let path = path.as_ref();
        let mut tokens = Self::read_all(path)?;
        match (tokens.pop(), tokens.len()) {
            (Some(token), 0) => Ok(token),
            (_, more) => Err(TokenError::Several { path: path.to_owned(), count: more + 1 }),
        }
    }

    /// The tokens in a file, a line each: those of which a server's clients must
    /// show one.
    ///
    /// # Errors
    /// When there is none, or others may read the file.
    pub fn read_all(path: impl AsRef<Path>) -> Result<Vec<Self>, TokenError> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let lines = text.lines().map(str::trim).zip(1..);
        let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        let tokens = lines.map(|(line, number)| {
            let in_line = |source| TokenError::Line {
                path: path.to_owned(),
                number,
                source: Box::new(source),
            };
            Self::parse(line).map_err(in_line)
        });
        let tokens = tokens.collect::<Result<Vec<Self>, TokenError>>()?;
        if tokens.is_empty() { Err(TokenError::None { path: path.to_owned() }) } else { Ok(tokens) }
    }
}

fn read_text(path: &Path) -> Result<String, TokenError> {
    let failed = |source| TokenError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check_private(path, &metadata, rustix::process::geteuid().as_raw())?;
    let mut text = String::new();
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(plain).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::other("it has more than 64 KiB")));
    }
    Ok(text)
}

/// In words that fit a file that people write.
fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidData => io::Error::other("it is not text"),
        _ => error,
    }
}

/// The file must be a file or a pipe of this user or of root, and nobody else's
/// to read or to write.
fn check_private(path: &Path, metadata: &Metadata, user: u32) -> Result<(), TokenError> {
    let (kind, mode) = (metadata.file_type(), metadata.mode() & 0o777);
    let path = path.to_owned();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(TokenError::NotAFile { path });
    }
    let owner = metadata.uid();
    if owner != user && owner != 0 {
        return Err(TokenError::NotOurs { path, owner, user });
    }
    if mode & OTHERS != 0 {
        return Err(TokenError::OpenToOthers { path, mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const LINE: &str = "lab:write:0123456789abcdef\n";

    fn private(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    /// With its cause.
    fn told(error: &TokenError) -> String {
        let cause = error.source().map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    }

    fn refusal_of(text: &str) -> String {
        told(&Token::read(private(text).path()).unwrap_err())
    }

    #[test]
    fn a_token_file_that_others_may_read_or_write_is_refused() {
        let file = private(LINE);
        Token::read(file.path()).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o777] {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let refused = Token::read(file.path()).unwrap_err().to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
        }
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o400)).unwrap();
        Token::read(file.path()).unwrap();
    }

    #[test]
    fn a_token_file_belongs_to_its_user_or_to_root() {
        let file = private(LINE);
        let metadata = file.path().metadata().unwrap();
        let owner = metadata.uid();
        check_private(file.path(), &metadata, owner).unwrap();
        let by_another = check_private(file.path(), &metadata, owner + 1);
        assert_eq!(by_another.is_ok(), owner == 0, "{by_another:?}");
    }

    #[test]
    fn a_client_shows_one_token_and_is_told_when_there_are_none_or_more() {
        assert!(refusal_of("").contains("has no token"));
        assert!(refusal_of("# none\n\n").contains("has no token"));
        assert!(refusal_of(&LINE.repeat(3)).contains("has 3 tokens"));
        assert!(refusal_of(&"#".repeat(70_000)).contains("more than 64 KiB"));
        assert!(refusal_of("\nlab:root:0123456789abcdef\n").contains("line 2"));
        assert_eq!(Token::read_all(private(&LINE.repeat(3)).path()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let file = private(LINE);
        std::fs::write(file.path(), [0xff; 20]).unwrap();
        let refused = told(&Token::read(file.path()).unwrap_err());
        assert!(refused.contains("it is not text"), "{refused}");
        for path in ["/", "/dev/zero"] {
            let refused = Token::read(path).unwrap_err().to_string();
            assert!(refused.contains("is not a file"), "{refused}");
        }
    }
}
