//! `puddle get -r`: objects into the files of a directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rampuddle_client::{
    Client, CompareOptions, Comparison, Error, GetOptions, Listing, Progress, Source,
};
use tokio::sync::mpsc::{self, Sender};

use super::names::{Below, path_of, prefix_of, shown};
use super::put::{JOBS, is_of_all};
use super::report::{Action, Done, Pair};
use super::several::{Job, Several, Step, WAITING_MAX};
use crate::arguments::GetArguments;
use crate::commands::ls::incomplete;
use crate::exit::{BeforeAnythingExt as _, Exit, one_line, refusal};
use crate::output::{complain, escape};
use crate::part_file::{Named, PartFile, make_folders};
use crate::progress_lines::Lane;
use crate::runtime::{block_on, check_has_servers, connect};
use crate::settings::Settings;
use crate::whole::Whole;

/// Reads every object of the prefix into a file of its own.
pub(crate) fn run(settings: &Settings, given: &GetArguments) -> anyhow::Result<Exit> {
    let root = root_of(given)?;
    let prefix = prefix_of(&given.name);
    block_on(async {
        let client = connect(settings).await?;
        check_has_servers(settings, &client)?;
        let cannot = || format!("cannot make the folder {}", root.display());
        std::fs::create_dir_all(&root).with_context(cannot).before_anything()?;
        let (steps, found) = mpsc::channel(WAITING_MAX);
        let looking = tokio::spawn(look(client.list(&prefix), prefix.clone(), root.clone(), steps));
        let jobs = given.jobs.map_or(JOBS, Whole::get);
        let several =
            Several { output: settings.output, client: &client, jobs, moving: Action::Received };
        let receiving = Arc::new(Receiving { client: client.clone(), root });
        let summary = several.run(found, |job, lane| Arc::clone(&receiving).one(job, lane)).await?;
        let listed = match summary.is_complete() {
            true => incomplete(&looking.await.context("the listing broke off")??),
            // Nobody waits for the rest of it.
            false => Exit::Failed,
        };
        if summary.files() == 0 && listed == Exit::Done {
            complain(&format!("no object's name begins with \"{}\"", escape(&prefix)));
            return Ok(Exit::Absent);
        }
        Ok(summary.tell(settings.output).max(listed))
    })
}

fn root_of(given: &GetArguments) -> anyhow::Result<PathBuf> {
    let root = given.dest.clone().unwrap_or_default();
    match root.as_os_str().as_encoded_bytes() {
        b"" => Err(refusal("the destination has no name: expected a folder")),
        b"-" => Err(refusal("-r wants a folder, and - is stdout: name one, or leave -r out")),
        _ if root.exists() && !root.is_dir() => Err(refusal(format!(
            "-r wants a folder, and {} is none: give another name, or leave -r out to get one \
             object",
            root.display()
        ))),
        _ => Ok(root),
    }
}

/// Finds the objects, and the file of each.
async fn look(
    mut listing: Listing,
    prefix: Vec<u8>,
    root: PathBuf,
    steps: Sender<Step>,
) -> anyhow::Result<Listing> {
    let mut below = Below::default();
    while let Some(object) = listing.next().await {
        let object = object?;
        let relative = &object.name[prefix.len()..];
        let pair = |path: &Path| Pair { name: object.name.clone(), path: root.join(path) };
        let refused = |why: &str| {
            let error = format!("\"{}\" cannot be a file: {why}", escape(&object.name));
            Step::Done(Done::failed(pair(Path::new("")), error))
        };
        let step = match path_of(relative) {
            Err(why) => refused(why),
            Ok(path) => match below.find(relative) {
                Some(above) => {
                    let above = escape(&[&prefix, above].concat());
                    refused(&format!("\"{above}\" is one, and would have to be a folder"))
                }
                None => Step::File(Job { pair: pair(&path), bytes: object.bytes }),
            },
        };
        if steps.send(step).await.is_err() {
            break;
        }
    }
    Ok(listing)
}

/// What all files have in common.
struct Receiving {
    client: Client,
    root: PathBuf,
}

impl Receiving {
    async fn one(self: Arc<Self>, job: Job, lane: Lane) -> anyhow::Result<Done> {
        let pair = job.pair.clone();
        match self.receive(&job, &lane).await {
            Ok(Received::Same(bytes)) => Ok(Done::well(pair, Action::Same, bytes)),
            Ok(Received::Named(named, bytes)) => Ok(match named.settle().await {
                Ok(()) => Done::well(pair, Action::Received, bytes),
                Err(error) => {
                    let path = shown(&pair.path);
                    let whole = "is there and whole, but may not survive a power cut";
                    Done::failed(pair, format!("{path} {whole}: {error}"))
                }
            }),
            Err(error) if error.downcast_ref::<Error>().is_some_and(is_of_all) => Err(error),
            Err(error) => {
                let error = format!("{} is as it was: {}", shown(&pair.path), one_line(&error));
                Ok(Done::failed(pair, error))
            }
        }
    }

    async fn receive(&self, job: &Job, lane: &Lane) -> anyhow::Result<Received> {
        let Pair { name, path } = &job.pair;
        make_folders(&self.root, path)?;
        if is_file(path)? && path.metadata()?.len() == job.bytes {
            let progress = Progress::new();
            lane.follow(&progress);
            let mut options = CompareOptions::default();
            options.progress = Some(progress);
            let compared = self.client.compare(name, Source::file(path), &options).await;
            if let Ok(Comparison::Same(stat) | Comparison::Thin(stat)) = compared {
                return Ok(Received::Same(stat.bytes));
            }
        }
        let progress = Progress::new();
        lane.follow(&progress);
        let mut options = GetOptions::default();
        options.progress = Some(progress);
        let mut part = PartFile::create(path)?;
        let report = match self.client.get_to(name, &mut part.file, None, &options).await {
            Err(Error::Local { source, .. }) => Err(anyhow::Error::new(source)),
            report => Ok(report?),
        }?;
        let report = report.context("there is no such object any more")?;
        Ok(Received::Named(part.finish().await?, report.bytes))
    }
}

/// A file that is as it should be, of so many bytes.
enum Received {
    /// It was before.
    Same(u64),
    Named(Named, u64),
}

/// Whether there is a file; fails where there is something that none may replace.
/// A link is replaced: what it names may lie elsewhere.
fn is_file(path: &Path) -> anyhow::Result<bool> {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(true),
        Ok(found) if found.is_symlink() => Ok(false),
        Ok(found) if found.is_dir() => anyhow::bail!("it is a folder here; remove it first"),
        Ok(_) => anyhow::bail!("it is a FIFO, a socket or a device here; remove it first"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}
