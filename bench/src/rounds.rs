//! Everybody in turn, again and again: noise of the machine meets all alike, and
//! ratios are taken within a round.

use std::fs;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

use crate::case::{Case, Operation, Path, Size, Who};
use crate::memory::Memory;
use crate::processors::Processors;
use crate::statistics::{Spread, middle, percentile, sorted};
use crate::subject::{Processes, Subject};

/// What to measure, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Rounds.
    pub(crate) rounds: usize,
    /// Bytes that each row moves in a round, as far as `calls` lets it.
    pub(crate) bytes: usize,
    /// Calls of each row in a round, at most.
    pub(crate) calls: usize,
    /// Sizes of values.
    pub(crate) sizes: Vec<Size>,
    /// Ways; none = all.
    pub(crate) paths: Vec<Path>,
    /// Operations; none = all.
    pub(crate) operations: Vec<Operation>,
    /// Whether client and server have a processor each.
    pub(crate) is_pinned: bool,
}

impl Plan {
    fn calls(&self, case: Case) -> usize {
        // A view moves no bytes.
        let bytes = if case.operation == Operation::View { 1 } else { case.size.0 };
        (self.bytes / bytes).clamp(2.min(self.calls), self.calls)
    }

    fn wants(&self, case: Case) -> bool {
        let is_wanted = |operation: &Operation| {
            let is_floor = case.who == Who::Floor && operation.of_floor() == case.operation;
            is_floor || *operation == case.operation
        };
        let is_way = self.paths.is_empty() || self.paths.contains(&case.path);
        let is_copy = case.who == Who::Copy;
        (is_way || is_copy) && (self.operations.is_empty() || self.operations.iter().any(is_wanted))
    }
}

/// One row in one round.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// What each call took, in microseconds, ascending.
    pub(crate) microseconds: Vec<f64>,
    /// Processor time of the clients.
    pub(crate) client: Duration,
    /// Processor time of the servers.
    pub(crate) server: Duration,
}

impl Sample {
    /// The middle call.
    pub(crate) fn middle(&self) -> f64 {
        middle(&self.microseconds)
    }
}

/// One row of all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Which.
    pub(crate) case: Case,
    /// One for each round.
    pub(crate) samples: Vec<Sample>,
    /// Why it was not measured to the end.
    pub(crate) problem: Option<String>,
}

impl Row {
    /// The middle call of each round, in microseconds.
    pub(crate) fn middle(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().map(Sample::middle))
    }

    /// The slowest call of a hundred, over all rounds, in microseconds.
    pub(crate) fn tail(&self) -> f64 {
        percentile(&sorted(self.samples.iter().flat_map(|it| it.microseconds.clone())), 99)
    }

    /// GB/s of the middle call.
    pub(crate) fn speed(&self) -> Option<f64> {
        Some(self.case.size.0 as f64 / 1_000.0 / self.middle()?.middle)
    }

    /// How many times as fast this row is as `other`, round by round.
    pub(crate) fn speed_beside(&self, other: &Self) -> Option<Spread> {
        let pairs = self.samples.iter().zip(&other.samples);
        Spread::of(pairs.map(|(own, other)| other.middle() / own.middle()))
    }

    /// Processor seconds for each GiB moved: of the servers, of the clients.
    pub(crate) fn processor(&self) -> (f64, f64) {
        let calls: usize = self.samples.iter().map(|sample| sample.microseconds.len()).sum();
        let gib = (calls * self.case.size.0) as f64 / f64::from(1 << 30);
        let sum = |of: fn(&Sample) -> Duration| {
            self.samples.iter().map(of).sum::<Duration>().as_secs_f64() / gib
        };
        (sum(|sample| sample.server), sum(|sample| sample.client))
    }
}

/// The row of a case, if it was measured.
pub(crate) fn find(rows: &[Row], case: Case) -> Option<&Row> {
    rows.iter().find(|row| row.case == case && !row.samples.is_empty())
}

/// Measures all rows of all subjects, in the order of size, operation, who, way.
pub(crate) fn measure(subjects: &mut [Box<dyn Subject>], plan: &Plan) -> Vec<Row> {
    let mut turns = turns(subjects, plan);
    let largest = plan.sizes.iter().map(|size| size.0).max().unwrap_or(1);
    let mut memory = Memory::new(largest);
    let mut rows: Vec<Row> = turns
        .iter()
        .map(|(_, case)| Row { case: *case, samples: Vec::new(), problem: None })
        .collect();
    let processors = Processors::new(plan.is_pinned);
    for round in 0..plan.rounds {
        for (place, (subject, case)) in turns.iter().enumerate() {
            let row = rows.iter_mut().find(|row| row.case == *case).expect("made above");
            if row.problem.is_some() {
                continue;
            }
            progress(&format!("round {round} of {}: {place} of {}", plan.rounds, turns.len()));
            let subject = &mut *subjects[*subject];
            subject.place(&processors, case.path);
            match one(subject, *case, plan.calls(*case), &mut memory) {
                Ok(sample) => row.samples.push(sample),
                Err(error) => row.problem = Some(format!("{error:#}")),
            }
        }
        // So that nobody always follows the same neighbour.
        turns.reverse();
    }
    processors.join(&Processes::default());
    progress("");
    rows
}

/// Says how far it is, on a terminal.
pub(crate) fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{text:40}\r");
    }
}

/// Which subject measures which case, in the order of the tables.
fn turns(subjects: &[Box<dyn Subject>], plan: &Plan) -> Vec<(usize, Case)> {
    let mut turns = Vec::new();
    for (index, subject) in subjects.iter().enumerate() {
        let who = subject.who();
        for size in &plan.sizes {
            let case = |(path, operation)| Case { size: *size, operation, who, path };
            let cases = subject.offers().into_iter().map(case);
            let cases = cases.filter(|case| plan.wants(*case) && subject.measures(*case));
            turns.extend(cases.map(|case| (index, case)));
        }
    }
    turns.sort_by_key(|(_, case)| *case);
    turns
}

fn one(subject: &mut dyn Subject, case: Case, calls: usize, memory: &mut Memory) -> Result<Sample> {
    subject.prepare(case, memory)?;
    subject.run(case, (calls / 8).clamp(1, 50), memory)?;
    let is_read_into = match case.operation {
        Operation::Get | Operation::GetUnverified => true,
        Operation::GetAndRead => case.path != Path::Mapped,
        _ => false,
    };
    let is_checked = is_read_into && case.who != Who::Floor;
    if is_checked {
        memory.spoil(case.size.0);
    }
    let processes = subject.processes(case.path);
    let before = processor_time(&processes);
    let times = subject.run(case, calls, memory)?;
    let after = processor_time(&processes);
    if is_checked {
        memory.check(case.size.0)?;
    }
    let microseconds = sorted(times.iter().map(|time| time.as_nanos() as f64 / 1_000.0));
    let (client, server) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    Ok(Sample { microseconds, client, server })
}

/// Processor time so far: of the clients, of the servers.
fn processor_time(processes: &Processes) -> (Duration, Duration) {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = Duration::new(own.tv_sec as u64, own.tv_nsec as u32);
    let of = |processes: &[u32]| processes.iter().map(|id| time_of(*id)).sum::<Duration>();
    // Where other processes ask, this one only waits.
    let clients = if processes.clients.is_empty() { own } else { of(&processes.clients) };
    (clients, of(&processes.servers))
}

/// Processor time of all threads of a process, as its scheduler counts it.
fn time_of(process: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let counted = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        counted.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}
