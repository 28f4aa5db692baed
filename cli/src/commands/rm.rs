//! `puddle rm`: deletes objects, by name or by prefix.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;

use rampuddle_client::{Client, DeleteReport};
use serde::Serialize;

use crate::arguments::RmArguments;
use crate::commands::get::absent;
use crate::commands::ls::incomplete;
use crate::exit::{Exit, refusal, report};
use crate::output::{JsonName, complain, counted, escape, escape_text};
use crate::runtime::{block_on, connect};
use crate::settings::Settings;
use crate::size::rounded;

/// Deletes what was named; goes on after a failure, and exits with the worst.
pub(crate) fn run(settings: &Settings, given: &RmArguments) -> anyhow::Result<Exit> {
    if given.prefix.is_some() && !given.yes && !io::stdin().is_terminal() {
        return Err(refusal(
            "deleting by prefix asks on a terminal, and this is none: say --yes to delete without",
        ));
    }
    block_on(async {
        let client = connect(settings).await?;
        match &given.prefix {
            Some(prefix) => by_prefix(settings, given, &client, prefix).await,
            None => {
                by_name(settings, &client, given.names.iter().map(|name| name.as_bytes())).await
            }
        }
    })
}

async fn by_prefix(
    settings: &Settings,
    given: &RmArguments,
    client: &Client,
    prefix: &OsStr,
) -> anyhow::Result<Exit> {
    let mut listing = client.list(prefix.as_bytes());
    let (mut names, mut bytes) = (Vec::new(), 0);
    while let Some(object) = listing.next().await {
        let object = object?;
        bytes += object.bytes;
        names.push(object.name);
    }
    let listed = incomplete(&listing);
    let shown = escape(prefix.as_bytes());
    if names.is_empty() {
        settings.output.remark(&format!("no object's name begins with \"{shown}\""));
        return Ok(listed.max(Exit::Absent));
    }
    let what = format!("{} ({})", counted(names.len() as u64, "object"), rounded(bytes));
    if !given.yes && !is_confirmed(&format!("delete {what} beginning with \"{shown}\"? [y/N] "))? {
        settings.output.remark("nothing was deleted");
        return Ok(Exit::Refused);
    }
    let deleted = by_name(settings, client, names.iter().map(Vec::as_slice)).await?;
    Ok(deleted.max(listed))
}

fn is_confirmed(question: &str) -> anyhow::Result<bool> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn by_name<'n>(
    settings: &Settings,
    client: &Client,
    names: impl Iterator<Item = &'n [u8]>,
) -> anyhow::Result<Exit> {
    let mut worst = Exit::Done;
    for name in names {
        let exit = match client.delete(name).await {
            Ok(deleted) => tell(settings, name, &deleted)?,
            Err(error) => report(&error.into()),
        };
        worst = worst.max(exit);
    }
    Ok(worst)
}

#[derive(Debug, Serialize)]
struct JsonDelete<'a> {
    #[serde(flatten)]
    name: JsonName,
    existed: bool,
    wanted: u32,
    applied: u32,
    problems: &'a [String],
}

fn tell(settings: &Settings, name: &[u8], deleted: &DeleteReport) -> anyhow::Result<Exit> {
    let DeleteReport { existed, wanted, applied, ref problems, .. } = *deleted;
    if settings.output.json {
        let name = JsonName::new(name);
        settings.output.json_line(&JsonDelete { name, existed, wanted, applied, problems })?;
    }
    for problem in problems {
        settings.output.remark(&format!("puddle: {}", escape_text(problem)));
    }
    if deleted.is_short() {
        complain(&format!(
            "{applied} of {wanted} owners know that \"{}\" is deleted; the others may still \
             serve it: delete it again when they are up",
            escape(name)
        ));
        return Ok(Exit::Failed);
    }
    Ok(if existed { Exit::Done } else { absent(name) })
}
