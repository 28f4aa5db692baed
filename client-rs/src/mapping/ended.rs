//! Telling a server which holds have ended: in the background, and at once when it
//! keeps too much for this process to have more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rampuddle_protocol::{Opcode, Outcome, Status, UnmapRow};
use tokio::sync::OwnedRwLockReadGuard;
use tokio::time::sleep;

use super::Mapping;
use crate::connection::Connection;
use crate::error::Error;
use crate::server::{Class, Server};

/// Holds of one request.
const BATCH: usize = 512;
/// How long until what was not answered is sent again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// When a hold is ended once more whose Map was given up: that may have reached the
/// server behind the first Unmap.
const SECOND: Duration = Duration::from_secs(15);

/// Holds that have ended, and of which the server does not know yet.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Each is here until the server has said that it knows.
    holds: BTreeSet<u64>,
    /// Somebody is telling the server.
    is_told: bool,
}

impl Ended {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next holds to tell of.
    fn batch(&self) -> Vec<u64> {
        self.queue().holds.iter().take(BATCH).copied().collect()
    }

    /// The server knows of these.
    fn forget(&self, known: impl Iterator<Item = u64>) {
        let mut queue = self.queue();
        for hold in known {
            queue.holds.remove(&hold);
        }
    }
}

impl Mapping {
    /// A hold has ended, one whose Map may be on its way yet for instance.
    pub(super) fn end(self: &Arc<Self>, hold: u64, is_in_doubt: bool) {
        // Without the client there is nobody to tell it: the mapping's own end does.
        let Some(server) = self.server.upgrade() else { return };
        let mut queue = self.ended.queue();
        queue.holds.insert(hold);
        if !std::mem::replace(&mut queue.is_told, true) {
            let under_way = server.access().cleanups.begin();
            server.access().runtime.spawn(tell(Arc::downgrade(self), under_way));
        }
        if is_in_doubt {
            let mapping = Arc::downgrade(self);
            server.access().runtime.spawn(async move {
                sleep(SECOND).await;
                let mapping = mapping.upgrade();
                mapping.iter().for_each(|mapping| mapping.end(hold, false));
            });
        }
    }

    /// The next holds to tell of; `None` = there are none, and nobody tells any more.
    fn next_batch(&self) -> Option<Vec<u64>> {
        let mut queue = self.ended.queue();
        queue.is_told = !queue.holds.is_empty();
        queue.is_told.then(|| queue.holds.iter().take(BATCH).copied().collect())
    }

    /// Tells the server now of all holds that it may not know of, also of those that
    /// it is being told of: once more does no harm. False = there are none.
    ///
    /// # Errors
    /// When the connection fails.
    pub(super) async fn end_now(&self, connection: &mut Connection) -> Result<bool, Error> {
        let mut has_ended = false;
        loop {
            let batch = self.ended.batch();
            if batch.is_empty() {
                return Ok(has_ended);
            }
            let left = unmap(connection, self.number, &batch).await?;
            self.ended.forget(batch.into_iter().filter(|hold| !left.contains(hold)));
            has_ended = true;
            if !left.is_empty() {
                return Ok(has_ended);
            }
        }
    }
}

/// Tells the server until it knows of all. Keeps the client only for the first
/// attempt, and the mapping never: with that, all its holds end by themselves.
async fn tell(mapping: Weak<Mapping>, mut is_first: Option<OwnedRwLockReadGuard<()>>) {
    let (mut pause, longest) = AGAIN;
    loop {
        let Some(one) = mapping.upgrade() else { return };
        let Some(batch) = one.next_batch() else { return };
        let Some(server) = one.server.upgrade() else { return };
        let (number, incarnation) = (one.number, one.incarnation);
        drop(one);
        let left = match unmap_over(&server, number, &batch).await {
            Ok(left) => left,
            Err(_) => batch.clone(),
        };
        let is_gone = server.greeting().is_some_and(|said| said.incarnation != incarnation);
        drop(server);
        let is_known = |hold: &u64| is_gone || !left.contains(hold);
        if let Some(mapping) = mapping.upgrade() {
            mapping.ended.forget(batch.into_iter().filter(is_known));
        }
        if left.is_empty() || is_gone {
            pause = AGAIN.0;
            continue;
        }
        is_first.take();
        sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

async fn unmap_over(server: &Arc<Server>, mapping: u64, holds: &[u64]) -> Result<Vec<u64>, Error> {
    let mut lease = server.acquire(Class::Small, None).await?;
    let left = unmap(&mut lease, mapping, holds).await?;
    lease.finish();
    Ok(left)
}

/// Ends holds; returns those that the server wants to be asked about again.
async fn unmap(
    connection: &mut Connection,
    mapping: u64,
    holds: &[u64],
) -> Result<Vec<u64>, Error> {
    let row = |hold: &u64| (UnmapRow { mapping, hold: *hold }, &b""[..], &b""[..]);
    connection.request(Opcode::Unmap, holds.iter().map(row), 0);
    connection.flush().await?;
    let header = connection.receive_head().await?;
    // A server that refuses it all is another one, or of another version.
    if header.status != Status::Ok as u8 {
        return Ok(Vec::new());
    }
    let table = connection.table::<Outcome>()?;
    let answers = holds.iter().zip(&table);
    let busy = answers.filter(|(_, (outcome, ..))| outcome.status() == Status::Busy);
    Ok(busy.map(|(hold, _)| *hold).collect())
}
