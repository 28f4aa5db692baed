//! Several files in flight at once.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rampuddle_client::Client;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::report::{Action, Done, Pair, Summary};
use crate::output::Output;
use crate::progress_lines::{Counters, Lane, Lines};
use crate::signals::EndSignals;

/// How long whoever interrupts waits until what was half done is removed from the
/// servers. What is not, they remove themselves when its lease ends.
const CLEAN_UP_PATIENCE: Duration = Duration::from_secs(1);

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

/// Why nothing more is done.
enum End {
    All,
    Signal,
    /// Every other file would fail like this.
    Failure(anyhow::Error),
}

/// How a command works on many files.
pub(super) struct Several<'s> {
    pub(super) output: Output,
    pub(super) client: &'s Client,
    pub(super) jobs: usize,
    pub(super) moving: Action,
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
        let mut summary = Summary::new(self.moving);
        let counters = Arc::new(Counters::default());
        let lines = Lines::show(self.output, &counters);
        let mut in_flight = JoinSet::new();
        let mut note = |done: Done, in_flight_bytes: u64| {
            counters.done(in_flight_bytes);
            lines.print(|| summary.note(self.output, &done));
        };
        // What waits was counted when it came, so that the total is known early.
        let mut waiting = VecDeque::new();
        let mut has_more = true;
        let end = loop {
            while in_flight.len() < self.jobs
                && let Some(job) = waiting.pop_front()
            {
                let job: Job = job;
                let lane = lines.begin(&job.pair.name);
                let bytes = job.bytes;
                let work = work(job, lane);
                in_flight.spawn(async move { (work.await, bytes) });
            }
            if !has_more && in_flight.is_empty() {
                break End::All;
            }
            tokio::select! {
                biased;
                () = signals.next() => break End::Signal,
                Some(ended) = in_flight.join_next() => {
                    let (done, bytes) = ended.context("the work on a file broke off")?;
                    match done {
                        Ok(done) => note(done, bytes),
                        Err(error) => break End::Failure(error),
                    }
                }
                step = steps.recv(), if has_more && waiting.len() < WAITING_MAX => match step {
                    Some(Step::File(job)) => {
                        counters.found(job.bytes);
                        waiting.push_back(job);
                    }
                    Some(Step::Done(done)) => {
                        counters.found(0);
                        note(done, 0);
                    }
                    None => {
                        counters.all_found();
                        has_more = false;
                    }
                },
            }
        };
        drop(lines);
        if !matches!(end, End::All) {
            in_flight.shutdown().await;
            self.clean_up(&mut signals).await;
        }
        match end {
            End::All => {}
            End::Signal => summary.interrupt(),
            End::Failure(error) if summary.files() == 0 => return Err(error),
            End::Failure(error) => summary.break_off(&error),
        }
        Ok(summary)
    }

    async fn clean_up(&self, signals: &mut EndSignals) {
        tokio::select! {
            _ = timeout(CLEAN_UP_PATIENCE, self.client.cleaned_up()) => {}
            () = signals.next() => {}
        }
    }
}
