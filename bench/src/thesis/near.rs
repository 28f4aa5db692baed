//! How long it takes until bytes are there: from the local disk, and from a server of
//! RamPuddle on this machine by each way.

use anyhow::Result;

use super::disk::Disk;
use super::{Notes, ThesisArguments, by_size};
use crate::case::{Case, Operation, Path, Size, Who};
use crate::peers;
use crate::rounds::{self, Plan, Row, find};
use crate::table::time;

const SMALL: Size = Size(64 << 10);
/// The rows of the table below the disk.
const WAYS: [(&str, Path, Operation); 4] = [
    ("RamPuddle, TCP", Path::Tcp, Operation::Get),
    ("RamPuddle, unix socket", Path::Unix, Operation::Get),
    ("RamPuddle, mapped memory, copied", Path::Mapped, Operation::Get),
    ("RamPuddle, mapped memory, a view", Path::Mapped, Operation::View),
];

/// What was found.
pub(super) struct Near(Vec<Row>);

/// Measures all ways in turn.
pub(super) fn measure(arguments: &ThesisArguments, notes: &mut Notes) -> Result<Near> {
    let (mut subjects, _) = peers::start(&[Who::Puddle], arguments.size.0)?;
    let plan = Plan {
        rounds: arguments.rounds,
        bytes: if arguments.tiny { 1 } else { 64 << 20 },
        calls: if arguments.tiny { 2 } else { 2_000 },
        sizes: arguments.sizes(),
        paths: WAYS.map(|way| way.1).to_vec(),
        operations: WAYS.map(|way| way.2).to_vec(),
        is_pinned: true,
    };
    let rows = rounds::measure(&mut subjects, &plan);
    let broken =
        rows.iter().filter_map(|row| Some(format!("{}: {}", row.case, row.problem.as_ref()?)));
    notes.broken.extend(broken);
    Ok(Near(rows))
}

impl Near {
    fn row(&self, size: Size, path: Path, operation: Operation) -> Option<&Row> {
        find(&self.0, Case { size, operation, who: Who::Puddle, path })
    }

    fn middle(&self, size: Size, path: Path, operation: Operation) -> Option<f64> {
        Some(self.row(size, path, operation)?.middle()?.middle)
    }
}

fn cell(size: Size, middle: f64, tail: Option<f64>, moves: bool) -> String {
    let mut cell = time(middle);
    cell.extend(tail.map(|tail| format!(", {}", time(tail))));
    if moves {
        cell += &format!(", {:.2}", size.0 as f64 / 1e3 / middle);
    }
    cell
}

/// A row for each way, a column for each size.
pub(super) fn table(arguments: &ThesisArguments, disk: &Disk, near: &Near) -> String {
    let none = || "-".to_owned();
    let sizes = arguments.sizes();
    let of_disk =
        |&size| disk.of(size).map_or_else(none, |it| cell(size, it.middle, it.tail, true));
    let disk_row =
        std::iter::once("local disk".to_owned()).chain(sizes.iter().map(of_disk)).collect();
    let of_way = |&(name, path, operation): &(&str, Path, Operation)| {
        let of_size = |&size| {
            let row = near.row(size, path, operation);
            let middle = near.middle(size, path, operation);
            let both = row.zip(middle);
            // Of few calls nobody knows the slowest of a hundred.
            let tail = |row: &Row| (size.0 < 16 << 20).then(|| row.tail());
            let moves = operation != Operation::View;
            both.map_or_else(none, |(row, middle)| cell(size, middle, tail(row), moves))
        };
        std::iter::once(name.to_owned()).chain(sizes.iter().map(of_size)).collect()
    };
    by_size(arguments, &[vec![disk_row], WAYS.iter().map(of_way).collect()].concat())
}

/// What that shows, in words.
pub(super) fn says(disk: &Disk, near: &Near) -> String {
    let socket = near.middle(SMALL, Path::Tcp, Operation::Get);
    let view = near.middle(SMALL, Path::Mapped, Operation::View);
    let (Some(socket), Some(view), Some(disk)) = (socket, view, disk.of(SMALL)) else {
        return String::new();
    };
    format!(
        "{SMALL} are there after {} by TCP, and can be looked at after {} where they lie; the disk \
         takes {}, {:.1} times as long as TCP.",
        time(socket),
        time(view),
        time(disk.middle),
        disk.middle / socket
    )
}
