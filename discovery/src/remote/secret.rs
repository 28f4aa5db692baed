//! Tokens and passwords: where they come from, and that nothing prints them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::blocking::blocking;
use crate::document;
use crate::error::DiscoveryError;

/// The largest file with a secret.
const SECRET_BYTES_MAX: u64 = 16 << 10;

/// A text that no log, error or debug output ever shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for whom it is meant.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `text`, which a stranger wrote, without the secret in it, also where that is quoted.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.to_owned();
        }
        let quoted = format!("{:?}", self.0);
        let quoted = quoted.trim_matches('"');
        let text = if quoted == self.0 { text.to_owned() } else { text.replace(quoted, "...") };
        text.replace(&self.0, "...")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(secret)")
    }
}

/// A secret and where it is from: what lies in a file can be replaced while the program
/// runs.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// It stood in the URL.
    OfUrl(Secret),
    /// It stood in a variable of the environment.
    OfVariable(Secret, &'static str),
    /// It lies in a file.
    File(PathBuf),
}

impl Credential {
    /// The secret as it is now. Reads the file, if there is one.
    pub(crate) fn secret(&self) -> Result<Secret, DiscoveryError> {
        match self {
            Self::OfUrl(secret) | Self::OfVariable(secret, _) => Ok(secret.clone()),
            Self::File(path) => read(path),
        }
    }

    /// Where it is from, as it follows "the token" or "the password" in a message.
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::OfUrl(_) => "of the url".to_owned(),
            Self::OfVariable(_, variable) => format!("of the variable {variable}"),
            Self::File(path) => format!("in {}", path.display()),
        }
    }

    /// The credential that an environment variable holds, unless it is empty.
    pub(crate) fn from_environment(variable: &'static str) -> Option<Self> {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
        value.map(|value| Self::OfVariable(Secret::new(value), variable))
    }

    /// The credential in the file that an environment variable names.
    pub(crate) fn file_from_environment(variable: &str) -> Option<Self> {
        let path = std::env::var_os(variable).filter(|value| !value.is_empty());
        path.map(|path| Self::File(path.into()))
    }
}

/// A secret that was read, and where it can be read again.
#[derive(Debug)]
pub(crate) struct HeldSecret {
    credential: Credential,
    current: Mutex<Secret>,
}

impl HeldSecret {
    /// Reads the secret.
    pub(crate) fn new(credential: Credential) -> Result<Self, DiscoveryError> {
        let current = Mutex::new(credential.secret()?);
        Ok(Self { credential, current })
    }

    /// See [`Credential::origin`].
    pub(crate) fn origin(&self) -> String {
        self.credential.origin()
    }

    /// The secret as it was last read.
    pub(crate) fn current(&self) -> Secret {
        self.lock().clone()
    }

    /// Reads the secret again, after `refused` was refused; true when it is another one.
    pub(crate) async fn reload(&self, refused: &Secret) -> Result<bool, DiscoveryError> {
        let credential = self.credential.clone();
        let secret = blocking(move || credential.secret()).await?;
        *self.lock() = secret.clone();
        Ok(secret != *refused)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Secret> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line of a file; without its line end.
fn read(path: &Path) -> Result<Secret, DiscoveryError> {
    let bytes = document::read(&document::open(path)?, path, SECRET_BYTES_MAX)?;
    let text = str::from_utf8(&bytes).ok().map(|text| text.trim_end_matches(['\n', '\r']));
    match text {
        Some(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(Secret::new(text)),
        _ => Err(DiscoveryError::malformed(
            path.to_string_lossy(),
            "expected one line of text with a secret in it",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("sesame");
        for credential in
            [Credential::OfUrl(secret.clone()), Credential::OfVariable(secret.clone(), "TOKEN")]
        {
            let shown = format!("{secret:?} {credential:?} {}", credential.origin());
            assert!(!shown.contains("sesame"), "{shown}");
        }
        assert_eq!(secret.hidden_in("no such token sesame"), "no such token ...");
        assert_eq!(Secret::new("").hidden_in("text"), "text");
        let odd = Secret::new("ses\"ame\\1");
        assert_eq!(
            odd.hidden_in(&format!("a string {:?} and {}", odd.0, odd.0)),
            "a string \"...\" and ..."
        );
    }

    #[tokio::test]
    async fn a_secret_in_a_file_is_read_again_when_asked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "first\n").unwrap();
        let credential = Credential::File(file.path().into());
        let held = HeldSecret::new(credential.clone()).unwrap();
        assert_eq!(held.current().expose(), "first");
        let first = held.current();
        assert!(!held.reload(&first).await.unwrap());
        std::fs::write(&file, "second\r\n").unwrap();
        // Of two calls that are refused at once, both are to be made again.
        assert!(held.reload(&first).await.unwrap() && held.reload(&first).await.unwrap());
        assert_eq!(held.current().expose(), "second");
        let long = vec![b'x'; 20_000];
        for bad in [&b""[..], b"\n", b"a\nb", b"a\0", b"\xff", &long] {
            std::fs::write(&file, bad).unwrap();
            let error = credential.secret().unwrap_err().explained();
            assert!(!error.contains("a\\n"), "{error}");
        }
        file.close().unwrap();
        assert!(credential.secret().unwrap_err().is_not_found());
    }
}
