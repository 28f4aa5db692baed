//! What became of each file, and of all.

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use crate::exit::{Exit, one_line};
use crate::output::{JsonName, Output, complain, counted, escape, escape_text};
use crate::size::rounded;

/// A file and the object of its name.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    /// The object's.
    pub(super) name: Vec<u8>,
    pub(super) path: PathBuf,
}

/// What was done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    Sent,
    Received,
    /// It was there already.
    Same,
    Failed,
}

/// What became of one file.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) pair: Pair,
    pub(super) bytes: u64,
    pub(super) action: Action,
    /// Why it failed, in words that name the file.
    pub(super) error: Option<String>,
}

impl Done {
    pub(super) fn well(pair: Pair, action: Action, bytes: u64) -> Self {
        Self { pair, bytes, action, error: None }
    }

    pub(super) fn failed(pair: Pair, error: String) -> Self {
        Self { pair, bytes: 0, action: Action::Failed, error: Some(error) }
    }
}

#[derive(Debug, Serialize)]
struct JsonDone<'d> {
    #[serde(flatten)]
    name: JsonName,
    path: String,
    bytes: u64,
    action: Action,
    error: Option<&'d str>,
}

/// What became of all files.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    event: &'static str,
    files: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<u64>,
    same: u64,
    failed: u64,
    /// Of what was moved.
    bytes: u64,
    same_bytes: u64,
    seconds: f64,
    interrupted: bool,
    #[serde(skip)]
    begin: Instant,
}

impl Summary {
    /// Of a command that sends, or receives.
    pub(super) fn new(moving: Action) -> Self {
        let count = |of: Action| (of == moving).then_some(0);
        Self {
            event: "summary",
            files: 0,
            sent: count(Action::Sent),
            received: count(Action::Received),
            same: 0,
            failed: 0,
            bytes: 0,
            same_bytes: 0,
            seconds: 0.0,
            interrupted: false,
            begin: Instant::now(),
        }
    }

    /// Counts a file, and tells of it where somebody wants to know.
    pub(super) fn note(&mut self, output: Output, done: &Done) {
        self.files += 1;
        match done.action {
            Action::Sent | Action::Received => {
                self.sent.iter_mut().chain(&mut self.received).for_each(|moved| *moved += 1);
                self.bytes += done.bytes;
            }
            Action::Same => {
                self.same += 1;
                self.same_bytes += done.bytes;
            }
            Action::Failed => self.failed += 1,
        }
        let error = done.error.as_deref();
        if let Some(error) = error {
            complain(&escape_text(error));
        }
        if output.json {
            output.report(&JsonDone {
                name: JsonName::new(&done.pair.name),
                path: escape(done.pair.path.as_os_str().as_encoded_bytes()),
                bytes: done.bytes,
                action: done.action,
                error,
            });
        }
    }

    /// A signal came before all was done.
    pub(super) fn interrupt(&mut self) {
        complain("interrupted: what is done stays; run it again to go on");
        self.interrupted = true;
    }

    /// The rest was not tried, because it would have failed as well.
    pub(super) fn break_off(&mut self, error: &anyhow::Error) {
        complain(&one_line(error));
        complain("the other files would fail like this one and were not tried");
        self.interrupted = true;
    }

    /// Whether all was tried.
    pub(super) fn is_complete(&self) -> bool {
        !self.interrupted
    }

    /// How many files there were.
    pub(super) fn files(&self) -> u64 {
        self.files
    }

    /// Tells what became of all.
    pub(super) fn tell(mut self, output: Output) -> Exit {
        self.seconds = self.begin.elapsed().as_secs_f64();
        if output.json {
            output.report(&self);
        } else {
            output.remark(&self.text());
        }
        if self.failed > 0 || self.interrupted { Exit::Failed } else { Exit::Done }
    }

    fn text(&self) -> String {
        let (what, moved) = match (self.sent, self.received) {
            (Some(sent), _) => ("sent", sent),
            (None, received) => ("received", received.unwrap_or(0)),
        };
        format!(
            "{what} {} ({}), {} the same ({}), {} failed, {:.2} s",
            counted(moved, "file"),
            rounded(self.bytes),
            self.same,
            rounded(self.same_bytes),
            self.failed,
            self.seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_each_kind_and_its_bytes() {
        let quiet = Output { json: false, quiet: true };
        let pair = || Pair { name: b"a".to_vec(), path: "a".into() };
        let mut summary = Summary::new(Action::Sent);
        summary.note(quiet, &Done::well(pair(), Action::Sent, 2048));
        summary.note(quiet, &Done::well(pair(), Action::Same, 5));
        summary.note(quiet, &Done::failed(pair(), "a: no".to_owned()));
        assert_eq!(summary.text(), "sent 1 file (2.0 KiB), 1 the same (5 B), 1 failed, 0.00 s");
        assert_eq!((summary.files(), summary.tell(quiet)), (3, Exit::Failed));
        assert_eq!(Summary::new(Action::Received).tell(quiet), Exit::Done);
    }
}
