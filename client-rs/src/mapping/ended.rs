//! Telling a server which holds have ended: ahead of the next Map, or in the background
//! where none is asked soon, and at once when it keeps too much for this process to have
//! more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rampuddle_protocol::{Header, Opcode, Outcome, Status, UnmapRow};
use tokio::sync::OwnedRwLockReadGuard;
use tokio::time::sleep;

use super::Mapping;
use crate::connection::Connection;
use crate::error::Error;
use crate::server::{Class, Server};

/// Holds of one request.
const BATCH: usize = 512;
/// Holds of one request that another waits behind.
const AHEAD: usize = 8;
/// How long holds wait for a question with which the server can be told of them.
const GRACE: Duration = Duration::from_millis(1);
/// How long until what was not answered is sent again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// When a hold is ended once more whose Map was given up: that may have reached the
/// server behind the first Unmap.
const SECOND: Duration = Duration::from_secs(15);

/// Holds that have ended, and of which the server may not know yet.
#[derive(Debug, Default)]
pub(super) struct Ended(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// Nobody tells the server of these now.
    waiting: BTreeSet<u64>,
    /// It is being told of these.
    under_way: BTreeSet<u64>,
    /// There is a task that tells it of those that wait.
    has_teller: bool,
}

impl Queue {
    /// Takes some, to tell the server of them.
    fn take(&mut self, most: usize) -> Vec<u64> {
        let holds: Vec<u64> = self.waiting.iter().take(most).copied().collect();
        for hold in &holds {
            self.waiting.remove(hold);
            self.under_way.insert(*hold);
        }
        holds
    }
}

impl Ended {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next holds of which the server may not know, whoever is telling it.
    fn next(&self) -> Vec<u64> {
        let queue = self.queue();
        queue.waiting.iter().chain(&queue.under_way).take(BATCH).copied().collect()
    }

    /// The server knows of these.
    fn forget(&self, known: impl IntoIterator<Item = u64>) {
        let mut queue = self.queue();
        for hold in known {
            queue.waiting.remove(&hold);
            queue.under_way.remove(&hold);
        }
    }
}

/// Holds of which the server is being told. Those of which it does not know in the end
/// wait again.
#[derive(Debug)]
pub(super) struct Telling {
    mapping: Weak<Mapping>,
    number: u64,
    holds: Vec<u64>,
}

impl Telling {
    /// Queues the request, and returns its id.
    pub(super) fn request(&self, connection: &mut Connection) -> u64 {
        request(connection, self.number, &self.holds)
    }

    /// Takes the answer, whose head was received.
    ///
    /// # Errors
    /// When the server broke the protocol.
    pub(super) fn answered(
        &mut self,
        connection: &mut Connection,
        header: &Header,
    ) -> Result<(), Error> {
        let left = left_of(connection, header, &self.holds)?;
        self.know_all_but(left);
        Ok(())
    }

    fn know_all_but(&mut self, left: Vec<u64>) {
        let holds = std::mem::replace(&mut self.holds, left);
        let Some(mapping) = self.mapping.upgrade() else { return };
        let mut queue = mapping.ended.queue();
        // One that waits again meanwhile is to be told once more.
        for known in holds.iter().filter(|hold| !self.holds.contains(hold)) {
            queue.under_way.remove(known);
        }
    }

    async fn over(&mut self, server: &Arc<Server>) -> Result<(), Error> {
        let mut lease = server.acquire(Class::Small, None).await?;
        self.request(&mut lease);
        lease.flush().await?;
        let header = lease.receive_head().await?;
        self.answered(&mut lease, &header)?;
        lease.finish();
        Ok(())
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        let holds = std::mem::take(&mut self.holds);
        let Some(mapping) = self.mapping.upgrade().filter(|_| !holds.is_empty()) else { return };
        let mut queue = mapping.ended.queue();
        let left = holds.into_iter().filter(|hold| queue.under_way.remove(hold));
        let left: Vec<u64> = left.collect();
        mapping.wait(&mut queue, &left);
    }
}

impl Mapping {
    /// A hold has ended, one whose Map may be on its way yet for instance.
    pub(super) fn end(self: &Arc<Self>, hold: u64, is_in_doubt: bool) {
        self.wait(&mut self.ended.queue(), &[hold]);
        let Some(server) = self.server.upgrade().filter(|_| is_in_doubt) else { return };
        let mapping = Arc::downgrade(self);
        server.access().runtime.spawn(async move {
            sleep(SECOND).await;
            let mapping = mapping.upgrade();
            mapping.iter().for_each(|mapping| mapping.end(hold, false));
        });
    }

    /// These wait until the server is told of them.
    fn wait(self: &Arc<Self>, queue: &mut Queue, holds: &[u64]) {
        // Without the client there is nobody to tell it: the mapping's own end does.
        let Some(server) = self.server.upgrade() else { return };
        queue.waiting.extend(holds);
        if !queue.waiting.is_empty() && !std::mem::replace(&mut queue.has_teller, true) {
            let under_way = server.access().cleanups.begin();
            server.access().runtime.spawn(tell(Arc::downgrade(self), under_way));
        }
    }

    /// Some that wait, for somebody who asks the server something else anyway.
    pub(super) fn take_ended(self: &Arc<Self>) -> Option<Telling> {
        let holds = self.ended.queue().take(AHEAD);
        (!holds.is_empty()).then(|| self.telling(holds))
    }

    /// The next that wait; `None` = there are none, and nobody tells any more.
    fn next_batch(self: &Arc<Self>) -> Option<Telling> {
        let mut queue = self.ended.queue();
        let holds = queue.take(BATCH);
        queue.has_teller = !holds.is_empty();
        queue.has_teller.then(|| self.telling(holds))
    }

    fn telling(self: &Arc<Self>, holds: Vec<u64>) -> Telling {
        Telling { mapping: Arc::downgrade(self), number: self.number, holds }
    }

    /// Tells the server now of all holds that it may not know of, also of those that
    /// it is being told of: once more does no harm. False = there are none.
    ///
    /// # Errors
    /// When the connection fails.
    pub(super) async fn end_now(&self, connection: &mut Connection) -> Result<bool, Error> {
        let mut has_ended = false;
        loop {
            let batch = self.ended.next();
            if batch.is_empty() {
                return Ok(has_ended);
            }
            request(connection, self.number, &batch);
            connection.flush().await?;
            let header = connection.receive_head().await?;
            let left = left_of(connection, &header, &batch)?;
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
    sleep(GRACE).await;
    loop {
        let Some(one) = mapping.upgrade() else { return };
        let Some(server) = one.server.upgrade() else { return };
        let Some(mut telling) = one.next_batch() else { return };
        let incarnation = one.incarnation;
        drop(one);
        // What was not said waits again.
        let _ = telling.over(&server).await;
        if server.greeting().is_some_and(|said| said.incarnation != incarnation) {
            telling.know_all_but(Vec::new());
        }
        drop(server);
        if telling.holds.is_empty() {
            pause = AGAIN.0;
            continue;
        }
        drop(telling);
        is_first.take();
        sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

fn request(connection: &mut Connection, mapping: u64, holds: &[u64]) -> u64 {
    let row = |hold: &u64| (UnmapRow { mapping, hold: *hold }, &b""[..], &b""[..]);
    connection.request_without_deadline(Opcode::Unmap, holds.iter().map(row), 0)
}

/// The holds that the server wants to be asked about again, by its answer.
fn left_of(connection: &mut Connection, header: &Header, holds: &[u64]) -> Result<Vec<u64>, Error> {
    // A server that refuses it all is another one, or of another version.
    if header.status != Status::Ok as u8 {
        return Ok(Vec::new());
    }
    let table = connection.table::<Outcome>()?;
    let answers = holds.iter().zip(&table);
    let busy = answers.filter(|(_, (outcome, ..))| outcome.status() == Status::Busy);
    Ok(busy.map(|(hold, _)| *hold).collect())
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::{Incarnation, SharedRow};
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;
    use crate::server::tests::access;

    /// A pool of a server that is never spoken to: in these tests nothing is awaited.
    fn mapping() -> (Arc<Server>, Arc<Mapping>) {
        let server = Arc::new(Server::new("a".into(), access(1)));
        let pool = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&pool, 4_096).unwrap();
        fcntl_add_seals(&pool, SealFlags::SHRINK | SealFlags::FUTURE_WRITE).unwrap();
        let row = SharedRow { mapping: 1, pool_bytes: 4_096 };
        let mapping = Mapping::new(&server, Incarnation([0; 16]), &row, &pool).unwrap();
        (server, Arc::new(mapping))
    }

    #[tokio::test]
    async fn what_the_server_may_not_know_in_the_end_waits_again() {
        let (_server, mapping) = mapping();
        (1..=3).for_each(|hold| mapping.end(hold, false));
        let mut telling = mapping.take_ended().unwrap();
        assert_eq!(telling.holds, [1, 2, 3]);
        assert!(mapping.take_ended().is_none(), "somebody is telling it of all");
        assert_eq!(mapping.ended.next(), [1, 2, 3], "whoever does");
        telling.know_all_but(vec![2]);
        drop(telling);
        assert_eq!(mapping.take_ended().unwrap().holds, [2]);
        // Dropped, a request that was given up for instance.
        assert_eq!(mapping.take_ended().unwrap().holds, [2]);
    }

    #[tokio::test]
    async fn a_hold_that_is_ended_once_more_meanwhile_is_told_of_once_more() {
        let (_server, mapping) = mapping();
        mapping.end(1, false);
        let mut telling = mapping.take_ended().unwrap();
        mapping.end(1, false);
        telling.know_all_but(Vec::new());
        drop(telling);
        assert_eq!(mapping.take_ended().unwrap().holds, [1]);
    }

    #[tokio::test]
    async fn few_go_ahead_of_a_question_and_many_in_a_request_of_their_own() {
        let (_server, mapping) = mapping();
        (1..=1_000).for_each(|hold| mapping.end(hold, false));
        assert_eq!(mapping.take_ended().unwrap().holds.len(), AHEAD);
        assert_eq!(mapping.next_batch().unwrap().holds.len(), BATCH);
        assert_eq!(mapping.ended.next().len(), BATCH);
    }
}
