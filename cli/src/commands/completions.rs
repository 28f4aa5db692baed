//! `puddle completions`: what makes a shell complete commands and options.

use clap::{Command, CommandFactory as _};

use crate::arguments::{Arguments, CompletionsArguments};
use crate::exit::Exit;
use crate::output::Output;

/// Prints the script of a shell.
pub(crate) fn run(output: Output, given: &CompletionsArguments) -> anyhow::Result<Exit> {
    let mut all = Arguments::command();
    all.build();
    let mut command = shown(&all);
    let mut script = Vec::new();
    clap_complete::generate(given.shell, &mut command, "puddle", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Done)
}

/// The same command without what its help does not show either.
fn shown(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let commands = command.get_subcommands().filter(|below| below.get_name() != "help");
    let about = command.get_about().cloned().unwrap_or_default();
    let version = command.get_version().unwrap_or_default().to_owned();
    Command::new(command.get_name().to_owned())
        .about(about)
        .version(version)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(arguments.cloned())
        .subcommands(commands.map(shown))
}
