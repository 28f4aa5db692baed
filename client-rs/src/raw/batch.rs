//! Batches: rows grouped by server, servers in parallel, rows that surely had
//! no effect sent again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rampuddle_protocol::{Opcode, Row};

use super::RawClient;
use super::pipeline::{AnswerRow, Interrupted, Prepared, Reply, exchange};
use crate::connection::changes_values;
use crate::error::{Error, Fate};
use crate::retry::Attempts;
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
        let mut done = Vec::with_capacity(rows.len());
        if rows.is_empty() {
            return done;
        }
        let mut attempts = self.core.retries.first_attempt();
        let is_known_dead = server.is_unreachable();
        while !rows.is_empty() {
            let attempt = self.attempt(server, opcode, &mut rows, &mut attempts);
            let (replies, interrupted) = attempt.await;
            let Some(Interrupted { error, open }) = interrupted else {
                done.extend(answered(&rows, replies));
                break;
            };
            let mut left = Vec::new();
            for (position, (row, reply)) in rows.into_iter().zip(replies).enumerate() {
                let fate = open.iter().find(|(range, _)| range.contains(&position));
                let fate = fate.map_or(Fate::NotSent, |(_, fate)| *fate);
                match reply {
                    Some(reply) => done.push((row.index, Ok(reply))),
                    None if fate == Fate::NotSent => left.push(row),
                    None => done.push((row.index, Err(error.clone().with_fate(fate)))),
                }
            }
            let again = !left.is_empty()
                && !is_known_dead
                && error.is_transient()
                && self.may_send_again(server, &mut attempts, Duration::ZERO).await;
            if !again {
                let error = error.with_fate(Fate::NotSent);
                done.extend(left.into_iter().map(|row| (row.index, Err(error.clone()))));
                break;
            }
            rows = left;
        }
        done
    }

    async fn attempt<R: Row + Send + Sync, A: AnswerRow + Send>(
        &self,
        server: &Arc<Server>,
        opcode: Opcode,
        rows: &mut [Prepared<'_, R>],
        attempts: &mut Attempts,
    ) -> (Vec<Option<Reply<A>>>, Option<Interrupted>) {
        let mut replies: Vec<Option<Reply<A>>> = rows.iter().map(|_| None).collect();
        let weight = rows.iter().map(Prepared::weight).fold(0, u64::saturating_add);
        let class = Class::of(weight);
        let mut lease = match self.acquire_for_attempt(server, class, attempts).await {
            Ok(lease) => lease,
            Err(error) => return (replies, Some(Interrupted { error, open: Vec::new() })),
        };
        let buffers = &self.core.servers.access().buffers;
        let mut take = |position: usize, reply| replies[position] = Some(reply);
        let outcome = exchange(&mut lease, buffers, opcode, rows, &mut take).await;
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

#[cfg(test)]
mod tests {
    use crate::client::Client;
    use crate::options::Options;
    use crate::raw::{GatherItem, Target};
    use crate::support::FakeServer;

    #[tokio::test]
    async fn calls_that_are_not_sent_earn_no_retries() {
        let server = FakeServer::start("a").await;
        let url = format!("static:{}", server.entry());
        let client = Client::connect(Options::new(url)).await.unwrap();
        let gather = async || {
            let items = vec![GatherItem::new("k", 0, 1)];
            client.raw().gather(&Target::Placement, items).await.remove(0)
        };
        gather().await.unwrap();
        server.stop().await;
        gather().await.unwrap_err();
        let retries = &client.core().retries;
        while retries.try_spend() {}
        for _ in 0..100 {
            gather().await.unwrap_err();
        }
        assert!(!retries.try_spend(), "the server is known to be dead: nothing was sent");
    }
}
