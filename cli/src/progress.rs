//! Progress bars on stderr, for puts and gets that take a while.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rampuddle_client::Progress;
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::output::{Output, escape};

/// How often bars follow what they show.
pub(crate) const REDRAW_EVERY: Duration = Duration::from_millis(100);
/// The bar takes what is left of the line.
const KNOWN: &str =
    "{msg} [{wide_bar}] {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
const UNKNOWN: &str = "{msg} {spinner} {bytes}, {binary_bytes_per_sec}";

/// Characters that are shown of a name; of a longer one, the last.
const NAME_CHARACTERS: usize = 24;

/// A bar that follows a transfer until it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    shown: Option<(ProgressBar, JoinHandle<()>)>,
}

impl Bar {
    /// No bar.
    pub(crate) fn hidden() -> Self {
        Self { shown: None }
    }

    /// Shows a bar when stderr is a terminal and remarks are welcome.
    pub(crate) fn follow(output: Output, name: &[u8], progress: &Arc<Progress>) -> Self {
        if output.quiet || output.json || !std::io::stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style(UNKNOWN));
        bar.set_message(short(&escape(name)));
        let task = tokio::spawn(redraw(bar.clone(), Arc::clone(progress)));
        Self { shown: Some((bar, task)) }
    }

    /// Prints something above the bar.
    pub(crate) fn print<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.shown {
            Some((bar, _)) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((bar, task)) = self.shown.take() {
            task.abort();
            bar.finish_and_clear();
        }
    }
}

async fn redraw(bar: ProgressBar, progress: Arc<Progress>) {
    let mut ticks = interval(REDRAW_EVERY);
    loop {
        ticks.tick().await;
        if let Some(total) = progress.total_bytes().filter(|_| bar.length().is_none()) {
            bar.set_length(total);
            bar.set_style(style(KNOWN));
        }
        bar.set_position(progress.done_bytes());
    }
}

/// A name's end, if it is long.
pub(crate) fn short(name: &str) -> String {
    match name.char_indices().nth_back(NAME_CHARACTERS - 1) {
        Some((begin, _)) if begin > 0 => format!("...{}", &name[begin..]),
        _ => name.to_owned(),
    }
}

/// A template of ours.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are well formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_to_its_end() {
        assert_eq!(short("checkpoint.bin"), "checkpoint.bin");
        assert_eq!(short(&"n".repeat(24)), "n".repeat(24));
        assert_eq!(short("models/checkpoint-00012-of-00099"), "...heckpoint-00012-of-00099");
        assert_eq!(short(&"ü".repeat(900)).chars().count(), 27);
    }
}
