//! What can be measured.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::case::{Case, Operation, Path, Size, Who};
use crate::memory::Memory;
use crate::processors::Processors;

/// Processes that work for a subject, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    /// Those that have the values.
    pub(crate) servers: Vec<u32>,
    /// Those that ask for them, beside this one.
    pub(crate) clients: Vec<u32>,
}

/// Somebody who moves bytes.
pub(crate) trait Subject {
    /// Its name in the tables.
    fn who(&self) -> Who;

    /// What it does, and by which ways.
    fn offers(&self) -> Vec<(Path, Operation)>;

    /// Whether it does that at this size too.
    fn measures(&self, _: Case) -> bool {
        true
    }

    /// Has whatever the calls of a case need: connections, the value itself.
    fn prepare(&mut self, case: Case, memory: &Memory) -> Result<()>;

    /// Does what the case says so many times; how long each took.
    fn run(&mut self, case: Case, calls: usize, memory: &mut Memory) -> Result<Vec<Duration>>;

    /// Who works for it on that way.
    fn processes(&self, path: Path) -> Processes;

    /// Gives this thread and the servers their processors.
    fn place(&self, processors: &Processors, path: Path) {
        processors.part(&self.processes(path));
    }

    /// One more client that reads the value of that size, which is there.
    fn reader(&self, path: Path, size: Size) -> Result<Box<dyn Reader>>;
}

/// What those offer who have sockets only. What it takes to look at every byte is
/// measured by the unix socket, beside the same of mapped memory.
pub(crate) fn socket_offers(ways: impl IntoIterator<Item = Path>) -> Vec<(Path, Operation)> {
    let of_way = |path| {
        let reads = (path == Path::Unix).then_some((path, Operation::GetAndRead));
        [(path, Operation::Get), (path, Operation::Put)].into_iter().chain(reads)
    };
    ways.into_iter().flat_map(of_way).collect()
}

/// A client that reads one value again and again.
pub(crate) trait Reader: Send {
    /// Reads for so long, and returns how many bytes, and how long it was in the end.
    fn read_for(&mut self, time: Duration) -> Result<(u64, Duration)>;
}

/// Times each of so many calls.
pub(crate) fn timed(calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begin = Instant::now();
        call()?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// Calls until the time is over; `call` says how many bytes it moved.
pub(crate) fn repeated(
    time: Duration,
    mut call: impl FnMut() -> Result<usize>,
) -> Result<(u64, Duration)> {
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed() < time {
        bytes += call()? as u64;
    }
    Ok((bytes, begin.elapsed()))
}
