//! All links at once: every host of a small network has a server and a reader, and
//! all readers want one large value at the same moment.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use crate::case::{Size, Who};
use crate::child::{Child, installed};
use crate::hosts::network::{self, Network, address, cut, shape};
use crate::hosts::reader::{Reader, ReaderArguments};
use crate::hosts::{self, PORT};
use crate::rounds::progress;
use crate::section::Section;
use crate::statistics::Spread;
use crate::table::markdown;

/// The share of its rate that a slow link has.
const SLOW: u64 = 4;
/// All readers together may take so many times as long as one link takes for one.
const GOAL: f64 = 1.15;
/// The same with a slow link or a dead host.
const GOAL_HARMED: f64 = 1.5;

/// How to run it.
#[derive(Debug, Clone, Args)]
pub(crate) struct LinksArguments {
    /// Numbers of hosts
    #[arg(long, value_delimiter = ',', default_values_t = [4, 8])]
    hosts: Vec<usize>,
    /// The rate of every link, in Mbit/s
    #[arg(long, default_value_t = 400)]
    mbit: u64,
    /// What all readers read
    #[arg(long, default_value = "256M")]
    size: Size,
    /// Copies of it
    #[arg(long, default_value_t = 2)]
    replicas: u8,
    /// What becomes of the links; all of it unless said otherwise
    #[arg(long, value_delimiter = ',')]
    harms: Vec<Harm>,
    /// Whom to read from
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Who::Puddle, Who::Memcached, Who::Redis])]
    who: Vec<Who>,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Read as a stream, in order
    #[arg(long)]
    streamed: bool,
}

/// What becomes of the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Harm {
    /// Nothing.
    None,
    /// That of the last host has a fourth of the rate.
    Slow,
    /// The last host is gone, and nobody was told.
    Dead,
}

impl Harm {
    fn words(self) -> &'static str {
        match self {
            Self::None => "all links alike",
            Self::Slow => "one link of a fourth of the rate",
            Self::Dead => "one host gone",
        }
    }
}

/// One row of the table.
struct Row {
    who: Who,
    hosts: usize,
    harm: Harm,
    /// For each round, how many times as long as one link takes for one value.
    ratios: Vec<f64>,
    problem: Option<String>,
}

/// The words for what goes by links between hosts.
pub(crate) const WHAT: &str = "shaped links";

impl LinksArguments {
    /// What `make bench` measures.
    pub(crate) fn of_bench(is_quick: bool) -> Self {
        let full = Self {
            hosts: vec![4, 8],
            mbit: 400,
            size: Size::ALL[3],
            replicas: 2,
            harms: Vec::new(),
            who: vec![Who::Puddle, Who::Memcached, Who::Redis],
            rounds: 3,
            streamed: false,
        };
        if !is_quick {
            return full;
        }
        let (hosts, harms, who) = (vec![4], vec![Harm::None], vec![Who::Puddle]);
        Self { hosts, harms, who, size: Size(64 << 20), rounds: 1, ..full }
    }

    /// How long one link takes to carry the value once.
    fn link(&self) -> Duration {
        Duration::from_secs_f64(self.size.0 as f64 * 8.0 / (self.mbit as f64 * 1e6))
    }
}

/// Measures it all.
pub(crate) fn measure(arguments: &LinksArguments) -> Section {
    if let Some(missing) = network::missing() {
        return Section::skipped(WHAT, &missing);
    }
    let all = [Harm::None, Harm::Slow, Harm::Dead];
    let harms = if arguments.harms.is_empty() { &all[..] } else { &arguments.harms };
    let mut rows = Vec::new();
    for &hosts in &arguments.hosts {
        for &who in &arguments.who {
            // A peer has one server: it has no other link.
            let harms = harms.iter().filter(|harm| who == Who::Puddle || **harm == Harm::None);
            rows.extend(harms.map(|&harm| row(arguments, who, hosts, harm)));
        }
    }
    progress("");
    let own = || rows.iter().filter(|row| row.who == Who::Puddle);
    Section {
        text: table(arguments, &rows),
        missed: own().filter_map(Row::missed).collect(),
        broken: own().filter_map(Row::broken).collect(),
    }
}

fn row(arguments: &LinksArguments, who: Who, hosts: usize, harm: Harm) -> Row {
    let mut row = Row { who, hosts, harm, ratios: Vec::new(), problem: None };
    for round in 0..if who == Who::Puddle { arguments.rounds } else { 1 } {
        progress(&format!("{who}, {hosts} hosts, {}, round {round}", harm.words()));
        match together(arguments, who, hosts, harm) {
            Ok(took) => row.ratios.push(took.as_secs_f64() / arguments.link().as_secs_f64()),
            Err(error) => row.problem = Some(format!("{error:#}")),
        }
    }
    row
}

/// How long it takes until the last reader has all bytes.
fn together(arguments: &LinksArguments, who: Who, hosts: usize, harm: Harm) -> Result<Duration> {
    let network = Network::up(hosts)?;
    let folder = TempDir::new()?;
    let replicas = arguments.replicas;
    // Shares differ: twice the mean is enough for all.
    let pool = 2 * arguments.size.0 * usize::from(replicas) / hosts + (64 << 20);
    let (_servers, url) = match who {
        Who::Puddle => hosts::serve(&network, hosts, pool, folder.path())?,
        _ => {
            let words = [network.on(1), peer(who)?].concat();
            let mut server = Child::start(&words, folder.path(), "server")?;
            hosts::wait_for(&network, &mut server, 1)?;
            (vec![server], format!("{}:{PORT}", address(1)))
        }
    };
    let start = |host: usize, put: Option<u8>| {
        let LinksArguments { size, streamed, .. } = *arguments;
        let what = ReaderArguments { who, from: url.clone(), size, put, streamed };
        Reader::start(network.on(host), &what, folder.path())
    };
    // It is written before the links are shaped: that is not what is measured.
    let mut readers = vec![start(1, Some(replicas))?];
    let is_gone = |host: usize| harm == Harm::Dead && host == hosts;
    for host in network.hosts().skip(1).filter(|host| !is_gone(*host)) {
        readers.push(start(host, None)?);
    }
    network.shape_all(arguments.mbit)?;
    match harm {
        Harm::None => {}
        Harm::Slow => shape(hosts, arguments.mbit / SLOW)?,
        Harm::Dead => cut(hosts)?,
    }
    readers.iter_mut().try_for_each(Reader::begin)?;
    // Whoever sits at the slow link has it for himself: the others are measured.
    let counted = if harm == Harm::Slow { hosts - 1 } else { readers.len() };
    let took = readers[..counted].iter_mut().map(Reader::took).collect::<Result<Vec<_>>>()?;
    Ok(took.into_iter().max().unwrap_or_default())
}

fn peer(who: Who) -> Result<Vec<String>> {
    let (address, port) = (address(1), PORT.to_string());
    let (name, words) = match who {
        Who::Memcached => (
            "memcached",
            vec!["-u", "root", "-m", "2048", "-I", "512m", "-l", &address, "-p", &port],
        ),
        Who::Redis => (
            "redis-server",
            vec![
                "--bind",
                &address,
                "--port",
                &port,
                "--save",
                "",
                "--appendonly",
                "no",
                "--protected-mode",
                "no",
                "--proto-max-bulk-len",
                "1gb",
                // Eight slow readers of a large value are no reason to hang up.
                "--client-output-buffer-limit",
                "normal 0 0 0",
            ],
        ),
        other => bail!("{other} is not measured here"),
    };
    let program = installed(name);
    let Some(program) = program else { bail!("{name} is not installed") };
    let words = words.into_iter().map(str::to_owned);
    Ok([program.display().to_string()].into_iter().chain(words).collect())
}

impl Row {
    fn goal(&self) -> f64 {
        if self.harm == Harm::None { GOAL } else { GOAL_HARMED }
    }

    fn median(&self) -> Option<f64> {
        Spread::of(self.ratios.iter().copied()).map(|spread| spread.middle)
    }

    fn is_reached(&self) -> bool {
        self.median().is_some_and(|median| median <= self.goal())
    }

    fn what(&self) -> String {
        format!("{}, {} hosts, {}", self.who, self.hosts, self.harm.words())
    }

    fn missed(&self) -> Option<String> {
        let median = self.median().filter(|_| !self.is_reached())?;
        Some(format!("{}: {median:.2} times one link, not {}", self.what(), self.goal()))
    }

    fn broken(&self) -> Option<String> {
        Some(format!("{}: {}", self.what(), self.problem.as_ref()?))
    }
}

fn table(arguments: &LinksArguments, rows: &[Row]) -> String {
    let head = ["who", "hosts", "links", "x one link: median (each round)", "goal", "met"];
    let lines = rows.iter().map(|row| {
        let rounds: Vec<String> = row.ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let found = match (row.median(), &row.problem) {
            (_, Some(problem)) => format!("failed: {}", problem.replace('|', "/")),
            (Some(median), None) => format!("{median:.2} ({})", rounds.join(", ")),
            (None, None) => "-".to_owned(),
        };
        let (goal, met) = match row.who {
            Who::Puddle if row.is_reached() => (format!("at most {}", row.goal()), "yes"),
            Who::Puddle => (format!("at most {}", row.goal()), "MISSED"),
            _ => ("-".to_owned(), "-"),
        };
        let (who, hosts, harm) = (row.who.to_string(), row.hosts.to_string(), row.harm.words());
        vec![who, hosts, harm.to_owned(), found, goal, met.to_owned()]
    });
    format!(
        "Every link has {} Mbit/s both ways, TCP by {}, and carries {} in \
         {:.2} s. How many times as long until the last reader had it, in {} copies:\n\n{}",
        arguments.mbit,
        network::congestion_control(),
        arguments.size,
        arguments.link().as_secs_f64(),
        arguments.replicas,
        markdown(&head, &lines.collect::<Vec<_>>())
    )
}
