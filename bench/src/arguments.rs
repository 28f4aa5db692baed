//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::case::{Operation, Path, Size, Who};
use crate::hosts::gatherer::{self, GathererArguments};
use crate::hosts::reader::{self, ReaderArguments};
use crate::links::LinksArguments;
use crate::mix::MixArguments;
use crate::rounds::Plan;
use crate::sample::Effort;
use crate::thesis::ThesisArguments;

/// Bytes that each row moves in a round.
const ROUND_BYTES: Size = Size(64 << 20);
const CALLS_MAX: usize = 1_000;

/// Measures RamPuddle, the floor below it, and its peers.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) bench: Bench,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// What it costs to find the owners of a key
    Placement(Length),
    /// What it costs that a client counts what it does
    Metrics(Length),
    /// What it takes from a call to bytes that lie on this machine
    SameHost(Length),
    /// Gets and puts, side by side with the floor and with peers
    Compare(Filter),
    /// Everything in one run, judged by the goals: what `make bench` does
    All(Everything),
    /// Many hosts that read one value at once over shaped links; needs root
    Links(LinksArguments),
    /// Small values read beside large ones, from one server
    Mix(MixArguments),
    /// Memory of others beside the local disk, for one reader and for many
    Thesis(ThesisArguments),
    /// A reader on one of the hosts; others start it
    #[command(hide = true, name = reader::COMMAND)]
    HostReader(ReaderArguments),
    /// A reader of a small value on one of the hosts; others start it
    #[command(hide = true, name = gatherer::COMMAND)]
    HostGatherer(GathererArguments),
    /// The floor's server; others start it
    #[command(hide = true, name = crate::floor::COMMAND)]
    FloorServer {
        /// Bytes of the largest value
        largest: usize,
        /// Where its unix socket goes
        folder: PathBuf,
    },
}

/// How long to measure.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Length {
    /// Once and short, to see that it works
    #[arg(long)]
    pub(crate) tiny: bool,
}

impl Length {
    /// The same for the benches that know nothing of the command line.
    pub(crate) fn effort(self) -> Effort {
        if self.tiny { Effort::Tiny } else { Effort::Full }
    }
}

/// How to run everything.
#[derive(Debug, Clone, Args)]
pub(crate) struct Everything {
    /// In under three minutes; missed goals are no failure
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write benchmarks.md and its plots into this folder
    #[arg(long)]
    pub(crate) document: Option<PathBuf>,
    /// Once and short and without peers, to see that it works
    #[arg(long)]
    pub(crate) tiny: bool,
}

/// Which rows to measure; all of them unless said otherwise.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    /// Who is measured
    #[arg(long, value_delimiter = ',')]
    pub(crate) who: Vec<Who>,
    /// By which ways
    #[arg(long, value_delimiter = ',')]
    pub(crate) paths: Vec<Path>,
    /// Sizes of values, such as 64K,1M,16M,256M
    #[arg(long, value_delimiter = ',')]
    pub(crate) sizes: Vec<Size>,
    /// Operations; the floor of each is measured with it
    #[arg(long, value_delimiter = ',')]
    pub(crate) ops: Vec<Operation>,
    /// Rounds, in each of which everybody has a turn
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// Bytes that each row moves in a round
    #[arg(long, default_value_t = ROUND_BYTES)]
    pub(crate) bytes: Size,
    /// Calls of each row in a round at most
    #[arg(long, default_value_t = CALLS_MAX)]
    pub(crate) calls: usize,
    /// Leave client and server to the scheduler, instead of a processor for each
    #[arg(long)]
    pub(crate) unpinned: bool,
    /// One round of one call
    #[arg(long)]
    pub(crate) tiny: bool,
}

impl Filter {
    /// Who is wanted.
    pub(crate) fn wanted(&self) -> Vec<Who> {
        if self.who.is_empty() {
            return <Who as clap::ValueEnum>::value_variants().to_vec();
        }
        let mut wanted = self.who.clone();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// What is wanted of them.
    pub(crate) fn plan(&self) -> Plan {
        let sizes = if self.sizes.is_empty() { &Size::ALL[..] } else { &self.sizes };
        Plan {
            rounds: if self.tiny { 1 } else { self.rounds.max(1) },
            bytes: self.bytes.0,
            calls: if self.tiny { 1 } else { self.calls.max(1) },
            sizes: sizes.to_vec(),
            paths: self.paths.clone(),
            operations: self.ops.clone(),
            is_pinned: !self.unpinned,
        }
    }
}
