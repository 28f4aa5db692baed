//! Several files in flight at once.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use rampuddle_client::Client;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use super::report::{Action, Done, Pair, Summary};
use crate::output::Output;
use crate::progress_lines::{Counters, Lane, Lines};
use crate::runtime::leave;
use crate::signals::EndSignals;

/// How many files that were found wait for their turn at most.
pub(super) const WAITING_MAX: usize = 1_024;

/// What is found, one after the other.
#[derive(Debug)]
pub(super) enum Step {
    File(Job),
    /// One that cannot be worked on.
    Done(Done),
}

/// A file to work on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) pair: Pair,
    pub(super) bytes: u64,
}

/// How a command works on many files.
pub(super) struct Several<'s> {
    pub(super) output: Output,
    pub(super) client: &'s Client,
    pub(super) jobs: usize,
    pub(super) moving: Action,
}

/// Why nothing more is done.
enum End {
    All,
    Signal,
    /// Every other file would fail like this.
    Failure(anyhow::Error),
}

impl Several<'_> {
    /// Works on every file that comes, so many at once, until there are no more. At
    /// a signal, and when a file fails in a way in which all others would, what is
    /// in flight is dropped.
    ///
    /// # Errors
    /// When the very first fails like that.
    pub(super) async fn run<F>(
        &self,
        mut steps: Receiver<Step>,
        work: impl Fn(Job, Lane) -> F,
    ) -> anyhow::Result<Summary>
    where
        F: Future<Output = anyhow::Result<Done>> + Send + 'static,
    {
        let mut signals = EndSignals::new()?;
        let mut files = Files::new(self);
        let end = loop {
            files.begin(self.jobs, &work);
            if files.is_at_end() {
                break End::All;
            }
            let takes_more = files.takes_more();
            tokio::select! {
                biased;
                () = signals.next() => break End::Signal,
                Some(ended) = files.in_flight.join_next() => {
                    let (done, bytes) = ended.context("the work on a file broke off")?;
                    match done {
                        Ok(done) => files.note(&done, bytes),
                        Err(error) => break End::Failure(error),
                    }
                }
                step = steps.recv(), if takes_more => files.take(step),
            }
        };
        let (in_flight, mut summary) = files.end();
        self.clean_up(in_flight, &mut signals).await;
        match end {
            End::All => {}
            End::Signal => summary.interrupt(),
            End::Failure(error) if summary.files() == 0 => return Err(error),
            End::Failure(error) => summary.break_off(&error),
        }
        Ok(summary)
    }

    /// Drops what is in flight, and waits a moment until it has left the servers.
    async fn clean_up(&self, mut in_flight: InFlight, signals: &mut EndSignals) {
        in_flight.shutdown().await;
        tokio::select! {
            () = leave(self.client) => {}
            () = signals.next() => {}
        }
    }
}

/// What comes of each file, and how many bytes it was found with.
type InFlight = JoinSet<(anyhow::Result<Done>, u64)>;

/// The files of a command: those that wait for their turn, those in flight, and
/// what became of the others.
struct Files {
    output: Output,
    counters: Arc<Counters>,
    lines: Lines,
    waiting: VecDeque<Job>,
    in_flight: InFlight,
    is_all_found: bool,
    summary: Summary,
}

impl Files {
    fn new(several: &Several<'_>) -> Self {
        let counters = Arc::new(Counters::default());
        Self {
            output: several.output,
            lines: Lines::show(several.output, &counters),
            counters,
            waiting: VecDeque::new(),
            in_flight: JoinSet::new(),
            is_all_found: false,
            summary: Summary::new(several.moving),
        }
    }

    /// Begins with as many of those that wait as may be in flight.
    fn begin<F>(&mut self, jobs: usize, work: impl Fn(Job, Lane) -> F)
    where
        F: Future<Output = anyhow::Result<Done>> + Send + 'static,
    {
        while self.in_flight.len() < jobs {
            let Some(job) = self.waiting.pop_front() else { return };
            let (lane, bytes) = (self.lines.begin(&job.pair.name), job.bytes);
            let work = work(job, lane);
            self.in_flight.spawn(async move { (work.await, bytes) });
        }
    }

    fn is_at_end(&self) -> bool {
        self.is_all_found && self.in_flight.is_empty()
    }

    /// More are taken than are worked on, so that the total is known early.
    fn takes_more(&self) -> bool {
        !self.is_all_found && self.waiting.len() < WAITING_MAX
    }

    fn take(&mut self, step: Option<Step>) {
        match step {
            Some(Step::File(job)) => {
                self.counters.found(job.bytes);
                self.waiting.push_back(job);
            }
            Some(Step::Done(done)) => {
                self.counters.found(0);
                self.note(&done, 0);
            }
            None => {
                self.counters.all_found();
                self.is_all_found = true;
            }
        }
    }

    fn note(&mut self, done: &Done, bytes: u64) {
        self.counters.done(bytes);
        self.lines.print(|| self.summary.note(self.output, done));
    }

    fn end(self) -> (InFlight, Summary) {
        (self.in_flight, self.summary)
    }
}
