//! One value on as many servers as wanted: owners first, then stand-ins.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rampuddle_protocol::{Status, Version};
use tokio::time::{Instant, sleep};

use super::format::Tag;
use crate::client::Core;
use crate::error::Fate;
use crate::placement::Slot;
use crate::raw::{CreateItem, RawClient, Target};
use crate::view::View;

/// How long a server that has too much under way is asked again.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two such askings.
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How one server took a value.
#[derive(Debug)]
pub(super) enum Copy {
    /// It has it, and displaced a value with this tag.
    Stored { displaced: Option<Tag> },
    /// It holds a greater version.
    Overtaken { held: Version },
    /// It holds a value, and may not replace it.
    Exists,
    /// It did not take it.
    Failed { problem: String, fate: Fate },
}

/// How all servers asked took a value.
#[derive(Debug)]
pub(super) struct Copies {
    /// Copies wanted: those asked for, as far as there are members.
    pub(super) wanted: usize,
    /// By server; owners are among the first `wanted` ranks.
    pub(super) taken: Vec<(Arc<str>, bool, Copy)>,
}

impl Copies {
    /// Servers that have the value.
    pub(super) fn stored(&self) -> impl Iterator<Item = &Arc<str>> {
        self.taken
            .iter()
            .filter(|(_, _, copy)| matches!(copy, Copy::Stored { .. }))
            .map(|(server, _, _)| server)
    }

    /// Servers that count as having applied the write: those that have it, and
    /// those that have a later one.
    pub(super) fn applied(&self) -> usize {
        let applied = |copy: &Copy| matches!(copy, Copy::Stored { .. } | Copy::Overtaken { .. });
        self.taken.iter().filter(|(_, _, copy)| applied(copy)).count()
    }

    /// Owners among them.
    pub(super) fn owners_applied(&self) -> usize {
        let applied = |(_, is_owner, copy): &&(Arc<str>, bool, Copy)| {
            *is_owner && matches!(copy, Copy::Stored { .. } | Copy::Overtaken { .. })
        };
        self.taken.iter().filter(applied).count()
    }

    /// The greatest version that overtook the write.
    pub(super) fn overtaken_by(&self) -> Option<Version> {
        let held = self.taken.iter().filter_map(|(_, _, copy)| match copy {
            Copy::Overtaken { held } => Some(*held),
            _ => None,
        });
        held.max()
    }

    /// Whether a server that failed may have the value all the same.
    pub(super) fn is_in_doubt(&self) -> bool {
        let doubt = |copy: &Copy| matches!(copy, Copy::Failed { fate: Fate::MaybeApplied, .. });
        self.taken.iter().any(|(_, _, copy)| doubt(copy))
    }

    /// Servers that stood in for owners.
    pub(super) fn stand_ins(&self) -> impl Iterator<Item = &Arc<str>> {
        self.taken
            .iter()
            .filter(|(_, is_owner, copy)| !is_owner && matches!(copy, Copy::Stored { .. }))
            .map(|(server, _, _)| server)
    }

    /// What went wrong, a line each.
    pub(super) fn problems(&self) -> impl Iterator<Item = &str> {
        self.taken.iter().filter_map(|(_, _, copy)| match copy {
            Copy::Failed { problem, .. } => Some(problem.as_str()),
            _ => None,
        })
    }
}

/// Copies wanted of `replicas` asked for, with so many members to write to.
pub(super) fn wanted_of(replicas: u8, members: usize) -> usize {
    if replicas == u8::MAX { members } else { usize::from(replicas).min(members) }
}

/// Members that a value of this slot may be written to, by rank.
pub(super) fn write_ranks(view: &View, slot: Slot) -> Vec<Arc<str>> {
    let is_written_to =
        |name: &&Arc<str>| view.member(name).is_some_and(|member| member.state.is_written_to());
    view.ranks(slot).into_iter().filter(is_written_to).cloned().collect()
}

/// Where copies of a value go.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    /// By rank; the first `wanted` are the owners.
    pub(super) ranks: Vec<Arc<str>>,
    pub(super) wanted: usize,
}

impl Candidates {
    pub(super) fn of(view: &View, key: &[u8], replicas: u8) -> Self {
        let mut ranks = write_ranks(view, Slot::of(key, 0));
        let wanted = wanted_of(replicas, ranks.len());
        // Readers look no further than this.
        ranks.truncate(wanted.max(2 * usize::from(view.settings().replicas_max)));
        Self { ranks, wanted }
    }
}

/// Writes a value to its owners, and to the next ranks for owners that do not
/// take it.
pub(super) async fn write(core: &Arc<Core>, item: &CreateItem, candidates: &Candidates) -> Copies {
    // Servers that did not answer lately come last, whatever their rank: each
    // would cost the client's patience.
    let mut order: Vec<usize> = (0..candidates.ranks.len()).collect();
    order.sort_by_key(|rank| !answers(core, &candidates.ranks[*rank]));
    let mut order = order.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut copies = Copies { wanted: candidates.wanted, taken: Vec::new() };
    loop {
        let done = copies.applied() + copies.existing();
        while done + under_way.len() < candidates.wanted {
            let Some(rank) = order.next() else { break };
            under_way.push(write_one(core, item, &candidates.ranks[rank], rank));
        }
        let Some((rank, copy)) = under_way.next().await else { return copies };
        let is_owner = rank < candidates.wanted;
        copies.taken.push((Arc::clone(&candidates.ranks[rank]), is_owner, copy));
    }
}

impl Copies {
    fn existing(&self) -> usize {
        self.taken.iter().filter(|(_, _, copy)| matches!(copy, Copy::Exists)).count()
    }
}

/// Whether discovery sees a server alive, and it answered when it was asked last.
pub(super) fn answers(core: &Core, server: &str) -> bool {
    let is_alive = core.views.current().living(server).is_some();
    is_alive && core.servers.server(server).is_ok_and(|server| !server.is_suspect())
}

/// Shakes hands with servers that this client has not met yet: a version may
/// only be drawn when the clock was compared with theirs.
pub(super) async fn meet(core: &Arc<Core>, servers: &[Arc<str>]) {
    let each = servers.iter().filter(|server| answers(core, server)).map(|name| async move {
        if let Ok(server) = core.servers.server(name) {
            // One that cannot be met says so again when it is written to.
            let _ = server.grants(None).await;
        }
    });
    join_all(each).await;
}

async fn write_one(
    core: &Arc<Core>,
    item: &CreateItem,
    server: &Arc<str>,
    rank: usize,
) -> (usize, Copy) {
    let raw = RawClient::for_objects(Arc::clone(core));
    let target = Target::Server(Arc::clone(server));
    let until = Instant::now() + BUSY_PATIENCE;
    loop {
        let answer = raw.create(&target, vec![item.clone()]).await.remove(0);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let fate = error.fate();
                return (rank, Copy::Failed { problem: error.to_string(), fate });
            }
        };
        let copy = match answer.status {
            Status::Ok | Status::Same => {
                Copy::Stored { displaced: Tag::decode(&item.key, &answer.tag).ok() }
            }
            Status::Older => Copy::Overtaken { held: answer.version },
            Status::Exists => Copy::Exists,
            Status::Busy if Instant::now() < until => {
                let pause = Duration::from_millis(answer.detail).min(BUSY_PAUSE_MAX);
                let environment = &core.servers.access().environment;
                sleep(pause / 2 + environment.jittered(pause)).await;
                continue;
            }
            status => Copy::Failed {
                problem: format!("server \"{server}\" refused a copy with {status}"),
                fate: Fate::NotSent,
            },
        };
        return (rank, copy);
    }
}
