//! Keeping a striped object readable while it is read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use rampuddle_protocol::SetId;
use tokio::sync::{OwnedRwLockReadGuard, oneshot};
use tokio::time::{sleep, timeout};

use super::hedge::not_long;
use super::operation::Operation;
use super::ranks::answers;
use crate::client::Core;

/// How often a hold is renewed, so that the session outlives the silence of a
/// slow reader.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How long until a release that was not answered is sent again: at first, and
/// at most.
const RELEASE_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// When a set is released once more whose hold was given up under way: it may have
/// arrived behind the release.
const SECOND_RELEASE: Duration = Duration::from_secs(15);
/// How long a server has to answer a release; others may wait for it.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);

/// The sets that a client's readers hold. Servers count one hold for each
/// session and set, so that the last reader here releases it.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<SetId, Shared>>);

#[derive(Debug, Default)]
struct Shared {
    readers: usize,
    /// Releases that are not done yet; they share the gate.
    releases: usize,
    /// Taken while a hold or a release of the set is under way, so that they
    /// reach the servers in the order in which they were decided.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Holds {
    fn table(&self) -> MutexGuard<'_, HashMap<SetId, Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, set: SetId) -> Arc<tokio::sync::Mutex<()>> {
        let mut table = self.table();
        let shared = table.entry(set).or_default();
        shared.readers += 1;
        Arc::clone(&shared.gate)
    }

    fn leave(&self, set: SetId) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut table = self.table();
        let shared = table.get_mut(&set)?;
        shared.readers -= 1;
        shared.releases += usize::from(shared.readers == 0);
        (shared.readers == 0).then(|| Arc::clone(&shared.gate))
    }

    /// Whether nobody reads the set any more.
    fn is_unread(&self, set: SetId) -> bool {
        self.table().get(&set).is_some_and(|shared| shared.readers == 0)
    }

    /// Ends a release; forgets the set with the last one, unless somebody waits to
    /// hold it again.
    fn end_release(&self, set: SetId) {
        let mut table = self.table();
        let Some(shared) = table.get_mut(&set) else { return };
        shared.releases -= 1;
        if (shared.readers, shared.releases) == (0, 0) {
            table.remove(&set);
        }
    }
}

/// Holds of one set on some servers. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    core: Weak<Core>,
    servers: Vec<Arc<str>>,
    set: SetId,
    /// Values of the set on the servers that answered, all copies counted.
    pub(super) values: u64,
    /// Dropped, it ends the renewal. `None` = not all servers have answered yet.
    renewal: Option<oneshot::Sender<()>>,
    /// Some server was not waited for: its hold may come to be behind the release.
    is_late: Arc<AtomicBool>,
}

impl Hold {
    /// Holds the set on all of the servers at once. One that does not answer is
    /// read without a hold.
    pub(super) async fn take(operation: &Operation, servers: Vec<Arc<str>>, set: SetId) -> Self {
        let core = Arc::downgrade(operation.core());
        let gate = operation.holds.join(set);
        // From here on a dropped future releases what may have been held.
        let is_late = Arc::new(AtomicBool::new(false));
        let mut hold = Self {
            core: Weak::clone(&core),
            servers,
            set,
            values: 0,
            renewal: None,
            is_late: Arc::clone(&is_late),
        };
        // Behind the deadline there is nothing left to read.
        if let Some(under_way) = operation.within(gate.lock()).await {
            hold.values = hold_all(operation, &hold.servers, set, &is_late).await;
            drop(under_way);
        }
        let (renewal, ended) = oneshot::channel();
        tokio::spawn(renew(core, hold.servers.clone(), set, gate, is_late, ended));
        hold.renewal = Some(renewal);
        hold
    }
}

/// Holds the set on those of the servers that answer, as it is known now, and soon:
/// whoever waited for the gate does not wait for the same server once more. Returns how many
/// values of the set they have.
async fn hold_all(
    operation: &Operation,
    servers: &[Arc<str>],
    set: SetId,
    is_late: &AtomicBool,
) -> u64 {
    let raw = &operation.raw();
    let is_slow = |server: &Arc<str>| operation.servers.server(server).is_ok_and(|it| it.is_slow());
    let servers = servers.iter().filter(|server| answers(operation, server) && !is_slow(server));
    let sets = &[set];
    let held = servers.map(|server| not_long(operation, server, raw.hold(server, sets)));
    let held = join_all(held).await;
    if held.iter().any(Option::is_none) {
        is_late.store(true, Ordering::Relaxed);
    }
    let answers = held.into_iter().flatten().flatten().flatten();
    answers.filter(|answer| answer.status.is_success()).map(|answer| answer.detail).sum()
}

/// Holds the set again and again until the reader ends. What is under way then is
/// seen through, so that it reaches the servers before the release does, but for those
/// that are not waited for: they are told twice.
async fn renew(
    core: Weak<Core>,
    servers: Vec<Arc<str>>,
    set: SetId,
    gate: Arc<tokio::sync::Mutex<()>>,
    is_late: Arc<AtomicBool>,
    mut ended: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            biased;
            _ = &mut ended => return,
            () = sleep(RENEW_EVERY) => {}
        }
        let Some(core) = core.upgrade() else { return };
        let _under_way = gate.lock().await;
        if core.holds.is_unread(set) {
            return;
        }
        hold_all(&Operation::background(&core), &servers, set, &is_late).await;
    }
}

/// Releases the set on all of the servers at once; returns those that did not
/// answer in time. One that is no member any more has no session to keep.
async fn release_once(core: &Arc<Core>, servers: Vec<Arc<str>>, set: SetId) -> Vec<Arc<str>> {
    let raw = &Operation::background(core).raw();
    let members = servers.into_iter().filter(|server| core.servers.server(server).is_ok());
    let each = members.map(|server| async move {
        let sets = [set];
        let answer = timeout(RELEASE_PATIENCE, raw.release(&server, &sets)).await;
        let is_done = answer.is_ok_and(|mut answers| answers.remove(0).is_ok());
        (!is_done).then_some(server)
    });
    join_all(each).await.into_iter().flatten().collect()
}

/// Releases the set, unless somebody begins to read it meanwhile. A server that
/// is cut off may answer this client again much later, and has the hold still: it
/// is asked until then. It keeps nobody waiting: the gate is free between two
/// attempts, and only the first one keeps the client alive.
async fn release_all(
    core: Arc<Core>,
    gate: Arc<tokio::sync::Mutex<()>>,
    mut servers: Vec<Arc<str>>,
    set: SetId,
    mut once_more: Option<Vec<Arc<str>>>,
    mut is_first: Option<OwnedRwLockReadGuard<()>>,
) {
    let (mut pause, longest) = RELEASE_AGAIN;
    let (client, mut first) = (Arc::downgrade(&core), Some(core));
    loop {
        let under_way = gate.lock().await;
        let Some(core) = first.take().or_else(|| client.upgrade()) else { return };
        // Whoever begins to read from here on waits at the gate, and holds the
        // set anew; the last of them releases it.
        if core.holds.is_unread(set) {
            servers = release_once(&core, servers, set).await;
        }
        is_first.take();
        let is_unread = core.holds.is_unread(set);
        match once_more.take_if(|_| is_unread && servers.is_empty()) {
            Some(all) => {
                drop((under_way, core));
                sleep(SECOND_RELEASE).await;
                servers = all;
            }
            None if servers.is_empty() || !is_unread => return core.holds.end_release(set),
            None => {
                drop((under_way, core));
                sleep(pause).await;
                pause = longest.min(pause * 2);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let (servers, set) = (std::mem::take(&mut self.servers), self.set);
        let Some(gate) = core.holds.leave(set) else { return };
        let runtime = core.servers.access().runtime.clone();
        let under_way = core.cleanups.begin();
        let is_in_doubt = self.renewal.is_none() || self.is_late.load(Ordering::Relaxed);
        let once_more = is_in_doubt.then(|| servers.clone());
        runtime.spawn(release_all(core, gate, servers, set, once_more, under_way));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_reader_of_a_set_ends_it() {
        let (holds, set) = (Holds::default(), SetId([1; 16]));
        holds.join(set);
        holds.join(set);
        assert!(holds.leave(set).is_none());
        assert!(!holds.is_unread(set), "one reader is left");
        assert!(holds.leave(set).is_some());
        // A reader who comes before the release keeps the set.
        holds.join(set);
        assert!(!holds.is_unread(set));
        assert!(holds.leave(set).is_some());
        assert!(holds.is_unread(set));
        holds.end_release(set);
        assert!(holds.is_unread(set), "the first release does not end the second");
        holds.end_release(set);
        assert!(!holds.is_unread(set) && holds.table().is_empty());
    }
}
