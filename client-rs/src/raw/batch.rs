//! Batches: rows grouped by server, servers in parallel, rows that surely had
//! no effect sent again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::join_all;
use rampuddle_protocol::{Opcode, Row};
use tokio::time::{Instant, sleep};

use super::RawClient;
use super::pipeline::{AnswerRow, Interrupted, Prepared, Reply, exchange};
use crate::connection::changes_values;
use crate::error::{Error, Fate};
use crate::retry::{ATTEMPTS_MAX, backoff};
use crate::server::{Class, Server};

/// Results by the caller's order, filled in as they come.
pub(crate) struct Results<T>(Vec<Option<Result<T, Error>>>);

impl<T> Results<T> {
    pub(crate) fn new(items: usize) -> Self {
        Self((0..items).map(|_| None).collect())
    }

    pub(crate) fn set(&mut self, index: usize, result: Result<T, Error>) {
        self.0[index] = Some(result);
    }

    pub(crate) fn finish(self) -> Vec<Result<T, Error>> {
        let answered = |result: Option<_>| result.expect("every item is refused, sent or failed");
        self.0.into_iter().map(answered).collect()
    }
}

/// Items by the server that they go to.
pub(crate) type Groups<T> = BTreeMap<Arc<str>, Vec<(usize, T)>>;

/// Works on all groups at once, and puts together what each returns.
pub(crate) async fn in_parallel<T, A, F>(
    groups: Groups<T>,
    results: &mut Results<A>,
    work: impl Fn(Arc<str>, Vec<(usize, T)>) -> F,
) where
    F: Future<Output = Vec<(usize, Result<A, Error>)>>,
{
    let all = join_all(groups.into_iter().map(|(server, items)| work(server, items))).await;
    for (index, result) in all.into_iter().flatten() {
        results.set(index, result);
    }
}

impl RawClient {
    /// Sends rows to one server and returns their answers in the rows' order.
    /// Rows that surely had no effect, and all rows of reads, are sent again
    /// when the connection broke, as far as the client's budget goes.
    pub(crate) async fn send_rows<R: Row + Send + Sync, A: AnswerRow + Send>(
        &self,
        server: &Arc<Server>,
        opcode: Opcode,
        mut rows: Vec<Prepared<'_, R>>,
    ) -> Vec<(usize, Result<Reply<A>, Error>)> {
        let deadline = self.deadline_from_now();
        let mut done = Vec::with_capacity(rows.len());
        let mut attempt = 0;
        while !rows.is_empty() {
            attempt += 1;
            let (replies, interrupted) = self.attempt(server, opcode, &mut rows, deadline).await;
            let Some(Interrupted { error, open }) = interrupted else {
                done.extend(answered(&rows, replies));
                break;
            };
            let again = attempt < ATTEMPTS_MAX && self.may_retry(&error);
            let mut left = Vec::new();
            for (position, (row, reply)) in rows.into_iter().zip(replies).enumerate() {
                let fate = open.iter().find(|(range, _)| range.contains(&position));
                let fate = fate.map_or(Fate::NotSent, |(_, fate)| *fate);
                match reply {
                    Some(reply) => done.push((row.index, Ok(reply))),
                    None if again && fate == Fate::NotSent => left.push(row),
                    None => done.push((row.index, Err(error.clone().with_fate(fate)))),
                }
            }
            rows = left;
            if !rows.is_empty() {
                sleep(backoff(self.environment(), attempt)).await;
            }
        }
        done
    }

    /// Whether a request that had no effect may be sent again; takes from the budget.
    pub(crate) fn may_retry(&self, error: &Error) -> bool {
        error.is_transient() && self.core.retries.try_spend()
    }

    async fn attempt<R: Row + Send + Sync, A: AnswerRow + Send>(
        &self,
        server: &Arc<Server>,
        opcode: Opcode,
        rows: &mut [Prepared<'_, R>],
        deadline: Option<Instant>,
    ) -> (Vec<Option<Reply<A>>>, Option<Interrupted>) {
        let mut replies: Vec<Option<Reply<A>>> = rows.iter().map(|_| None).collect();
        let weight = rows.iter().map(Prepared::weight).fold(0, u64::saturating_add);
        let mut lease = match server.acquire(Class::of(weight), deadline).await {
            Ok(lease) => lease,
            Err(error) => return (replies, Some(Interrupted { error, open: Vec::new() })),
        };
        let mut take = |position: usize, reply| replies[position] = Some(reply);
        let outcome = exchange(&mut lease, opcode, rows, &mut take).await;
        match outcome {
            Ok(()) => lease.finish(),
            Err(interrupted) => {
                debug_assert!(changes_values(opcode) || interrupted.open.iter().all(is_not_sent));
                return (replies, Some(interrupted));
            }
        }
        (replies, None)
    }
}

fn is_not_sent<T>((_, fate): &(T, Fate)) -> bool {
    *fate == Fate::NotSent
}

fn answered<R, A>(
    rows: &[Prepared<'_, R>],
    replies: Vec<Option<Reply<A>>>,
) -> impl Iterator<Item = (usize, Result<Reply<A>, Error>)> {
    let indices: Vec<usize> = rows.iter().map(|row| row.index).collect();
    let replies = replies.into_iter().map(|reply| reply.expect("the exchange answered every row"));
    indices.into_iter().zip(replies.map(Ok))
}
