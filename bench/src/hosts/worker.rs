//! A process that is told what to do line by line, and answers likewise.

use std::io::{BufRead, BufReader, Read, Write, stdout};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};

use anyhow::{Result, bail, ensure};

use crate::child::Child;

/// What it says when it can be told something.
const READY: &str = "ready";

/// Such a process, as seen by the one who starts it.
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts `words`, and waits until it is ready.
    pub(super) fn start(words: &[String], folder: &Path, name: &str) -> Result<Self> {
        let (child, input, output) = Child::piped(words, folder, name)?;
        let mut worker = Self { child, input, output: BufReader::new(output) };
        let line = worker.answer()?;
        ensure!(line == READY, "the {name} said {line:?}");
        Ok(worker)
    }

    /// Tells it something.
    pub(super) fn tell(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }

    /// What it answers.
    pub(super) fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        // Longer lines are no lines of ours.
        (&mut self.output).take(100).read_line(&mut line)?;
        if line.is_empty() {
            bail!("it ended: {}", self.child.said().trim());
        }
        Ok(line.trim().to_owned())
    }
}

/// Says that it can be told something.
pub(super) fn be_ready() -> Result<()> {
    say(READY)
}

/// Answers.
pub(super) fn say(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
