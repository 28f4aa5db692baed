//! Heads that may take no other's place.
//!
//! Each is written to its owners one after the other, by rank, so that of two
//! writers the one that comes first to the first owner gets on, and the other
//! has written nothing yet. No stand-in takes the place of an owner that gave no
//! answer, which may have an object. What was written is looked at once more,
//! on all servers that may have another head, and taken back when there is one.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{Status, Version};

use super::copies::{Copies, Copy, write_one};
use super::head::{Part, find};
use super::operation::Operation;
use super::put::Put;
use super::ranks::{Candidates, Places, answers};
use crate::error::Error;
use crate::raw::{CreateItem, DeleteItem, DropItem, Target};

/// Writes a head to one server after the other, until there are enough copies or
/// one does not say that nothing is in the way.
pub(super) async fn write_in_turn(
    operation: &Operation,
    item: &CreateItem,
    candidates: &Candidates,
) -> Copies {
    let mut copies = Copies { wanted: candidates.wanted, taken: Vec::new() };
    for (rank, server) in candidates.ranks.iter().enumerate() {
        if copies.applied() == copies.wanted {
            break;
        }
        let copy = write_one(operation, item, server).await;
        let goes_on = match copy {
            Copy::Stored { .. } | Copy::Full(_) => true,
            // A delete was faster, here or everywhere.
            Copy::Overtaken { by_value } => !by_value && copies.stored().next().is_some(),
            Copy::Exists | Copy::Changed(_) | Copy::Failed(_) => false,
        };
        copies.add(candidates, rank, copy);
        if !goes_on {
            break;
        }
    }
    copies
}

/// Whether a server has another object.
pub(super) fn is_refused(copies: &Copies) -> bool {
    let is_other = |copy: &Copy| matches!(copy, Copy::Exists | Copy::Overtaken { by_value: true });
    copies.taken.iter().any(|taken| is_other(&taken.copy))
}

/// What there is of an object beside a head that was just written.
#[derive(Debug, Default)]
struct Elsewhere {
    /// The latest version of another head, or none.
    head: Version,
    /// That of the latest delete, or none.
    deleted: Version,
}

impl Put {
    /// Whether there is an object of the name, before anything is moved. The
    /// servers say it again at the end, so that the word of those that own the
    /// head is enough to go on.
    pub(super) async fn look_for_none(&self) -> Result<(), Error> {
        match find(&self.operation, &self.key, Part::Tag).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Error::Exists { name: self.name() }),
            Err(error) => {
                let candidates = self.candidates(&self.key);
                let mut owners = candidates.owners().iter();
                let all_answer = owners.all(|owner| answers(&self.operation, owner));
                if all_answer { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Whether a head that may take no other's place is an object; what was
    /// written of one that is not is taken back.
    pub(super) async fn judge_unclobbering(
        &self,
        copies: &Copies,
        version: Version,
    ) -> Result<(), Error> {
        let is_silent = |copy: &Copy| matches!(copy, Copy::Failed(_));
        let is_unknown = copies.taken.iter().any(|taken| is_silent(&taken.copy));
        let is_written = copies.stored().chain(copies.in_doubt()).next().is_some();
        let elsewhere = match is_refused(copies) && !is_written {
            true => Elsewhere::default(),
            false => self.elsewhere(copies).await,
        };
        // What is older than a delete is no object.
        let deleted = copies.deleted().max(elsewhere.deleted);
        let exists = is_refused(copies) || (!is_unknown && elsewhere.head > deleted);
        if !exists && !is_unknown {
            let is_object = copies.applied() > 0;
            return if is_object { Ok(()) } else { Err(self.failed(copies)) };
        }
        if !self.take_back(copies, version, deleted).await {
            return Err(self.indeterminate(copies));
        }
        let name = self.name();
        if exists {
            return Err(Error::Exists { name });
        }
        let refusal = Error::refusal_among(copies.errors()).cloned();
        let unknown = || Error::Unknown { name, problems: copies.problems().collect() };
        Err(refusal.unwrap_or_else(unknown))
    }

    /// What servers that have not got this head have instead: a stand-in, or an
    /// owner that had no room a moment ago. Two writers that went different ways
    /// both look, so that one of them sees the other.
    async fn elsewhere(&self, copies: &Copies) -> Elsewhere {
        let view = self.operation.views.current();
        let places = Places::of_copies(&view, &self.key, self.replicas);
        let has = |server: &&Arc<str>| copies.stored().any(|other| other == *server);
        let others = places.all().iter().filter(|server| !has(server));
        let each = others.map(|server| async move {
            let target = Target::Server(Arc::clone(server));
            self.operation.raw().stat(&target, vec![self.key.clone()]).await.remove(0)
        });
        let mut elsewhere = Elsewhere::default();
        for stat in join_all(each).await.into_iter().flatten() {
            let latest = match stat.status {
                Status::Ok if stat.row.set != self.upload => &mut elsewhere.head,
                Status::NotFound => &mut elsewhere.deleted,
                _ => continue,
            };
            *latest = stat.row.version.max(*latest);
        }
        elsewhere
    }

    /// Removes the head from all servers that have it or may have it, and has them
    /// remember the delete whose place it took; whether it is gone for certain.
    /// Goes on behind the deadline.
    async fn take_back(&self, copies: &Copies, version: Version, deleted: Version) -> bool {
        let certain = copies.stored().map(|server| (Arc::clone(server), true));
        let in_doubt = copies.in_doubt().map(|server| (Arc::clone(server), false));
        let servers: Vec<_> = certain.chain(in_doubt).collect();
        let item = DropItem::new(self.key.clone(), version);
        let drop = move |background: Operation| async move {
            let each = servers.into_iter().map(|(server, is_there)| {
                let (background, item) = (&background, &item);
                async move {
                    let is_gone = is_gone(background, &server, item, is_there).await;
                    if !deleted.is_none() {
                        remember(background, &server, &item.key, deleted).await;
                    }
                    is_gone
                }
            });
            !join_all(each).await.contains(&false)
        };
        self.operation.see_through(drop).await.unwrap_or(false)
    }
}

/// Tells a server of a delete that it knew of before. Does nothing to what is later.
async fn remember(operation: &Operation, server: &Arc<str>, key: &Bytes, deleted: Version) {
    let mut item = DeleteItem::new(key.clone());
    item.version = deleted;
    let target = Target::Server(Arc::clone(server));
    let tell = async || operation.raw().delete(&target, vec![item.clone()]).await.remove(0);
    let mut attempts = operation.retries.first_attempt();
    if tell().await.is_err() && operation.again(&mut attempts).await {
        // One that cannot be told is no worse than one that missed the delete.
        let _ = tell().await;
    }
}

/// Drops one copy. Where none is there it may still be on its way, unless the
/// server said before that it has it.
async fn is_gone(
    operation: &Operation,
    server: &Arc<str>,
    item: &DropItem,
    is_there: bool,
) -> bool {
    let target = Target::Server(Arc::clone(server));
    let drop = async || operation.raw().drop_version(&target, vec![item.clone()]).await.remove(0);
    let mut attempts = operation.retries.first_attempt();
    let mut answer = drop().await;
    // It does no harm to ask again.
    if answer.is_err() && operation.again(&mut attempts).await {
        answer = drop().await;
    }
    match answer.map(|answer| answer.status) {
        Ok(Status::Ok) => true,
        Ok(Status::NotFound | Status::Mismatch) => is_there,
        _ => false,
    }
}
