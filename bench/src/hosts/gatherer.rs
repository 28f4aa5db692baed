//! A process on one host that gathers one small value again and again, as long as it
//! is told to.

use std::io::{BufRead, stdin};
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rampuddle_client::{Client, CreateItem, GatherItem, Options, Target};
use tokio::runtime::Builder;

use super::CLUSTER;
use super::worker::{Worker, be_ready, say};
use crate::case::Size;
use crate::memory::Memory;
use crate::statistics::{middle, percentile, sorted};

/// The command that starts one.
pub(crate) const COMMAND: &str = "host-gatherer";
/// What it gathers.
pub(crate) const SIZE: Size = Size::ALL[0];
/// Its first byte says that it is nobody's object.
const KEY: &[u8] = b"hosts-gather";

/// What a gatherer is told on its command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct GathererArguments {
    /// Where from: a discovery URL
    #[arg(long)]
    from: String,
}

/// Creates the value and says "ready"; gathers from one line to the next, and then says
/// how many microseconds the middle one took and the slowest of a hundred.
pub(crate) fn run(arguments: &GathererArguments) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut options = Options::new(arguments.from.clone());
    options.cluster = CLUSTER.to_owned();
    let client = runtime.block_on(Client::connect(options))?;
    let value = Memory::new(SIZE.0).value(SIZE.0);
    let item = CreateItem::new(KEY, value).replacing();
    let made = runtime.block_on(client.raw().create(&Target::Placement, vec![item]));
    made.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || stdin().lock().lines().try_for_each(|_| tell.send(())));
    be_ready()?;
    while told.recv().is_ok() {
        // Once at least, however soon it is told to end.
        let mut times = vec![runtime.block_on(gather(&client))?];
        while told.try_recv() == Err(mpsc::TryRecvError::Empty) {
            times.push(runtime.block_on(gather(&client))?);
        }
        let times = sorted(times);
        say(&format!("{:.1} {:.1}", middle(&times), percentile(&times, 99)))?;
    }
    Ok(())
}

/// How many microseconds it took.
async fn gather(client: &Client) -> Result<f64> {
    let item = GatherItem::new(KEY, 0, SIZE.0 as u64);
    let begin = Instant::now();
    let mut answers = client.raw().gather(&Target::Placement, vec![item]).await;
    let took = begin.elapsed();
    let bytes = answers.pop().context("one answer for one item")??.bytes.len();
    ensure!(bytes == SIZE.0, "{bytes} bytes came");
    Ok(took.as_nanos() as f64 / 1_000.0)
}

/// What gatherers say at the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Microseconds of the middle one.
    pub(crate) middle: f64,
    /// Of the slowest of a hundred.
    pub(crate) tail: f64,
}

/// The same, as seen by the one who starts it.
pub(crate) struct Gatherer(Worker);

impl Gatherer {
    /// Starts it; `on` goes before its command.
    pub(crate) fn start(on: Vec<String>, url: &str, folder: &Path) -> Result<Self> {
        let words = [COMMAND, "--from", url].map(str::to_owned).to_vec();
        let words = [on, super::own(words)?].concat();
        Ok(Self(Worker::start(&words, folder, "gatherer")?))
    }

    /// Lets it gather.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.0.tell("begin")
    }

    /// Stops it.
    pub(crate) fn end(&mut self) -> Result<Times> {
        self.0.tell("end")?;
        let answer = self.0.answer()?;
        let figures = answer.split(' ').map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
        let &[middle, tail] = &figures[..] else { anyhow::bail!("it said {answer:?}") };
        Ok(Times { middle, tail })
    }
}
