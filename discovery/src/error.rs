//! What can go wrong between a process and its discovery service.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;

use crate::id::Id;
use crate::model::Revision;
use crate::text::{escaped, shown, shown_ends};
use crate::url::UrlProblem;
use crate::validate::{Invalid, RECORD_FORMAT};

/// A failure of discovery. Each message says what was wrong, what was
/// expected and what to do; [`explained`](Self::explained) adds the causes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The discovery URL cannot be used: fix the settings.
    #[error("the discovery url \"{}\" cannot be used", shown(.url))]
    BadUrl {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        #[source]
        reason: UrlProblem,
    },
    /// No back end has that name: fix the settings.
    #[error("no discovery back end is called \"{}\": expected one of {known}", shown(.scheme))]
    UnknownScheme {
        /// The part of the URL before the colon.
        scheme: String,
        /// All names that have a meaning.
        known: &'static str,
    },
    /// The back end exists, but not in this build.
    #[error("this build lacks the discovery back end \"{scheme}\": use one of {built_in}")]
    NotInThisBuild {
        /// The part of the URL before the colon.
        scheme: String,
        /// The names that this build has.
        built_in: String,
    },
    /// A call to the operating system failed.
    #[error("cannot {what} {}", shown(&.path.to_string_lossy()))]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record or a document makes no sense.
    #[error("{} is not what it should be: repair or remove it", shown(.what))]
    Malformed {
        /// Where it was found.
        what: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A record is of a form that a later version introduced: use that one.
    #[error("{} is of form {found}, and this version reads form {RECORD_FORMAT}: use the version that wrote it, or a later one", shown(.what))]
    NewerFormat {
        /// Where it was found.
        what: String,
        /// Its form.
        found: u64,
    },
    /// A document is larger than anything sensible.
    #[error("{} has more than {bytes_max} bytes: expected at most that; make it smaller or remove it", shown(&.path.to_string_lossy()))]
    TooLarge {
        /// Which one.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// Something that is not a regular file lies where a file should be.
    #[error("{} is not a regular file: put one in its place", shown(&.path.to_string_lossy()))]
    NotAFile {
        /// Where.
        path: PathBuf,
    },
    /// A file was written while it was read: read it again.
    #[error("{} changed while it was read: replace it by renaming", shown(&.path.to_string_lossy()))]
    ChangedWhileRead {
        /// Which one.
        path: PathBuf,
    },
    /// The default directory cannot be trusted.
    #[error("{} belongs to user {owner}, not to user {user}: give --discovery", shown(&.path.to_string_lossy()))]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// The user it belongs to.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// The default directory cannot be trusted.
    #[error("{} may be written to by others (mode {mode:03o}): run chmod 700 on it", shown(&.path.to_string_lossy()))]
    OpenToOthers {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A list of members has no usable member in it.
    #[error("{} lists no usable member ({ignored} ignored): expected at least one", shown(.what))]
    NoMembers {
        /// The list.
        what: String,
        /// How many entries made no sense.
        ignored: usize,
    },
    /// The back end is a written list: change that instead.
    #[error("{} cannot be written to by programs: change the list itself", shown(.backend))]
    ReadOnly {
        /// Its URL.
        backend: String,
    },
    /// Somebody else wrote first: read again, then decide again.
    #[error("member \"{}\" is at revision {found}, not {expected}: somebody else changed it; read it again", shown(.name))]
    Conflict {
        /// The member.
        name: String,
        /// The revision that the write was based on.
        expected: Revision,
        /// The revision that is there.
        found: Revision,
    },
    /// A living server has that name: give this one another.
    #[error("the name \"{}\" is taken by a living server at {} (incarnation {}): stop that one or choose another name", shown(.name), shown(.address), incarnation_text(.incarnation.as_ref()))]
    NameTaken {
        /// The name.
        name: String,
        /// Where the other one listens; empty when its record is not readable.
        address: String,
        /// Who the other one is, when known.
        incarnation: Option<Id>,
    },
    /// A member that was to be forgotten answers: stop it first.
    #[error("\"{}\" answers at {}: stop it first, else it would become a member again", shown(.name), shown(.address))]
    StillAlive {
        /// The name.
        name: String,
        /// Where it answers.
        address: String,
    },
    /// There is no member, and no living server, of that name.
    #[error("there is no member \"{}\": `puddle nodes` lists them", shown(.name))]
    NoSuchMember {
        /// The name.
        name: String,
    },
    /// The record of a member makes no sense: repair or remove it by other means.
    #[error("the record of \"{}\" cannot be read, so it is left as it is: repair or remove it in the registry itself: {complaint}", shown(.name))]
    Unreadable {
        /// The member.
        name: String,
        /// What is wrong with it, fit for a terminal.
        complaint: String,
    },
    /// A written list of members does not have that name in it.
    #[error("member \"{}\" is not listed in {}: add it there", shown(.name), shown(.backend))]
    UnknownMember {
        /// The name.
        name: String,
        /// The back end's URL.
        backend: String,
    },
    /// A written list of members gives another address.
    #[error("member \"{}\" is listed at {}, not at {}: change the list or the address to listen on", shown(.name), shown(.listed), shown(.announced))]
    AddressMismatch {
        /// The name.
        name: String,
        /// What the list says.
        listed: String,
        /// What the server says.
        announced: String,
    },
    /// The service holds another cluster there.
    #[error("found the cluster \"{}\" where \"{}\" was wanted: check --cluster and --discovery", shown(.found), shown(.wanted))]
    WrongCluster {
        /// The cluster asked for.
        wanted: String,
        /// The cluster found.
        found: String,
    },
    /// A name, weight, address or setting that no cluster accepts.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A lock that is held for microseconds was not free for seconds.
    #[error("the lock {} was held for {waited:?}: is a process that uses it stopped?", shown(&.path.to_string_lossy()))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this process waited.
        waited: Duration,
    },
    /// No answer within the time given.
    #[error("no answer from {} within {waited:?}", shown(.backend))]
    TimedOut {
        /// The back end's URL.
        backend: String,
        /// The time given.
        waited: Duration,
    },
    /// The service cannot be reached, or the connection to it broke.
    #[error("cannot {what} {}", shown(.backend))]
    Unreachable {
        /// What was tried, as a verb.
        what: &'static str,
        /// The back end's URL, or one of its hosts.
        backend: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The service answered that it will not.
    #[error("{} does not {what}: it answers {code}{}", shown(.backend), said(.message))]
    Refused {
        /// What was asked of it, as a verb.
        what: &'static str,
        /// The back end's URL.
        backend: String,
        /// Its own code for the refusal.
        code: i64,
        /// What it said, cut, without our secrets; may be empty.
        message: String,
    },
    /// The service does not let us in: give other credentials, or more rights.
    #[error("{} does not let us {what}{}, {}: check the token, or the user and the password, and their rights", shown(.backend), said(.message), shown(.credential))]
    NotAllowed {
        /// What was asked of it, as a verb.
        what: &'static str,
        /// The back end's URL.
        backend: String,
        /// What it said, cut, without our secrets; may be empty.
        message: String,
        /// With which credential it was asked, and where that is from; never the
        /// credential itself.
        credential: String,
    },
    /// What the service answered is no answer to what it was asked.
    #[error("the answer of {} to {what} makes no sense: is it the right service?", shown(.backend))]
    BadAnswer {
        /// What was asked of it.
        what: &'static str,
        /// The back end's URL.
        backend: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The service answered with more bytes than anything sensible has.
    #[error("the answer of {} to {what} has more than {bytes_max} bytes: expected at most that", shown(.backend))]
    AnswerTooLarge {
        /// What was asked of it.
        what: &'static str,
        /// The back end's URL.
        backend: String,
        /// The limit.
        bytes_max: u64,
    },
    /// The async runtime is being shut down.
    #[error("the runtime stops")]
    Stopped,
}

impl DiscoveryError {
    /// The message and its causes on one line, fit for a terminal.
    pub fn explained(&self) -> String {
        explained(self)
    }

    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { what, path: path.into(), source: source.into() }
    }

    pub(crate) fn malformed(
        what: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Malformed { what: what.into(), source: source.into() }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.io_kind() == Some(io::ErrorKind::NotFound)
    }

    /// Whether one entry is at fault, so that the others can still be used.
    pub(crate) fn spoils_one_entry_only(&self) -> bool {
        match self {
            Self::Malformed { .. } | Self::TooLarge { .. } | Self::NotAFile { .. } => true,
            Self::NewerFormat { .. } | Self::ChangedWhileRead { .. } | Self::Invalid(_) => true,
            Self::Io { source, .. } => is_of_one_file(source),
            _ => false,
        }
    }

    fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

/// Whether a call failed for what lies under that name: not ours to read, a chain
/// of links that never ends, a socket or a device that nobody serves.
fn is_of_one_file(error: &io::Error) -> bool {
    let errors = [Errno::ACCESS, Errno::PERM, Errno::LOOP, Errno::NXIO, Errno::NODEV];
    Errno::from_io_error(error).is_some_and(|error| errors.contains(&error))
}

/// An error and its causes on one line, fit for a terminal.
pub(crate) fn explained(error: &dyn Error) -> String {
    let mut line = escaped(&one_line(error));
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&shown_ends(&one_line(error)));
        cause = error.source();
    }
    line
}

/// Parsers draw pictures of several lines.
fn one_line(error: &dyn Error) -> String {
    let text = error.to_string();
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ")
}

/// What a service said beside its refusal.
fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" \"{}\"", shown(message)) }
}

fn incarnation_text(incarnation: Option<&Id>) -> String {
    incarnation.map_or_else(|| "not known".to_owned(), Id::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_has_the_causes_and_no_terminal_escapes() {
        let error = DiscoveryError::malformed("/r\x1b/a.json", "bad \x1b[2J text");
        let explanation = error.explained();
        assert!(explanation.contains("repair or remove it: bad "), "{explanation}");
        assert!(!explanation.contains('\x1b'), "{explanation}");
    }
}
