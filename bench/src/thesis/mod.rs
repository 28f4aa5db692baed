//! What the project rests on: that memory of another machine is about as near as a local
//! disk, and that, unlike a disk, it is read by many at once.

mod disk;
mod near;
mod shared;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::case::Size;
use crate::machine;
use crate::section::Section;
use crate::table::markdown;

/// The section of the document; each `{word}` is replaced.
const TEMPLATE: &str = include_str!("../../thesis.md");

/// How to run it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ThesisArguments {
    /// A folder on the disk that is measured
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// The file that many read, and the largest object
    #[arg(long, default_value = "256M")]
    size: Size,
    /// Numbers of readers at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    readers: Vec<usize>,
    /// Servers over which the file is striped
    #[arg(long, default_value_t = 8)]
    servers: usize,
    /// The rate of every link, in Mbit/s
    #[arg(long, default_value_t = 400)]
    mbit: u64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Write the section into this document, in place of the one that is there
    #[arg(long)]
    document: Option<PathBuf>,
    /// Once and short and without links, to see that it works
    #[arg(long)]
    tiny: bool,
}

/// What was not measured, and why, or what was not measured to its end.
#[derive(Debug, Default)]
struct Notes {
    skipped: Vec<String>,
    broken: Vec<String>,
}

/// Measures, prints the section, and writes it where it is wanted.
pub(crate) fn run(arguments: &ThesisArguments) -> Result<ExitCode> {
    let arguments = &arguments.shortened();
    let mut notes = Notes::default();
    let disk = disk::measure(arguments).unwrap_or_else(|error| {
        notes.skipped.push(format!("Not measured: the local disk: {error:#}."));
        disk::Disk::default()
    });
    let near = near::measure(arguments, &mut notes)?;
    let shared = shared::measure(arguments, &mut notes);
    let text = text(arguments, &disk, &near, &shared, &notes);
    if let Some(document) = &arguments.document {
        replace(document, &text)?;
    }
    Ok(Section { text, missed: Vec::new(), broken: notes.broken }.print())
}

impl ThesisArguments {
    fn shortened(&self) -> Self {
        let mut shortened = self.clone();
        if self.tiny {
            (shortened.size, shortened.readers, shortened.rounds) = (Size(4 << 20), vec![1, 2], 1);
        }
        shortened
    }

    /// What is read at once, small and large.
    fn sizes(&self) -> Vec<Size> {
        let mut sizes = vec![Size(4 << 10), Size(64 << 10), Size(1 << 20), self.size];
        sizes.dedup();
        sizes
    }

    fn most_readers(&self) -> usize {
        self.readers.iter().copied().max().unwrap_or(1)
    }
}

fn text(
    arguments: &ThesisArguments,
    disk: &disk::Disk,
    near: &near::Near,
    shared: &shared::Shared,
    notes: &Notes,
) -> String {
    let facts = machine::facts();
    let fact = |name: &str| {
        let found = facts.iter().find(|fact| fact.0 == name);
        found.map_or_else(String::new, |fact| fact.1.clone())
    };
    let skipped: Vec<String> = notes.skipped.iter().map(|line| format!("{line}\n\n")).collect();
    [
        ("{near}", near::table(arguments, disk, near)),
        ("{near-says}", near::says(disk, near)),
        ("{shared}", shared::table(arguments, disk, shared)),
        ("{shared-says}", shared::says(arguments, disk, shared)),
        ("{skipped}", skipped.concat()),
        ("{size}", arguments.size.to_string()),
        ("{servers}", arguments.servers.to_string()),
        ("{mbit}", arguments.mbit.to_string()),
        ("{rounds}", arguments.rounds.to_string()),
        ("{date}", fact("date")),
        ("{processors}", fact("processors")),
        ("{kernel}", fact("kernel")),
    ]
    .iter()
    .fold(TEMPLATE.to_owned(), |text, (word, by)| text.replace(word, by.trim_end()))
}

/// Puts the section in the place of the one with its heading, or at the end.
fn replace(document: &Path, section: &str) -> Result<()> {
    let name = document.display();
    let old = fs::read_to_string(document).with_context(|| format!("cannot read {name}"))?;
    fs::write(document, replaced(&old, section)).with_context(|| format!("cannot write {name}"))
}

fn replaced(old: &str, section: &str) -> String {
    let heading = section.lines().next().unwrap_or_default();
    let Some((before, rest)) = old.split_once(&format!("{heading}\n")) else {
        return format!("{}\n\n{section}", old.trim_end());
    };
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{before}{section}{after}")
}

/// A table with a column for each size.
fn by_size(arguments: &ThesisArguments, rows: &[Vec<String>]) -> String {
    let sizes = arguments.sizes();
    let names: Vec<String> = sizes.iter().map(|size| format!("{size}: p50, p99, GB/s")).collect();
    let head: Vec<&str> = std::iter::once("from").chain(names.iter().map(|it| &**it)).collect();
    markdown(&head, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_one_with_its_heading() {
        let section = "## B\n\nnew\n";
        assert_eq!(
            replaced("# A\n\n## B\n\nold\n\n## C\nc\n", section),
            "# A\n\n## B\n\nnew\n\n## C\nc\n"
        );
        assert_eq!(replaced("# A\n\n## B\n\nold\n", section), "# A\n\n## B\n\nnew\n");
        assert_eq!(replaced("# A\n", section), "# A\n\n## B\n\nnew\n");
    }
}
