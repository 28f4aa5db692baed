//! Comparing the local clock with the servers', when one says that it is ahead.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rampuddle_protocol::{Status, Version};
use tokio::time::Instant;

use super::{Answer, Answered, RawClient};
use crate::error::Error;
use crate::offsets::offset_between;
use crate::server::Server;

/// How long a comparison waits for the slowest server.
const PATIENCE: Duration = Duration::from_secs(1);
/// Servers that are asked at most: a median needs few.
const SERVERS_MAX: usize = 32;

impl RawClient {
    /// Learns anew how far the servers' clocks are from the local one: from all
    /// that answer, if they are not more than 32, else from some. Versions drawn
    /// from now on follow what was learnt, also when they are less than those
    /// drawn before. For a write that was refused with CLOCK: draw once more
    /// after this.
    pub(crate) async fn compare_clocks(&self) {
        let patient = Instant::now() + PATIENCE;
        let until = self.deadline().map_or(patient, |deadline| deadline.min(patient));
        let call = &self.clone().until(Some(until));
        let servers = self.core.servers.answering(SERVERS_MAX);
        join_all(servers.iter().map(|server| call.compare_clock(server))).await;
        self.core.clocks().rewind();
    }

    async fn compare_clock(&self, server: &Arc<Server>) {
        let clock = &self.environment().clock;
        let asked_ms = clock.unix_ms();
        let Ok(info) = self.info_of(server).await else { return };
        let offset_ms = offset_between(asked_ms, clock.unix_ms(), info.row.clock_unix_ms);
        if let Some(offset_ms) = offset_ms {
            // Refused or not, it is noted.
            let _ = self.core.clocks().greeted(server.name(), offset_ms);
        }
    }

    /// Works on items, and once more on those whose version was drawn here and
    /// refused with CLOCK, after the clocks were compared. `drawn` says whether
    /// an item leaves its version to this client.
    pub(super) async fn redrawn<T: Clone, F: Future<Output = Answered>>(
        &self,
        server: &str,
        items: Vec<(usize, T)>,
        drawn: impl Fn(&T) -> bool,
        once: impl Fn(Vec<(usize, T)>) -> F,
    ) -> Answered {
        let mut done = once(items.clone()).await;
        done.sort_unstable_by_key(|(index, _)| *index);
        let refused = items.into_iter().zip(&done).filter(|((_, item), (_, answer))| {
            drawn(item) && answer.as_ref().is_ok_and(|answer| answer.status == Status::Clock)
        });
        let again: Vec<(usize, T)> = refused.map(|(item, _)| item).collect();
        if again.is_empty() {
            return done;
        }
        self.compare_clocks().await;
        for (index, answer) in once(again).await {
            let at = done.binary_search_by_key(&index, |(index, _)| *index);
            let at = at.expect("it was among the first answers");
            done[at].1 = answer.and_then(|answer| self.unless_ahead(server, answer));
        }
        done
    }

    /// An answer, unless it is a second CLOCK: an error that says by how much.
    fn unless_ahead(&self, server: &str, answer: Answer) -> Result<Answer, Error> {
        let ahead_by_ms = self.core.clocks().ahead_of(server, answer.sent_version);
        match ahead_by_ms.filter(|_| answer.status == Status::Clock) {
            Some(ahead_by_ms) => Err(Error::ClockAhead { server: server.into(), ahead_by_ms }),
            None => Ok(answer),
        }
    }

    /// Notes in answers, which are in the order of their items, what the items
    /// were sent with.
    pub(super) fn note_sent(&self, done: &mut Answered, versions: Vec<Version>) {
        for ((_, answer), version) in done.iter_mut().zip(versions) {
            let Ok(answer) = answer else { continue };
            answer.sent_version = version;
            if answer.status.is_success() {
                self.core.clocks().observe(version);
            }
        }
    }
}
