//! `puddle verify`: every copy of everything, block by block.

use std::os::unix::ffi::OsStrExt as _;
use std::time::Instant;

use rampuddle_client::{Client, Orphans, Progress, Verified, VerifyOptions, VerifyState};
use serde::Serialize;

use crate::arguments::VerifyArguments;
use crate::commands::ls::YOUNG_REGISTRY;
use crate::exit::Exit;
use crate::output::{JsonName, complain, counted, escape, escape_text};
use crate::progress::Bar;
use crate::runtime::{block_on, check_has_servers, connect, leave};
use crate::settings::Settings;
use crate::size::rounded;

/// Verifies objects, and says which are not as they should be.
pub(crate) fn run(settings: &Settings, given: &VerifyArguments) -> anyhow::Result<Exit> {
    block_on(async {
        let client = connect(settings).await?;
        check_has_servers(settings, &client)?;
        let mut summary = Summary::default();
        let begin = Instant::now();
        let progress = Progress::new();
        let bar = Bar::follow(settings.output, b"verified", &progress);
        let prefix = given.prefix.as_ref().map(|prefix| prefix.as_bytes()).unwrap_or_default();
        let mut options = VerifyOptions::default();
        options.progress = Some(progress);
        let mut verification = client.verify(prefix, &options);
        while let Some(verified) = verification.next().await {
            let verified = verified?;
            summary.note(&verified);
            bar.print(|| tell(settings, &verified))?;
        }
        summary.is_of_young_registry = verification.is_of_young_registry();
        summary.unreachable.extend(verification.unreachable().iter().cloned());
        if given.prefix.is_none() {
            summary.look_for_orphans(&client).await?;
        }
        drop(bar);
        summary.seconds = begin.elapsed().as_secs_f64();
        drop(verification);
        leave(&client).await;
        summary.tell(settings)
    })
}

/// A line for each object in JSON, for each that is not whole in text.
fn tell(settings: &Settings, verified: &Verified) -> anyhow::Result<()> {
    if settings.output.json {
        return settings.output.json_line(&JsonVerified::of(verified));
    }
    if verified.state == VerifyState::Whole {
        return Ok(());
    }
    settings.output.text(&text(verified))
}

fn text(verified: &Verified) -> String {
    let Verified { copies, wanted, .. } = verified;
    let mut text = format!("{:<14} {}", words(verified.state).1, escape(&verified.name));
    if verified.version.is_some() {
        text.push_str(&format!(": {copies} of {wanted} copies are right"));
    }
    if !verified.is_readable {
        text.push_str("; it cannot be read");
    }
    let problems: Vec<_> = verified.problems.iter().map(|problem| escape_text(problem)).collect();
    if !problems.is_empty() {
        text.push_str(&format!(" ({})", problems.join("; ")));
    }
    text
}

/// A state in JSON, and for people.
fn words(state: VerifyState) -> (&'static str, &'static str) {
    match state {
        VerifyState::Whole => ("whole", "whole"),
        VerifyState::TooFew => ("too-few", "too few copies"),
        VerifyState::Damaged => ("damaged", "damaged"),
        VerifyState::Missing => ("missing", "missing"),
        VerifyState::Unreachable => ("unreachable", "unreachable"),
        _ => ("unsettled", "unsettled"),
    }
}

#[derive(Debug, Serialize)]
struct JsonVerified<'v> {
    #[serde(flatten)]
    name: JsonName,
    state: &'static str,
    readable: bool,
    bytes: u64,
    version: Option<String>,
    replicas: u8,
    stripes: u64,
    wanted: u32,
    copies: u32,
    read_bytes: u64,
    damaged: u64,
    missing: u64,
    unreachable: u64,
    problems: &'v [String],
}

impl<'v> JsonVerified<'v> {
    fn of(verified: &'v Verified) -> Self {
        Self {
            name: JsonName::new(&verified.name),
            state: words(verified.state).0,
            readable: verified.is_readable,
            bytes: verified.bytes,
            version: verified.version.map(|version| version.to_string()),
            replicas: verified.replicas,
            stripes: verified.stripes,
            wanted: verified.wanted,
            copies: verified.copies,
            read_bytes: verified.read_bytes,
            damaged: verified.damaged,
            missing: verified.missing,
            unreachable: verified.unreachable,
            problems: &verified.problems,
        }
    }
}

/// What was found in all.
#[derive(Debug, Default)]
struct Summary {
    objects: u64,
    whole: u64,
    read_bytes: u64,
    /// `None` = nobody looked.
    orphans: Option<Orphans>,
    unreachable: Vec<String>,
    is_of_young_registry: bool,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct JsonSummary<'s> {
    event: &'static str,
    objects: u64,
    whole: u64,
    read_bytes: u64,
    orphans: Option<JsonOrphans>,
    unreachable_servers: &'s [String],
    complete: bool,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct JsonOrphans {
    uploads: u64,
    copies: u64,
    bytes: u64,
    leased_copies: u64,
}

impl Summary {
    fn note(&mut self, verified: &Verified) {
        self.objects += 1;
        self.whole += u64::from(verified.state == VerifyState::Whole);
        self.read_bytes += verified.read_bytes;
    }

    async fn look_for_orphans(&mut self, client: &Client) -> anyhow::Result<()> {
        let orphans = client.orphans().await?;
        let is_new = |name: &&String| !self.unreachable.contains(name);
        let silent: Vec<_> = orphans.unreachable.iter().filter(is_new).cloned().collect();
        self.unreachable.extend(silent);
        self.orphans = Some(orphans);
        Ok(())
    }

    fn tell(&self, settings: &Settings) -> anyhow::Result<Exit> {
        let output = settings.output;
        let orphans = self.orphans.as_ref().map(|orphans| JsonOrphans {
            uploads: orphans.uploads,
            copies: orphans.copies,
            bytes: orphans.bytes,
            leased_copies: orphans.leased_copies,
        });
        if output.json {
            output.json_line(&JsonSummary {
                event: "summary",
                objects: self.objects,
                whole: self.whole,
                read_bytes: self.read_bytes,
                orphans,
                unreachable_servers: &self.unreachable,
                complete: self.is_complete(),
                seconds: self.seconds,
            })?;
        } else {
            output.remark(&self.text());
            if let Some(orphans) = self.orphans.as_ref().filter(|orphans| orphans.copies > 0) {
                output.remark(&orphans_text(orphans));
            }
        }
        if !self.unreachable.is_empty() {
            let servers: Vec<_> = self.unreachable.iter().map(|name| escape_text(name)).collect();
            complain(&format!(
                "objects and copies may have been left out: no answer from {}",
                servers.join(", ")
            ));
        }
        if self.is_of_young_registry {
            complain(YOUNG_REGISTRY);
        }
        let is_done = self.is_complete() && self.whole == self.objects;
        Ok(if is_done { Exit::Done } else { Exit::Failed })
    }

    /// Whether nothing may have been left out.
    fn is_complete(&self) -> bool {
        self.unreachable.is_empty() && !self.is_of_young_registry
    }

    fn text(&self) -> String {
        format!(
            "{} verified, {} whole, {} not; {} of all copies read in {:.2} s",
            counted(self.objects, "object"),
            self.whole,
            self.objects - self.whole,
            rounded(self.read_bytes),
            self.seconds
        )
    }
}

fn orphans_text(orphans: &Orphans) -> String {
    format!(
        "{} of {} ({}) that no object names: memory that only a restart of the servers gives back \
         yet",
        counted(orphans.copies, "stripe"),
        counted(orphans.uploads, "upload"),
        rounded(orphans.bytes)
    )
}
