//! `puddle nodes forget`: takes servers that never come back out of the members.

use std::io::{self, IsTerminal as _};

use rampuddle_discovery::{Backend, DiscoveryError, KeptView, Living, Member, forget, open};
use serde::Serialize;

use crate::arguments::ForgetArguments;
use crate::confirmation::is_confirmed;
use crate::exit::{Exit, refusal, report};
use crate::output::escape_text;
use crate::probe::asking_for;
use crate::runtime::block_on;
use crate::settings::Settings;

/// What became of one.
#[derive(Debug, Serialize)]
struct Forgotten<'a> {
    name: &'a str,
    /// As it was written; null when it was only among the living.
    state: Option<String>,
    weight: Option<f64>,
}

/// Forgets what was named; goes on after a failure, and exits with the worst. Asks once
/// on a terminal. Where it is not known whom to ask whether a server still runs, somebody
/// has to say yes.
pub(crate) fn run(settings: &Settings, given: &ForgetArguments) -> anyhow::Result<Exit> {
    let url = settings.discovery_to_look_at()?;
    let view_file = settings.client_options_at(url.clone())?.view_file;
    block_on(async {
        let backend = open(&url, &settings.cluster)?;
        let kept = view_file.of(backend.url(), &settings.cluster);
        if !given.yes {
            let silent = without_address(&*backend, kept.as_ref(), &given.names).await?;
            if !is_agreed(&given.names, &silent)? {
                settings.output.remark("nothing was forgotten");
                return Ok(Exit::Refused);
            }
        }
        let mut worst = Exit::Done;
        for name in &given.names {
            worst = worst.max(match forget_one(settings, &*backend, kept.as_ref(), name).await {
                Ok(member) => {
                    let state = member.as_ref().map(|member| member.state.to_string());
                    let weight = member.map(|member| member.weight);
                    let forgotten = Forgotten { name, state, weight };
                    let text = || format!("\"{}\" is no member any more", escape_text(name));
                    settings.output.result(&forgotten, text)?;
                    Exit::Done
                }
                Err(error) => report(&error.into()),
            });
        }
        Ok(worst)
    })
}

/// Whether somebody says yes, if anybody is there. Fails where nobody is, and some of the
/// servers cannot be asked.
fn is_agreed(names: &[String], silent: &[&str]) -> anyhow::Result<bool> {
    if io::stdin().is_terminal() {
        return is_confirmed(&question(names, silent));
    }
    if silent.is_empty() {
        return Ok(true);
    }
    Err(refusal(unasked(silent) + "; --yes forgets all the same"))
}

/// Those of the servers that nobody can ask: discovery does not see them, and where they
/// were seen last is not kept.
async fn without_address<'a>(
    backend: &dyn Backend,
    kept: Option<&KeptView>,
    names: &'a [String],
) -> Result<Vec<&'a str>, DiscoveryError> {
    let view = backend.snapshot().await?;
    let mut silent = Vec::new();
    for name in names {
        if view.member(name).is_some()
            && view.alive(name).is_none()
            && last_seen(kept, name).await.is_none()
        {
            silent.push(&**name);
        }
    }
    Ok(silent)
}

/// Asks the server first, also where it was seen last.
async fn forget_one(
    settings: &Settings,
    backend: &dyn Backend,
    kept: Option<&KeptView>,
    name: &str,
) -> Result<Option<Member>, DiscoveryError> {
    let last_seen = last_seen(kept, name).await;
    let probe = asking_for(name, &settings.cluster);
    let forgotten = forget(backend, name, last_seen.as_ref(), &probe).await?;
    if let Some(kept) = kept
        && let Err(error) = kept.forget(name).await
    {
        tracing::info!("\"{name}\" stays in the kept view: {}", error.explained());
    }
    Ok(forgotten)
}

/// Where a server was seen last, as far as that is kept.
async fn last_seen(kept: Option<&KeptView>, name: &str) -> Option<Living> {
    kept?.last_seen(name).await.unwrap_or_else(|error| {
        tracing::warn!("the kept view cannot be used: {}", error.explained());
        None
    })
}

fn question(names: &[String], silent: &[&str]) -> String {
    let warning = if silent.is_empty() { String::new() } else { unasked(silent) + ".\n" };
    let only = if names.len() == 1 { "it has" } else { "they have" };
    format!("{warning}Forget {}? What only {only} is lost then. [y/N] ", quoted(names))
}

/// Why these may be alive after all.
fn unasked(silent: &[&str]) -> String {
    let run = if silent.len() == 1 { "runs" } else { "run" };
    format!(
        "no address is known at which to ask whether {} still {run}: neither discovery nor a kept \
         view has one",
        quoted(silent)
    )
}

fn quoted(names: &[impl AsRef<str>]) -> String {
    let quoted = |name: &_| format!("\"{}\"", escape_text(AsRef::as_ref(name)));
    names.iter().map(quoted).collect::<Vec<_>>().join(", ")
}
