//! Mooncake Store over TCP, through its Python package: a master, a process that
//! has the values, and a process that asks for them. See `peers/mooncake_worker.py`.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::case::{Case, Operation, Path, Size, Who};
use crate::child::{Child, first_line, free_address};
use crate::memory::Memory;
use crate::processors::Processors;
use crate::subject::{Processes, Reader, Subject};
use crate::wire::Address;

const WORKER: &str = include_str!("../peers/mooncake_worker.py");
/// Values, and as many again that are written.
const SEGMENT_BYTES: usize = 2 << 30;
const HOW_TO_GET: &str = "Mooncake Store is not installed: deploy/bench-peers.sh installs it";

/// Where `deploy/bench-peers.sh` installs it.
fn environment() -> PathBuf {
    PathBuf::from("target/peers/mooncake")
}

fn program(name: &str) -> String {
    environment().join("bin").join(name).display().to_string()
}

/// Its version.
pub(crate) fn version() -> Option<String> {
    let ask = "import importlib.metadata as m; \
               print(m.version('mooncake-transfer-engine-non-cuda'))";
    first_line(program("python"), &["-c", ask]).filter(|version| !version.is_empty())
}

/// A worker, spoken to line by line.
struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(role: &str, folder: &FilePath, master: SocketAddr, bytes: usize) -> Result<Self> {
        let script = folder.join("mooncake_worker.py");
        fs::write(&script, WORKER)?;
        // Its own shortcut for values of the same process is off: all goes by TCP.
        let setting = "MC_STORE_MEMCPY=0".to_owned();
        let script = script.display().to_string();
        let (master, bytes) = (master.to_string(), bytes.to_string());
        let worker = [script, role.to_owned(), master, bytes];
        let words =
            [&["/usr/bin/env".to_owned(), setting, program("python")][..], &worker].concat();
        let name = format!("{role}-log");
        let (process, input, output) = Child::piped(&words, folder, &name)?;
        let mut worker = Self { process, input, output: BufReader::new(output) };
        let ready = worker.line()?;
        ensure!(ready == "ready", "the worker said {ready:?}");
        Ok(worker)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let said = self.process.said();
            bail!("the worker ended: {}", said.lines().next_back().unwrap_or("without a word"));
        }
        Ok(line.trim().to_owned())
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.input, "{command}")?;
        self.line()
    }
}

/// Master, store and client.
pub(crate) struct Mooncake {
    client: Worker,
    store: Worker,
    master: Child,
    address: SocketAddr,
    there: BTreeSet<Size>,
    /// Readers that were started so far.
    readers: Cell<usize>,
    folder: TempDir,
}

impl Mooncake {
    /// Starts all three.
    pub(crate) fn start(largest: usize) -> Result<Self> {
        ensure!(FilePath::new(&program("python")).exists(), "{HOW_TO_GET}");
        let folder = TempDir::new()?;
        let (address, metrics) = (free_address()?, free_address()?);
        let mut words = vec![program("mooncake_master")];
        let (rpc, metrics) = (address.port().to_string(), metrics.port().to_string());
        for (name, value) in [
            ("rpc_address", "127.0.0.1"),
            ("rpc_port", &rpc),
            ("metrics_host", "127.0.0.1"),
            ("metrics_port", &metrics),
        ] {
            words.push(format!("--{name}={value}"));
        }
        let mut master = Child::start(&words, folder.path(), "master-log")?;
        master.wait_for(&Address::Tcp(address))?;
        let store = Worker::start("store", folder.path(), address, SEGMENT_BYTES)?;
        let client = Worker::start("client", folder.path(), address, largest)?;
        let (there, readers) = (BTreeSet::new(), Cell::new(0));
        Ok(Self { client, store, master, address, there, readers, folder })
    }
}

fn key(size: Size) -> String {
    format!("bench-{}", size.0)
}

fn nanoseconds(answer: &str) -> Result<Vec<Duration>> {
    let words = answer.split_whitespace();
    words.map(|word| Ok(Duration::from_nanos(word.parse()?))).collect()
}

impl Subject for Mooncake {
    fn who(&self) -> Who {
        Who::Mooncake
    }

    fn offers(&self) -> Vec<(Path, Operation)> {
        vec![(Path::Tcp, Operation::Get), (Path::Tcp, Operation::Put)]
    }

    fn prepare(&mut self, case: Case, _: &Memory) -> Result<()> {
        if self.there.insert(case.size) {
            self.client.ask(&format!("keep {} {}", key(case.size), case.size.0))?;
        }
        Ok(())
    }

    fn run(&mut self, case: Case, calls: usize, memory: &mut Memory) -> Result<Vec<Duration>> {
        let bytes = case.size.0;
        let word = match case.operation {
            Operation::Get => "get",
            Operation::Put => "put",
            other => bail!("it has no {other}"),
        };
        let answer = self.client.ask(&format!("{word} {} {bytes} {calls}", key(case.size)))?;
        let times = nanoseconds(&answer)?;
        ensure!(times.len() == calls, "{} of {calls} calls were measured", times.len());
        // It reads into memory of its own, which it looks at itself.
        let (from, into) = memory.both(bytes);
        into.copy_from_slice(from);
        Ok(times)
    }

    fn processes(&self, _: Path) -> Processes {
        let servers = vec![self.store.process.id(), self.master.id()];
        Processes { servers, clients: vec![self.client.process.id()] }
    }

    /// It has many threads on both sides.
    fn place(&self, processors: &Processors, path: Path) {
        processors.join(&self.processes(path));
    }

    fn reader(&self, _: Path, size: Size) -> Result<Box<dyn Reader>> {
        self.readers.set(self.readers.get() + 1);
        let folder = self.folder.path().join(format!("reader-{}", self.readers.get()));
        fs::create_dir(&folder)?;
        let worker = Worker::start("client", &folder, self.address, size.0)?;
        Ok(Box::new(MooncakeReader { worker, size }))
    }
}

struct MooncakeReader {
    worker: Worker,
    size: Size,
}

impl Reader for MooncakeReader {
    fn read_for(&mut self, time: Duration) -> Result<(u64, Duration)> {
        let (key, bytes) = (key(self.size), self.size.0);
        let answer = self.worker.ask(&format!("read {key} {bytes} {}", time.as_secs_f64()))?;
        let (bytes, took) = answer.split_once(' ').context("two numbers")?;
        Ok((bytes.parse()?, Duration::from_nanos(took.parse()?)))
    }
}
