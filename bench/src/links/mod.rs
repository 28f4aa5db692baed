//! All links at once: every host of a small network has a server and a reader, and
//! all readers want one large value at the same moment.

mod network;
mod reader;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tempfile::TempDir;

use self::network::{Network, address, cut, shape};
use self::reader::Reader;
pub(crate) use self::reader::{COMMAND as READER_COMMAND, ReaderArguments, run as read};
use crate::case::{Size, Who};
use crate::child::{Child, installed};
use crate::puddle::binary;
use crate::statistics::Spread;
use crate::table::markdown;

/// The cluster of all servers.
const CLUSTER: &str = "links";
/// The value.
const NAME: &[u8] = b"links/value";
/// Where servers listen.
const PORT: u16 = 7117;
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

/// Measures, prints the table, and says whether the goals are reached.
pub(crate) fn run(arguments: &LinksArguments) -> Result<bool> {
    if let Some(missing) = network::missing() {
        println!("shaped links: skipped: {missing}");
        return Ok(true);
    }
    let link =
        Duration::from_secs_f64(arguments.size.0 as f64 * 8.0 / (arguments.mbit as f64 * 1e6));
    let all = [Harm::None, Harm::Slow, Harm::Dead];
    let harms = if arguments.harms.is_empty() { &all[..] } else { &arguments.harms };
    let mut rows = Vec::new();
    for &hosts in &arguments.hosts {
        for &who in &arguments.who {
            // A peer has one server: it has no other link.
            let harms = harms.iter().filter(|harm| who == Who::Puddle || **harm == Harm::None);
            for &harm in harms {
                let mut row = Row { who, hosts, harm, ratios: Vec::new(), problem: None };
                for _ in 0..if who == Who::Puddle { arguments.rounds } else { 1 } {
                    match together(arguments, who, hosts, harm) {
                        Ok(took) => row.ratios.push(took.as_secs_f64() / link.as_secs_f64()),
                        Err(error) => row.problem = Some(format!("{error:#}")),
                    }
                }
                eprintln!("{who}, {hosts} hosts, {}: {:.2?}", harm.words(), row.ratios);
                rows.push(row);
            }
        }
    }
    print(arguments, link, &rows);
    Ok(rows.iter().filter(|row| row.who == Who::Puddle).all(Row::is_reached))
}

/// How long it takes until the last reader has all bytes.
fn together(arguments: &LinksArguments, who: Who, hosts: usize, harm: Harm) -> Result<Duration> {
    let network = Network::up(hosts)?;
    let folder = TempDir::new()?;
    let mut servers = Vec::new();
    let (size, replicas) = (arguments.size.0, arguments.replicas);
    let url = match who {
        Who::Puddle => {
            let members = network.hosts().map(|host| format!("h{host}={}:{PORT}", address(host)));
            let url = format!("static:{}", members.collect::<Vec<_>>().join(","));
            for host in network.hosts() {
                // Shares differ: twice the mean is enough for all.
                let pool = 2 * size * usize::from(replicas) / hosts + (64 << 20);
                let words = [network.on(host), puddle(&url, host, pool)?].concat();
                servers.push(Child::start(&words, folder.path(), &format!("server-{host}"))?);
            }
            url
        }
        _ => {
            let words = [network.on(1), peer(who)?].concat();
            servers.push(Child::start(&words, folder.path(), "server")?);
            format!("{}:{PORT}", address(1))
        }
    };
    for (server, host) in servers.iter_mut().zip(network.hosts()) {
        server.wait_until("listens", || listens(&network, host))?;
    }
    let program = std::env::current_exe()?.display().to_string();
    let start = |host: usize, put: Option<u8>| {
        let words = ReaderArguments::words(who, &url, size, put);
        let words = [network.on(host), vec![program.clone()], words].concat();
        Reader::start(&words, folder.path(), &format!("reader-{host}"))
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
    // Whoever sits at the slow link has it for himself: the others are measured.
    let counted = if harm == Harm::Slow { hosts - 1 } else { readers.len() };
    readers.iter_mut().try_for_each(Reader::begin)?;
    let begin = Instant::now();
    let took = readers[..counted].iter_mut().map(Reader::took).collect::<Result<Vec<_>>>()?;
    let longest = took.into_iter().max().unwrap_or_default();
    if longest > begin.elapsed() {
        bail!("a reader took longer than there was time");
    }
    Ok(longest)
}

fn listens(network: &Network, host: usize) -> bool {
    let words = network.on(host);
    let mut command = Command::new(&words[0]);
    let seen = command.args(&words[1..]).args(["ss", "-ltnH"]).output();
    let output = seen.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).contains(&format!(":{PORT} "))
}

fn puddle(url: &str, host: usize, pool: usize) -> Result<Vec<String>> {
    let (name, listen) = (format!("h{host}"), format!("{}:{PORT}", address(host)));
    let pool = pool.next_multiple_of(1 << 20).to_string();
    let binary = binary()?.display().to_string();
    let cluster = [&binary, "--cluster", CLUSTER, "--discovery", url, "serve"];
    let server = [
        "--name",
        &name,
        "--listen",
        &listen,
        "--pool",
        &pool,
        "--insecure-public",
        "--no-prefault",
    ];
    Ok(cluster.into_iter().chain(server).map(str::to_owned).collect())
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
        self.problem.is_none() && self.median().is_some_and(|median| median <= self.goal())
    }
}

fn print(arguments: &LinksArguments, link: Duration, rows: &[Row]) {
    println!(
        "One link of {} Mbit/s carries {} MiB in {:.2} s. In the table: how many times as long \
         until the last of all readers had it, {} copies.\n",
        arguments.mbit,
        arguments.size.0 >> 20,
        link.as_secs_f64(),
        arguments.replicas
    );
    let head = ["who", "hosts", "links", "x one link: median (each round)", "goal"];
    let lines = rows.iter().map(|row| {
        let rounds: Vec<String> = row.ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let found = match (row.median(), &row.problem) {
            (_, Some(problem)) => problem.clone(),
            (Some(median), None) => format!("{median:.2} ({})", rounds.join(", ")),
            (None, None) => "-".to_owned(),
        };
        let goal = match row.who {
            Who::Puddle if row.is_reached() => format!("{} reached", row.goal()),
            Who::Puddle => format!("{} MISSED", row.goal()),
            _ => "-".to_owned(),
        };
        vec![row.who.to_string(), row.hosts.to_string(), row.harm.words().to_owned(), found, goal]
    });
    println!("{}", markdown(&head, &lines.collect::<Vec<_>>()));
}
