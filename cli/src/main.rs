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
mod confirmation;
mod descriptor;
mod destination;
mod exit;
mod machine;
mod metadata;
mod output;
mod part_file;
mod probe;
mod progress;
mod progress_lines;
mod runtime;
mod serve_settings;
mod settings;
mod signals;
mod size;
mod time;
mod ttl;
mod whole;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::arguments::{Arguments, Command, NodesCommand};
use crate::exit::{Exit, reading, report};
use crate::settings::Settings;

fn main() -> ExitCode {
    run(Arguments::read()).unwrap_or_else(|error| report(&error)).into()
}

fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let settings = Settings::new(arguments.global)?;
    start_log(settings.output.quiet, matches!(arguments.command, Command::Serve(_)));
    match arguments.command {
        Command::Serve(given) => commands::serve::run(&settings, &given),
        Command::Up(given) => commands::up::run(&settings, &given),
        Command::Put(given) if given.recursive => commands::tree::put::run(&settings, &given),
        Command::Put(given) => commands::put::run(&settings, &given),
        Command::Get(given) if given.recursive => commands::tree::get::run(&settings, &given),
        Command::Get(given) => reading(commands::get::run(&settings, &given)),
        Command::Ls(given) => reading(commands::ls::run(&settings, &given)),
        Command::Stat(given) => reading(commands::stat::run(&settings, &given)),
        Command::Rm(given) => commands::rm::run(&settings, &given),
        Command::Nodes(given) => match given.command {
            Some(NodesCommand::Forget(given)) => commands::forget::run(&settings, &given),
            None => reading(commands::nodes::run(&settings)),
        },
        Command::Ping(given) => reading(commands::ping::run(&settings, &given)),
        Command::Df => reading(commands::df::run(&settings)),
        Command::Verify(given) => reading(commands::verify::run(&settings, &given)),
        Command::Raw(given) => commands::raw::run(&settings, &given),
        Command::Demo(given) => commands::demo::run(&settings, &given),
        Command::Completions(given) => reading(commands::completions::run(settings.output, &given)),
        Command::Man(given) => commands::man::run(settings.output, &given),
    }
}

/// Warnings go to stderr, or only errors when it is to be quiet; `PUDDLE_LOG`
/// asks for more or less. Only what runs on and on says when.
fn start_log(is_quiet: bool, has_times: bool) {
    let usual = if is_quiet { "error" } else { "warn" };
    let filter = EnvFilter::try_from_env("PUDDLE_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    if has_times { log.init() } else { log.without_time().with_target(false).init() }
}
