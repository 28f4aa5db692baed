//! RamPuddle through its public client with default options. One `puddle serve`
//! answers; a client that is told only one of its addresses goes that way.

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rampuddle_client::{Client, CreateItem, GatherItem, GetOptions, Options, PutOptions, Target};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::case::{Case, Operation, Path, Size, Who};
use crate::child::{Child, first_line, free_address, words};
use crate::memory::{Memory, read_all};
use crate::subject::{Processes, Reader, Subject, repeated};
use crate::wire::Address;

/// The least pool.
const POOL_BYTES: usize = 64 << 20;
const CLUSTER: &str = "bench";
const SERVER: &str = "bench";
/// A raw Gather is measured at this size only: it is for small values.
const GATHER: Size = Size(64 << 10);
/// Objects of so many bytes are copied: there is no view of them.
const NEVER_MAPPED: Size = Size(16 << 10);
/// The value of raw Gathers. Its first byte says that it is nobody's object.
const GATHER_KEY: &[u8] = b"bench-gather";

/// One way to the server.
struct Door {
    path: Path,
    url: String,
    runtime: Runtime,
    client: Client,
    /// The same, but it keeps no memory for the next read.
    forgetful: Client,
}

impl Door {
    fn open(path: Path, url: String) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut options = Options::new(&url);
        options.cluster = CLUSTER.to_owned();
        // What is sent is measured by the socket too.
        options.map = path == Path::Mapped;
        let client = runtime.block_on(Client::connect(options.clone()))?;
        options.buffer_bytes = 0;
        let forgetful = runtime.block_on(Client::connect(options))?;
        Ok(Self { path, url, runtime, client, forgetful })
    }
}

/// The server, and a client for each way.
pub(crate) struct Puddle {
    server: Child,
    doors: Vec<Door>,
    there: BTreeSet<Size>,
    _folder: TempDir,
}

/// Where the binary lies: beside this one, unless PUDDLE_BINARY says otherwise.
pub(crate) fn binary() -> Result<PathBuf> {
    let beside = || Ok(std::env::current_exe()?.with_file_name("puddle"));
    let found =
        std::env::var_os("PUDDLE_BINARY").map_or_else(beside, |path| anyhow::Ok(path.into()))?;
    let name = found.display();
    ensure!(found.is_file(), "there is no {name}: build it in the same target directory");
    Ok(found)
}

/// Its version.
pub(crate) fn version() -> Option<String> {
    let line = first_line(binary().ok()?, &["--version"])?;
    Some(line.trim_start_matches("puddle ").to_owned())
}

impl Puddle {
    /// Starts a server for objects of at most so many bytes; `before` goes before
    /// its command.
    pub(crate) fn start(largest: usize, before: &[String]) -> Result<Self> {
        let folder = TempDir::new()?;
        let (tcp, unix) = (free_address()?, folder.path().join("puddle"));
        let by_tcp = format!("static:{SERVER}={tcp}");
        let by_unix = format!("static:{SERVER}=unix:{}", unix.display());
        let words = [before, &command(&by_tcp, &tcp.to_string(), &unix, largest)?].concat();
        let mut server = Child::start(&words, folder.path(), "puddle-log")?;
        server.wait_for(&Address::Tcp(tcp))?;
        // The client's other ways to the server go here.
        let ways = [(Path::Tcp, by_tcp), (Path::Unix, by_unix.clone()), (Path::Mapped, by_unix)];
        let doors = ways.map(|(path, url)| Door::open(path, url)).into_iter();
        let doors = doors.collect::<Result<_>>()?;
        Ok(Self { server, doors, there: BTreeSet::new(), _folder: folder })
    }

    fn door(&self, path: Path) -> Result<&Door> {
        let found = self.doors.iter().find(|door| door.path == path);
        found.context("the client has no such way")
    }
}

fn command(
    discovery: &str,
    listen: &str,
    socket: &FilePath,
    largest: usize,
) -> Result<Vec<String>> {
    // The largest object, its successor, and the smaller ones. A fourth of it may be
    // held by views, of which some are of a value that was replaced since.
    let pool = (12 * largest).max(POOL_BYTES);
    let socket = words(["--socket", &socket.display().to_string()]);
    Ok([serve(CLUSTER, discovery, SERVER, listen, pool)?, socket].concat())
}

/// The words that start a server with a pool of so many bytes, in whole MiB.
pub(crate) fn serve(
    cluster: &str,
    discovery: &str,
    name: &str,
    listen: &str,
    pool: usize,
) -> Result<Vec<String>> {
    let pool = pool.next_multiple_of(1 << 20).to_string();
    let binary = binary()?.display().to_string();
    let cluster = [&binary, "--cluster", cluster, "--discovery", discovery, "serve"];
    let server = ["--name", name, "--listen", listen, "--pool", &pool];
    Ok([words(cluster), words(server)].concat())
}

fn name(size: Size) -> Vec<u8> {
    format!("bench/{}", size.0).into_bytes()
}

fn one_copy() -> PutOptions {
    let mut options = PutOptions::default();
    options.replicas = Some(1);
    options
}

fn read_as(operation: Operation) -> GetOptions {
    let mut options = GetOptions::default();
    use Operation::{GetRecycledUnverified, GetUnverified};
    options.verify = !matches!(operation, GetUnverified | GetRecycledUnverified);
    options
}

impl Subject for Puddle {
    fn who(&self) -> Who {
        Who::Puddle
    }

    fn offers(&self) -> Vec<(Path, Operation)> {
        use Operation::{Gather, Get, GetAndRead, GetUnverified, Put, View};
        use Operation::{GetFresh, GetRecycled, GetRecycledUnverified};
        let sent = [Get, GetUnverified, GetRecycled, GetRecycledUnverified, GetFresh, Gather, Put];
        let of_way = |door: &Door| match door.path {
            Path::Mapped => vec![Get, View, GetAndRead],
            Path::Unix => [&sent[..], &[GetAndRead]].concat(),
            _ => sent.to_vec(),
        };
        let of_door = |door| of_way(door).into_iter().map(|operation| (door.path, operation));
        self.doors.iter().flat_map(of_door).collect()
    }

    fn measures(&self, case: Case) -> bool {
        let is_small = case.path == Path::Mapped && case.size <= NEVER_MAPPED;
        !is_small && (case.operation != Operation::Gather || case.size == GATHER)
    }

    fn prepare(&mut self, case: Case, memory: &Memory) -> Result<()> {
        if self.there.insert(case.size) {
            let door = self.door(case.path)?;
            let value = memory.value(case.size.0);
            let client = &door.client;
            door.runtime.block_on(async {
                if case.size == GATHER {
                    let item = CreateItem::new(GATHER_KEY, value.clone()).replacing();
                    let made = client.raw().create(&Target::Placement, vec![item]).await;
                    made.into_iter().collect::<Result<Vec<_>, _>>()?;
                }
                client.put(&name(case.size), value, &one_copy()).await
            })?;
        }
        Ok(())
    }

    fn run(&mut self, case: Case, calls: usize, memory: &mut Memory) -> Result<Vec<Duration>> {
        let door = self.door(case.path)?;
        let is_fresh = case.operation == Operation::GetFresh;
        let client = if is_fresh { &door.forgetful } else { &door.client };
        door.runtime.block_on(calls_of(client, case, calls, memory))
    }

    fn processes(&self, _: Path) -> Processes {
        Processes { servers: vec![self.server.id()], clients: Vec::new() }
    }

    fn reader(&self, path: Path, size: Size) -> Result<Box<dyn Reader>> {
        let door = Door::open(path, self.door(path)?.url.clone())?;
        Ok(Box::new(PuddleReader { door, room: vec![1; size.0] }))
    }
}

/// The measured loops: nothing but the call is done between two looks at the clock.
async fn calls_of(
    client: &Client,
    case: Case,
    calls: usize,
    memory: &mut Memory,
) -> Result<Vec<Duration>> {
    let (name, bytes) = (name(case.size), case.size.0);
    let (get, put) = (read_as(case.operation), one_copy());
    let raw = client.raw();
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let value = memory.value(bytes);
        let begin = Instant::now();
        let came = match case.operation {
            Operation::Get | Operation::GetUnverified => {
                let report = client.get_into(&name, memory.room(bytes), &get).await?;
                times.push(begin.elapsed());
                report.context("the object is gone")?.bytes as usize
            }
            Operation::GetRecycled | Operation::GetRecycledUnverified | Operation::GetFresh => {
                let value = client.get(&name, &get).await?;
                times.push(begin.elapsed());
                value.context("the object is gone")?.len()
            }
            Operation::View => {
                let value = client.get(&name, &get).await?.context("the object is gone")?;
                times.push(begin.elapsed());
                ensure!(value.is_mapped(), "the value was sent, not mapped");
                value.len()
            }
            Operation::GetAndRead => {
                let read = get_and_read(client, case, memory).await?;
                times.push(begin.elapsed());
                read
            }
            Operation::Gather => {
                let item = GatherItem::new(GATHER_KEY, 0, bytes as u64);
                let mut answers = raw.gather(&Target::Placement, vec![item]).await;
                times.push(begin.elapsed());
                answers.pop().context("one answer for one item")??.bytes.len()
            }
            Operation::Put => {
                let report = client.put(&name, value, &put).await?;
                times.push(begin.elapsed());
                ensure!(!report.is_short(), "the put has too few copies");
                report.bytes as usize
            }
        };
        if came != bytes {
            bail!("{came} bytes came, not {bytes}");
        }
    }
    Ok(times)
}

/// Looks at all bytes where they lie: in the server's memory, or in the caller's.
async fn get_and_read(client: &Client, case: Case, memory: &mut Memory) -> Result<usize> {
    let (name, options) = (name(case.size), read_as(case.operation));
    if case.path == Path::Mapped {
        let value = client.get(&name, &options).await?.context("the object is gone")?;
        read_all(value.slices());
        ensure!(value.is_mapped(), "the value was sent, not mapped");
        return Ok(value.len());
    }
    let room = memory.room(case.size.0);
    let report = client.get_into(&name, room, &options).await?.context("the object is gone")?;
    read_all([&*room]);
    Ok(report.bytes as usize)
}

struct PuddleReader {
    door: Door,
    room: Vec<u8>,
}

impl Reader for PuddleReader {
    fn read_for(&mut self, time: Duration) -> Result<(u64, Duration)> {
        let (name, options) = (name(Size(self.room.len())), GetOptions::default());
        let Door { runtime, client, .. } = &self.door;
        repeated(time, || {
            let got = runtime.block_on(client.get_into(&name, &mut self.room, &options))?;
            Ok(got.context("the object is gone")?.bytes as usize)
        })
    }
}
