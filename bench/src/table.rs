//! Tables of text.

use crate::case::{Operation, Size};
use crate::rounds::{Row, find};

/// A table in Markdown, whose columns are as wide as they must be.
pub(crate) fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let width = |column: usize| {
        let all = std::iter::once(&head).chain(rows);
        all.filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|");
    let mut table = line(&head) + &format!("|{rule}|\n");
    table.extend(rows.iter().map(line));
    table
}

const HEAD: [&str; 8] =
    ["who", "way", "operation", "p50", "p50 of each round", "p99", "GB/s", "x floor"];
const HEAD_PROCESSOR: [&str; 2] = ["server s/GiB", "client s/GiB"];

/// The rows of one size, reads or writes.
pub(crate) fn of_size(rows: &[Row], size: Size, direction: Operation) -> String {
    let is_here = |row: &&Row| row.case.size == size && row.case.operation.direction() == direction;
    let lines: Vec<Vec<String>> = rows.iter().filter(is_here).map(|row| line(row, rows)).collect();
    if lines.is_empty() {
        return String::new();
    }
    markdown(&[&HEAD[..], &HEAD_PROCESSOR].concat(), &lines)
}

fn line(row: &Row, rows: &[Row]) -> Vec<String> {
    let case = row.case;
    let mut cells = vec![case.who.to_string(), case.path.to_string(), case.operation.to_string()];
    let Some(middle) = row.middle() else {
        let problem = row.problem.as_deref().unwrap_or("not measured");
        cells.push(format!("failed: {}", problem.replace('|', "/")));
        cells.resize(HEAD.len() + HEAD_PROCESSOR.len(), String::new());
        return cells;
    };
    let floor = find(rows, case.floor()).and_then(|floor| row.speed_beside(floor));
    let (server, client) = row.processor();
    cells.push(time(middle.middle));
    cells.push(format!("{}-{}", time(middle.least), time(middle.most)));
    cells.push(time(row.tail()));
    cells.push(row.speed().map_or_else(String::new, |speed| format!("{speed:.2}")));
    cells.push(floor.map_or_else(|| "-".to_owned(), |floor| floor.to_string()));
    cells.extend([format!("{server:.2}"), format!("{client:.2}")]);
    cells
}

/// Microseconds, with the unit that reads best.
pub(crate) fn time(microseconds: f64) -> String {
    match microseconds {
        ..100.0 => format!("{microseconds:.1} us"),
        ..10_000.0 => format!("{microseconds:.0} us"),
        ..100_000.0 => format!("{:.1} ms", microseconds / 1_000.0),
        _ => format!("{:.0} ms", microseconds / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = markdown(&["a", "b"], &[vec!["long".to_owned(), "1".to_owned()]]);
        assert_eq!(table, "| a    | b |\n|------|---|\n| long | 1 |\n");
    }

    #[test]
    fn times_have_three_digits_or_so() {
        for (microseconds, text) in [
            (2.34, "2.3 us"),
            (123.4, "123 us"),
            (6_234.0, "6234 us"),
            (62_340.0, "62.3 ms"),
            (112_340.0, "112 ms"),
        ] {
            assert_eq!(time(microseconds), text);
        }
    }
}
