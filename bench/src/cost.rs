//! What an operation costs a server: system calls, counted by strace, and
//! instructions of its own, counted by valgrind. Both slow it down, so nothing is
//! timed here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::case::{Case, Operation, Path, Size, Who};
use crate::child::{Child, installed, words};
use crate::memory::Memory;
use crate::peers;
use crate::rounds::progress;
use crate::subject::Subject;
use crate::table::markdown;

/// valgrind keeps 12 descriptors for itself, and memcached insists on the 1,024
/// that it has by itself being all that there are.
const DESCRIPTORS: &str = "--nofile=1036:1036";

/// Operations that are counted.
const CALLS: usize = 200;
/// Before that, so that nothing is counted that is done once.
const WARM_UP: usize = 20;
const SMALL: Size = Size(64 << 10);
const LARGE: Size = Size(1 << 20);

/// System calls of a small Gather at most, and what of others may be counted beside them.
const GATHER_CALLS_MAX: f64 = 3.0 + 0.1;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Cost {
    case: Case,
    /// System calls of each operation by name, or why they were not counted.
    calls: Result<BTreeMap<String, f64>>,
    /// Instructions of each operation, or why they were not counted.
    instructions: Result<f64>,
}

impl Cost {
    /// System calls of each operation.
    fn calls_in_all(&self) -> Option<f64> {
        Some(self.calls.as_ref().ok()?.values().sum())
    }
}

fn cases(subject: &dyn Subject) -> Vec<Case> {
    let who = subject.who();
    let mut cases = Vec::new();
    for size in [SMALL, LARGE] {
        for operation in [Operation::Gather, Operation::Get, Operation::Put] {
            let case = Case { size, operation, who, path: Path::Tcp };
            if subject.offers().contains(&(Path::Tcp, operation)) && subject.measures(case) {
                cases.push(case);
            }
        }
    }
    cases
}

/// Counts for all who have servers.
pub(crate) fn measure(subjects: &mut [Box<dyn Subject>]) -> Vec<Cost> {
    let mut memory = Memory::new(LARGE.0);
    let mut costs = Vec::new();
    for subject in subjects {
        let cases = cases(&**subject);
        if cases.is_empty() {
            continue;
        }
        let mut count = instructions(subject.who(), &cases, &mut memory);
        for case in cases {
            progress(&format!("system calls of {case}"));
            let calls = system_calls(&mut **subject, case, &mut memory);
            let instructions = match &mut count {
                Ok(found) => found.remove(&case).context("not counted"),
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            costs.push(Cost { case, calls, instructions });
        }
    }
    progress("");
    costs
}

fn system_calls(
    subject: &mut dyn Subject,
    case: Case,
    memory: &mut Memory,
) -> Result<BTreeMap<String, f64>> {
    let strace = installed("strace").context("strace is not installed")?;
    let folder = TempDir::new()?;
    let summary = folder.path().join("summary");
    subject.prepare(case, memory)?;
    subject.run(case, WARM_UP, memory)?;
    let servers = subject.processes(case.path).servers;
    let mut command = vec![strace.display().to_string()];
    command.extend(words(["-f", "-c", "-U", "calls,name", "-o", &summary.display().to_string()]));
    command.extend(servers.iter().flat_map(|id| ["-p".to_owned(), id.to_string()]));
    let mut tracer = Child::start(&command, folder.path(), "strace-log")?;
    tracer.wait_until("is traced", || servers.iter().all(|&id| is_traced(id)))?;
    subject.run(case, CALLS, memory)?;
    tracer.stop(Signal::INT)?;
    let counted = counted(&fs::read_to_string(&summary)?);
    ensure!(!counted.is_empty(), "strace counted nothing: {}", tracer.said());
    Ok(counted.into_iter().map(|(name, calls)| (name, calls as f64 / CALLS as f64)).collect())
}

/// Whether all its threads are.
fn is_traced(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let mut statuses = threads.map(|it| fs::read_to_string(it.path().join("status")));
    statuses.all(|status| {
        let status = status.unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    })
}

/// The lines of the summary that name a call.
fn counted(summary: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (calls, name) = line.trim().split_once(char::is_whitespace)?;
        Some((name.trim().to_owned(), calls.parse().ok()?))
    };
    summary.lines().filter_map(line).filter(|(name, _)| name != "total").collect()
}

/// Of a server of its own, which runs in valgrind.
fn instructions(who: Who, cases: &[Case], memory: &mut Memory) -> Result<BTreeMap<Case, f64>> {
    if matches!(who, Who::Floor | Who::Copy | Who::Mooncake | Who::MemcachedThreads) {
        bail!("not counted");
    }
    let valgrind = installed("valgrind").context("valgrind is not installed")?;
    let control = installed("callgrind_control").context("callgrind_control is not installed")?;
    let folder = TempDir::new()?;
    let out = folder.path().join("out.%p").display().to_string();
    let limit = installed("prlimit").context("prlimit is not installed")?;
    let before = [
        limit.display().to_string(),
        DESCRIPTORS.to_owned(),
        valgrind.display().to_string(),
        "--tool=callgrind".to_owned(),
        "--instr-atstart=no".to_owned(),
        format!("--callgrind-out-file={out}"),
    ];
    progress(&format!("instructions of {who}"));
    let mut subject = peers::start_one(who, LARGE.0, &before)?;
    let mut found = BTreeMap::new();
    for &case in cases.iter().filter(|case| case.size == SMALL) {
        let server = *subject.processes(case.path).servers.first().context("it has a server")?;
        let tell = |word: &str| told(&control, word, server);
        subject.prepare(case, memory)?;
        subject.run(case, WARM_UP, memory)?;
        tell("--instr=on")?;
        tell("--zero")?;
        subject.run(case, CALLS, memory)?;
        tell("--dump")?;
        tell("--instr=off")?;
        let counted = newest_total(folder.path(), server, found.len() + 1)?;
        found.insert(case, counted as f64 / CALLS as f64);
    }
    Ok(found)
}

fn told(control: &FilePath, word: &str, server: u32) -> Result<()> {
    let output = Command::new(control).arg(word).arg(server.to_string()).output()?;
    ensure!(output.status.success(), "callgrind_control {word}: {}", output.status);
    Ok(())
}

/// What the dump of that number says.
fn newest_total(folder: &FilePath, server: u32, number: usize) -> Result<u64> {
    let dump = folder.join(format!("out.{server}.{number}"));
    let said = fs::read_to_string(&dump).with_context(|| format!("no {}", dump.display()))?;
    let total = said.lines().find_map(|line| line.strip_prefix("totals:"));
    total.context("a dump without totals")?.trim().parse().context("totals that are no number")
}

/// Goals that were missed, each in a line: a small Gather has few system calls.
pub(crate) fn missed(costs: &[Cost]) -> Vec<String> {
    let is_judged = |case: &Case| {
        (case.who, case.operation, case.size) == (Who::Puddle, Operation::Gather, SMALL)
    };
    let calls = costs.iter().filter(|cost| is_judged(&cost.case));
    let calls = calls.filter_map(|cost| Some((cost.case, cost.calls_in_all()?)));
    let many = calls.filter(|(_, calls)| *calls > GATHER_CALLS_MAX);
    many.map(|(case, calls)| format!("{case}: {calls:.2} system calls, not 3 at most")).collect()
}

/// A row for each case.
pub(crate) fn table(costs: &[Cost]) -> String {
    let row = |cost: &Cost| {
        let Case { who, operation, size, .. } = cost.case;
        let problem = |error: &anyhow::Error| format!("{error:#}").replace('|', "/");
        let (calls, names) = match &cost.calls {
            Ok(calls) => (format!("{:.1}", cost.calls_in_all().unwrap_or(0.0)), names(calls)),
            Err(error) => ("-".to_owned(), problem(error)),
        };
        let instructions = match &cost.instructions {
            Ok(count) => format!("{count:.0}"),
            Err(error) if size == SMALL => problem(error),
            Err(_) => "-".to_owned(),
        };
        vec![who.to_string(), operation.to_string(), size.to_string(), calls, names, instructions]
    };
    let head = ["who", "operation", "size", "system calls", "which", "instructions"];
    markdown(&head, &costs.iter().map(row).collect::<Vec<_>>())
}

/// Those that are not once in a while, the most frequent first.
fn names(calls: &BTreeMap<String, f64>) -> String {
    let mut often: Vec<_> = calls.iter().filter(|(_, count)| **count >= 0.1).collect();
    often.sort_by(|one, other| other.1.total_cmp(one.1));
    let named = often.iter().map(|(name, count)| format!("{name} {count:.1}"));
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_gather_of_four_system_calls_is_a_miss() {
        let case =
            Case { size: SMALL, operation: Operation::Gather, who: Who::Puddle, path: Path::Tcp };
        let cost = |calls| Cost {
            case,
            calls: Ok([("readv".to_owned(), calls)].into()),
            instructions: Ok(1.0),
        };
        assert!(missed(&[cost(3.04)]).is_empty());
        let found = missed(&[cost(4.0)]);
        assert_eq!(found, ["RamPuddle: raw Gather, 64 KiB, TCP: 4.00 system calls, not 3 at most"]);
        let of_memcached = Cost { case: Case { who: Who::Memcached, ..case }, ..cost(9.0) };
        assert!(missed(&[of_memcached]).is_empty());
    }

    #[test]
    fn the_summary_of_strace_is_read() {
        let summary = "    calls syscall\n--------- ----------\n      400 epoll_wait\n      \
                       200 recvmsg\n--------- ----------\n      600 total\n";
        let counted = counted(summary);
        assert_eq!(counted.len(), 2, "{counted:?}");
        assert_eq!((counted["epoll_wait"], counted["recvmsg"]), (400, 200));
    }
}
