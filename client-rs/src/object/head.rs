//! Finding an object's head: Found, Absent or Unknown.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::limits::{MIB, NAME_BYTES_MAX};
use rampuddle_protocol::{RowFlags, Status, Version};

use super::copies::{answers, wanted_of};
use super::format::{BlockEntry, INLINE_BYTES_MAX, Seed, Tag, decode_table, head_key};
use super::report::ObjectStat;
use crate::client::Core;
use crate::error::Error;
use crate::placement::Slot;
use crate::raw::{Answer, GatherItem, RawClient, Target};
use crate::view::View;

/// Bytes of a head asked for at once: all of an inline object, or the block
/// table of one of up to 128 GiB.
const FIRST_BYTES: u64 = MIB;

const _: () = assert!(FIRST_BYTES >= INLINE_BYTES_MAX);

/// A head as one server gave it, checked.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) key: Bytes,
    pub(super) tag: Tag,
    /// The server that gave it.
    pub(super) server: Arc<str>,
    /// Inline: the object's bytes, when they were asked for.
    pub(super) inline: Bytes,
    /// Striped: the block table, when it was asked for.
    pub(super) table: Vec<BlockEntry>,
}

/// How much of a head is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The tag.
    Tag,
    /// The tag, and the inline bytes or the block table.
    All,
}

/// What one server said about a head.
enum Said {
    Has(Box<Head>),
    /// It has none; it remembers a delete of this version (none = no delete).
    HasNot(Version),
    /// It gave no answer that counts.
    Nothing(String),
}

/// The name of an object, checked.
pub(super) fn check_name(name: &[u8]) -> Result<Bytes, Error> {
    let bytes = name.len();
    if (1..=NAME_BYTES_MAX).contains(&bytes) {
        Ok(head_key(name))
    } else {
        Err(Error::BadName { bytes })
    }
}

impl Head {
    pub(super) fn stat(&self) -> ObjectStat {
        stat_of(&self.key[1..], &self.tag)
    }
}

pub(super) fn stat_of(name: &[u8], tag: &Tag) -> ObjectStat {
    ObjectStat {
        name: name.to_vec(),
        bytes: tag.object_bytes,
        version: tag.version,
        replicas: tag.replicas,
        stripes: tag.stripes(),
        stripe_bytes: tag.stripe_bytes.into(),
        upload: tag.upload,
    }
}

/// Members that may have values of this slot: the owners of as many replicas as
/// the cluster allows, and as many stand-ins.
pub(super) fn read_ranks(view: &View, slot: Slot) -> Vec<Arc<str>> {
    let count = 2 * usize::from(view.settings().replicas_max);
    let mut ranks: Vec<Arc<str>> = view.ranks(slot).into_iter().take(count).cloned().collect();
    // Members on their way out do not count for placement, and have values still.
    let leaving = view
        .members()
        .iter()
        .filter(|member| member.state.is_read_from() && !member.state.counts_for_placement());
    ranks.extend(leaving.map(|member| Arc::clone(&member.name)));
    ranks
}

/// Puts the servers that should be asked first in front: those that answer
/// before those that do not, those on this machine before others, and of two
/// drawn at random the less busy one.
pub(super) fn prefer(core: &Core, owners: &mut [Arc<str>]) {
    let environment = &core.servers.access().environment;
    let mut salt = [0; 8];
    environment.random.fill(&mut salt);
    let salt = u64::from_le_bytes(salt);
    if owners.len() > 1 {
        let half = owners.len() as u64;
        owners.rotate_left((salt % half) as usize);
    }
    owners.sort_by_cached_key(|name| match core.servers.server(name) {
        Ok(server) => (!answers(core, name), !server.is_local(), server.in_flight()),
        Err(_) => (true, true, usize::MAX),
    });
}

/// Looks an object up. `None` = Absent, which every server that may have it has
/// confirmed; [`Error::Unknown`] when one could not.
pub(super) async fn find(core: &Arc<Core>, key: &Bytes, part: Part) -> Result<Option<Head>, Error> {
    let view = core.views.current();
    let ranks = read_ranks(&view, Slot::of(key, 0));
    if ranks.is_empty() {
        return Err(Error::NoServers { cluster: view.settings().cluster.as_str().into() });
    }
    let mut owners = ranks[..ranks.len().min(usize::from(core.replicas.max(1)))].to_vec();
    prefer(core, &mut owners);
    let first = owners.swap_remove(0);
    // An owner by the object's own number of copies is enough; what a stand-in
    // has may be old.
    let is_owner = |head: &Head| {
        let owners = wanted_of(head.tag.replicas, ranks.len()).min(ranks.len());
        ranks[..owners].contains(&first)
    };
    match ask(core, key, &first, part).await {
        Said::Has(head) if is_owner(&head) => Ok(Some(*head)),
        said => find_everywhere(core, &view, key, &ranks, part, Some((first, said))).await,
    }
}

/// Asks every server that may have the head, and takes the greatest.
pub(super) async fn find_greatest(
    core: &Arc<Core>,
    key: &Bytes,
    part: Part,
) -> Result<Option<Head>, Error> {
    let view = core.views.current();
    let ranks = read_ranks(&view, Slot::of(key, 0));
    find_everywhere(core, &view, key, &ranks, part, None).await
}

async fn find_everywhere(
    core: &Arc<Core>,
    view: &View,
    key: &Bytes,
    ranks: &[Arc<str>],
    part: Part,
    asked: Option<(Arc<str>, Said)>,
) -> Result<Option<Head>, Error> {
    let rest = ranks.iter().filter(|name| asked.as_ref().is_none_or(|(asked, _)| asked != *name));
    let mut said = join_all(rest.map(|server| ask(core, key, server, part))).await;
    said.extend(asked.map(|(_, said)| said));
    let (mut greatest, mut deleted, mut silent) = (None::<Box<Head>>, Version::NONE, Vec::new());
    for one in said {
        match one {
            Said::Has(head) => {
                let is_greater =
                    greatest.as_ref().is_none_or(|best| head.tag.version > best.tag.version);
                if is_greater {
                    greatest = Some(head);
                }
            }
            Said::HasNot(version) => deleted = deleted.max(version),
            Said::Nothing(problem) => silent.push(problem),
        }
    }
    // A delete that is greater than what was found hides it.
    if let Some(head) = greatest.filter(|head| head.tag.version > deleted) {
        return Ok(Some(*head));
    }
    if view.is_young(core.clocks().now_ms()) {
        silent.push("the cluster's registry is only seconds old, it may have been wiped".into());
    }
    if silent.is_empty() {
        return Ok(None);
    }
    Err(Error::Unknown { name: key[1..].into(), problems: silent })
}

async fn ask(core: &Arc<Core>, key: &Bytes, server: &Arc<str>, part: Part) -> Said {
    match ask_for(core, key, server, part).await {
        Ok(said) => said,
        Err(problem) => Said::Nothing(problem),
    }
}

async fn ask_for(
    core: &Arc<Core>,
    key: &Bytes,
    server: &Arc<str>,
    part: Part,
) -> Result<Said, String> {
    let raw = RawClient::for_objects(Arc::clone(core));
    let length = if part == Part::All { FIRST_BYTES } else { 0 };
    let answer = gather(&raw, server, key, 0, length, Version::NONE).await?;
    match answer.status {
        Status::Ok => {}
        Status::NotFound => return Ok(Said::HasNot(answer.version)),
        status => return Err(format!("server \"{server}\" answered {status}")),
    }
    core.clocks().observe(answer.version);
    let broken = |why: &str| format!("the head on server \"{server}\" is damaged: {why}");
    let tag = Tag::decode(key, &answer.tag).map_err(broken)?;
    if tag.version != answer.version {
        return Err(broken("its version is not that of its tag"));
    }
    let mut head = Head {
        key: key.clone(),
        tag,
        server: Arc::clone(server),
        inline: Bytes::new(),
        table: Vec::new(),
    };
    if part == Part::All && tag.is_inline() {
        head.inline = inline_bytes(&tag, answer.bytes).map_err(broken)?;
    } else if part == Part::All {
        let variable = whole_variable(&raw, server, key, &tag, answer.bytes).await?;
        head.table = decode_table(&tag, &variable).map_err(broken)?;
    }
    Ok(Said::Has(Box::new(head)))
}

/// The bytes of an inline object, compared with their checksum.
fn inline_bytes(tag: &Tag, mut bytes: Bytes) -> Result<Bytes, &'static str> {
    if (bytes.len() as u64) < tag.object_bytes {
        return Err("it is shorter than the object");
    }
    let variable = bytes.split_off(tag.object_bytes as usize);
    let seed = Seed::new(tag.upload, 0, 0);
    let crc = if tag.variable_bytes == 0 {
        tag.crc32c
    } else {
        decode_table(tag, &variable)?.first().map_or(tag.crc32c, |entry| entry.crc32c)
    };
    let mut checksum = seed.begin();
    checksum.update(&bytes);
    if checksum.value() == crc { Ok(bytes) } else { Err("its bytes do not have their checksum") }
}

/// The variable part of a striped object's head, of which `first` is the begin.
async fn whole_variable(
    raw: &RawClient,
    server: &Arc<str>,
    key: &Bytes,
    tag: &Tag,
    first: Bytes,
) -> Result<Vec<u8>, String> {
    let mut bytes = first.to_vec();
    while (bytes.len() as u64) < u64::from(tag.variable_bytes) {
        let offset = bytes.len() as u64;
        let length = (u64::from(tag.variable_bytes) - offset).min(4 * MIB);
        let answer = gather(raw, server, key, offset, length, tag.version).await?;
        if answer.status != Status::Ok || answer.bytes.is_empty() {
            return Err(format!("server \"{server}\" answered {} half way", answer.status));
        }
        bytes.extend_from_slice(&answer.bytes);
    }
    Ok(bytes)
}

async fn gather(
    raw: &RawClient,
    server: &Arc<str>,
    key: &Bytes,
    offset: u64,
    length: u64,
    if_version: Version,
) -> Result<Answer, String> {
    let mut item = GatherItem::new(key.clone(), offset, length);
    item.flags = RowFlags::FILLED | RowFlags::TAG;
    item.if_version = if_version;
    let target = Target::Server(Arc::clone(server));
    let answer = raw.gather(&target, vec![item]).await.remove(0);
    answer.map_err(|error| error.to_string())
}
