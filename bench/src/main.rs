//! Measures what is written in `docs/performance.md`. Nothing depends on this
//! crate.
//!
//! ```text
//! cargo run --release -p rampuddle-bench -- placement
//! ```
//!
//! `--tiny` runs everything once and short, so that the tests can see that it
//! works; its figures say nothing.

#![forbid(unsafe_code)]

mod placement;
mod sample;

use std::process::ExitCode;

use crate::sample::Effort;

const USAGE: &str = "expected: rampuddle-bench placement [--tiny]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["placement"] => placement::run(Effort::Full),
        ["placement", "--tiny"] => placement::run(Effort::Tiny),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
