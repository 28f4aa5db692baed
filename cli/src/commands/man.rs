//! `puddle man`: a manual page for each command.

use std::path::Path;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::arguments::{Arguments, ManArguments};
use crate::exit::{BeforeAnythingExt as _, Exit};
use crate::output::{Output, counted};

/// Writes `puddle.1`, `puddle-put.1` and so on.
pub(crate) fn run(output: Output, given: &ManArguments) -> anyhow::Result<Exit> {
    let folder = &given.folder;
    let cannot = || format!("cannot write manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot).before_anything()?;
    let mut command = Arguments::command();
    command.build();
    let pages = write_pages(&command, folder).with_context(cannot)?;
    output.remark(&format!("{}: {}", folder.display(), counted(pages, "page")));
    Ok(Exit::Done)
}

/// The page of a command, and those of the commands below it; how many.
fn write_pages(command: &Command, folder: &Path) -> anyhow::Result<u64> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    let below = command.get_subcommands().filter(|below| below.get_name() != "help");
    below.map(|below| write_pages(below, folder)).try_fold(1, |sum, pages| Ok(sum + pages?))
}
