//! `puddle put`: a file, or stdin, into an object.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use rampuddle_client::{Codec, Error, Progress, PutCondition, PutOptions, PutReport, Source};
use serde::Serialize;
use tokio::fs::File;

use crate::arguments::{Compress, PutArguments};
use crate::exit::{BeforeAnythingExt as _, Exit, refusal};
use crate::metadata;
use crate::output::{JsonName, complain, counted, escape, escape_text};
use crate::progress::Bar;
use crate::runtime::{block_on, connect};
use crate::settings::Settings;
use crate::size::rounded;
use crate::time::seconds_of;

/// Stores the source under a name.
pub(crate) fn run(settings: &Settings, given: &PutArguments) -> anyhow::Result<Exit> {
    block_on(async {
        let source = open_source(&given.source).await?;
        let name = object_name(given)?;
        let mut options = options_of(given)?;
        let client = connect(settings).await?;
        let progress = Progress::new();
        options.progress = Some(progress.clone());
        let bar = Bar::follow(settings.output, name, &progress);
        let begin = Instant::now();
        let report = client.put(name, source, &options).await;
        let seconds = begin.elapsed().as_secs_f64();
        drop(bar);
        let report = report.map_err(|error| local(error, &given.source))?;
        Ok(tell(settings, name, &report, seconds))
    })
}

/// How an object is written.
pub(crate) fn options_of(given: &PutArguments) -> anyhow::Result<PutOptions> {
    let mut options = PutOptions::default();
    options.condition = match given.if_version {
        Some(version) => PutCondition::IfVersion(version),
        None if given.no_clobber => PutCondition::IfAbsent,
        None => PutCondition::Always,
    };
    options.codec = match given.compress {
        Compress::None => Codec::None,
        Compress::Lz4 => Codec::Lz4,
        Compress::Zstd => Codec::Zstd,
    };
    options.metadata = metadata::collect(&given.meta)?;
    options.keep = given.keep;
    options.ttl = given.ttl.map(|ttl| ttl.0);
    options.stripe_bytes = given.stripe.map(|size| size.0);
    Ok(options)
}

fn object_name(given: &PutArguments) -> anyhow::Result<&[u8]> {
    let name = given.name.as_deref().or_else(|| {
        let is_stdin = given.source.as_os_str() == OsStr::new("-");
        if is_stdin { None } else { given.source.file_name() }
    });
    let name = name.map(OsStrExt::as_bytes);
    name.ok_or_else(|| refusal("the source has no name: give one, as in `puddle put - NAME`"))
}

/// A failure to read in words that say what.
fn local(error: Error, source: &Path) -> anyhow::Error {
    match error {
        Error::Local { source: cause, .. } => {
            anyhow::Error::new(cause).context(format!("nothing was stored: {}", cannot(source)))
        }
        error => error.into(),
    }
}

fn cannot(source: &Path) -> String {
    match source.as_os_str() == OsStr::new("-") {
        true => "cannot read stdin".to_owned(),
        false => format!("cannot read {}", source.display()),
    }
}

/// A file by its path, anything else that can be read as a reader.
async fn open_source(path: &Path) -> anyhow::Result<Source> {
    if path.as_os_str() == OsStr::new("-") {
        return Ok(Source::reader(tokio::io::stdin()));
    }
    let cannot = || cannot(path);
    let metadata = std::fs::metadata(path).with_context(cannot).before_anything()?;
    if metadata.is_dir() {
        return Err(refusal(format!(
            "{}: it is a directory; `puddle put -r {}` puts all files below it",
            cannot(),
            path.display()
        )));
    }
    let file = File::open(path).await.with_context(cannot).before_anything()?;
    let file = file.into_std().await;
    if metadata.file_type().is_char_device() && !file.is_terminal() {
        return Err(refusal(format!(
            "{}: it is a device, which may have no end; pipe what you want of it, as in \
             `head -c 1M {} | puddle put - NAME`",
            cannot(),
            path.display()
        )));
    }
    Ok(if metadata.is_file() { Source::file(path) } else { Source::reader(File::from_std(file)) })
}

#[derive(Debug, Serialize)]
struct JsonPut<'a> {
    #[serde(flatten)]
    name: JsonName,
    bytes: u64,
    version: String,
    codec: String,
    stored_bytes: u64,
    replicas: u8,
    stripes: u64,
    seconds: f64,
    copies: u32,
    wanted: u32,
    stand_ins: &'a [String],
    problems: &'a [String],
    expires: Option<u64>,
}

fn tell(settings: &Settings, name: &[u8], report: &PutReport, seconds: f64) -> Exit {
    let shown = escape(name);
    for problem in &report.problems {
        settings.output.remark(&format!("puddle: {}", escape_text(problem)));
    }
    if report.is_short() {
        complain(&format!(
            "\"{shown}\" is stored, but in {} of {} copies: put it again when more servers are \
             up",
            report.copies, report.wanted
        ));
    }
    let json = JsonPut {
        name: JsonName::new(name),
        bytes: report.bytes,
        version: report.version.to_string(),
        codec: report.codec.to_string(),
        stored_bytes: report.stored_bytes,
        replicas: report.replicas,
        stripes: report.stripes,
        seconds,
        copies: report.copies,
        wanted: report.wanted,
        stand_ins: &report.stand_ins,
        problems: &report.problems,
        expires: report.expires_unix_ms.map(seconds_of),
    };
    if settings.output.json {
        settings.output.report(&json);
    } else {
        let copies = match report.copies {
            1 => "1 copy".to_owned(),
            copies => format!("{copies} copies"),
        };
        settings.output.remark(&format!(
            "{shown}: {}{} in {seconds:.2} s, {copies}, {}",
            rounded(report.bytes),
            stored(report),
            counted(report.stripes, "stripe")
        ));
    }
    if report.is_short() { Exit::Failed } else { Exit::Done }
}

/// What compressing has come to.
fn stored(report: &PutReport) -> String {
    match report.codec {
        Codec::None => String::new(),
        codec => format!(" ({} by {codec})", rounded(report.stored_bytes)),
    }
}
