//! Measures what is written in `docs/performance.md`. Nothing depends on this
//! crate.
//!
//! ```text
//! cargo run --release -p rampuddle-bench -- placement
//! cargo run --release -p rampuddle-bench -- metrics
//! ```
//!
//! `--tiny` runs everything once and short, so that the tests can see that it
//! works; its figures say nothing.

#![forbid(unsafe_code)]

mod metrics;
mod placement;
mod sample;

use std::process::ExitCode;

use crate::sample::Effort;

const USAGE: &str = "expected: rampuddle-bench placement|metrics [--tiny]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [bench] => run(bench, Effort::Full),
        [bench, "--tiny"] => run(bench, Effort::Tiny),
        _ => refuse(),
    }
}

fn run(bench: &str, effort: Effort) -> ExitCode {
    match bench {
        "placement" => placement::run(effort),
        "metrics" => metrics::run(effort),
        _ => return refuse(),
    }
    ExitCode::SUCCESS
}

fn refuse() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
