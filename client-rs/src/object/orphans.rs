//! Stripes that belong to no object: memory that nobody can use.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{RowFlags, SetId};
use tokio::time::sleep;

use super::format::{HEAD_KIND, STRIPE_KIND, stripe_key};
use super::list::page;
use super::observed::observed;
use super::operation::Operation;
use crate::client::Client;
use crate::error::Error;
use crate::metrics::OperationKind;
use crate::raw::{ListQuery, StatAnswer};
use crate::work::Work;

/// Uploads that are kept in memory at once, of all servers together.
const UPLOADS_AT_ONCE: usize = 1 << 20;
/// Stripes of an object that was just replaced or deleted vanish a moment later:
/// what is still there after all these pauses stays.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Stripes of no head.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Orphans {
    /// Uploads that they are of.
    pub uploads: u64,
    /// Copies of stripes.
    pub copies: u64,
    /// Bytes of all copies.
    pub bytes: u64,
    /// Copies of stripes with a lease that no head names: puts under way, or that
    /// were given up, have made them. They are no orphans: they end by themselves.
    pub leased_copies: u64,
    /// Servers that gave no answer: their stripes are not counted, and some of
    /// those counted may belong to heads that only they have.
    pub unreachable: Vec<String>,
}

type Uploads = BTreeMap<SetId, Copies>;

/// Copies of an upload's stripes.
#[derive(Debug, Default, Clone, Copy)]
struct Copies {
    /// Those without a lease, and their bytes.
    staying: u64,
    bytes: u64,
    /// Those with one.
    leased: u64,
}

impl Client {
    /// Finds stripes without a lease that no head names: what is left of objects
    /// whose removal a server missed. Lists all stripes and all heads, reads none.
    /// Keeps about a million uploads in memory at once, and lists the heads once
    /// for each million that there are. Takes seven seconds longer when it finds
    /// any, to be sure. [`Options::deadline`](crate::Options::deadline) does not hold
    /// for it.
    ///
    /// # Errors
    /// When no server at all gives an answer.
    pub async fn orphans(&self) -> Result<Orphans, Error> {
        observed(self.core(), OperationKind::Orphans, b"", self.find_orphans()).await
    }

    fn find_orphans<'a>(&'a self) -> Work<'a, Result<Orphans, Error>> {
        Box::pin(async move {
            let operation = &Operation::background(self.core());
            let view = self.view();
            let members = view.members().iter().filter(|member| member.state.is_read_from());
            let mut search = Search {
                operation,
                servers: members.map(|member| Arc::clone(&member.name)).collect(),
                orphans: Orphans::default(),
                error: None,
            };
            let mut begin = Some(SetId::default());
            while let Some(from) = begin {
                let (mut uploads, end) = search.stripes(from, None).await;
                search.forget_named(&mut uploads).await;
                search.orphans.leased_copies +=
                    uploads.values().map(|copies| copies.leased).sum::<u64>();
                uploads.retain(|_, copies| copies.staying > 0);
                for pause in PAUSES {
                    if !uploads.is_empty() {
                        sleep(pause).await;
                        let (still, _) = search.stripes(from, end).await;
                        let stays = |upload: &SetId| {
                            still.get(upload).is_some_and(|copies| copies.staying > 0)
                        };
                        uploads.retain(|upload, _| stays(upload));
                    }
                }
                search.count(&uploads);
                begin = end;
            }
            match search.error {
                Some(error) if search.servers.is_empty() => Err(error),
                _ => Ok(search.orphans),
            }
        })
    }
}

impl Copies {
    fn note(&mut self, entry: &StatAnswer) {
        if entry.row.lease_ms > 0 {
            self.leased += 1;
        } else {
            self.staying += 1;
            self.bytes += entry.row.length;
        }
    }

    fn add(&mut self, other: Self) {
        self.staying += other.staying;
        self.bytes += other.bytes;
        self.leased += other.leased;
    }
}

struct Search<'s> {
    operation: &'s Operation,
    /// Those that answered so far.
    servers: Vec<Arc<str>>,
    orphans: Orphans,
    /// Why the last server that did not answer did not.
    error: Option<Error>,
}

impl Search<'_> {
    /// The uploads from `from` on, up to `end` or as many as are kept at once; and
    /// where to go on.
    async fn stripes(&mut self, from: SetId, end: Option<SetId>) -> (Uploads, Option<SetId>) {
        let most = (UPLOADS_AT_ONCE / self.servers.len().max(1)).max(1);
        let mut first = stripe_key(from, 0).to_vec();
        // The cursor lies before the first key wanted.
        first.truncate(17);
        let (operation, first) = (self.operation, &Bytes::from(first));
        let of_server = |server: Arc<str>| async move {
            let (mut uploads, mut next) = (Uploads::new(), None);
            let take = |entry: &StatAnswer| {
                let Some(upload) = upload_of(&entry.key) else {
                    return ControlFlow::Continue(());
                };
                let is_full = uploads.len() == most && !uploads.contains_key(&upload);
                if end.is_some_and(|end| upload >= end) || is_full {
                    next = Some(upload);
                    return ControlFlow::Break(());
                }
                uploads.entry(upload).or_default().note(entry);
                ControlFlow::Continue(())
            };
            let walked = walk(operation, &server, STRIPE_KIND, first.clone(), take).await;
            walked.map(|()| (uploads, next)).map_err(|error| (server, error))
        };
        let each = join_all(self.servers.iter().cloned().map(of_server)).await;
        let each: Vec<_> = each.into_iter().filter_map(|walked| self.answered(walked)).collect();
        let stop = each.iter().filter_map(|(_, next)| *next).min();
        let mut all = Uploads::new();
        for (upload, copies) in each.into_iter().flat_map(|(uploads, _)| uploads) {
            if stop.is_none_or(|stop| upload < stop) {
                all.entry(upload).or_default().add(copies);
            }
        }
        (all, stop)
    }

    /// Takes out what a head names, on whichever server.
    async fn forget_named(&mut self, uploads: &mut Uploads) {
        if uploads.is_empty() {
            return;
        }
        let (operation, all) = (self.operation, &*uploads);
        let each = self.servers.iter().cloned().map(|server| async move {
            let mut named = Vec::new();
            let take = |entry: &StatAnswer| {
                if all.contains_key(&entry.row.set) {
                    named.push(entry.row.set);
                }
                ControlFlow::Continue(())
            };
            let walked = walk(operation, &server, HEAD_KIND, Bytes::new(), take).await;
            walked.map(|()| named).map_err(|error| (server, error))
        });
        let each = join_all(each).await;
        for named in each.into_iter().filter_map(|walked| self.answered(walked)) {
            named.iter().for_each(|upload| _ = uploads.remove(upload));
        }
    }

    /// What a server answered; one that gave no answer is not asked again.
    fn answered<T>(&mut self, walked: Result<T, (Arc<str>, Error)>) -> Option<T> {
        match walked {
            Ok(found) => Some(found),
            Err((server, error)) => {
                self.orphans.unreachable.push(server.to_string());
                self.servers.retain(|other| *other != server);
                self.error = Some(error);
                None
            }
        }
    }

    fn count(&mut self, uploads: &Uploads) {
        self.orphans.uploads += uploads.len() as u64;
        for Copies { staying, bytes, .. } in uploads.values() {
            self.orphans.copies += staying;
            self.orphans.bytes += bytes;
        }
    }
}

/// Shows every key of a kind behind `cursor` on a server, until told to stop.
async fn walk(
    operation: &Operation,
    server: &Arc<str>,
    kind: u8,
    cursor: Bytes,
    mut take: impl FnMut(&StatAnswer) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut query = ListQuery::prefix(vec![kind]);
    query.cursor = cursor;
    loop {
        let page = page(operation, server, &query).await?;
        let values = page.entries.iter().filter(|entry| !entry.row.flags.has(RowFlags::TOMBSTONE));
        for entry in values {
            if take(entry).is_break() {
                return Ok(());
            }
        }
        match page.next {
            Some(next) => query.cursor = next,
            None => return Ok(()),
        }
    }
}

fn upload_of(key: &[u8]) -> Option<SetId> {
    Some(SetId(key.get(1..17)?.try_into().ok()?))
}
