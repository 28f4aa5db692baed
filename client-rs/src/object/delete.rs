//! Deleting objects.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{Status, Version};

use super::cleanup::drop_displaced;
use super::copies::{meet, wanted_of};
use super::format::Tag;
use super::head::{check_name, read_ranks};
use super::report::DeleteReport;
use crate::client::{Client, Core};
use crate::error::{Error, Fate};
use crate::placement::Slot;
use crate::raw::{DeleteItem, RawClient, Target};

/// Times that a delete refused as older is sent with a greater version.
const REDRAWS_MAX: usize = 8;

impl Client {
    /// Deletes an object. Every server that may have a copy is told; owners that
    /// could not be told may serve it until repair.
    ///
    /// # Errors
    /// [`Error::Failed`] when no owner could be told, [`Error::Indeterminate`]
    /// when that cannot be said, [`Error::Unknown`] when no object was found and
    /// a server that may have one gave no answer.
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

/// What one server said to a delete.
enum Told {
    /// It knows of the delete, and may have displaced an object.
    Applied(Option<Tag>),
    /// It holds a later write.
    Older,
    /// Nothing that counts; whether it may have applied it.
    Nothing(String, Fate),
}

/// `None` = an owner holds a later write and none took the delete: draw again.
async fn delete_once(core: &Arc<Core>, key: &Bytes) -> Result<Option<DeleteReport>, Error> {
    let view = core.views.current();
    let ranks = read_ranks(&view, Slot::of(key, 0));
    if ranks.is_empty() {
        return Err(Error::NoServers { cluster: view.settings().cluster.as_str().into() });
    }
    meet(core, &ranks).await;
    let version = core.clocks().draw();
    let raw = &RawClient::for_objects(Arc::clone(core));
    let told = join_all(ranks.iter().map(|server| tell(raw, server, key, version))).await;
    let mut displaced: Vec<Tag> = Vec::new();
    for tag in told.iter().filter_map(|told| match told {
        Told::Applied(tag) => *tag,
        Told::Older | Told::Nothing(..) => None,
    }) {
        if !displaced.contains(&tag) {
            displaced.push(tag);
        }
    }
    // As many owners as the object has copies; without one, as it may have.
    let most = view.settings().replicas_max.max(core.replicas);
    let replicas = displaced.iter().map(|tag| tag.replicas).max().unwrap_or(most);
    let owners = &told[..wanted_of(replicas, ranks.len()).min(ranks.len())];
    let applied = owners.iter().filter(|told| matches!(told, Told::Applied(_))).count();
    let older = owners.iter().filter(|told| matches!(told, Told::Older)).count();
    let problems = told.iter().filter_map(|told| match told {
        Told::Nothing(problem, _) => Some(problem.clone()),
        Told::Applied(_) | Told::Older => None,
    });
    let mut problems: Vec<String> = problems.collect();
    if applied == 0 && older > 0 {
        return Ok(None);
    }
    if applied == 0 {
        let in_doubt = |told: &Told| matches!(told, Told::Nothing(_, Fate::MaybeApplied));
        let name = key[1..].into();
        // A stand-in that took the delete may hide the object one day.
        let is_somewhere = told.iter().any(|told| matches!(told, Told::Applied(_)));
        return Err(match told.iter().any(in_doubt) || is_somewhere {
            true => Error::Indeterminate { name, problems },
            false => Error::Failed { name, problems },
        });
    }
    // An owner that missed the delete may serve what it has; a reader that finds
    // stripes missing asks all owners, and learns of the delete.
    drop_displaced(core, &displaced, Default::default()).await;
    let existed = !displaced.is_empty();
    if !existed && problems.is_empty() && view.is_young(core.clocks().now_ms()) {
        problems.push("the cluster's registry is only seconds old, it may have been wiped".into());
    }
    if !existed && !problems.is_empty() {
        // The delete is known to some; whether there was an object is not.
        return Err(Error::Unknown { name: key[1..].into(), problems });
    }
    Ok(Some(DeleteReport {
        existed,
        wanted: owners.len() as u32,
        // An owner that holds a later write has applied the delete and was overtaken.
        applied: (applied + older) as u32,
        problems,
    }))
}

async fn tell(raw: &RawClient, server: &Arc<str>, key: &Bytes, version: Version) -> Told {
    let mut item = DeleteItem::new(key.clone());
    item.version = version;
    let target = Target::Server(Arc::clone(server));
    match raw.delete(&target, vec![item]).await.remove(0) {
        Ok(answer) => match answer.status {
            Status::Ok => Told::Applied(Tag::decode(key, &answer.tag).ok()),
            Status::Same | Status::NotFound => Told::Applied(None),
            Status::Older => Told::Older,
            status => {
                Told::Nothing(format!("server \"{server}\" answered {status}"), Fate::NotSent)
            }
        },
        Err(error) => Told::Nothing(error.to_string(), error.fate()),
    }
}
