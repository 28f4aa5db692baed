//! A process on one host that reads one value when it is told to.

use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use rampuddle_client::{Client, GetOptions, Options, PutOptions};
use tokio::runtime::Builder;

use super::{CLUSTER, NAME};
use crate::case::{Size, Who};
use crate::child::Child;
use crate::memory::Memory;
use crate::text_peer::{Dialect, Speaker};
use crate::wire::{Address, Socket};
use crate::{memcached, redis};

/// The command that starts one.
pub(crate) const COMMAND: &str = "link-reader";

/// What a reader is told on its command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReaderArguments {
    /// Whom it reads from
    #[arg(long)]
    who: Who,
    /// Where: a discovery URL, or an address
    #[arg(long)]
    from: String,
    /// How much
    #[arg(long)]
    size: Size,
    /// Write the value first, in so many copies
    #[arg(long)]
    put: Option<u8>,
}

impl ReaderArguments {
    /// The words of the command.
    pub(crate) fn words(who: Who, from: &str, size: usize, put: Option<u8>) -> Vec<String> {
        let (who, size) = (value_name(who), size.to_string());
        let mut words = vec![COMMAND.to_owned()];
        words.extend(["--who", &who, "--from", from, "--size", &size].map(str::to_owned));
        words.extend(put.iter().flat_map(|copies| ["--put".to_owned(), copies.to_string()]));
        words
    }
}

fn value_name(who: Who) -> String {
    let value = clap::ValueEnum::to_possible_value(&who);
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Says "ready", reads for each line that comes, and says how many nanoseconds that
/// took.
pub(crate) fn run(arguments: &ReaderArguments) -> Result<()> {
    let ReaderArguments { who, from, size, put } = arguments;
    let value = Memory::new(size.0).value(size.0);
    let mut room = vec![1; size.0];
    let mut rounds = |read: &mut dyn FnMut(&mut [u8]) -> Result<()>| -> Result<()> {
        say("ready")?;
        for line in stdin().lock().lines() {
            line?;
            room.fill(0);
            let begin = Instant::now();
            read(&mut room)?;
            let took = begin.elapsed();
            ensure!(room == value, "other bytes came than were put");
            say(&took.as_nanos().to_string())?;
        }
        Ok(())
    };
    if let Some(dialect) = dialect(*who) {
        let address: SocketAddr = from.parse()?;
        let mut speaker = Speaker::new(dialect, Socket::connect(&Address::Tcp(address))?)?;
        if put.is_some() {
            speaker.set(&value)?;
        }
        return rounds(&mut |room| Ok(speaker.get(room)?));
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut options = Options::new(from.clone());
    options.cluster = CLUSTER.to_owned();
    let client = runtime.block_on(Client::connect(options))?;
    if let Some(copies) = put {
        let mut options = PutOptions::default();
        options.replicas = Some(*copies);
        let report = runtime.block_on(client.put(NAME, value.clone(), &options))?;
        ensure!(!report.is_short(), "the put has too few copies");
    }
    rounds(&mut |room| {
        let got = runtime.block_on(client.get_into(NAME, room, &GetOptions::default()))?;
        got.context("the object is gone").map(drop)
    })
}

fn dialect(who: Who) -> Option<Dialect> {
    match who {
        Who::Memcached => Some(memcached::DIALECT),
        Who::Redis => Some(redis::DIALECT),
        _ => None,
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// The same, as seen by the one who starts it.
pub(crate) struct Reader {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Reader {
    /// Starts `words`, and waits until it is ready.
    pub(crate) fn start(words: &[String], folder: &std::path::Path, name: &str) -> Result<Self> {
        let (child, input, output) = Child::piped(words, folder, name)?;
        let mut reader = Self { child, input, output: BufReader::new(output) };
        let line = reader.line()?;
        ensure!(line == "ready", "the reader said {line:?}");
        Ok(reader)
    }

    /// Lets it read.
    pub(crate) fn begin(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"read\n")?)
    }

    /// How long it took.
    pub(crate) fn took(&mut self) -> Result<Duration> {
        Ok(Duration::from_nanos(self.line()?.parse()?))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        // Longer lines are no lines of ours.
        (&mut self.output).take(100).read_line(&mut line)?;
        if line.is_empty() {
            bail!("the reader ended: {}", self.child.said().trim());
        }
        Ok(line.trim().to_owned())
    }
}
