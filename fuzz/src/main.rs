//! The driver: runs a target from a seed, without coverage guidance.
//!
//! ```text
//! rampuddle-fuzz TARGET --seed S --executions N [--first I] [--threads T]
//! rampuddle-fuzz TARGET --seed S --executions N --canary NAME [--blind]
//! rampuddle-fuzz TARGET --input FILE
//! rampuddle-fuzz TARGET --seeds FOLDER
//! ```
//!
//! Prints executions, the share whose first header was right, and outcomes by
//! kind. Fails when a rule is broken (the input is kept), when less than half of
//! the inputs pass the header, when memory grows without need, and with
//! `--canary` when the planted bug is *not* found. With `--blind` inputs are
//! random bytes, which must not be enough to find it.

use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs, thread};

use rampuddle_fuzz::{Counts, Finding, NAMES, Run, keep_panics, run, target};
use rampuddle_protocol::canary::{Canary, plant};

/// The least share of inputs that must pass the header.
const PASSED_PERCENT_MIN: f64 = 50.0;
/// Resident memory of the driver at most: inputs allocate for what they hold,
/// not for what they claim.
const RESIDENT_KIB_MAX: u64 = 640 << 10;
/// Where inputs that broke a rule are kept.
const FINDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/findings");

/// The bugs that can be planted, by name.
const CANARIES: [(&str, Canary); 2] =
    [("wrapping-shares", Canary::WrappingShares), ("split-at-row", Canary::SplitAtRow)];

/// What the command line asks for.
struct Arguments {
    run: Run,
    canary: Option<Canary>,
    input: Option<String>,
    seeds: Option<String>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\nusage: rampuddle-fuzz {} --seed S --executions N", NAMES.join("|"));
            return ExitCode::from(2);
        }
    };
    let name = &arguments.run.target;
    if let Some(canary) = arguments.canary {
        eprintln!("the bug {canary:?} is planted: this run must find it");
        plant(canary);
    }
    if let Some(folder) = &arguments.seeds {
        return write_seeds(name, folder);
    }
    if let Some(path) = &arguments.input {
        return run_one(name, path);
    }
    let began = Instant::now();
    keep_panics();
    let (counts, finding) = run(&arguments.run);
    report(&arguments.run, &counts, began);
    match (arguments.canary, finding) {
        (None, None) => judge(&counts),
        (None, Some(finding)) => tell(&arguments.run, &finding),
        (Some(canary), Some(finding)) if arguments.run.is_blind => {
            eprintln!("random bytes find {canary:?}: {}; plant a deeper one", finding.message);
            ExitCode::FAILURE
        }
        (Some(canary), Some(finding)) => {
            println!("{canary:?} found in execution {}: {}", finding.execution, finding.message);
            ExitCode::SUCCESS
        }
        (Some(canary), None) if arguments.run.is_blind => {
            println!("random bytes do not find {canary:?}");
            ExitCode::SUCCESS
        }
        (Some(canary), None) => {
            eprintln!("{canary:?} was not found in {} executions", counts.executions);
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut words = env::args().skip(1);
    let name = words.next().unwrap_or_default();
    if !NAMES.contains(&&*name) {
        return Err(format!("{name:?} is no target"));
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let run = Run { target: name, seed: 1, first: 0, executions: 10_000, threads, is_blind: false };
    let mut all = Arguments { run, canary: None, input: None, seeds: None };
    while let Some(flag) = words.next() {
        if flag == "--blind" {
            all.run.is_blind = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{flag} wants a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag} wants a number"));
        match &*flag {
            "--seed" => all.run.seed = number()?,
            "--executions" => all.run.executions = number()?,
            "--first" => all.run.first = number()?,
            "--threads" => all.run.threads = number()? as usize,
            "--input" => all.input = Some(value),
            "--seeds" => all.seeds = Some(value),
            "--canary" => {
                let found = CANARIES.iter().find(|(name, _)| *name == value);
                all.canary = Some(found.ok_or_else(|| format!("{value:?} is no canary"))?.1);
            }
            _ => return Err(format!("{flag} is no flag")),
        }
    }
    Ok(all)
}

fn report(run: &Run, counts: &Counts, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    let rate = counts.executions as f64 / seconds.max(0.001);
    println!(
        "{}: seed {}, {} executions in {seconds:.0} s ({rate:.0}/s), {:.1} % passed the header",
        run.target,
        run.seed,
        counts.executions,
        counts.passed_percent()
    );
    println!("{}: {counts}", run.target);
}

/// Whether a run without a finding did what it was for.
fn judge(counts: &Counts) -> ExitCode {
    let resident = resident_kib_max();
    let faults = [
        (counts.executions == 0, "nothing was run".to_owned()),
        (
            counts.passed_percent() < PASSED_PERCENT_MIN,
            format!("less than {PASSED_PERCENT_MIN} % of the inputs passed the header"),
        ),
        (
            resident > RESIDENT_KIB_MAX,
            format!("{resident} KiB were resident, the limit is {RESIDENT_KIB_MAX}"),
        ),
    ];
    let mut all = faults.iter().filter(|(is_one, _)| *is_one).peekable();
    let code = if all.peek().is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    all.for_each(|(_, what)| eprintln!("{what}"));
    code
}

/// The most memory that this process had resident.
fn resident_kib_max() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn tell(run: &Run, finding: &Finding) -> ExitCode {
    let path = format!("{FINDINGS}/{}-{}-{}", run.target, run.seed, finding.execution);
    let kept = fs::create_dir_all(FINDINGS).and_then(|()| fs::write(&path, &finding.input));
    eprintln!("execution {}: {}", finding.execution, finding.message);
    match kept {
        Ok(()) => eprintln!("again with: {} --input {path}", run.target),
        Err(error) => eprintln!("cannot keep the input at {path}: {error}"),
    }
    ExitCode::FAILURE
}

/// One input, with the place of its panic.
fn run_one(name: &str, path: &str) -> ExitCode {
    let input = match fs::read(path) {
        Ok(input) => input,
        Err(error) => {
            eprintln!("cannot read {path}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut counts = Counts::default();
    let passed = target(name).is_some_and(|mut target| target.run(&input, &mut counts));
    println!("{path}: passed the header: {passed}; {counts}");
    ExitCode::SUCCESS
}

/// Writes the inputs that a coverage-guided fuzzer begins with.
fn write_seeds(name: &str, folder: &str) -> ExitCode {
    let seeds = target(name).map(|target| target.seeds()).unwrap_or_default();
    let written = fs::create_dir_all(folder).and_then(|()| {
        let mut numbered = seeds.iter().enumerate();
        numbered.try_for_each(|(number, seed)| fs::write(format!("{folder}/{number:03}"), seed))
    });
    match written {
        Ok(()) => {
            println!("{} inputs in {folder}", seeds.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot write to {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}
