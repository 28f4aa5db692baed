//! Progress of many files at once on stderr: a line for each in flight, and one
//! for all of them.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use rampuddle_client::Progress;
use tokio::task::AbortHandle;
use tokio::time::interval;

use crate::output::{Output, escape};
use crate::progress::{REDRAW_EVERY, short, style};

const FILE: &str = "  {msg:27} [{wide_bar}] {bytes:>10} of {total_bytes:>10}";
const FILE_BEGINS: &str = "  {msg:27} {spinner}";
const ALL: &str = "{msg}, {bytes}, {binary_bytes_per_sec}";
const ALL_KNOWN: &str = "{msg} [{wide_bar}] {bytes} of {total_bytes}, {binary_bytes_per_sec}";

/// How far a command is with many files.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    found_files: AtomicU64,
    found_bytes: AtomicU64,
    is_all_found: AtomicBool,
    done_files: AtomicU64,
    done_bytes: AtomicU64,
}

impl Counters {
    /// One more file is to be looked at.
    pub(crate) fn found(&self, bytes: u64) {
        self.found_files.fetch_add(1, Ordering::Relaxed);
        self.found_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// There are no more.
    pub(crate) fn all_found(&self) {
        self.is_all_found.store(true, Ordering::Relaxed);
    }

    /// A file is done, well or not.
    pub(crate) fn done(&self, bytes: u64) {
        self.done_files.fetch_add(1, Ordering::Relaxed);
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The lines, until they are dropped.
#[derive(Debug)]
pub(crate) struct Lines {
    shown: Option<(Arc<Shown>, AbortHandle)>,
}

#[derive(Debug)]
struct Shown {
    screen: MultiProgress,
    all: ProgressBar,
    files: Mutex<Vec<FileLine>>,
    counters: Arc<Counters>,
}

/// A line, which one file after the other has, so that lines do not jump.
#[derive(Debug)]
struct FileLine {
    bar: ProgressBar,
    /// Of the file in flight.
    progress: Option<Arc<Progress>>,
}

/// The line of one file in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    shown: Option<(Arc<Shown>, usize)>,
}

impl Lines {
    /// Shows the lines when stderr is a terminal and remarks are welcome.
    pub(crate) fn show(output: Output, counters: &Arc<Counters>) -> Self {
        if output.quiet || output.json || !std::io::stderr().is_terminal() {
            return Self { shown: None };
        }
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let all = screen.add(ProgressBar::no_length().with_style(style(ALL)));
        let (files, counters) = (Mutex::default(), Arc::clone(counters));
        let shown = Arc::new(Shown { screen, all, files, counters });
        let redraw = tokio::spawn(redraw(Arc::clone(&shown))).abort_handle();
        Self { shown: Some((shown, redraw)) }
    }

    /// A line for a file that is begun.
    pub(crate) fn begin(&self, name: &[u8]) -> Lane {
        let shown = self.shown.as_ref().map(|(shown, _)| (Arc::clone(shown), shown.begin(name)));
        Lane { shown }
    }

    /// Prints something above the lines.
    pub(crate) fn print<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.shown {
            Some((shown, _)) => shown.screen.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some((shown, redraw)) = self.shown.take() {
            redraw.abort();
            shown.files().iter().for_each(|file| file.bar.finish_and_clear());
            shown.all.finish_and_clear();
        }
    }
}

impl Lane {
    /// From here on the line shows this.
    pub(crate) fn follow(&self, progress: &Arc<Progress>) {
        if let Some((shown, line)) = &self.shown {
            shown.files()[*line].progress = Some(Arc::clone(progress));
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some((shown, line)) = self.shown.take() {
            let mut files = shown.files();
            let file = &mut files[line];
            file.draw();
            // Free for the next file.
            file.progress = None;
        }
    }
}

impl Shown {
    fn files(&self) -> MutexGuard<'_, Vec<FileLine>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, name: &[u8]) -> usize {
        let mut files = self.files();
        let free = files.iter().position(|file| file.progress.is_none());
        let line = free.unwrap_or_else(|| {
            let bar = self.screen.insert_before(&self.all, ProgressBar::no_length());
            files.push(FileLine { bar, progress: None });
            files.len() - 1
        });
        let file = &mut files[line];
        file.progress = Some(Progress::new());
        file.bar.unset_length();
        file.bar.set_style(style(FILE_BEGINS));
        file.bar.set_message(short(&escape(name)));
        line
    }

    fn draw(&self) {
        let mut files = self.files();
        files.iter_mut().for_each(FileLine::draw);
        let in_flight = files.iter().filter_map(|file| file.progress.as_ref());
        let in_flight: u64 = in_flight.map(|progress| progress.done_bytes()).sum();
        drop(files);
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let counters = &self.counters;
        let is_all_found = counters.is_all_found.load(Ordering::Relaxed);
        if is_all_found {
            self.all.set_length(read(&counters.found_bytes));
            self.all.set_style(style(ALL_KNOWN));
        }
        let (done, found) = (read(&counters.done_files), read(&counters.found_files));
        let more = if is_all_found { "" } else { "+" };
        self.all.set_message(format!("{done} of {found}{more} files"));
        self.all.set_position(read(&counters.done_bytes) + in_flight);
    }
}

impl FileLine {
    fn draw(&mut self) {
        let Some(progress) = &self.progress else { return };
        if let Some(total) = progress.total_bytes()
            && self.bar.length() != Some(total)
        {
            self.bar.set_length(total);
            self.bar.set_style(style(FILE));
        }
        self.bar.set_position(progress.done_bytes());
    }
}

async fn redraw(shown: Arc<Shown>) {
    let mut ticks = interval(REDRAW_EVERY);
    loop {
        ticks.tick().await;
        shown.draw();
    }
}
