//! `puddle raw`: the four operations on values.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use rampuddle_client::{Answer, CreateItem, DeleteItem, GatherItem, ScatterItem, Target};
use rampuddle_client::{Error, Fate};
use rampuddle_protocol::limits::VALUE_BYTES_MAX;
use rampuddle_protocol::{RowFlags, Status};
use serde::Serialize;

use crate::arguments::{
    RawCommand, RawCreateArguments, RawGatherArguments, RawKey, RawScatterArguments,
};
use crate::exit::{BeforeAnythingExt as _, Exit, reading, refusal};
use crate::output::{JsonName, complain, escape, to_stderr};
use crate::runtime::{block_on, connect};
use crate::settings::Settings;
use crate::size::Size;

/// Runs one operation on one key.
pub(crate) fn run(settings: &Settings, command: &RawCommand) -> anyhow::Result<Exit> {
    match command {
        RawCommand::Create(given) => create(settings, given),
        RawCommand::Scatter(given) => scatter(settings, given),
        RawCommand::Gather(given) => reading(gather(settings, given)),
        RawCommand::Delete(given) => delete(settings, &given.key),
    }
}

fn create(settings: &Settings, given: &RawCreateArguments) -> anyhow::Result<Exit> {
    let bytes = given.value.as_deref().map_or(Ok(Bytes::new()), read_value)?;
    let length = given.length.map_or(bytes.len() as u64, |length| length.0);
    if bytes.len() as u64 > length {
        return Err(refusal(format!(
            "the value has {} bytes, more than --length {length}",
            bytes.len()
        )));
    }
    if length > VALUE_BYTES_MAX {
        let length = Size(length);
        return Err(refusal(format!(
            "--length {length}: a value has at most 1GiB; what is longer is an object, as \
             `puddle put` makes it"
        )));
    }
    let mut item = CreateItem::new(key_bytes(&given.key), bytes);
    // 0 would stand for "as long as the bytes".
    item.length = length.max(1);
    if given.replace {
        item.flags |= RowFlags::REPLACE;
    }
    let answer = block_on(async {
        let client = connect(settings).await?;
        only(client.raw().create(&target(&given.key), vec![item]).await)
    })?;
    Ok(told(settings, "create", &given.key, &answer))
}

fn scatter(settings: &Settings, given: &RawScatterArguments) -> anyhow::Result<Exit> {
    let item = ScatterItem::new(key_bytes(&given.key), given.offset.0, read_value(&given.value)?);
    let answer = block_on(async {
        let client = connect(settings).await?;
        only(client.raw().scatter(&target(&given.key), vec![item]).await)
    })?;
    Ok(told(settings, "scatter", &given.key, &answer))
}

fn gather(settings: &Settings, given: &RawGatherArguments) -> anyhow::Result<Exit> {
    let item = GatherItem::new(key_bytes(&given.key), given.offset.0, given.length.0);
    let answer = block_on(async {
        let client = connect(settings).await?;
        only(client.raw().gather(&target(&given.key), vec![item]).await)
    })?;
    if answer.status.is_success() {
        settings.output.bytes(&answer.bytes)?;
    }
    // Stdout is for the bytes.
    if settings.output.json {
        let json = JsonAnswer::new("gather", &given.key, &answer);
        to_stderr(&serde_json::to_string(&json)?);
        return Ok(exit_of(answer.status));
    }
    if answer.status.is_success() {
        settings.output.remark(&format!("{} bytes", answer.length));
        return Ok(Exit::Done);
    }
    Ok(told(settings, "gather", &given.key, &answer))
}

fn delete(settings: &Settings, key: &RawKey) -> anyhow::Result<Exit> {
    let answer = block_on(async {
        let client = connect(settings).await?;
        only(client.raw().delete(&target(key), vec![DeleteItem::new(key_bytes(key))]).await)
    })?;
    Ok(told(settings, "delete", key, &answer))
}

fn key_bytes(key: &RawKey) -> Bytes {
    Bytes::copy_from_slice(key.key.as_bytes())
}

fn target(key: &RawKey) -> Target {
    key.server.as_ref().map_or(Target::Placement, Target::server)
}

/// Reads a value from a file or from stdin, no more than a value may have.
fn read_value(path: &Path) -> anyhow::Result<Bytes> {
    let cannot = || format!("cannot read the value from {}", path.display());
    let source: Box<dyn Read> = if path.as_os_str() == OsStr::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).with_context(cannot).before_anything()?)
    };
    let mut bytes = Vec::new();
    let mut bounded = source.take(VALUE_BYTES_MAX + 1);
    bounded.read_to_end(&mut bytes).with_context(cannot).before_anything()?;
    if bytes.len() as u64 > VALUE_BYTES_MAX {
        return Err(refusal(format!("{}: it has more than 1 GiB, the limit of a value", cannot())));
    }
    Ok(bytes.into())
}

/// The answer to the only item of a batch.
fn only(answers: Vec<Result<Answer, Error>>) -> anyhow::Result<Answer> {
    let answer = answers.into_iter().next().context("one item has one answer")?;
    answer.map_err(|error| {
        let is_in_doubt = error.fate() == Fate::MaybeApplied;
        let error = anyhow::Error::new(error);
        if is_in_doubt { error.context("it may have been applied, or not") } else { error }
    })
}

/// Prints an answer.
fn told(settings: &Settings, what: &str, key: &RawKey, answer: &Answer) -> Exit {
    let exit = exit_of(answer.status);
    if settings.output.json {
        settings.output.report(&JsonAnswer::new(what, key, answer));
    } else if exit == Exit::Done && what != "delete" {
        settings.output.remark(&format!("{}, {} bytes", answer.status, answer.length));
    }
    if exit != Exit::Done {
        complain(&complaint(what, key, answer));
    }
    exit
}

fn complaint(what: &str, key: &RawKey, answer: &Answer) -> String {
    let key = escape(key.key.as_bytes());
    let reason = match answer.status {
        Status::NotFound => "there is no value under this key".to_owned(),
        Status::Exists => "there is a value already; --replace replaces it".to_owned(),
        Status::BadRange => {
            format!("the offset lies behind the value's end at {} bytes", answer.detail)
        }
        Status::Sealed => "the value may not be written into".to_owned(),
        Status::NoSpace => "the server's pool is full".to_owned(),
        Status::NoIndex => "the server's index is full".to_owned(),
        Status::TooLarge => "a value has at most 1 GiB".to_owned(),
        Status::Denied => "the token's role does not allow it".to_owned(),
        Status::Busy => format!("the server is busy, try again in {} ms", answer.detail),
        status => format!("the server said {status}"),
    };
    format!("{what} \"{key}\": {reason} ({})", answer.status)
}

/// Whose fault a refusal is: a bad request exits with 2.
fn exit_of(status: Status) -> Exit {
    match status {
        Status::Ok | Status::Same => Exit::Done,
        Status::NotFound => Exit::Absent,
        Status::Exists
        | Status::Mismatch
        | Status::Older
        | Status::TooLarge
        | Status::BadRange
        | Status::Sealed
        | Status::Clock
        | Status::Denied
        | Status::BadRow
        | Status::Unsupported => Exit::Refused,
        _ => Exit::Failed,
    }
}

#[derive(Debug, Serialize)]
struct JsonAnswer {
    operation: String,
    #[serde(flatten)]
    key: JsonName,
    status: &'static str,
    length: u64,
    detail: u64,
    version: Option<String>,
}

impl JsonAnswer {
    fn new(operation: &str, key: &RawKey, answer: &Answer) -> Self {
        // Of a value just made or a tombstone just left, the version is ours.
        let is_ours = answer.status.is_success() && !answer.sent_version.is_none();
        let version = if is_ours { answer.sent_version } else { answer.version };
        Self {
            operation: operation.to_owned(),
            key: JsonName::new(key.key.as_bytes()),
            status: answer.status.name(),
            length: answer.length,
            detail: answer.detail,
            version: (!version.is_none()).then(|| version.to_string()),
        }
    }
}
