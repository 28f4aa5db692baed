//! Whether a server answers: suspicion, and probes until it ends.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::{Server, State};
use crate::connection::Connection;

const PROBE_FIRST: Duration = Duration::from_millis(100);
const PROBE_LAST: Duration = Duration::from_secs(5);

impl Server {
    pub(super) fn give_back(&self, mut connection: Connection) {
        connection.rest();
        let mut state = self.state();
        let current = state.greeting.as_ref().map(|greeting| greeting.incarnation);
        let is_current = current == Some(connection.greeting().incarnation);
        if is_current && state.idle.len() < self.access.connections_per_server {
            state.idle.push(connection);
        }
    }

    /// Notes that the server answered.
    pub(super) fn recovered(&self) {
        if self.is_suspect.swap(false, Ordering::Relaxed) {
            if let Some(probe) = self.state().probe.take() {
                probe.abort();
            }
            tracing::info!(server = %self.name, "the server answers again");
        }
    }

    /// Notes that the server failed, and begins to probe it.
    pub(super) fn suspect(self: &Arc<Self>) {
        let mut state = self.state();
        // What else waits in the pool would cost its user another time-out.
        let idle = std::mem::take(&mut state.idle);
        if state.probe.is_none() {
            tracing::warn!(server = %self.name, "the server does not answer");
            self.is_suspect.store(true, Ordering::Relaxed);
            self.start_probe(&mut state, PROBE_FIRST);
        }
        drop(state);
        drop(idle);
    }

    pub(super) fn start_probe(self: &Arc<Self>, state: &mut State, first: Duration) {
        let probe = self.access.runtime.spawn(probe(Arc::downgrade(self), first));
        if let Some(before) = state.probe.replace(probe.abort_handle()) {
            before.abort();
        }
    }
}

/// Connects to a suspect server again and again, ever more rarely, until it
/// answers or is forgotten.
async fn probe(server: Weak<Server>, first: Duration) {
    let mut pause = first;
    loop {
        let jitter = |server: Arc<Server>| server.access.environment.jittered(pause / 2);
        let Some(wait) = server.upgrade().map(jitter) else { return };
        sleep(pause / 2 + wait).await;
        let Some(server) = server.upgrade() else { return };
        if let Ok(connection) = server.connect(None).await {
            server.give_back(connection);
            return;
        }
        pause = (pause * 2).clamp(PROBE_FIRST, PROBE_LAST);
    }
}
