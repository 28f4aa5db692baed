//! A part of a run that has its own words and goals.

use std::process::ExitCode;

/// What it has found.
#[derive(Debug, Default)]
pub(crate) struct Section {
    /// Sentences and tables, in Markdown.
    pub(crate) text: String,
    /// Goals that were missed, each in a line.
    pub(crate) missed: Vec<String>,
    /// What of this project was not measured to its end, each in a line.
    pub(crate) broken: Vec<String>,
}

impl Section {
    /// Nothing, and why.
    pub(crate) fn skipped(what: &str, reason: &str) -> Self {
        Self { text: format!("Not measured: {what}: {reason}.\n"), ..Self::default() }
    }

    /// Prints it; whether all is well.
    pub(crate) fn print(&self) -> ExitCode {
        println!("{}", self.text);
        self.missed.iter().for_each(|line| println!("MISSED: {line}"));
        self.broken.iter().for_each(|line| println!("FAILED: {line}"));
        let is_well = self.missed.is_empty() && self.broken.is_empty();
        if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
