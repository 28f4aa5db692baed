//! `puddle nodes forget`: takes servers that never come back out of the members.

use std::io::{self, IsTerminal as _};

use rampuddle_discovery::{Backend, DiscoveryError, KeptView, Living, Member, forget, open};
use serde::Serialize;

use crate::arguments::ForgetArguments;
use crate::confirmation::is_confirmed;
use crate::exit::{Exit, report};
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
/// on a terminal.
pub(crate) fn run(settings: &Settings, given: &ForgetArguments) -> anyhow::Result<Exit> {
    let url = settings.discovery_to_look_at()?;
    let asks = !given.yes && io::stdin().is_terminal();
    if asks && !is_confirmed(&question(&given.names))? {
        settings.output.remark("nothing was forgotten");
        return Ok(Exit::Refused);
    }
    let view_file = settings.client_options_at(url.clone())?.view_file;
    block_on(async {
        let backend = open(&url, &settings.cluster)?;
        let kept = view_file.of(backend.url(), &settings.cluster);
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

/// Asks the server first, also where it was seen last.
async fn forget_one(
    settings: &Settings,
    backend: &dyn Backend,
    kept: Option<&KeptView>,
    name: &str,
) -> Result<Option<Member>, DiscoveryError> {
    let last_seen = match kept {
        Some(kept) => last_seen(kept, name).await,
        None => None,
    };
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
async fn last_seen(kept: &KeptView, name: &str) -> Option<Living> {
    kept.last_seen(name).await.unwrap_or_else(|error| {
        tracing::warn!("the kept view cannot be used: {}", error.explained());
        None
    })
}

fn question(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().map(|name| format!("\"{}\"", escape_text(name))).collect();
    let only = if names.len() == 1 { "it has" } else { "they have" };
    format!("Forget {}? What only {only} is lost then. [y/N] ", shown.join(", "))
}
