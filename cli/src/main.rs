//! `puddle`: RamPuddle's one binary, servers and clients alike.
//!
//! Flags are read as they are (`arguments`), then checked together with the
//! environment and the config file (`settings`), then one `match` picks the
//! command.

#![forbid(unsafe_code)]

mod announcer;
mod arguments;
mod cluster;
mod commands;
mod exit;
mod machine;
mod output;
mod probe;
mod progress;
mod runtime;
mod serve_settings;
mod settings;
mod signals;
mod size;
mod time;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command};
use crate::exit::{Exit, report};
use crate::settings::Settings;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    run(arguments).unwrap_or_else(|error| report(&error)).into()
}

fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let settings = Settings::new(arguments.global)?;
    match arguments.command {
        Command::Serve(given) => commands::serve::run(&settings, &given),
        Command::Up(given) => commands::up::run(&settings, &given),
        Command::Put(given) => commands::put::run(&settings, &given),
        Command::Get(given) => commands::get::run(&settings, &given),
        Command::Ls(given) => commands::ls::run(&settings, &given),
        Command::Stat(given) => commands::stat::run(&settings, &given),
        Command::Rm(given) => commands::rm::run(&settings, &given),
        Command::Nodes => commands::nodes::run(&settings),
        Command::Raw(given) => commands::raw::run(&settings, &given),
        Command::Demo(given) => commands::demo::run(&settings, &given),
    }
}

/// Warnings go to stderr; `PUDDLE_LOG` asks for more or less.
fn start_log() {
    let filter = EnvFilter::try_from_env("PUDDLE_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
