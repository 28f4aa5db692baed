//! `puddle put -r`: the files of a directory into objects.

use std::fs::Metadata;
use std::sync::Arc;

use anyhow::Context as _;
use rampuddle_client::{
    Client, CompareOptions, Comparison, Error, ObjectStat, Progress, PutOptions, Source,
};
use tokio::sync::mpsc;

use super::names::{prefix_of, shown, usual_prefix};
use super::report::{Action, Done};
use super::several::{Job, Several, WAITING_MAX};
use super::walk::{Walk, check_file};
use crate::arguments::PutArguments;
use crate::commands::put::options_of;
use crate::exit::{BeforeAnythingExt as _, Exit, one_line, refusal};
use crate::progress_lines::Lane;
use crate::runtime::{block_on, connect};
use crate::settings::Settings;
use crate::whole::Whole;

/// Files in flight at once, unless told otherwise.
pub(super) const JOBS: usize = 4;

/// Stores every file below the directory that is not stored yet.
pub(crate) fn run(settings: &Settings, given: &PutArguments) -> anyhow::Result<Exit> {
    let prefix = check(given)?;
    block_on(async {
        let client = connect(settings).await?;
        let sending = Arc::new(Sending::new(settings, given, &client)?);
        let (steps, found) = mpsc::channel(WAITING_MAX);
        let walk = Walk { steps, prefix, dereference: given.dereference };
        let directory = given.source.clone();
        let walking = tokio::task::spawn_blocking(move || walk.run(&directory));
        let jobs = given.jobs.map_or(JOBS, Whole::get);
        let several =
            Several { output: settings.output, client: &client, jobs, moving: Action::Sent };
        let work = |job, lane| Arc::clone(&sending).one(job, lane);
        let summary = several.run(found, work).await?;
        if summary.is_complete() {
            let _ = walking.await.context("the walk through the directory broke off")?;
        }
        Ok(summary.tell(settings.output))
    })
}

/// What the names begin with, if the source is a directory.
fn check(given: &PutArguments) -> anyhow::Result<Vec<u8>> {
    let directory = &given.source;
    let cannot = || format!("cannot read {}", directory.display());
    if directory.as_os_str() == "-" {
        return Err(refusal("-r wants a directory, and - is stdin: leave -r out, or name one"));
    }
    let metadata: Metadata = directory.metadata().with_context(cannot).before_anything()?;
    if !metadata.is_dir() {
        return Err(refusal(format!(
            "-r wants a directory, and {} is none: leave -r out to put one file",
            directory.display()
        )));
    }
    directory.read_dir().with_context(cannot).before_anything()?;
    given.name.as_deref().map_or_else(|| usual_prefix(directory), |name| Ok(prefix_of(name)))
}

/// What all files have in common.
struct Sending {
    client: Client,
    options: PutOptions,
    /// Copies that the user asked for.
    replicas: Option<u8>,
    dereference: bool,
}

impl Sending {
    fn new(settings: &Settings, given: &PutArguments, client: &Client) -> anyhow::Result<Self> {
        let options = options_of(given)?;
        let replicas = settings.chosen.replicas;
        Ok(Self { client: client.clone(), options, replicas, dereference: given.dereference })
    }

    async fn one(self: Arc<Self>, job: Job, lane: Lane) -> anyhow::Result<Done> {
        let Job { pair, .. } = job;
        let cannot = |why: &str| format!("{} is not stored: {why}", shown(&pair.path));
        if let Err(why) = check_file(&pair.path, self.dereference) {
            return Ok(Done::failed(pair.clone(), cannot(&why)));
        }
        match self.send(&pair.name, Source::file(&pair.path), &pair.path, &lane).await {
            Ok((action, bytes)) => Ok(Done::well(pair, action, bytes)),
            Err(Failure::OfAll(error)) => Err(error.into()),
            Err(Failure::OfThis(error)) => {
                let why = one_line(&local(error));
                Ok(Done::failed(pair.clone(), cannot(&why)))
            }
            Err(Failure::Short { copies, wanted }) => {
                let error = format!(
                    "{} is stored, but in {copies} of {wanted} copies: put it again when more \
                     servers are up",
                    shown(&pair.path)
                );
                Ok(Done::failed(pair, error))
            }
        }
    }

    async fn send(
        &self,
        name: &[u8],
        source: Source,
        path: &std::path::Path,
        lane: &Lane,
    ) -> Result<(Action, u64), Failure> {
        if let Some(bytes) = self.is_there(name, path, lane).await? {
            return Ok((Action::Same, bytes));
        }
        let progress = Progress::new();
        lane.follow(&progress);
        let mut options = self.options.clone();
        options.progress = Some(progress);
        let report = self.client.put(name, source, &options).await?;
        if report.is_short() {
            let (copies, wanted) = (report.copies, report.wanted);
            return Err(Failure::Short { copies, wanted });
        }
        Ok((Action::Sent, report.bytes))
    }

    /// The length of the object, if it needs not be sent.
    async fn is_there(
        &self,
        name: &[u8],
        path: &std::path::Path,
        lane: &Lane,
    ) -> Result<Option<u64>, Failure> {
        let progress = Progress::new();
        lane.follow(&progress);
        let mut options = CompareOptions::default();
        options.progress = Some(progress);
        match self.client.compare(name, Source::file(path), &options).await {
            Ok(Comparison::Same(stat)) if self.is_as_wanted(&stat) => Ok(Some(stat.bytes)),
            // What is not known to be there is sent.
            Ok(_) | Err(Error::Unknown { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Sending {
    /// Whether the user asked for nothing that an object with the right bytes has
    /// not. How its blocks are stored is nobody's concern. A life begins with each
    /// put, so that what has one, or is to have one, is sent again.
    fn is_as_wanted(&self, stat: &ObjectStat) -> bool {
        let is_described = stat.metadata.as_ref() == Some(&self.options.metadata);
        let is_for_good = stat.expires_unix_ms.is_none() && self.options.ttl.is_none();
        is_for_good
            && self.replicas.is_none_or(|replicas| replicas == stat.replicas)
            && (stat.keep || !self.options.keep)
            && (is_described || self.options.metadata.is_empty())
    }
}

/// Why a file is not stored as it should be.
enum Failure {
    /// In a way in which all other files would fail too.
    OfAll(Error),
    OfThis(Error),
    Short {
        copies: u32,
        wanted: u32,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if is_of_all(&error) { Self::OfAll(error) } else { Self::OfThis(error) }
    }
}

/// Whether a failure lies in the settings, or in there being no servers.
pub(super) fn is_of_all(error: &Error) -> bool {
    let is_of_settings = matches!(
        error,
        Error::NoServers { .. }
            | Error::BadOption { .. }
            | Error::UnsupportedPlacement { .. }
            | Error::ClockAhead { .. }
    );
    is_of_settings || error.is_refusal()
}

/// A failure to read in the system's words alone: the file is named already.
fn local(error: Error) -> anyhow::Error {
    match error {
        Error::Local { source, .. } => anyhow::Error::new(source),
        error => error.into(),
    }
}
