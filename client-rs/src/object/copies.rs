//! One value on as many servers as wanted: owners first, then stand-ins.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rampuddle_protocol::{RowFlags, Status, Version};
use tokio::time::Instant;

use super::format::Tag;
use super::operation::Operation;
use super::ranks::{Candidates, answers};
use crate::deadline::pause_within;
use crate::error::{Error, Fate};
use crate::raw::CreateItem;

/// How long a server that has too much under way is asked again.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two such askings.
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How one server took a value.
#[derive(Debug)]
pub(super) enum Copy {
    /// It has it, and displaced a value with this tag, or the memory of a delete
    /// of this version.
    Stored { displaced: Option<Tag>, deleted: Version },
    /// It holds a greater version: a value, or a delete.
    Overtaken { by_value: bool },
    /// It holds a value, and may not replace it.
    Exists,
    /// It does not hold the version that the value may replace, but this one, or
    /// none.
    Changed(Version),
    /// It has no room, and holds nothing that refuses the value.
    Full(Error),
    /// It did not take it.
    Failed(Error),
}

/// A server's word on a value.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) server: Arc<str>,
    pub(super) is_owner: bool,
    pub(super) copy: Copy,
}

/// How all servers asked took a value.
#[derive(Debug)]
pub(super) struct Copies {
    /// Copies wanted: those asked for, as far as there are members.
    pub(super) wanted: usize,
    /// By server, in the order of their answers.
    pub(super) taken: Vec<Taken>,
}

impl Copies {
    /// Servers that have the value.
    pub(super) fn stored(&self) -> impl Iterator<Item = &Arc<str>> {
        self.those(|taken| matches!(taken.copy, Copy::Stored { .. }))
    }

    /// Servers that stood in for owners.
    pub(super) fn stand_ins(&self) -> impl Iterator<Item = &Arc<str>> {
        self.those(|taken| !taken.is_owner && matches!(taken.copy, Copy::Stored { .. }))
    }

    fn those(&self, which: impl Fn(&Taken) -> bool) -> impl Iterator<Item = &Arc<str>> {
        self.taken.iter().filter(move |taken| which(taken)).map(|taken| &taken.server)
    }

    /// Servers that count as having applied the write: those that have it, and
    /// those that have a later one.
    pub(super) fn applied(&self) -> usize {
        self.taken.iter().filter(|taken| taken.copy.is_applied()).count()
    }

    /// The objects whose place it took.
    pub(super) fn displaced(&self) -> Vec<Tag> {
        let mut displaced: Vec<Tag> = Vec::new();
        for taken in &self.taken {
            if let Copy::Stored { displaced: Some(tag), .. } = &taken.copy
                && !displaced.contains(tag)
            {
                displaced.push(*tag);
            }
        }
        displaced
    }

    /// The latest delete that it made servers forget.
    pub(super) fn deleted(&self) -> Version {
        let deleted = |taken: &Taken| match taken.copy {
            Copy::Stored { deleted, .. } => deleted,
            _ => Version::NONE,
        };
        self.taken.iter().map(deleted).max().unwrap_or(Version::NONE)
    }

    /// Forgets the copy that a server lost.
    pub(super) fn lose(&mut self, server: &str) {
        self.taken
            .retain(|taken| *taken.server != *server || !matches!(taken.copy, Copy::Stored { .. }));
    }

    /// Whether no server has the value, and one holds a greater version.
    pub(super) fn is_only_overtaken(&self) -> bool {
        let is_overtaken = |taken: &Taken| matches!(taken.copy, Copy::Overtaken { .. });
        self.stored().next().is_none() && self.taken.iter().any(is_overtaken)
    }

    /// Whether a server that failed may have the value all the same.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.in_doubt().next().is_some()
    }

    /// Servers that failed and may have the value all the same.
    pub(super) fn in_doubt(&self) -> impl Iterator<Item = &Arc<str>> {
        self.those(|taken| match &taken.copy {
            Copy::Failed(error) => error.fate() == Fate::MaybeApplied,
            _ => false,
        })
    }

    /// What went wrong, a line each.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.errors().map(ToString::to_string)
    }

    /// What went wrong.
    pub(super) fn errors(&self) -> impl Iterator<Item = &Error> {
        self.taken.iter().filter_map(|taken| match &taken.copy {
            Copy::Failed(error) | Copy::Full(error) => Some(error),
            _ => None,
        })
    }

    /// Whether no server has the value, and one says that its version lies too
    /// far ahead of the server's clock.
    pub(super) fn is_only_ahead(&self) -> bool {
        let is_ahead =
            |error: &Error| matches!(error, Error::Refused { status: Status::Clock, .. });
        self.applied() == 0 && !self.is_in_doubt() && self.errors().any(is_ahead)
    }

    pub(super) fn add(&mut self, candidates: &Candidates, rank: usize, copy: Copy) {
        let server = Arc::clone(&candidates.ranks[rank]);
        self.taken.push(Taken { server, is_owner: rank < candidates.wanted, copy });
    }
}

impl Copy {
    fn is_applied(&self) -> bool {
        matches!(self, Self::Stored { .. } | Self::Overtaken { .. })
    }
}

/// Writes a value to its owners, and to the next ranks for owners that do not
/// take it.
pub(super) async fn write(
    operation: &Operation,
    item: &CreateItem,
    candidates: &Candidates,
) -> Copies {
    // Servers that did not answer lately come last, whatever their rank: each
    // would cost the client's patience.
    let mut order: Vec<usize> = (0..candidates.ranks.len()).collect();
    order.sort_by_key(|rank| !answers(operation, &candidates.ranks[*rank]));
    let mut order = order.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut copies = Copies { wanted: candidates.wanted, taken: Vec::new() };
    loop {
        while copies.applied() + under_way.len() < candidates.wanted {
            let Some(rank) = order.next() else { break };
            let server = &candidates.ranks[rank];
            under_way.push(async move { (rank, write_one(operation, item, server).await) });
        }
        let Some((rank, copy)) = under_way.next().await else { return copies };
        copies.add(candidates, rank, copy);
    }
}

/// Shakes hands with servers that this client has not met yet: a version may
/// only be drawn when the clock was compared with theirs.
pub(super) async fn meet(operation: &Operation, servers: &[Arc<str>]) {
    let found = servers.iter().filter(|server| answers(operation, server));
    let found = found.filter_map(|name| operation.servers.server(name).ok());
    let strangers = found.filter(|server| server.is_stranger());
    let each = strangers.map(|server| async move {
        // One that cannot be met says so again when it is written to.
        let _ = server.grants(operation.deadline()).await;
    });
    join_all(each).await;
}

/// Writes a value to one server; waits for one that is busy.
pub(super) async fn write_one(operation: &Operation, item: &CreateItem, server: &Arc<str>) -> Copy {
    let raw = operation.raw();
    let until = Instant::now() + BUSY_PATIENCE;
    loop {
        let answer = match raw.create_at(server, item.clone()).await {
            Ok(answer) => answer,
            Err(error) => return Copy::Failed(error),
        };
        let refused = |status| Error::refused(server, "a copy", status);
        return match answer.status {
            Status::Ok | Status::Same => {
                let is_of_delete =
                    answer.status == Status::Ok && !answer.flags.has(RowFlags::DISPLACED);
                let deleted = if is_of_delete { answer.version } else { Version::NONE };
                Copy::Stored { displaced: Tag::decode(&item.key, &answer.tag).ok(), deleted }
            }
            Status::Older => {
                // Every value of an object's key has a tag, and no delete has one.
                Copy::Overtaken { by_value: !answer.tag.is_empty() }
            }
            Status::Exists => Copy::Exists,
            // What was sent again was taken the first time.
            Status::Mismatch if answer.version == item.version => {
                Copy::Stored { displaced: None, deleted: Version::NONE }
            }
            Status::Mismatch => Copy::Changed(answer.version),
            status @ (Status::NoSpace | Status::NoIndex) => Copy::Full(refused(status)),
            Status::Busy if Instant::now() < until => {
                let pause = Duration::from_millis(answer.detail).min(BUSY_PAUSE_MAX);
                let environment = &operation.servers.access().environment;
                let pause = pause / 2 + environment.jittered(pause);
                if pause_within(operation.deadline(), pause).await {
                    continue;
                }
                Copy::Failed(refused(Status::Busy))
            }
            status => Copy::Failed(refused(status)),
        };
    }
}
