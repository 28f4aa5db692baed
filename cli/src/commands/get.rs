//! `puddle get`: an object into a file, or to stdout.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use rampuddle_client::{Client, Error, GetOptions, GetReport, Progress};
use serde::Serialize;

use crate::arguments::GetArguments;
use crate::exit::{BeforeAnythingExt as _, Exit, refusal};
use crate::output::{ClosedOutput, JsonName, complain, escape, to_stderr};
use crate::progress::Bar;
use crate::runtime::{block_on, connect};
use crate::settings::Settings;
use crate::size::{ByteRange, rounded};

/// Where the bytes go.
#[derive(Debug)]
enum Destination {
    Stdout,
    /// A file that appears, or is replaced, when it is whole.
    File(PathBuf),
    /// A pipe or a device, which is written to and stays what it is.
    Device(PathBuf),
}

/// Reads an object, or a range of it.
pub(crate) fn run(settings: &Settings, given: &GetArguments) -> anyhow::Result<Exit> {
    let name = given.name.as_bytes();
    let destination = Destination::choose(name, given.dest.as_deref())?;
    block_on(async {
        let client = connect(settings).await?;
        let progress = Progress::new();
        let mut options = GetOptions::default();
        options.progress = Some(progress.clone());
        let bar = Bar::follow(settings.output, name, &progress);
        let begin = Instant::now();
        let report = destination.fill(&client, given, &options).await?;
        let seconds = begin.elapsed().as_secs_f64();
        drop(bar);
        match report {
            Some(report) => tell(settings, name, &destination, &report, seconds),
            None => Ok(absent(name)),
        }
    })
}

/// Says that there is no such object.
pub(crate) fn absent(name: &[u8]) -> Exit {
    complain(&format!("there is no object \"{}\"", escape(name)));
    Exit::Absent
}

impl Destination {
    fn choose(name: &[u8], given: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = given else { return Ok(Self::File(last_part(name)?)) };
        if path.as_os_str() == OsStr::new("-") {
            return Ok(Self::Stdout);
        }
        let cannot = || format!("cannot write to {}", path.display());
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::File(path.join(last_part(name)?))),
            // Behind a link, the file is replaced, not the link.
            Ok(metadata) if metadata.is_file() => {
                path.canonicalize().map(Self::File).with_context(cannot).before_anything()
            }
            Ok(_) => Ok(Self::Device(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::File(path.to_owned()))
            }
            Err(error) => Err(error).with_context(cannot).before_anything(),
        }
    }

    async fn fill(
        &self,
        client: &Client,
        given: &GetArguments,
        options: &GetOptions,
    ) -> anyhow::Result<Option<GetReport>> {
        let (name, range) = (given.name.as_bytes(), given.range.map(ByteRange::bytes));
        match self {
            Self::Stdout => {
                let mut stdout = tokio::io::stdout();
                client.get_to(name, &mut stdout, range, options).await.map_err(
                    |error| match error {
                        Error::Local { source, .. }
                            if source.kind() == io::ErrorKind::BrokenPipe =>
                        {
                            ClosedOutput.into()
                        }
                        error => error.into(),
                    },
                )
            }
            Self::File(path) => Ok(client.get_to_file(name, path, range, options).await?),
            Self::Device(path) => {
                let opened = tokio::fs::OpenOptions::new().write(true).open(path).await;
                let cannot = || format!("cannot write to {}", path.display());
                let mut device = opened.with_context(cannot).before_anything()?;
                Ok(client.get_to(name, &mut device, range, options).await?)
            }
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Stdout => "-".to_owned(),
            Self::File(path) | Self::Device(path) => escape(path.as_os_str().as_bytes()),
        }
    }
}

/// The file in the current directory that a name stands for.
fn last_part(name: &[u8]) -> anyhow::Result<PathBuf> {
    let last = name.split(|byte| *byte == b'/').rfind(|part| !part.is_empty());
    match last.unwrap_or_default() {
        b"" | b"." | b".." => None,
        part if part.contains(&0) => None,
        part => Some(PathBuf::from(OsStr::from_bytes(part))),
    }
    .ok_or_else(|| {
        refusal(format!(
            "\"{}\" cannot be the name of a file: say where it should go, as in \
             `puddle get NAME FILE`",
            escape(name)
        ))
    })
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

fn tell(
    settings: &Settings,
    name: &[u8],
    destination: &Destination,
    report: &GetReport,
    seconds: f64,
) -> anyhow::Result<Exit> {
    let json = JsonGet {
        name: JsonName::new(name),
        bytes: report.bytes,
        object_bytes: report.object_bytes,
        version: report.version.to_string(),
        seconds,
        served: Served::all(report),
        dest: destination.shown(),
    };
    match destination {
        _ if !settings.output.json => {
            let (bytes, dest) = (rounded(report.bytes), &json.dest);
            settings.output.remark(&format!("{dest}: {bytes} in {seconds:.2} s"));
        }
        // Stdout is for the bytes.
        Destination::Stdout => to_stderr(&serde_json::to_string(&json)?),
        _ => settings.output.json_line(&json)?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_the_last_part_of_the_name_and_stays_here() {
        for (name, file) in [("a", "a"), ("x/y/b.bin", "b.bin"), ("../../c", "c"), ("d/", "d")] {
            assert_eq!(last_part(name.as_bytes()).unwrap(), Path::new(file));
        }
        for name in ["", "/", "..", "a/..", "a/.", "a\0b"] {
            assert!(last_part(name.as_bytes()).is_err(), "{name:?}");
        }
    }
}
