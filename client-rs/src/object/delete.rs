//! Deleting objects.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{Status, Version};

use super::cleanup::drop_displaced;
use super::copies::wanted_of;
use super::format::Tag;
use super::head::{check_name, read_ranks};
use super::report::DeleteReport;
use crate::client::{Client, Core};
use crate::error::{Error, Fate};
use crate::placement::Slot;
use crate::raw::{Answer, DeleteItem, RawClient, Target};

/// Times that a delete refused as older is sent with a greater version.
const REDRAWS_MAX: usize = 8;

impl Client {
    /// Deletes an object. Every server that may have a copy is told; owners that
    /// could not be told may serve it until repair.
    ///
    /// # Errors
    /// [`Error::Failed`] when no server could be told, [`Error::Indeterminate`]
    /// when that cannot be said.
    pub async fn delete(&self, name: &[u8]) -> Result<DeleteReport, Error> {
        let key = check_name(name)?;
        for _ in 0..REDRAWS_MAX {
            if let Some(report) = delete_once(self.core(), &key).await? {
                return Ok(report);
            }
        }
        let problems = vec!["writers were faster every time".to_owned()];
        Err(Error::Failed { name: name.into(), problems })
    }
}

/// `None` = every server that answered holds a greater version: draw again.
async fn delete_once(core: &Arc<Core>, key: &Bytes) -> Result<Option<DeleteReport>, Error> {
    let view = core.views.current();
    let ranks = read_ranks(&view, Slot::of(key, 0));
    if ranks.is_empty() {
        return Err(Error::NoServers { cluster: view.settings().cluster.as_str().into() });
    }
    let version = core.clocks().draw();
    let raw = &RawClient::for_objects(Arc::clone(core));
    let each = ranks.iter().map(|server| tell(raw, server, key, version));
    let answers = join_all(each).await;
    let mut report = DeleteReport::default();
    let (mut displaced, mut older, mut applied, mut in_doubt) = (Vec::new(), 0, 0, false);
    let mut applied_by_rank = vec![false; ranks.len()];
    for (rank, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(answer) => match answer.status {
                Status::Ok => {
                    report.existed = true;
                    (applied, applied_by_rank[rank]) = (applied + 1, true);
                    displaced.extend(Tag::decode(key, &answer.tag).ok());
                }
                Status::Same | Status::NotFound => {
                    (applied, applied_by_rank[rank]) = (applied + 1, true);
                }
                Status::Older => older += 1,
                status => {
                    report.problems.push(format!("server \"{}\" answered {status}", ranks[rank]));
                }
            },
            Err(error) => {
                in_doubt |= error.fate() == Fate::MaybeApplied;
                report.problems.push(error.to_string());
            }
        }
    }
    if applied == 0 && older > 0 {
        return Ok(None);
    }
    if applied == 0 {
        let (name, problems) = (key[1..].into(), report.problems);
        return Err(match in_doubt {
            true => Error::Indeterminate { name, problems },
            false => Error::Failed { name, problems },
        });
    }
    // Owners that hold a later write have applied the delete and been overtaken.
    let replicas = displaced.iter().map(|tag: &Tag| tag.replicas).max().unwrap_or(core.replicas);
    let owners = wanted_of(replicas, ranks.len()).min(ranks.len());
    report.wanted = owners as u32;
    let told = applied_by_rank[..owners].iter().filter(|applied| **applied).count();
    report.applied = (told + older).min(owners) as u32;
    // An owner that missed the delete may serve what it has; a reader that finds
    // stripes missing asks all owners, and learns of the delete.
    displaced.dedup();
    drop_displaced(core, &displaced, Default::default()).await;
    Ok(Some(report))
}

async fn tell(
    raw: &RawClient,
    server: &Arc<str>,
    key: &Bytes,
    version: Version,
) -> Result<Answer, Error> {
    let mut item = DeleteItem::new(key.clone());
    item.version = version;
    raw.delete(&Target::Server(Arc::clone(server)), vec![item]).await.remove(0)
}
