//! Keeps an entry among the living, in a task of its own.
//!
//! ```text
//!   announce --> [alive] --beat: lost--> [lost] --claim--> [alive] ...
//!                   |                       |
//!                   +--- beat: taken -------+--> gives up, takes back what is left
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::pace::Backoff;
use crate::backend::{Announcement, Withdraw};
use crate::error::DiscoveryError;

/// How often an entry is renewed.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long an entry lives without being renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// The first pause after a failure; the longest is a heartbeat, so that a service that
/// returns has everybody back after two.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// How long a call that is under way may still take when the entry is taken back.
const FINISH_PATIENCE: Duration = Duration::from_secs(1);

/// How an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// It was renewed.
    Alive,
    /// It is gone, and nobody else has the name.
    Lost,
    /// Another incarnation has the name.
    Taken,
}

/// One entry among the living, as a service keeps it.
pub(crate) trait Entry: Send + Sync + 'static {
    /// Whose entry it is and where, for the log.
    fn name(&self) -> String;

    /// Renews the entry.
    fn beat(&mut self) -> BoxFuture<'_, Result<Beat, DiscoveryError>>;

    /// Makes a lost entry anew, also over what is left of the old one. Fails with
    /// [`DiscoveryError::NameTaken`] when another incarnation was faster.
    fn claim(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>>;

    /// Takes the entry back, and whatever else it left in the service.
    fn release(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>>;
}

/// Keeps an entry that was just made, until the announcement ends. Must be called inside
/// a runtime.
pub(crate) fn keep(entry: impl Entry) -> Announcement {
    let (stop, stopped) = oneshot::channel();
    let is_given_up = Arc::new(AtomicBool::new(false));
    let keeper = Keeper {
        entry,
        is_given_up: Arc::clone(&is_given_up),
        is_lost: false,
        is_failing: false,
        backoff: Backoff::new(PAUSE_FIRST, HEARTBEAT),
    };
    tokio::spawn(keeper.run(stopped));
    Announcement::new(Kept { stop, is_given_up })
}

type Answer = oneshot::Sender<Result<(), DiscoveryError>>;

/// The announcement's side: when it is dropped, so is the channel, and the task takes
/// the entry back by itself.
#[derive(Debug)]
struct Kept {
    stop: oneshot::Sender<Answer>,
    is_given_up: Arc<AtomicBool>,
}

impl Withdraw for Kept {
    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoveryError>> {
        let (answer, answered) = oneshot::channel();
        // Where the task is gone, its runtime is.
        let _ = self.stop.send(answer);
        async { answered.await.unwrap_or(Err(DiscoveryError::Stopped)) }.boxed()
    }

    fn is_kept_up(&self) -> bool {
        !self.is_given_up.load(Ordering::Relaxed)
    }
}

struct Keeper<E> {
    entry: E,
    is_given_up: Arc<AtomicBool>,
    is_lost: bool,
    is_failing: bool,
    backoff: Backoff,
}

/// What the keeper does next.
enum Next {
    Wait(Duration),
    GiveUp,
}

impl<E: Entry> Keeper<E> {
    async fn run(mut self, mut stopped: oneshot::Receiver<Answer>) {
        let mut at = Instant::now() + HEARTBEAT;
        let answer = loop {
            tokio::select! {
                answer = &mut stopped => break answer,
                () = sleep_until(at) => {}
            }
            let began = Instant::now();
            let next = {
                let mut step = pin!(self.step());
                tokio::select! {
                    answer = &mut stopped => {
                        // Else what it asked for might be done after the withdrawal.
                        let _ = timeout(FINISH_PATIENCE, step).await;
                        break answer;
                    }
                    next = &mut step => next,
                }
            };
            match next {
                Next::Wait(pause) => at = began + pause,
                Next::GiveUp => {
                    self.is_given_up.store(true, Ordering::Relaxed);
                    let _ = self.entry.release().await;
                    if let Ok(answer) = stopped.await {
                        let _ = answer.send(Ok(()));
                    }
                    return;
                }
            }
        };
        let released = self.entry.release().await;
        if let Ok(answer) = answer {
            let _ = answer.send(released);
        }
    }

    async fn step(&mut self) -> Next {
        match self.renew().await {
            Ok(Beat::Taken) => {
                warn!("{}: the name is another server's now, given up", self.entry.name());
                Next::GiveUp
            }
            Ok(_) => {
                self.log_recovery();
                self.backoff.reset();
                Next::Wait(HEARTBEAT)
            }
            Err(error) => {
                self.log_failure(&error);
                Next::Wait(self.backoff.pause())
            }
        }
    }

    /// Renews the entry; makes it anew if it is lost.
    async fn renew(&mut self) -> Result<Beat, DiscoveryError> {
        if !self.is_lost {
            match self.entry.beat().await? {
                Beat::Lost => {}
                known => return Ok(known),
            }
            self.is_lost = true;
            warn!("{}: lost among the living, announced again", self.entry.name());
        }
        match self.entry.claim().await {
            Ok(()) => {
                self.is_lost = false;
                info!("{}: back among the living", self.entry.name());
                Ok(Beat::Alive)
            }
            Err(DiscoveryError::NameTaken { .. }) => Ok(Beat::Taken),
            Err(error) => Err(error),
        }
    }

    fn log_failure(&mut self, error: &DiscoveryError) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let error = error.explained();
            // Whoever announced it finds out as well, and says it louder.
            info!("{}: cannot be renewed, tried again: {error}", self.entry.name());
        }
    }

    fn log_recovery(&mut self) {
        if std::mem::replace(&mut self.is_failing, false) {
            info!("{}: renewed again", self.entry.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// Answers as it was told, and notes what it was asked.
    #[derive(Clone, Default)]
    struct Scripted {
        answers: Arc<Mutex<VecDeque<Result<Beat, ()>>>>,
        asked: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Scripted {
        fn new(answers: impl IntoIterator<Item = Result<Beat, ()>>) -> Self {
            let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
            Self { answers, ..Self::default() }
        }

        fn ask(&self, what: &'static str) -> Result<Beat, DiscoveryError> {
            self.asked.lock().unwrap().push(what);
            let next = self.answers.lock().unwrap().pop_front();
            next.unwrap_or(Ok(Beat::Alive)).map_err(|()| DiscoveryError::Stopped)
        }

        async fn until_asked(&self, times: usize) -> Vec<&'static str> {
            while self.asked.lock().unwrap().len() < times {
                tokio::task::yield_now().await;
            }
            self.asked.lock().unwrap().clone()
        }
    }

    impl Entry for Scripted {
        fn name(&self) -> String {
            "a".to_owned()
        }

        fn beat(&mut self) -> BoxFuture<'_, Result<Beat, DiscoveryError>> {
            async { self.ask("beat") }.boxed()
        }

        fn claim(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
            let taken = || DiscoveryError::NameTaken {
                name: "a".to_owned(),
                address: String::new(),
                incarnation: None,
            };
            async move {
                match self.ask("claim")? {
                    Beat::Taken => Err(taken()),
                    _ => Ok(()),
                }
            }
            .boxed()
        }

        fn release(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
            async { self.ask("release").map(|_| ()) }.boxed()
        }
    }

    #[tokio::test]
    async fn a_lost_entry_is_claimed_at_once_and_then_renewed() {
        let entry = Scripted::new([Ok(Beat::Lost), Err(()), Ok(Beat::Alive)]);
        let announcement = keep(entry.clone());
        let asked = entry.until_asked(4).await;
        assert_eq!(asked, ["beat", "claim", "claim", "beat"]);
        assert!(announcement.is_kept_up());
        announcement.withdraw().await.unwrap();
        assert_eq!(entry.until_asked(5).await.last(), Some(&"release"));
    }

    #[tokio::test]
    async fn a_name_that_another_took_is_given_up() {
        for answers in [vec![Ok(Beat::Taken)], vec![Ok(Beat::Lost), Ok(Beat::Taken)]] {
            let times = answers.len() + 1;
            let entry = Scripted::new(answers);
            let announcement = keep(entry.clone());
            assert_eq!(entry.until_asked(times).await.last(), Some(&"release"));
            assert!(!announcement.is_kept_up());
            announcement.withdraw().await.unwrap();
            assert_eq!(entry.until_asked(times).await.len(), times);
        }
    }

    #[tokio::test]
    async fn an_entry_whose_announcement_is_dropped_is_taken_back() {
        let entry = Scripted::default();
        drop(keep(entry.clone()));
        assert_eq!(entry.until_asked(1).await, ["release"]);
    }
}
