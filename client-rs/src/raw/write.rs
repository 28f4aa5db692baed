//! Scatter, Delete, Drop.

use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::{DeleteRow, DropRow, Opcode, Outcome, Row, ScatterRow, Status};

use super::batch::{Results, in_parallel};
use super::pipeline::{Prepared, Reply};
use super::{Answer, Answered, DeleteItem, DropItem, RawClient, ScatterItem, Target};
use crate::error::{Error, Fate};
use crate::placement::Slot;
use crate::server::Server;
use crate::work::Work;

impl RawClient {
    /// Writes into values. Not atomic: who reads at the same time may see some of
    /// the bytes; of an item that failed, any part may be written. What lies
    /// behind a value's end is cut.
    ///
    /// # Errors
    /// Per item: keys of impossible length or of objects, failures of servers.
    pub async fn scatter(
        &self,
        target: &Target,
        items: Vec<ScatterItem>,
    ) -> Vec<Result<Answer, Error>> {
        let call = &self.begun(target);
        let mut results = Results::new(items.len());
        let key_of = key_of(|item: &ScatterItem| (&item.key, item.placement_bytes));
        let check = |item: &ScatterItem| call.check_writable(&item.key);
        let groups = call.grouped(target, items, &mut results, key_of, check);
        in_parallel(groups, &mut results, |server, items| call.scatter_on(server, items)).await;
        results.finish()
    }

    /// Deletes keys. Leaves a tombstone of the delete's version, even where
    /// nothing was. Versions are drawn unless given, once more when the server
    /// says that the clock is ahead.
    ///
    /// # Errors
    /// Per item: keys of impossible length or of objects, failures of servers.
    pub async fn delete(
        &self,
        target: &Target,
        items: Vec<DeleteItem>,
    ) -> Vec<Result<Answer, Error>> {
        let call = &self.begun(target);
        let mut results = Results::new(items.len());
        let key_of = key_of(|item: &DeleteItem| (&item.key, item.placement_bytes));
        let check = |item: &DeleteItem| call.check_writable(&item.key);
        let groups = call.grouped(target, items, &mut results, key_of, check);
        in_parallel(groups, &mut results, |server, items| async move {
            let drawn = |item: &DeleteItem| item.version.is_none();
            call.redrawn(&server, items, drawn, |items| call.delete_on(&server, items)).await
        })
        .await;
        results.finish()
    }

    /// Removes exact versions from servers, without tombstones.
    ///
    /// # Errors
    /// Per item: keys of impossible length or of objects, failures of servers.
    pub async fn drop_version(
        &self,
        target: &Target,
        items: Vec<DropItem>,
    ) -> Vec<Result<Answer, Error>> {
        let call = &self.begun(target);
        let mut results = Results::new(items.len());
        let key_of = key_of(|item: &DropItem| (&item.key, item.placement_bytes));
        let check = |item: &DropItem| call.check_writable(&item.key);
        let groups = call.grouped(target, items, &mut results, key_of, check);
        in_parallel(groups, &mut results, |server, items| async move {
            let row = |version| DropRow { version, ..DropRow::default() };
            let rows = items.into_iter();
            let rows = rows.map(|(index, item)| (index, row(item.version), item.key)).collect();
            call.simple_on(server, Opcode::Drop, rows).await
        })
        .await;
        results.finish()
    }

    fn scatter_on<'a>(
        &'a self,
        name: Arc<str>,
        items: Vec<(usize, ScatterItem)>,
    ) -> Work<'a, Answered> {
        Box::pin(async move {
            let (server, grants) = match self.granted(&name).await {
                Ok(both) => both,
                Err(error) => return failed(items.iter().map(|(index, _)| *index), &error),
            };
            let piece = usize::try_from(grants.payload_bytes).unwrap_or(usize::MAX);
            let rows = items.iter().flat_map(|(index, item)| pieces(*index, item, piece)).collect();
            let replies =
                self.send_rows::<ScatterRow, Outcome>(&server, Opcode::Scatter, rows).await;
            let mut replies: Vec<_> = self.answers(replies).collect();
            // A retry may have answered later pieces last.
            replies.sort_by_key(|(index, _)| *index);
            replies.into_iter().fold(Vec::new(), |mut merged: Answered, (index, next)| {
                match merged.last_mut().filter(|(last, _)| *last == index) {
                    Some((_, whole)) => merge(whole, next),
                    None => merged.push((index, next)),
                }
                merged
            })
        })
    }

    fn delete_on<'a>(
        &'a self,
        name: &'a Arc<str>,
        items: Vec<(usize, DeleteItem)>,
    ) -> Work<'a, Answered> {
        Box::pin(async move {
            // A version may only be drawn when the clock was compared with the server's.
            if let Err(error) = self.granted(name).await {
                return failed(items.iter().map(|(index, _)| *index), &error);
            }
            let rows =
                items.into_iter().map(|(index, item)| (index, self.delete_row(&item), item.key));
            let rows: Vec<_> = rows.collect();
            let versions = rows.iter().map(|(_, row, _)| row.version).collect();
            let mut done = self.simple_on(Arc::clone(name), Opcode::Delete, rows).await;
            done.sort_unstable_by_key(|(index, _)| *index);
            self.note_sent(&mut done, versions);
            done
        })
    }

    fn delete_row(&self, item: &DeleteItem) -> DeleteRow {
        let has_version = !item.version.is_none();
        DeleteRow {
            placement_bytes: item.placement_bytes,
            version: if has_version { item.version } else { self.core.clocks().draw() },
            if_version: item.if_version,
            slot: Slot::of(&item.key, item.placement_bytes).0,
            tenant: item.tenant,
            ..DeleteRow::default()
        }
    }

    /// Rows without payload either way, to one server.
    pub(crate) async fn simple_on<R: Row + Send + Sync>(
        &self,
        name: Arc<str>,
        opcode: Opcode,
        rows: Vec<(usize, R, Bytes)>,
    ) -> Answered {
        let server: Arc<Server> = match self.server(&name) {
            Ok(server) => server,
            Err(error) => return failed(rows.iter().map(|(index, ..)| *index), &error),
        };
        let rows = rows.into_iter().map(|(index, row, key)| Prepared::new(index, row, key));
        let replies = self.send_rows::<R, Outcome>(&server, opcode, rows.collect()).await;
        self.answers(replies).collect()
    }

    /// Turns replies into answers, and learns their versions.
    pub(crate) fn answers(
        &self,
        replies: Vec<(usize, Result<Reply<Outcome>, Error>)>,
    ) -> impl Iterator<Item = (usize, Result<Answer, Error>)> {
        replies.into_iter().map(|(index, reply)| {
            let answer = reply.map(|reply| match reply {
                Reply::Row { row, tag, bytes, .. } => Answer::from_outcome(&row, &tag, bytes),
                Reply::Refused(status) => Answer::of(status),
            });
            (index, answer.inspect(|answer| self.observe(answer)))
        })
    }

    pub(crate) fn observe(&self, answer: &Answer) {
        self.core.clocks().observe(answer.version);
    }
}

/// The same result for all items of a server.
pub(super) fn failed<T>(
    indices: impl Iterator<Item = usize>,
    error: &Error,
) -> Vec<(usize, Result<T, Error>)> {
    indices.map(|index| (index, Err(error.clone()))).collect()
}

/// Ties the lifetime of the key to its item, which a closure alone cannot say.
pub(super) fn key_of<T>(key_of: impl Fn(&T) -> (&Bytes, u16)) -> impl Fn(&T) -> (&Bytes, u16) {
    key_of
}

fn pieces(
    index: usize,
    item: &ScatterItem,
    piece: usize,
) -> impl Iterator<Item = Prepared<'static, ScatterRow>> {
    let length = item.bytes.len();
    // An item without bytes still asks whether the value is there.
    let starts = (0..length.max(1)).step_by(piece);
    starts.map(move |start| {
        let payload = item.bytes.slice(start..length.min(start.saturating_add(piece)));
        let row = ScatterRow {
            offset: item.offset.saturating_add(start as u64),
            value_bytes: payload.len() as u64,
            if_version: item.if_version,
            ..ScatterRow::default()
        };
        Prepared { payload, ..Prepared::new(index, row, item.key.clone()) }
    })
}

/// Adds the answer of a later piece: the first refusal counts, and a failure may
/// have been applied once any piece was.
fn merge(whole: &mut Result<Answer, Error>, next: Result<Answer, Error>) {
    match (&mut *whole, next) {
        (Err(_), _) => {}
        (Ok(_), Err(error)) => *whole = Err(error.with_fate(Fate::MaybeApplied)),
        (Ok(sum), Ok(next)) if sum.status == Status::Ok => {
            let length = sum.length + next.length;
            *sum = Answer { length, ..next };
        }
        (Ok(_), Ok(_)) => {}
    }
}
