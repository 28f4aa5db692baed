//! A process on one host that reads one value when it is told to.

use std::io::{BufRead, stdin};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use rampuddle_client::{Client, GetOptions, Options, PutOptions};
use tokio::runtime::Builder;

use super::worker::{Worker, be_ready, say};
use super::{CLUSTER, NAME};
use crate::case::{Size, Who};
use crate::memory::Memory;
use crate::text_peer::{Dialect, Speaker};
use crate::wire::{Address, Socket};
use crate::{memcached, redis};

/// The command that starts one.
pub(crate) const COMMAND: &str = "host-reader";

/// What a reader is told on its command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReaderArguments {
    /// Whom it reads from
    #[arg(long)]
    pub(crate) who: Who,
    /// Where: a discovery URL, or an address
    #[arg(long)]
    pub(crate) from: String,
    /// How much
    #[arg(long)]
    pub(crate) size: Size,
    /// Write the value first, in so many copies
    #[arg(long)]
    pub(crate) put: Option<u8>,
    /// Read it as a stream
    #[arg(long)]
    pub(crate) streamed: bool,
}

impl ReaderArguments {
    /// The words of the command.
    fn words(&self) -> Vec<String> {
        let (who, size) = (value_name(self.who), self.size.0.to_string());
        let mut words = vec![COMMAND.to_owned()];
        words.extend(["--who", &who, "--from", &self.from, "--size", &size].map(str::to_owned));
        words.extend(self.put.iter().flat_map(|copies| ["--put".to_owned(), copies.to_string()]));
        words.extend(self.streamed.then(|| "--streamed".to_owned()));
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
    let ReaderArguments { who, from, size, put, streamed } = arguments;
    let mut memory = Memory::new(size.0);
    let value = memory.value(size.0);
    let mut rounds = |read: &mut dyn FnMut(&mut [u8]) -> Result<()>| -> Result<()> {
        be_ready()?;
        for line in stdin().lock().lines() {
            line?;
            memory.spoil(size.0);
            let begin = Instant::now();
            read(memory.room(size.0))?;
            let took = begin.elapsed();
            memory.check(size.0)?;
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
        let (mut writer, options) = (std::io::Cursor::new(&mut *room), GetOptions::default());
        let got = match streamed {
            true => runtime.block_on(client.get_to(NAME, &mut writer, None, &options))?,
            false => runtime.block_on(client.get_into(NAME, room, &options))?,
        };
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

/// The same, as seen by the one who starts it.
pub(crate) struct Reader(Worker);

impl Reader {
    /// Starts it, and waits until it is ready; `on` goes before its command.
    pub(crate) fn start(on: Vec<String>, what: &ReaderArguments, folder: &Path) -> Result<Self> {
        let words = [on, super::own(what.words())?].concat();
        Ok(Self(Worker::start(&words, folder, "reader")?))
    }

    /// Lets it read.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.0.tell("read")
    }

    /// How long it took.
    pub(crate) fn took(&mut self) -> Result<Duration> {
        Ok(Duration::from_nanos(self.0.answer()?.parse()?))
    }
}

/// Lets all read at the same moment; how long it took until the last one was done.
pub(crate) fn together(readers: &mut [Reader]) -> Result<Duration> {
    readers.iter_mut().try_for_each(Reader::begin)?;
    let took = readers.iter_mut().map(Reader::took).collect::<Result<Vec<_>>>()?;
    Ok(took.into_iter().max().unwrap_or_default())
}
