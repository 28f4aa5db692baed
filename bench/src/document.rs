//! Writes `docs/benchmarks.md` and its plots.

use std::fs;
use std::path::Path as FilePath;

use anyhow::{Context, Result};

use crate::case::{Case, Operation, Path, Who};
use crate::plot::{Line, Plot};
use crate::readers::Scaling;
use crate::rounds::{Row, find};
use crate::run_all::Results;
use crate::table::markdown;
use crate::{cost, goals, machine, readers, table};

/// The text around the tables; each `{word}` is replaced.
const TEMPLATE: &str = include_str!("../document.md");
/// The folder of the plots, beside the document.
const PLOTS: &str = "benchmarks";

/// Lines of the plots by size.
const LINES: [(Who, Path); 8] = [
    (Who::Floor, Path::Tcp),
    (Who::Copy, Path::Memory),
    (Who::Puddle, Path::Tcp),
    (Who::Puddle, Path::Unix),
    (Who::Puddle, Path::Mapped),
    (Who::Memcached, Path::Tcp),
    (Who::Redis, Path::Tcp),
    (Who::Mooncake, Path::Tcp),
];

/// Writes both into `folder`.
pub(crate) fn write(folder: &FilePath, results: &Results) -> Result<()> {
    let file = folder.join("benchmarks.md");
    let plots = folder.join(PLOTS);
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    for (name, plot) in all_plots(results) {
        let lines = plot.lines.iter().filter(|line| !line.points.is_empty()).cloned().collect();
        fs::write(plots.join(name).with_extension("svg"), Plot { lines, ..plot }.svg())?;
    }
    fs::write(&file, text(results)).with_context(|| format!("cannot write {}", file.display()))
}

/// The document.
fn text(results: &Results) -> String {
    let machine: Vec<Vec<String>> =
        machine::facts().into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    let skipped = results.skipped.iter();
    let skipped: String =
        skipped.map(|it| format!("\nNot measured: {}: {}\n", it.who, it.reason)).collect();
    [
        ("{goals}", goals::table(&results.goals)),
        ("{machine}", markdown(&["what", "which"], &machine)),
        ("{skipped}", skipped),
        ("{gets}", tables(results, Operation::Get)),
        ("{puts}", tables(results, Operation::Put)),
        ("{readers}", readers::table(&results.readers)),
        ("{costs}", cost::table(&results.costs)),
        ("{links}", results.links.text.clone()),
        ("{mix}", results.mix.text.clone()),
        ("{rounds}", results.plan.rounds.to_string()),
    ]
    .iter()
    .fold(TEMPLATE.to_owned(), |text, (word, by)| text.replace(word, by.trim_end()))
}

fn tables(results: &Results, direction: Operation) -> String {
    let of_size = |&size| {
        let table = table::of_size(&results.rows, size, direction);
        format!("### {direction}, {size}\n\n{table}\n")
    };
    results.plan.sizes.iter().map(of_size).collect()
}

fn all_plots(results: &Results) -> Vec<(&'static str, Plot)> {
    let time = "time of a call (median), microseconds";
    let speed = "GB/s";
    vec![
        ("get-time", by_size(results, Operation::Get, time, microseconds)),
        ("put-time", by_size(results, Operation::Put, time, microseconds)),
        ("get-speed", by_size(results, Operation::Get, speed, Row::speed)),
        ("put-speed", by_size(results, Operation::Put, speed, Row::speed)),
        ("readers", by_readers(&results.readers)),
    ]
}

fn microseconds(row: &Row) -> Option<f64> {
    Some(row.middle()?.middle)
}

fn by_size(
    results: &Results,
    operation: Operation,
    up: &'static str,
    figure: fn(&Row) -> Option<f64>,
) -> Plot {
    let line = |(who, path): (Who, Path)| {
        let point = |&size| {
            let row = find(&results.rows, Case { size, operation, who, path })?;
            Some((row.case.size.0 as f64, figure(row)?))
        };
        let name = if path == Path::Memory { who.to_string() } else { format!("{who}, {path}") };
        Line {
            name,
            colour: who as usize,
            dashes: match path {
                Path::Unix => "6 4",
                Path::Mapped => "2 3",
                Path::Memory | Path::Tcp => "",
            },
            points: results.plan.sizes.iter().filter_map(point).collect(),
        }
    };
    Plot {
        title: format!("{operation} by size"),
        across: "size of the value",
        up,
        places: results.plan.sizes.iter().map(|size| (size.0 as f64, size.to_string())).collect(),
        lines: LINES.into_iter().map(line).collect(),
    }
}

fn by_readers(all: &[Scaling]) -> Plot {
    let mut names: Vec<Who> = all.iter().map(|scaling| scaling.who).collect();
    names.dedup();
    let points = |who: Who| {
        let own = all.iter().filter(move |scaling| scaling.who == who);
        own.filter_map(|it| Some((it.readers as f64, it.speed()?.middle))).collect()
    };
    let mut numbers: Vec<usize> = all.iter().map(|scaling| scaling.readers).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Plot {
        title: format!("Readers of one value of {}, {}", readers::SIZE, readers::PATH),
        across: "readers at once",
        up: "GB/s, all together",
        places: numbers.iter().map(|&number| (number as f64, number.to_string())).collect(),
        lines: names
            .iter()
            .map(|&who| Line {
                name: who.to_string(),
                colour: who as usize,
                dashes: "",
                points: points(who),
            })
            .collect(),
    }
}
