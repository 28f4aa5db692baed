//! Listing objects: every server's heads, merged by name.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{RowFlags, Version};

use super::format::{Tag, head_key};
use super::head::stat_of;
use super::report::ObjectStat;
use crate::client::{Client, Core};
use crate::error::Error;
use crate::raw::{ListQuery, RawClient};

/// The objects whose names begin with a prefix, in the order of their names.
#[derive(Debug)]
pub struct Listing {
    core: Arc<Core>,
    prefix: Bytes,
    sources: Vec<ServerHeads>,
    unreachable: Vec<String>,
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
struct Listed {
    key: Bytes,
    version: Version,
    /// `None` = a delete.
    tag: Option<Tag>,
}

impl Client {
    /// Lists the objects whose names begin with `prefix`.
    pub fn list(&self, prefix: &[u8]) -> Listing {
        let view = self.view();
        let members = view.members().iter().filter(|member| member.state.is_read_from());
        let begin = |name: &Arc<str>| ServerHeads {
            server: Arc::clone(name),
            heads: VecDeque::new(),
            cursor: Some(Bytes::new()),
        };
        Listing {
            core: Arc::clone(self.core()),
            prefix: head_key(prefix),
            sources: members.map(|member| begin(&member.name)).collect(),
            unreachable: Vec::new(),
        }
    }
}

impl Listing {
    /// The next object; `None` at the end. Servers that give no answer are
    /// passed over and named by [`Listing::unreachable`].
    ///
    /// # Errors
    /// When no server at all gives an answer.
    pub async fn next(&mut self) -> Option<Result<ObjectStat, Error>> {
        loop {
            if let Err(error) = self.refill().await {
                return Some(Err(error));
            }
            let heads = self.sources.iter().filter_map(|source| source.heads.front());
            let key = heads.map(|listed| listed.key.clone()).min()?;
            let mut greatest: Option<Listed> = None;
            for source in &mut self.sources {
                let listed = source.heads.pop_front_if(|listed| listed.key == key);
                let Some(listed) = listed else { continue };
                if greatest.as_ref().is_none_or(|best| listed.version > best.version) {
                    greatest = Some(listed);
                }
            }
            if let Some(Listed { tag: Some(tag), .. }) = greatest {
                return Some(Ok(stat_of(&key[1..], &tag)));
            }
        }
    }

    /// Servers that gave no answer so far: their objects may be missing.
    pub fn unreachable(&self) -> &[String] {
        &self.unreachable
    }

    /// Asks every server that has no head left, and is not at its end, for more.
    async fn refill(&mut self) -> Result<(), Error> {
        let is_empty = |source: &ServerHeads| source.heads.is_empty() && source.cursor.is_some();
        while self.sources.iter().any(is_empty) {
            let raw = &RawClient::for_objects(Arc::clone(&self.core));
            let (prefix, sources) = (&self.prefix, &mut self.sources);
            let empty = sources.iter_mut().filter(|source| is_empty(source));
            let failed = join_all(empty.map(|source| source.fetch(raw, prefix))).await;
            let failed: Vec<(Arc<str>, Error)> = failed.into_iter().flatten().collect();
            self.unreachable.extend(failed.iter().map(|(server, _)| server.to_string()));
            self.sources.retain(|source| failed.iter().all(|(server, _)| *server != source.server));
            if let (true, Some((_, error))) = (self.sources.is_empty(), failed.into_iter().next()) {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl ServerHeads {
    async fn fetch(&mut self, raw: &RawClient, prefix: &Bytes) -> Option<(Arc<str>, Error)> {
        let mut query = ListQuery::prefix(prefix.clone());
        query.cursor = self.cursor.take().unwrap_or_default();
        query.tombstones = true;
        match raw.list(&self.server, &query).await {
            Ok(page) => {
                self.heads.extend(page.entries.into_iter().filter_map(|entry| {
                    let is_delete = entry.row.flags.has(RowFlags::TOMBSTONE);
                    let tag = Tag::decode(&entry.key, &entry.tag).ok();
                    let listed = Listed { key: entry.key, version: entry.row.version, tag };
                    (is_delete || listed.tag.is_some()).then_some(listed)
                }));
                self.cursor = page.next;
                None
            }
            Err(error) => Some((Arc::clone(&self.server), error)),
        }
    }
}
