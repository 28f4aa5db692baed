//! `puddle nodes forget`: takes servers that never come back out of the members.

use std::io::{self, IsTerminal as _};

use rampuddle_discovery::{forget, open};
use serde::Serialize;

use crate::arguments::ForgetArguments;
use crate::confirmation::is_confirmed;
use crate::exit::{Exit, report};
use crate::output::escape_text;
use crate::probe::asking;
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
    block_on(async {
        let backend = open(&url, &settings.cluster)?;
        let mut worst = Exit::Done;
        for name in &given.names {
            let probe = asking(&settings.cluster);
            worst = worst.max(match forget(&*backend, name, &probe).await {
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

fn question(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().map(|name| format!("\"{}\"", escape_text(name))).collect();
    let only = if names.len() == 1 { "it has" } else { "they have" };
    format!("Forget {}? What only {only} is lost then. [y/N] ", shown.join(", "))
}
