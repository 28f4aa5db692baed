//! Many readers of one value at once.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::case::{Case, Operation, Path, Size, Who};
use crate::memory::Memory;
use crate::processors::Processors;
use crate::rounds::progress;
use crate::statistics::Spread;
use crate::subject::{Reader, Subject};
use crate::table::markdown;

/// What all of them read.
pub(crate) const SIZE: Size = Size(16 << 20);
/// By this way: all have it.
pub(crate) const PATH: Path = Path::Tcp;

/// How many at once, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Numbers of readers, ascending.
    pub(crate) numbers: Vec<usize>,
    /// Rounds, in each of which everybody has a turn with each number.
    pub(crate) rounds: usize,
    /// How long they read each time.
    pub(crate) time: Duration,
}

/// So many readers of one subject.
#[derive(Debug, Clone)]
pub(crate) struct Scaling {
    /// Whose.
    pub(crate) who: Who,
    /// How many.
    pub(crate) readers: usize,
    /// GB/s of all together, for each round.
    pub(crate) speeds: Vec<f64>,
    /// Why it was not measured to the end.
    pub(crate) problem: Option<String>,
}

impl Scaling {
    /// GB/s of all together.
    pub(crate) fn speed(&self) -> Option<Spread> {
        Spread::of(self.speeds.iter().copied())
    }
}

/// Measures all subjects that have readers.
pub(crate) fn measure(subjects: &mut [Box<dyn Subject>], plan: &Plan) -> Vec<Scaling> {
    let processors = Processors::new(true);
    let most = plan.numbers.last().copied().unwrap_or(0);
    let mut all = Vec::new();
    let mut crowds = Vec::new();
    for subject in subjects.iter_mut().filter(|subject| reads(&***subject)) {
        processors.join(&subject.processes(PATH));
        progress(&format!("readers of {}", subject.who()));
        crowds.push((subject.who(), crowd(&mut **subject, most)));
    }
    for &(who, _) in &crowds {
        let one = |&readers| Scaling { who, readers, speeds: Vec::new(), problem: None };
        all.extend(plan.numbers.iter().map(one));
    }
    for round in 0..plan.rounds {
        for &number in &plan.numbers {
            for (who, crowd) in &mut crowds {
                progress(&format!("round {round} of {}: {number} readers", plan.rounds));
                let is_it = |it: &&mut Scaling| it.who == *who && it.readers == number;
                let scaling = all.iter_mut().find(is_it).expect("made above");
                let crowd = crowd.as_mut().map_err(|error| anyhow!("{error:#}"));
                match crowd.and_then(|crowd| together(&mut crowd[..number], plan.time)) {
                    Ok(speed) => scaling.speeds.push(speed),
                    Err(error) => scaling.problem = Some(format!("{error:#}")),
                }
            }
        }
    }
    progress("");
    all
}

fn reads(subject: &dyn Subject) -> bool {
    subject.offers().contains(&(PATH, Operation::Get))
}

fn crowd(subject: &mut dyn Subject, most: usize) -> Result<Vec<Box<dyn Reader>>> {
    let who = subject.who();
    let case = Case { size: SIZE, operation: Operation::Get, who, path: PATH };
    subject.prepare(case, &Memory::new(SIZE.0))?;
    (0..most).map(|_| subject.reader(PATH, SIZE)).collect()
}

/// GB/s of all readers, each on a thread of its own.
fn together(readers: &mut [Box<dyn Reader>], time: Duration) -> Result<f64> {
    let start = &Barrier::new(readers.len());
    thread::scope(|scope| {
        let read = |reader: &'_ mut Box<dyn Reader>| {
            start.wait();
            let (bytes, took) = reader.read_for(time)?;
            Ok(bytes as f64 / took.as_nanos() as f64)
        };
        let threads = readers.iter_mut().map(|reader| scope.spawn(move || read(reader)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    })
}

/// A row for each subject, a column for each number of readers.
pub(crate) fn table(all: &[Scaling]) -> String {
    let mut numbers: Vec<usize> = all.iter().map(|scaling| scaling.readers).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut names: Vec<Who> = all.iter().map(|scaling| scaling.who).collect();
    names.dedup();
    let head: Vec<String> = numbers
        .iter()
        .map(|number| format!("{number} reader{}", if *number == 1 { "" } else { "s" }))
        .collect();
    let head: Vec<&str> =
        std::iter::once("GB/s in all").chain(head.iter().map(|it| &**it)).collect();
    let row = |who: &Who| {
        let own = all.iter().filter(|scaling| scaling.who == *who);
        let cells = own.map(|scaling| match (scaling.speed(), &scaling.problem) {
            (_, Some(problem)) => format!("failed: {}", problem.replace('|', "/")),
            (Some(speed), None) => speed.to_string(),
            (None, None) => "-".to_owned(),
        });
        std::iter::once(who.to_string()).chain(cells).collect()
    };
    markdown(&head, &names.iter().map(row).collect::<Vec<_>>())
}
