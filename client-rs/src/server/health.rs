//! Whether a server answers: suspicion, and probes until it ends.
//!
//! | the server | is | who connects to it |
//! |---|---|---|
//! | answered last | fine | whoever needs a connection |
//! | broke a connection | suspect: asked last | whoever needs a connection |
//! | was silent on a connection, could not be connected to, or has a wrong clock | suspect and unreachable | the probe, and who asks this very server and no other; whoever else needs a connection is told at once why there is none |
//!
//! So a server that swallows every packet, or is stopped, costs the requests that
//! are under way the client's patience once, and the later ones nothing. What it
//! could have said is unknown then, and is said to be: waiting for a probe would
//! seldom change that, and make every miss as slow as the slowest server. The
//! first probe comes at most 100 ms after the failure, later ones at most a second
//! after the last, and one at once when a server was silent, which may have been
//! that one connection only, and when discovery sees the server restart.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Purpose, Server, State};
use crate::connection::Connection;
use crate::deadline::Deadline;
use crate::error::{Error, Fate};

/// The longest pauses before the first probe, and before any.
const PROBE_FIRST: Duration = Duration::from_millis(100);
const PROBE_LAST: Duration = Duration::from_secs(1);
/// Pieces of streams that others are asked for first, after one of this server's came
/// too late. Several streams come back to it at once, with a piece on each connection,
/// and each of those costs what ten requests pay in: by then these have.
const PASSES: u32 = 256;
/// How long a retry waits for the next probe's word.
const VERDICT_PATIENCE: Duration = Duration::from_millis(250);

impl Server {
    /// Returns a connection to the pool.
    pub(super) fn give_back(&self, mut connection: Connection) {
        connection.rest();
        let placing = self.access.placing().map_or(0, |placing| placing.fingerprint);
        // One that was made for other settings is of no use for placing any more.
        let is_current = |connection: &Connection| {
            let settings = connection.greeting().settings;
            settings == 0 || settings == placing
        };
        let mut state = self.state();
        let incarnation = state.greeting.as_ref().map(|greeting| greeting.incarnation);
        let is_of_this_run = incarnation == Some(connection.greeting().incarnation);
        if is_of_this_run && is_current(&connection) {
            state.idle.retain(is_current);
            if state.idle.len() < self.access.connections_per_server {
                state.idle.push(connection);
            }
        }
    }

    /// Notes that the server answered.
    pub(super) fn recovered(&self) {
        self.is_slow.store(false, Ordering::Relaxed);
        if !self.is_suspect() {
            return;
        }
        let mut state = self.state();
        self.is_suspect.store(false, Ordering::Relaxed);
        state.unreachable = None;
        if let Some(probe) = state.probe.take() {
            probe.abort();
        }
        drop(state);
        self.verdicts.notify_waiters();
        tracing::info!(server = %self.name, "the server answers again");
    }

    /// Notes that the server was silent on a connection: it would be on another.
    pub(super) fn silent(self: &Arc<Self>, after: Duration, doing: &'static str) {
        let (server, fate) = (Arc::clone(&self.name), Fate::NotSent);
        let error = Error::TimedOut { server, after, doing, fate };
        self.suspect_and_probe(Some(error), Duration::ZERO);
    }

    /// Notes that nothing came of the server while others answered, and probes it. It
    /// is no reason to write elsewhere.
    pub(crate) fn note_slow(self: &Arc<Self>) {
        if !self.is_slow.swap(true, Ordering::Relaxed) {
            tracing::info!(server = %self.name, "the server is slow: others are read from first");
        }
        self.probe_soon(&mut self.state(), Duration::ZERO);
    }

    /// Notes that another server was faster with a piece that somebody waited for:
    /// streams ask others first for the next ones. One slow piece holds a stream up,
    /// and asking twice costs what ten requests pay in.
    pub(crate) fn pass_over(&self) {
        self.state().outrun = Some(Instant::now());
        self.passes_left.store(PASSES, Ordering::Relaxed);
    }

    /// Whether another server was faster lately.
    pub(crate) fn is_outrun(&self) -> bool {
        self.passes_left.load(Ordering::Relaxed) > 0
    }

    /// Whether another server was faster lately, and not yet when this one was asked for
    /// something at that time.
    pub(crate) fn was_outrun_after(&self, asked: Instant) -> bool {
        self.is_outrun() && self.state().outrun.is_some_and(|outrun| asked < outrun)
    }

    /// Whether others are to be asked first for one more piece of a stream.
    pub(crate) fn is_passed_over(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.passes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Notes that the server failed, and begins to probe it. `unreachable` says
    /// why there is no use in connecting to it, when that is how it failed.
    pub(super) fn suspect(self: &Arc<Self>, unreachable: Option<Error>) {
        self.suspect_and_probe(unreachable, PROBE_FIRST);
    }

    fn suspect_and_probe(self: &Arc<Self>, unreachable: Option<Error>, first: Duration) {
        let mut state = self.state();
        // What else waits in the pool would cost its user another time-out.
        let idle = std::mem::take(&mut state.idle);
        // A server that is gone must not find its next run's memory taken by this one's.
        let pool = std::mem::take(&mut state.sharing);
        if unreachable.is_some() {
            state.unreachable = unreachable;
        }
        if !self.is_suspect.swap(true, Ordering::Relaxed) {
            let why = state.unreachable.as_ref().map(tracing::field::display);
            tracing::warn!(server = %self.name, why, "the server failed: it is asked last");
        }
        self.probe_soon(&mut state, first);
        drop(state);
        drop((idle, pool));
    }

    /// Begins to probe the server unless that goes on already.
    pub(super) fn probe_soon(self: &Arc<Self>, state: &mut State, first: Duration) {
        if state.probe.as_ref().is_none_or(AbortHandle::is_finished) {
            self.start_probe(state, first);
        }
    }

    /// Begins to probe the server anew.
    pub(super) fn start_probe(self: &Arc<Self>, state: &mut State, first: Duration) {
        let probe = self.access.runtime.spawn(probe(Arc::downgrade(self), first));
        if let Some(before) = state.probe.replace(probe.abort_handle()) {
            before.abort();
        }
    }

    /// Whether it is known that connecting to the server is of no use: asking it
    /// again and again does not change that, its probe does.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.is_suspect() && self.unreachable().is_some()
    }

    /// Why there is no use in connecting to the server, as far as is known.
    pub(super) fn unreachable(&self) -> Option<Error> {
        self.state().unreachable.clone()
    }

    /// Whether the server answers at its last known address, asked now, and is
    /// the one meant. One that says no to this client answers.
    pub(crate) async fn answers(self: &Arc<Self>) -> bool {
        match self.connect(Purpose::Looking, None).await {
            Ok(connection) => {
                self.give_back(connection);
                true
            }
            Err(error) => error.is_from_server(),
        }
    }

    /// For whoever may ask the server again: when it cannot be reached, waits for
    /// the word of the next probe, a short while at most.
    pub(crate) async fn next_verdict(&self, deadline: Deadline) {
        let verdict = self.verdicts.notified();
        if self.unreachable().is_none() {
            return;
        }
        let patient = Instant::now() + VERDICT_PATIENCE;
        let until = deadline.map_or(patient, |deadline| deadline.min(patient));
        let _ = timeout_at(until, verdict).await;
    }
}

/// Connects to a suspect server again and again, ever more rarely, until it
/// answers or is forgotten. Pauses have full jitter.
async fn probe(server: Weak<Server>, first: Duration) {
    let mut most = first;
    loop {
        let jitter = |server: Arc<Server>| server.access.environment.jittered(most);
        let Some(pause) = server.upgrade().map(jitter) else { return };
        sleep(pause).await;
        let Some(server) = server.upgrade() else { return };
        match server.connect(Purpose::Placing, None).await {
            Ok(connection) => {
                server.give_back(connection);
                return;
            }
            // It answers, if only to refuse: whoever needs it hears that himself.
            Err(error) if error.is_refusal() => return,
            Err(_) => server.verdicts.notify_waiters(),
        }
        most = (most * 2).clamp(PROBE_FIRST, PROBE_LAST);
    }
}
