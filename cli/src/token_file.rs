//! Token files: secrets that nobody else on this machine may read.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::Context as _;
use rampuddle_client::Token;

use crate::exit::{BeforeAnythingExt as _, refusal};

/// The longest token file that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// What only the file's owner may do.
const OTHERS: u32 = 0o077;

/// The tokens of which a server's clients must show one: a line each.
///
/// # Errors
/// When there is none, or others may read the file.
pub(crate) fn read_all(path: &Path) -> anyhow::Result<Vec<Token>> {
    let text = read_text(path)?;
    let lines = text.lines().map(str::trim).zip(1..);
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    let tokens = lines.map(|(line, number)| {
        let place = || format!("line {number} of the token file {}", path.display());
        Token::parse(line).with_context(place).before_anything()
    });
    let tokens: Vec<Token> = tokens.collect::<anyhow::Result<_>>()?;
    if tokens.is_empty() {
        let path = path.display();
        return Err(refusal(format!(
            "the token file {path} has no token: expected lines KEY_ID:ROLE:SECRET"
        )));
    }
    Ok(tokens)
}

/// The one token that a client shows.
///
/// # Errors
/// When there is none or more than one, or others may read the file.
pub(crate) fn read_one(path: &Path) -> anyhow::Result<Token> {
    let mut tokens = read_all(path)?;
    match (tokens.pop(), tokens.len()) {
        (Some(token), 0) => Ok(token),
        (_, more) => Err(refusal(format!(
            "the token file {} has {} tokens: a client shows one; put that into a file of its own",
            path.display(),
            more + 1
        ))),
    }
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    let cannot = || format!("cannot read the token file {}", path.display());
    let file = File::open(path).with_context(cannot).before_anything()?;
    let metadata = file.metadata().with_context(cannot).before_anything()?;
    check_private(path, &metadata, rustix::process::geteuid().as_raw())?;
    let mut text = String::new();
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(plain).with_context(cannot).before_anything()?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refusal(format!("{}: it has more than 64 KiB", cannot())));
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
fn check_private(path: &Path, metadata: &Metadata, user: u32) -> anyhow::Result<()> {
    let path = path.display();
    let (kind, mode) = (metadata.file_type(), metadata.mode() & 0o777);
    if !kind.is_file() && !kind.is_fifo() {
        return Err(refusal(format!("the token file {path} is not a file")));
    }
    let owner = metadata.uid();
    if owner != user && owner != 0 {
        return Err(refusal(format!(
            "the token file {path} belongs to user {owner}: expected user {user}, who runs this, or \
             root; make a copy of your own, with mode 600"
        )));
    }
    if mode & OTHERS != 0 {
        return Err(refusal(format!(
            "others may read or write the token file {path} (mode {mode:04o}): run chmod 600 on it"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const LINE: &str = "lab:write:0123456789abcdef\n";

    fn private(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn refusal_of(text: &str) -> String {
        crate::exit::one_line(&read_one(private(text).path()).unwrap_err())
    }

    #[test]
    fn a_token_file_that_others_may_read_or_write_is_refused() {
        let file = private(LINE);
        read_one(file.path()).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o777] {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let refused = read_one(file.path()).unwrap_err().to_string();
            assert!(refused.contains("chmod 600"), "{refused}");
        }
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o400)).unwrap();
        read_one(file.path()).unwrap();
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
        assert_eq!(read_all(private(&LINE.repeat(3)).path()).unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_text_file_is_refused() {
        let file = private(LINE);
        std::fs::write(file.path(), [0xff; 20]).unwrap();
        let refused = crate::exit::one_line(&read_one(file.path()).unwrap_err());
        assert!(refused.contains("it is not text"), "{refused}");
        for path in ["/", "/dev/zero"] {
            let refused = read_one(Path::new(path)).unwrap_err().to_string();
            assert!(refused.contains("is not a file"), "{refused}");
        }
    }
}
