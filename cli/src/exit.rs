//! How a command ends: exit codes, and which error has which.

use std::error::Error as StdError;
use std::fmt;
use std::process::ExitCode;

use rampuddle_client::Error as ClientError;
use rampuddle_discovery::DiscoveryError;
use rampuddle_server::StartError;

use crate::output::{ClosedOutput, complain, escape_text};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// What was asked for is not there.
    Absent = 1,
    /// Usage, or refused before anything was done.
    Refused = 2,
    /// Failed, or not known whether it was done.
    Failed = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of the user, found before anything was done.
#[derive(Debug)]
pub(crate) struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl StdError for Refusal {}

/// An error of the user with this message.
pub(crate) fn refusal(message: impl Into<String>) -> anyhow::Error {
    Refusal(message.into()).into()
}

/// Marks an error as found before anything was done.
#[derive(Debug)]
pub(crate) struct BeforeAnything(pub(crate) anyhow::Error);

impl fmt::Display for BeforeAnything {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl StdError for BeforeAnything {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.chain().nth(1)
    }
}

/// Marks failures as found before anything was done.
pub(crate) trait BeforeAnythingExt<T> {
    /// The same result, whose error exits with [`Exit::Refused`].
    fn before_anything(self) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> BeforeAnythingExt<T> for Result<T, E> {
    fn before_anything(self) -> anyhow::Result<T> {
        self.map_err(|error| BeforeAnything(error.into()).into())
    }
}

/// The end of a command that only reads: who closed its output has enough.
pub(crate) fn reading(result: anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    match result {
        Err(error) if error.chain().any(<dyn StdError>::is::<ClosedOutput>) => Ok(Exit::Done),
        result => result,
    }
}

/// Tells the user about an error, and how to exit.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    complain(&one_line(error));
    code_of(error)
}

/// The message and its causes on one line, fit for a terminal. A cause that the
/// message before it tells already is not told again.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    escape_text(&line)
}

/// The exit code of an error: the first cause that has a word on it decides.
fn code_of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(code_of_cause).unwrap_or(Exit::Failed)
}

fn code_of_cause(cause: &(dyn StdError + 'static)) -> Option<Exit> {
    if cause.is::<Refusal>() || cause.is::<BeforeAnything>() {
        return Some(Exit::Refused);
    }
    if let Some(error) = cause.downcast_ref::<ClientError>() {
        return Some(if is_refusal(error) { Exit::Refused } else { Exit::Failed });
    }
    if let Some(error) = cause.downcast_ref::<DiscoveryError>() {
        return Some(match error {
            DiscoveryError::NoSuchMember { .. } => Exit::Absent,
            DiscoveryError::ReadOnly { .. } | DiscoveryError::Unreadable { .. } => Exit::Refused,
            error if is_mistake(error) => Exit::Refused,
            _ => Exit::Failed,
        });
    }
    cause.downcast_ref::<StartError>().map(|error| match error {
        StartError::Checksum(_) | StartError::System(_) => Exit::Failed,
        _ => Exit::Refused,
    })
}

/// Whether nothing was done because the request or the settings are wrong.
fn is_refusal(error: &ClientError) -> bool {
    match error {
        ClientError::Discovery(error) => is_mistake(error),
        ClientError::BadKey { .. }
        | ClientError::BadName { .. }
        | ClientError::ReservedKey { .. }
        | ClientError::Exists { .. }
        | ClientError::Changed { .. }
        | ClientError::TooLarge { .. }
        | ClientError::BadOption { .. }
        | ClientError::NotAMember { .. }
        | ClientError::ClockAhead { .. }
        | ClientError::UnsupportedPlacement { .. } => true,
        error => error.is_refusal(),
    }
}

/// Whether whoever gave the command has to change it, or the settings. A server waits until
/// it is let in.
fn is_mistake(error: &DiscoveryError) -> bool {
    is_settings_error(error) || matches!(error, DiscoveryError::NotAllowed { .. })
}

/// Whether only other settings would help: trying again does not.
pub(crate) fn is_settings_error(error: &DiscoveryError) -> bool {
    matches!(
        error,
        DiscoveryError::BadUrl { .. }
            | DiscoveryError::UnknownScheme { .. }
            | DiscoveryError::NotInThisBuild { .. }
            | DiscoveryError::NotOurs { .. }
            | DiscoveryError::OpenToOthers { .. }
            | DiscoveryError::NameTaken { .. }
            | DiscoveryError::StillAlive { .. }
            | DiscoveryError::UnknownMember { .. }
            | DiscoveryError::AddressMismatch { .. }
            | DiscoveryError::WrongCluster { .. }
            | DiscoveryError::Invalid(_)
    )
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use rampuddle_protocol::Status;

    use super::*;

    #[test]
    fn a_message_is_one_line_and_says_nothing_twice() {
        let cause = std::io::Error::other("no\nroom \x1b[2J");
        let error = anyhow::Error::new(cause).context("cannot write: no room \x1b[2J");
        assert_eq!(one_line(&error), "cannot write: no room \\x1b[2J");
        let error = anyhow::anyhow!("a").context("b");
        assert_eq!(one_line(&error), "b: a");
    }

    #[test]
    fn codes_follow_the_contract() {
        assert_eq!(code_of(&refusal("no")), Exit::Refused);
        assert_eq!(code_of(&refusal("no").context("why")), Exit::Refused);
        let failed: anyhow::Result<()> = Err(std::io::Error::other("x")).context("y");
        assert_eq!(code_of(&failed.unwrap_err()), Exit::Failed);
        let early: anyhow::Result<()> = Err(std::io::Error::other("x")).before_anything();
        assert_eq!(code_of(&early.unwrap_err()), Exit::Refused);
        let bad = ClientError::BadKey { bytes: 0 };
        assert_eq!(code_of(&bad.into()), Exit::Refused);
        let (what, backend) = ("list keys", String::new());
        let (message, credential) = (String::new(), String::new());
        let stranger = DiscoveryError::NotAllowed { what, backend, message, credential };
        // A server waits until it is let in.
        assert!(!is_settings_error(&stranger));
        assert_eq!(code_of(&ClientError::from(stranger).into()), Exit::Refused);
        let unwanted = ClientError::TokenWanted { server: "a".into() };
        assert_eq!(code_of(&unwanted.into()), Exit::Refused);
        let refused = |status| ClientError::Refused { server: "a".into(), what: "a copy", status };
        assert_eq!(code_of(&refused(Status::Denied).into()), Exit::Refused);
        assert_eq!(code_of(&refused(Status::NoSpace).into()), Exit::Failed);
    }

    #[test]
    fn only_who_reads_is_done_when_the_output_is_closed() {
        assert_eq!(reading(Err(ClosedOutput.into())).unwrap(), Exit::Done);
        assert_eq!(reading(Ok(Exit::Absent)).unwrap(), Exit::Absent);
        assert!(reading(Err(refusal("no"))).is_err());
        assert_eq!(code_of(&ClosedOutput.into()), Exit::Failed);
    }
}
