//! `puddle get`: an object into a file, or to stdout.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, bail};
use rampuddle_client::{Error, GetOptions, GetReport, Progress};
use serde::Serialize;
use tokio::io::AsyncWrite;

use crate::arguments::GetArguments;
use crate::destination::Destination;
use crate::exit::{BeforeAnythingExt as _, Exit};
use crate::output::{ClosedOutput, JsonName, complain, escape, to_stderr};
use crate::part_file::{Named, PartFile, folder_of};
use crate::progress::Bar;
use crate::runtime::{block_on, connect, leave};
use crate::settings::Settings;
use crate::signals::EndSignals;
use crate::size::{ByteRange, rounded};

/// Reads an object, or a range of it.
pub(crate) fn run(settings: &Settings, given: &GetArguments) -> anyhow::Result<Exit> {
    let destination = Destination::choose(given.name.as_bytes(), given.dest.as_deref())?;
    let descriptor = destination.descriptor()?;
    let name = given.name.as_bytes();
    let get = Get { settings, name, range: given.range, destination, descriptor };
    block_on(async { get.tell(get.write().await?) })
}

struct Get<'g> {
    settings: &'g Settings,
    name: &'g [u8],
    range: Option<ByteRange>,
    destination: Destination,
    /// What is open already, if it is that.
    descriptor: Option<File>,
}

/// What was read; `None` = there is no such object.
type Done = Option<Got>;

/// Bytes that came, and may be on their way to the disk still.
struct Got {
    report: GetReport,
    begin: Instant,
    bar: Bar,
}

impl Get<'_> {
    async fn write(&self) -> anyhow::Result<Done> {
        match &self.destination {
            Destination::Stdout => {
                let done = self.transfer(&mut tokio::io::stdout()).await;
                done.map_err(closed)
            }
            Destination::Device(path) => {
                let done = self.transfer(&mut self.open_device(path).await?).await;
                done.map_err(|error| local(error, || format!("cannot write to {}", path.display())))
            }
            Destination::File(path) => self.write_file(path).await,
        }
    }

    async fn open_device(&self, path: &Path) -> anyhow::Result<tokio::fs::File> {
        let opened = match &self.descriptor {
            Some(file) => file.try_clone().map(tokio::fs::File::from_std),
            None => tokio::fs::OpenOptions::new().write(true).open(path).await,
        };
        opened.with_context(|| format!("cannot write to {}", path.display())).before_anything()
    }

    /// A signal removes what there is of the file, as long as it has no name.
    async fn write_file(&self, path: &Path) -> anyhow::Result<Done> {
        let mut signals = EndSignals::new()?;
        let named = tokio::select! {
            named = self.name_file(path) => named?,
            () = signals.next() => bail!("interrupted; {} is as it was", path.display()),
        };
        let Some((got, named)) = named else { return Ok(None) };
        let unsettled =
            || format!("{} is there and whole, but may not survive a power cut", path.display());
        tokio::select! {
            settled = named.settle() => settled.with_context(unsettled)?,
            () = signals.next() => bail!("interrupted; {}", unsettled()),
        }
        Ok(Some(got))
    }

    async fn name_file(&self, path: &Path) -> anyhow::Result<Option<(Got, Named)>> {
        let cannot = || format!("cannot write {}, which is as it was", path.display());
        let folder = || format!("cannot create a file in {}", folder_of(path).display());
        let mut part = PartFile::create(path).with_context(folder).before_anything()?;
        let done = self.transfer(&mut part.file).await;
        match done.map_err(|error| local(error, cannot))? {
            Some(got) => Ok(Some((got, part.finish().await.with_context(cannot)?))),
            None => Ok(None),
        }
    }

    /// Reads the object into a writer, with a bar.
    async fn transfer(&self, writer: &mut (dyn AsyncWrite + Send + Unpin)) -> anyhow::Result<Done> {
        let client = connect(self.settings).await?;
        let progress = Progress::new();
        let mut options = GetOptions::default();
        options.progress = Some(progress.clone());
        let bar = match self.destination.is_terminal() {
            true => Bar::hidden(),
            false => Bar::follow(self.settings.output, self.name, &progress),
        };
        let begin = Instant::now();
        let range = self.range.map(ByteRange::bytes);
        let report = client.get_to(self.name, writer, range, &options).await;
        leave(&client).await;
        Ok(report?.map(|report| Got { report, begin, bar }))
    }

    fn tell(&self, done: Done) -> anyhow::Result<Exit> {
        let Some(Got { report, begin, bar }) = done else { return Ok(absent(self.name)) };
        let seconds = begin.elapsed().as_secs_f64();
        drop(bar);
        let json = JsonGet {
            name: JsonName::new(self.name),
            bytes: report.bytes,
            object_bytes: report.object_bytes,
            version: report.version.to_string(),
            seconds,
            served: Served::all(&report),
            dest: self.destination.shown(),
        };
        let output = self.settings.output;
        match &self.destination {
            // Stdout is for the bytes.
            Destination::Stdout if output.json => to_stderr(&serde_json::to_string(&json)?),
            _ if output.json => output.report(&json),
            destination if destination.is_terminal() => {}
            destination => {
                let (bytes, dest) = (rounded(report.bytes), destination.shown());
                output.remark(&format!("{dest}: {bytes} in {seconds:.2} s"));
            }
        }
        Ok(Exit::Done)
    }
}

/// A failure to write in words that say where.
fn local(error: anyhow::Error, cannot: impl FnOnce() -> String) -> anyhow::Error {
    match error.downcast::<Error>() {
        Ok(Error::Local { source, .. }) => anyhow::Error::new(source).context(cannot()),
        Ok(error) => error.into(),
        Err(error) => error,
    }
}

fn closed(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Error>() {
        Some(Error::Local { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            ClosedOutput.into()
        }
        _ => local(error, || "cannot write to stdout".to_owned()),
    }
}

/// Says that there is no such object.
pub(crate) fn absent(name: &[u8]) -> Exit {
    complain(&format!("there is no object \"{}\"", escape(name)));
    Exit::Absent
}

#[derive(Debug, Serialize)]
struct JsonGet {
    #[serde(flatten)]
    name: JsonName,
    bytes: u64,
    object_bytes: u64,
    version: String,
    seconds: f64,
    served: Vec<Served>,
    dest: String,
}

/// How many bytes came from a server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Served {
    pub(crate) server: String,
    pub(crate) bytes: u64,
}

impl Served {
    /// As a report has it.
    pub(crate) fn all(report: &GetReport) -> Vec<Self> {
        let served = report.served.iter().cloned();
        served.map(|(server, bytes)| Self { server, bytes }).collect()
    }
}
