//! Servers that could not be told to remove something are told again.
//!
//! One task of a client tells them all. It keeps no client alive, and ends when
//! nobody is left to tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::operation::Operation;
use super::removal::Removal;
use crate::client::Core;

/// How long a server that gave no answer is left alone: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How often one is told. In all 15 minutes, after which what has a lease is gone by
/// itself.
const TIMES: u32 = 19;
/// What may wait: about 4 MiB. Beyond it, what is due last is left to repair.
const MOST: usize = 16_384;
/// Removals under way at the same time.
const AT_ONCE: usize = 16;

/// What is to be told to whom.
#[derive(Debug)]
struct Telling {
    removal: Removal,
    /// `None` = everybody who may have copies.
    servers: Option<Vec<Arc<str>>>,
    /// The pause after this time, if it is in vain.
    pause: Duration,
    times_left: u32,
}

impl Telling {
    /// Everybody, for the first time.
    fn new(removal: Removal) -> Self {
        Self { removal, servers: None, pause: PAUSE.0, times_left: TIMES }
    }

    /// The same to those that gave no answer, and after what pause; `None` = all did,
    /// or it was told often enough.
    fn again(self, silent: Vec<Arc<str>>) -> Option<(Duration, Self)> {
        let Self { removal, pause, times_left, .. } = self;
        if silent.is_empty() || times_left == 0 {
            return None;
        }
        let (servers, next) = (Some(silent), PAUSE.1.min(pause * 2));
        Some((pause, Self { removal, servers, pause: next, times_left: times_left - 1 }))
    }
}

#[derive(Debug, Default)]
struct State {
    /// By when it is due, and a number that tells those of one moment apart.
    waiting: BTreeMap<(Instant, u64), Telling>,
    number: u64,
    is_running: bool,
}

/// All that a client has to tell again.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    state: Mutex<State>,
    earlier: Notify,
}

impl Untold {
    /// Tells the servers that gave no answer again, until they do or it has been tried
    /// often enough. What stays then is left to repair.
    pub(super) fn again(core: &Arc<Core>, removal: Removal, silent: Vec<Arc<str>>) {
        if let Some((pause, telling)) = Telling::new(removal).again(silent) {
            Self::wait(core, pause, telling);
        }
    }

    /// Tells everybody in a while.
    pub(super) fn later(core: &Arc<Core>, removal: Removal, pause: Duration) {
        Self::wait(core, pause, Telling::new(removal));
    }

    fn wait(core: &Arc<Core>, pause: Duration, telling: Telling) {
        let untold = Arc::clone(&core.untold);
        let begins = untold.push(Instant::now() + pause, telling);
        if begins {
            let runtime = core.servers.access().runtime.clone();
            runtime.spawn(untold.run(Arc::downgrade(core)));
        }
    }

    /// Returns whether the task that tells has to be begun.
    fn push(&self, due: Instant, telling: Telling) -> bool {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.waiting.len() >= MOST {
            state.waiting.pop_last();
        }
        state.number += 1;
        state.waiting.insert((due, state.number), telling);
        self.earlier.notify_one();
        !std::mem::replace(&mut state.is_running, true)
    }

    /// When the next is due; `None` = nobody is left, and the task ends.
    fn next_due(&self) -> Option<Instant> {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.waiting.first_key_value().map(|((due, _), _)| *due);
        state.is_running = next.is_some();
        next
    }

    fn take_due(&self) -> Vec<Telling> {
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let later = state.waiting.split_off(&(Instant::now(), u64::MAX));
        std::mem::replace(&mut state.waiting, later).into_values().collect()
    }

    async fn run(self: Arc<Self>, core: Weak<Core>) {
        while let Some(due) = self.next_due() {
            // An earlier one may come meanwhile.
            if timeout_at(due, self.earlier.notified()).await.is_ok() {
                continue;
            }
            let Some(core) = core.upgrade() else { return };
            let each = self.take_due().into_iter().map(|telling| self.tell(&core, telling));
            iter(each).buffer_unordered(AT_ONCE).collect::<()>().await;
        }
    }

    async fn tell(&self, core: &Arc<Core>, telling: Telling) {
        let operation = Operation::background(core);
        let servers = telling.servers.as_deref();
        let is_meant =
            |server: &str| servers.is_none_or(|servers| servers.iter().any(|one| &**one == server));
        let silent = telling.removal.run(&operation, &is_meant).await;
        if let Some((pause, telling)) = telling.again(silent) {
            // Whether the task runs is no question: this is it.
            self.push(Instant::now() + pause, telling);
        }
    }
}
