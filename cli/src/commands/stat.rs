//! `puddle stat`: one object, and where its copies lie.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use rampuddle_client::{CopyPlace, CopyState, Located};
use serde::Serialize;

use crate::arguments::StatArguments;
use crate::commands::get::absent;
use crate::exit::Exit;
use crate::metadata::JsonMetadata;
use crate::output::{JsonName, escape, escape_text};
use crate::runtime::{block_on, connect};
use crate::settings::Settings;
use crate::time::{seconds_of, utc};

/// Prints what is known of an object.
pub(crate) fn run(settings: &Settings, given: &StatArguments) -> anyhow::Result<Exit> {
    let name = given.name.as_bytes();
    block_on(async {
        let client = connect(settings).await?;
        let begin = Instant::now();
        let Some(located) = client.locate(name).await? else { return Ok(absent(name)) };
        let json = JsonStat::new(&located, begin.elapsed().as_secs_f64());
        settings.output.result(&json, || text(&located))?;
        Ok(Exit::Done)
    })
}

fn text(located: &Located) -> String {
    let stat = &located.stat;
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "{what:<9} {value}");
    };
    line("name", escape(&stat.name));
    line("bytes", stat.bytes.to_string());
    line("version", stat.version.to_string());
    line("written", utc(stat.version.unix_ms()));
    line("replicas", stat.replicas.to_string());
    line("keep", if stat.keep { "yes" } else { "no" }.to_owned());
    line("expires", stat.expires_unix_ms.map_or_else(|| "never".to_owned(), utc));
    line("stripes", format!("{} of {} bytes", stat.stripes, stat.stripe_bytes));
    let stored = stat.stored_bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    line("stored", format!("{stored} bytes by codec {}", stat.codec));
    for (name, value) in stat.metadata.iter().flatten() {
        line("meta", format!("{}={}", escape_text(name), escape(value)));
    }
    for places in located.copies.chunk_by(|one, other| one.stripe == other.stripe) {
        let what = places[0].stripe.map_or("head".to_owned(), |stripe| format!("stripe {stripe}"));
        let places: Vec<_> = places.iter().map(place_text).collect();
        line(&what, places.join(", "));
    }
    text.truncate(text.trim_end().len());
    text
}

fn place_text(place: &CopyPlace) -> String {
    let mut text = escape_text(&place.server);
    if !place.is_owner {
        text.push_str(" (stand-in)");
    }
    if place.state != CopyState::Whole {
        let _ = write!(text, " ({})", state_word(place.state));
    }
    text
}

fn state_word(state: CopyState) -> &'static str {
    match state {
        CopyState::Whole => "whole",
        CopyState::Missing => "missing",
        CopyState::Unreachable => "unreachable",
        _ => "other",
    }
}

#[derive(Debug, Serialize)]
struct JsonStat {
    #[serde(flatten)]
    name: JsonName,
    bytes: u64,
    version: String,
    replicas: u8,
    stripes: u64,
    /// How long it took to ask.
    seconds: f64,
    stripe_bytes: u64,
    upload: String,
    keep: bool,
    expires: Option<u64>,
    codec: String,
    stored_bytes: Option<u64>,
    #[serde(flatten)]
    metadata: JsonMetadata,
    copies: Vec<JsonCopy>,
}

#[derive(Debug, Serialize)]
struct JsonCopy {
    /// Null = the head.
    stripe: Option<u64>,
    server: String,
    owner: bool,
    state: &'static str,
}

impl JsonStat {
    fn new(located: &Located, seconds: f64) -> Self {
        let stat = &located.stat;
        let copy = |place: &CopyPlace| JsonCopy {
            stripe: place.stripe,
            server: place.server.clone(),
            owner: place.is_owner,
            state: state_word(place.state),
        };
        Self {
            name: JsonName::new(&stat.name),
            bytes: stat.bytes,
            version: stat.version.to_string(),
            replicas: stat.replicas,
            stripes: stat.stripes,
            seconds,
            stripe_bytes: stat.stripe_bytes,
            upload: stat.upload.to_string(),
            keep: stat.keep,
            expires: stat.expires_unix_ms.map(seconds_of),
            codec: stat.codec.to_string(),
            stored_bytes: stat.stored_bytes,
            metadata: JsonMetadata::new(&stat.metadata.clone().unwrap_or_default()),
            copies: located.copies.iter().map(copy).collect(),
        }
    }
}
