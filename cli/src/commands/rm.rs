//! `puddle rm`: deletes objects, by name or by prefix.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;

use anyhow::anyhow;
use rampuddle_client::{Client, DeleteReport, Error};
use serde::Serialize;

use crate::arguments::RmArguments;
use crate::commands::get::absent;
use crate::commands::ls::incomplete;
use crate::confirmation::is_confirmed;
use crate::exit::{Exit, refusal, report};
use crate::output::{JsonName, complain, counted, escape, escape_text};
use crate::runtime::{block_on, check_has_servers, connect};
use crate::settings::Settings;
use crate::size::rounded;

/// Names that are shown when it asks; of more only the count.
const SHOWN_MAX: usize = 5;

/// Deletes what was named; goes on after a failure, and exits with the worst.
/// Asks once on a terminal. Where there is none, what was named is deleted, and
/// a prefix, which may name more than its user thinks, is refused.
pub(crate) fn run(settings: &Settings, given: &RmArguments) -> anyhow::Result<Exit> {
    let asks = !given.yes && io::stdin().is_terminal();
    if given.prefix.is_some() && !given.yes && !asks {
        return Err(refusal(
            "deleting by prefix asks on a terminal, and this is none: say --yes to delete without",
        ));
    }
    if given.prefix.is_none() && asks && !is_confirmed(&question(&given.names))? {
        return Ok(nothing_deleted(settings));
    }
    block_on(async {
        let client = connect(settings).await?;
        match &given.prefix {
            Some(prefix) => by_prefix(settings, given, &client, prefix).await,
            None => {
                let names = given.names.iter().map(|name| name.as_bytes());
                Ok(by_name(settings, &client, names).await)
            }
        }
    })
}

fn question(names: &[OsString]) -> String {
    let count = counted(names.len() as u64, "object");
    if names.len() > SHOWN_MAX {
        return format!("Delete {count}? [y/N] ");
    }
    let shown = names.iter().map(|name| format!("\"{}\"", escape(name.as_bytes())));
    format!("Delete {count}: {}? [y/N] ", shown.collect::<Vec<_>>().join(", "))
}

fn nothing_deleted(settings: &Settings) -> Exit {
    settings.output.remark("nothing was deleted");
    Exit::Refused
}

async fn by_prefix(
    settings: &Settings,
    given: &RmArguments,
    client: &Client,
    prefix: &OsStr,
) -> anyhow::Result<Exit> {
    check_has_servers(settings, client)?;
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
        settings.output.remark(&format!("no object was found whose name begins with \"{shown}\""));
        return Ok(listed.max(Exit::Absent));
    }
    let what = format!("{} ({})", counted(names.len() as u64, "object"), rounded(bytes));
    let asked = format!("Delete {what} whose names begin with \"{shown}\"? [y/N] ");
    if !given.yes && !is_confirmed(&asked)? {
        return Ok(nothing_deleted(settings));
    }
    let deleted = by_name(settings, client, names.iter().map(Vec::as_slice)).await;
    Ok(deleted.max(listed))
}

async fn by_name<'n>(
    settings: &Settings,
    client: &Client,
    names: impl Iterator<Item = &'n [u8]>,
) -> Exit {
    let mut worst = Exit::Done;
    for name in names {
        let exit = match client.delete(name).await {
            Ok(deleted) => tell(settings, name, &deleted),
            Err(error) => report(&not_deleted(error)),
        };
        worst = worst.max(exit);
    }
    worst
}

/// The same failure in the words of a delete.
fn not_deleted(error: Error) -> anyhow::Error {
    match error {
        Error::Failed { name, problems } => {
            anyhow!("\"{}\" was not deleted: {}", escape(&name), problems.join("; "))
        }
        Error::Indeterminate { name, problems } => {
            let problems = problems.join("; ");
            anyhow!("whether \"{}\" was deleted is unknown: {problems}", escape(&name))
        }
        error => error.into(),
    }
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

fn tell(settings: &Settings, name: &[u8], deleted: &DeleteReport) -> Exit {
    let DeleteReport { existed, wanted, applied, ref problems, .. } = *deleted;
    if settings.output.json {
        let name = JsonName::new(name);
        settings.output.report(&JsonDelete { name, existed, wanted, applied, problems });
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
        return Exit::Failed;
    }
    if existed { Exit::Done } else { absent(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_shows_a_few_names_and_counts_many() {
        let names = |count: usize| vec![OsString::from("a\x1b"); count];
        assert_eq!(question(&names(1)), "Delete 1 object: \"a\\x1b\"? [y/N] ");
        assert_eq!(question(&names(2)), "Delete 2 objects: \"a\\x1b\", \"a\\x1b\"? [y/N] ");
        assert_eq!(question(&names(6)), "Delete 6 objects? [y/N] ");
    }
}
