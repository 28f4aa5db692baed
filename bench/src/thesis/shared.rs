//! Many readers of one file: from one disk, from one server, and from many servers that
//! have a part of it each.

use anyhow::Result;
use tempfile::TempDir;

use super::disk::Disk;
use super::{Notes, ThesisArguments};
use crate::case::Who;
use crate::hosts;
use crate::hosts::network::{self, Network};
use crate::hosts::reader::{Reader, ReaderArguments, together};
use crate::rounds::progress;
use crate::table::markdown;

/// Copies of the file where there is more than one server: as many as by default.
const COPIES: usize = 2;

/// What was found: seconds until the last of so many readers had the file.
#[derive(Debug, Default)]
pub(super) struct Shared {
    one: Vec<(usize, f64)>,
    striped: Vec<(usize, f64)>,
}

/// Measures both over shaped links, where there can be some.
pub(super) fn measure(arguments: &ThesisArguments, notes: &mut Notes) -> Shared {
    let reason =
        if arguments.tiny { Some("this was a tiny run".to_owned()) } else { network::missing() };
    if let Some(reason) = reason {
        notes.skipped.push(format!("Not measured: shaped links: {reason}."));
        return Shared::default();
    }
    let mut of = |servers: usize| {
        progress(&format!("many readers of {servers} servers"));
        from(arguments, servers).unwrap_or_else(|error| {
            notes.broken.push(format!("readers of {servers} servers: {error:#}"));
            Vec::new()
        })
    };
    let shared = Shared { one: of(1), striped: of(arguments.servers) };
    progress("");
    shared
}

/// Readers have hosts of their own, so that nobody has a part of the file already.
fn from(arguments: &ThesisArguments, servers: usize) -> Result<Vec<(usize, f64)>> {
    let most = arguments.most_readers();
    let network = Network::up(servers + most)?;
    let folder = TempDir::new()?;
    let copies = servers.min(COPIES);
    // Shares differ: twice the mean is enough for all.
    let pool = 2 * copies * arguments.size.0 / servers + (64 << 20);
    let (_servers, url) = hosts::serve(&network, servers, pool, folder.path())?;
    let start = |number: usize| {
        let (from, put) = (url.clone(), (number == 0).then_some(copies as u8));
        let what =
            ReaderArguments { who: Who::Puddle, from, size: arguments.size, put, streamed: false };
        Reader::start(network.on(servers + 1 + number), &what, folder.path())
    };
    let mut readers = (0..most).map(start).collect::<Result<Vec<_>>>()?;
    network.shape_all(arguments.mbit)?;
    let numbers = arguments.readers.iter();
    numbers.map(|&number| Ok((number, together(&mut readers[..number])?.as_secs_f64()))).collect()
}

fn of(found: &[(usize, f64)], readers: usize) -> Option<f64> {
    found.iter().find(|it| it.0 == readers).map(|it| it.1)
}

/// A row for each number of readers.
pub(super) fn table(arguments: &ThesisArguments, disk: &Disk, shared: &Shared) -> String {
    let striped = format!("{} servers", arguments.servers);
    let head = ["readers", "one disk", "one server", &*striped];
    let row = |&readers: &usize| {
        let cell = |found: &[(usize, f64)]| {
            let each = |seconds: f64| arguments.size.0 as f64 / 1e6 / seconds;
            let words = |seconds| format!("{:.0} MB/s, {seconds:.2} s", each(seconds));
            of(found, readers).map_or_else(|| "-".to_owned(), words)
        };
        vec![readers.to_string(), cell(&disk.readers), cell(&shared.one), cell(&shared.striped)]
    };
    markdown(&head, &arguments.readers.iter().map(row).collect::<Vec<_>>())
}

/// What that shows, in words.
pub(super) fn says(arguments: &ThesisArguments, disk: &Disk, shared: &Shared) -> String {
    let most = arguments.most_readers();
    let longer = |found: &[(usize, f64)]| Some(of(found, most)? / of(found, 1)?);
    let ratios = (longer(&disk.readers), longer(&shared.one), longer(&shared.striped));
    let (Some(disk), Some(one), Some(striped)) = ratios else { return String::new() };
    format!(
        "{most} readers wait {disk:.1} times as long as one for a disk, {one:.1} times for one \
         server, whose link they share, and {striped:.1} times for {} servers, whose \
         links carry together what all readers take.",
        arguments.servers
    )
}
