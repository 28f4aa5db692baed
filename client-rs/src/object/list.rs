//! Listing objects: every server's heads, merged by name.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{RowFlags, Version};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::format::{Tag, head_key};
use super::head::stat_of;
use super::observed::{Observation, outcome_of};
use super::operation::Operation;
use super::report::ObjectStat;
use crate::client::Client;
use crate::error::Error;
use crate::metrics::{OperationKind, OperationOutcome};
use crate::raw::{ListPage, ListQuery, StatAnswer};
use crate::view::View;
use crate::work::Work;

/// The objects whose names begin with a prefix, in the order of their names.
#[derive(Debug)]
pub struct Listing {
    operation: Operation,
    view: Arc<View>,
    is_of_young_registry: bool,
    observation: Observation,
    prefix: Bytes,
    sources: Vec<ServerHeads>,
    unreachable: Vec<String>,
    unreadable: Unreadable,
}

/// Objects that are there and cannot be described by this client: their heads
/// are of a later format or damaged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreadable {
    /// How many there were.
    pub count: u64,
    /// The first: its name, and why.
    pub first: Option<(Vec<u8>, String)>,
}

/// One server's heads, page by page.
#[derive(Debug)]
struct ServerHeads {
    server: Arc<str>,
    heads: VecDeque<Listed>,
    /// Where to go on; `None` = at the end.
    cursor: Option<Bytes>,
}

/// A head or a delete, as one server lists it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) key: Bytes,
    version: Version,
    what: What,
}

#[derive(Debug)]
enum What {
    Delete,
    /// Why not.
    Unreadable(&'static str),
    /// With its tag; whether it is never evicted, and when it ends.
    Object {
        tag: Tag,
        keep: bool,
        ends_ms: Option<u64>,
    },
}

impl Client {
    /// Lists the objects whose names begin with `prefix`. With
    /// [`Options::deadline`](crate::Options::deadline) the whole listing must be
    /// done so long after this.
    pub fn list(&self, prefix: &[u8]) -> Listing {
        self.list_for(OperationKind::List, Operation::begin(self.core()), prefix)
    }

    /// A listing that is a part of such an operation, and counted as that.
    pub(super) fn list_for(
        &self,
        kind: OperationKind,
        operation: Operation,
        prefix: &[u8],
    ) -> Listing {
        let view = self.view();
        let members = view.members().iter().filter(|member| member.state.is_read_from());
        let begin = |name: &Arc<str>| ServerHeads {
            server: Arc::clone(name),
            heads: VecDeque::new(),
            cursor: Some(Bytes::new()),
        };
        let sources = members.map(|member| begin(&member.name)).collect();
        let is_of_young_registry = view.is_young(self.core().clocks().now_ms());
        Listing {
            operation,
            view,
            is_of_young_registry,
            observation: Observation::begin(self.core(), kind, prefix),
            prefix: head_key(prefix),
            sources,
            unreachable: Vec::new(),
            unreadable: Unreadable::default(),
        }
    }
}

impl Listing {
    /// The next object; `None` at the end. Servers that give no answer are
    /// passed over and named by [`Listing::unreachable`], objects that cannot be
    /// described are counted by [`Listing::unreadable`]: with either the listing
    /// is not complete, nor with [`Listing::is_of_young_registry`].
    ///
    /// # Errors
    /// When no server at all gives an answer.
    pub async fn next(&mut self) -> Option<Result<ObjectStat, Error>> {
        let (span, begin) = (self.span(), Instant::now());
        let next = self.next_object().instrument(span).await;
        self.observe(begin.elapsed(), &next);
        next
    }

    /// In which the work of its operation goes on.
    pub(super) fn span(&self) -> Span {
        self.observation.span()
    }

    /// Notes that its operation took so long for the next item.
    pub(super) fn observe<T>(&mut self, took: Duration, next: &Option<Result<T, Error>>) {
        self.observation.worked(took);
        let is_complete =
            self.unreachable.is_empty() && self.unreadable.count == 0 && !self.is_of_young_registry;
        match next {
            Some(Ok(_)) => {}
            Some(Err(error)) => self.observation.end(outcome_of(error), None),
            None if is_complete => self.observation.end(OperationOutcome::Done, None),
            None => self.observation.end(OperationOutcome::Short, None),
        }
    }

    async fn next_object(&mut self) -> Option<Result<ObjectStat, Error>> {
        loop {
            match self.next_listed().await? {
                Err(error) => return Some(Err(error)),
                Ok(Listed { key, what: What::Object { tag, keep, ends_ms }, .. }) => {
                    let of_tag = stat_of(&key[1..], &tag, keep);
                    return Some(Ok(ObjectStat { expires_unix_ms: ends_ms, ..of_tag }));
                }
                Ok(Listed { key, what: What::Unreadable(why), .. }) => {
                    self.unreadable.add(&key[1..], why);
                }
                Ok(Listed { what: What::Delete, .. }) => {}
            }
        }
    }

    /// The next name, whatever is known of it.
    pub(super) async fn next_listed(&mut self) -> Option<Result<Listed, Error>> {
        if self.sources.iter().any(ServerHeads::is_empty)
            && let Err(error) = self.refill().await
        {
            return Some(Err(error));
        }
        let heads = self.sources.iter().filter_map(|source| source.heads.front());
        let key = heads.map(|listed| listed.key.clone()).min()?;
        let mut greatest: Option<Listed> = None;
        for source in &mut self.sources {
            let listed = source.heads.pop_front_if(|listed| listed.key == key);
            let Some(listed) = listed else { continue };
            if greatest.as_ref().is_none_or(|best| listed.rank() > best.rank()) {
                greatest = Some(listed);
            }
        }
        greatest.map(Ok)
    }

    /// Servers that gave no answer so far: their objects may be missing.
    pub fn unreachable(&self) -> &[String] {
        &self.unreachable
    }

    /// Objects so far that are there and were left out.
    pub fn unreadable(&self) -> &Unreadable {
        &self.unreadable
    }

    /// Whether the cluster's registry was younger than 10 s when the listing began, so that
    /// it may have been wiped, or gave no answer yet, so that the client's view was one that
    /// it had kept: the objects of servers that are missing there are missing.
    pub fn is_of_young_registry(&self) -> bool {
        self.is_of_young_registry
    }

    /// Asks every server that has no head left, and is not at its end, for more.
    fn refill<'a>(&'a mut self) -> Work<'a, Result<(), Error>> {
        Box::pin(async move {
            while self.sources.iter().any(ServerHeads::is_empty) {
                let (operation, prefix, sources) =
                    (&self.operation, &self.prefix, &mut self.sources);
                let empty = sources.iter_mut().filter(|source| source.is_empty());
                let failed = join_all(empty.map(|source| source.fetch(operation, prefix))).await;
                // The first answers correct the clock that this began with.
                self.is_of_young_registry |= self.view.is_young(self.operation.clocks().now_ms());
                let failed: Vec<(Arc<str>, Error)> = failed.into_iter().flatten().collect();
                self.unreachable.extend(failed.iter().map(|(server, _)| server.to_string()));
                self.sources
                    .retain(|source| failed.iter().all(|(server, _)| *server != source.server));
                if let (true, Some((_, error))) =
                    (self.sources.is_empty(), failed.into_iter().next())
                {
                    return Err(error);
                }
            }
            Ok(())
        })
    }
}

impl Unreadable {
    fn add(&mut self, name: &[u8], why: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| (name.to_vec(), why.to_owned()));
    }
}

impl ServerHeads {
    /// Whether to ask for more: no head is left, and it is not at its end.
    fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.cursor.is_some()
    }

    async fn fetch(&mut self, operation: &Operation, prefix: &Bytes) -> Option<(Arc<str>, Error)> {
        let mut query = ListQuery::prefix(prefix.clone());
        // It stays while the answer is waited for: a caller may give that up.
        query.cursor = self.cursor.clone().unwrap_or_default();
        query.tombstones = true;
        match page(operation, &self.server, &query).await {
            Ok(page) => {
                let now_ms = operation.clocks().now_ms();
                let entries = page.entries.into_iter();
                self.heads.extend(entries.map(|entry| Listed::of(entry, now_ms)));
                self.cursor = page.next;
                None
            }
            Err(error) => Some((Arc::clone(&self.server), error)),
        }
    }
}

/// One page of a server's heads. Asked for again when the connection broke:
/// nothing depends on how often.
pub(super) async fn page(
    operation: &Operation,
    server: &Arc<str>,
    query: &ListQuery,
) -> Result<ListPage, Error> {
    let raw = operation.raw();
    let mut attempts = operation.retries.first_attempt();
    loop {
        let error = match raw.list_attempt(server, query, &mut attempts).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        if !error.is_transient() || !operation.again(&mut attempts).await {
            return Err(error);
        }
    }
}

impl Listed {
    fn of(entry: StatAnswer, now_ms: u64) -> Self {
        let version = entry.row.version;
        let what = if entry.row.flags.has(RowFlags::TOMBSTONE) {
            What::Delete
        } else {
            match Tag::decode(&entry.key, &entry.tag) {
                Ok(tag) if tag.version == version => {
                    let keep = entry.row.flags.has(RowFlags::KEEP);
                    let lease_ms = Some(entry.row.lease_ms).filter(|lease| tag.ends && *lease > 0);
                    let ends_ms = lease_ms.map(|lease_ms| now_ms.saturating_add(lease_ms));
                    What::Object { tag, keep, ends_ms }
                }
                Ok(_) => What::Unreadable("its version is not that of its tag"),
                Err(why) => What::Unreadable(why),
            }
        };
        Self { key: entry.key, version, what }
    }

    /// Whether the name is deleted, as far as this server knows.
    pub(super) fn is_delete(&self) -> bool {
        matches!(self.what, What::Delete)
    }

    /// The greatest version counts; of one version a delete wins, and a copy that
    /// can be read before one that cannot.
    fn rank(&self) -> (Version, u8) {
        let of_kind = match self.what {
            What::Unreadable(_) => 0,
            What::Object { .. } => 1,
            What::Delete => 2,
        };
        (self.version, of_kind)
    }
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::{SetId, crc32c};

    use super::*;
    use crate::object::Codec;
    use crate::options::Options;
    use crate::raw::{CreateItem, Target};
    use crate::support::FakeServer;

    /// The tag of a head, changed by `change` and sealed again.
    fn tag(key: &[u8], version: Version, change: impl Fn(&mut [u8])) -> Bytes {
        let tag = Tag {
            replicas: 1,
            codec: Codec::None,
            stripe_bytes: 0,
            object_bytes: 3,
            upload: SetId([1; 16]),
            version,
            variable_bytes: 0,
            crc32c: 0,
            inline_stored_bytes: 0,
            ends: false,
        };
        let mut bytes = tag.encode(key);
        change(&mut bytes);
        let crc = crc32c(&[key, &bytes[..60]].concat());
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        Bytes::copy_from_slice(&bytes)
    }

    #[tokio::test]
    async fn heads_of_a_later_format_are_counted_where_no_greater_version_hides_them() {
        let (one, other) = (FakeServer::start("a").await, FakeServer::start("b").await);
        let url = format!("static:{},{}", one.entry(), other.entry());
        let client = Client::connect(Options::new(url)).await.unwrap();
        let raw = Operation::begin(client.core()).raw();
        let put = async |server: &'static str, name: &'static str, time: u64, format: u8| {
            let (key, version) = (head_key(name.as_bytes()), Version { time, writer: 1 });
            let mut item = CreateItem::new(key.clone(), "abc");
            item.tag = tag(&key, version, |tag| tag[0] = format);
            item.version = version;
            raw.create(&Target::server(server), vec![item]).await.remove(0).unwrap();
        };
        put("a", "known", 1, 1).await;
        put("a", "later", 2, 2).await;
        // Two copies are one object.
        put("b", "later", 2, 2).await;
        put("a", "mended", 1, 2).await;
        put("b", "mended", 2, 1).await;
        put("a", "overtaken", 3, 2).await;
        put("b", "overtaken", 1, 1).await;
        let (mut listing, mut names) = (client.list(b""), Vec::new());
        while let Some(stat) = listing.next().await {
            names.push(stat.unwrap().name);
        }
        assert_eq!(names, [b"known".to_vec(), b"mended".to_vec()]);
        let unreadable = listing.unreadable();
        assert_eq!(unreadable.count, 2);
        let (name, why) = unreadable.first.clone().unwrap();
        assert_eq!(name, b"later");
        assert!(why.contains("format"), "{why}");
    }
}
