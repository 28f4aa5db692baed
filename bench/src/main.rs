//! Measures what is written in `docs/performance.md` and `docs/benchmarks.md`.
//! Nothing depends on this crate.
//!
//! ```text
//! cargo run --release -p rampuddle-bench -- placement
//! cargo run --release -p rampuddle-bench -- metrics
//! cargo run --release -p rampuddle-bench -- same-host
//! cargo run --release -p rampuddle-bench -- compare --who floor,puddle --sizes 64K --ops get
//! make bench
//! ```
//!
//! `--tiny` runs everything once and short, so that the tests can see that it
//! works; its figures say nothing.

#![forbid(unsafe_code)]

mod arguments;
mod case;
mod child;
mod compare;
mod cost;
mod document;
mod floor;
mod goals;
mod hosts;
mod links;
mod machine;
mod memcached;
mod memory;
mod metrics;
mod mix;
mod mooncake;
mod peers;
mod placement;
mod plot;
mod processors;
mod puddle;
mod readers;
mod redis;
mod rounds;
mod run_all;
mod same_host;
mod sample;
mod section;
mod statistics;
mod subject;
mod table;
mod text_peer;
mod thesis;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::arguments::{Arguments, Bench};

fn main() -> ExitCode {
    match run(&Arguments::parse().bench) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("rampuddle-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bench: &Bench) -> Result<ExitCode> {
    match bench {
        Bench::Placement(effort) => placement::run(effort.effort()),
        Bench::Metrics(effort) => metrics::run(effort.effort()),
        Bench::SameHost(effort) => same_host::run(effort.effort()),
        Bench::Compare(filter) => compare::run(filter)?,
        Bench::All(everything) => return run_all::run(everything),
        Bench::Links(arguments) => return Ok(links::measure(arguments).print()),
        Bench::Mix(arguments) => return Ok(mix::measure(arguments).print()),
        Bench::Thesis(arguments) => return thesis::run(arguments),
        Bench::HostReader(arguments) => hosts::reader::run(arguments)?,
        Bench::HostGatherer(arguments) => hosts::gatherer::run(arguments)?,
        Bench::FloorServer { largest, folder } => floor::serve(*largest, folder)?,
    }
    Ok(ExitCode::SUCCESS)
}
