//! Runs of a target from a seed.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::counts::Counts;
use crate::random::Random;
use crate::target::{Target, target};

/// Executions that a thread takes at once.
const STRIDE: u64 = 256;

/// Characters of a panic that are told.
const MESSAGE_MAX: usize = 1_000;

thread_local! {
    /// Place and words of this thread's last panic.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics for [`Finding::message`], instead of printing them.
pub fn keep_panics() {
    panic::set_hook(Box::new(|panicked| {
        let place = panicked.location().map(ToString::to_string).unwrap_or_default();
        let words = panicked.payload_as_str().unwrap_or("a panic without words");
        let message = format!("{place}: {words}").chars().take(MESSAGE_MAX).collect();
        LAST_PANIC.set(message);
    }));
}

/// A run to make.
#[derive(Debug, Clone)]
pub struct Run {
    /// The target's name.
    pub target: String,
    /// What inputs are drawn from.
    pub seed: u64,
    /// The first execution, and how many.
    pub first: u64,
    /// See `first`.
    pub executions: u64,
    /// Threads to use.
    pub threads: usize,
    /// Inputs are random bytes: what a fuzzer without knowledge of frames does.
    pub is_blind: bool,
}

impl Run {
    fn input(&self, target: &dyn Target, execution: u64) -> Vec<u8> {
        let mut random = Random::of_execution(self.seed, execution);
        if self.is_blind {
            let count = random.below(1_024);
            return random.bytes(count);
        }
        target.generate(&mut random)
    }
}

/// An input that broke a rule.
#[derive(Debug)]
pub struct Finding {
    /// Which execution it was.
    pub execution: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What it panicked with.
    pub message: String,
}

/// Runs until all is done or a rule is broken; of several findings the earliest
/// is returned.
///
/// # Panics
/// When there is no target of the name.
pub fn run(run: &Run) -> (Counts, Option<Finding>) {
    let (next, end) = (AtomicU64::new(run.first), AtomicU64::new(run.first + run.executions));
    let counts = Mutex::new(Counts::default());
    let finding: Mutex<Option<Finding>> = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..run.threads.max(1) {
            scope.spawn(|| {
                let (own, found) = work(run, &next, &end);
                lock(&counts).join(&own);
                let mut finding = lock(&finding);
                let is_earlier = |one: &Finding| {
                    finding.as_ref().is_none_or(|other| one.execution < other.execution)
                };
                if let Some(found) = found.filter(is_earlier) {
                    *finding = Some(found);
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    (counts, finding.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Takes stretches of executions until there are none, or one broke a rule.
fn work(run: &Run, next: &AtomicU64, end: &AtomicU64) -> (Counts, Option<Finding>) {
    let mut target = target(&run.target).expect("a target of this name");
    let mut counts = Counts::default();
    loop {
        let first = next.fetch_add(STRIDE, Ordering::Relaxed);
        let last = (first + STRIDE).min(end.load(Ordering::Relaxed));
        if first >= last {
            return (counts, None);
        }
        for execution in first..last {
            let mut input = Vec::new();
            let ran = panic::catch_unwind(AssertUnwindSafe(|| {
                input = run.input(&*target, execution);
                target.run(&input, &mut counts)
            }));
            match ran {
                Ok(passed) => {
                    counts.executions += 1;
                    counts.passed_header += u64::from(passed);
                }
                Err(_) => {
                    end.fetch_min(execution, Ordering::Relaxed);
                    let message = LAST_PANIC.take();
                    return (counts, Some(Finding { execution, input, message }));
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
