//! Deleting objects.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{Status, Version};

use super::cleanup::drop_displaced;
use super::copies::meet;
use super::format::Tag;
use super::head::check_name;
use super::observed::observed;
use super::operation::Operation;
use super::ranks::{Places, wanted_now, why_young};
use super::report::DeleteReport;
use crate::client::Client;
use crate::error::{Error, Fate};
use crate::metrics::OperationKind;
use crate::raw::{DeleteItem, Target};
use crate::work::Work;

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
        observed(self.core(), OperationKind::Delete, name, self.delete_object(name)).await
    }

    fn delete_object<'a>(&'a self, name: &'a [u8]) -> Work<'a, Result<DeleteReport, Error>> {
        Box::pin(async move {
            let key = check_name(name)?;
            let operation = &Operation::begin(self.core());
            let mut clocks_compared = false;
            for _ in 0..REDRAWS_MAX {
                match delete_once(operation, &key).await {
                    Ok(Some(report)) => return Ok(report),
                    Ok(None) => {}
                    Err(Error::Refused { status: Status::Clock, .. }) if !clocks_compared => {
                        operation.raw().compare_clocks().await;
                        clocks_compared = true;
                    }
                    Err(error) => return Err(error),
                }
            }
            let problems = vec!["writers were faster every time".to_owned()];
            Err(Error::Failed { name: name.into(), problems })
        })
    }
}

/// What one server said to a delete.
enum Told {
    /// It knows of the delete. Whether that removed an object, and its tag, if
    /// this client can read it.
    Applied { removed: bool, tag: Option<Tag> },
    /// It holds a later write: an object or not, and its tag.
    Older { is_object: bool, tag: Option<Tag> },
    /// Nothing that counts.
    Nothing(Error),
}

/// What all servers said to a delete of one version.
struct Deletion<'d> {
    operation: &'d Operation,
    key: &'d Bytes,
    version: Version,
    told: Vec<(Arc<str>, Told)>,
}

impl Deletion<'_> {
    /// Tells those of the servers that were not told yet.
    async fn tell(&mut self, servers: &[Arc<str>]) {
        let Self { operation, key, version, told } = self;
        let new = servers.iter().filter(|server| told.iter().all(|(known, _)| known != *server));
        let each = new.map(|server| async {
            (Arc::clone(server), tell(operation, server, key, *version).await)
        });
        let more = join_all(each).await;
        told.extend(more);
    }

    /// The objects that it removed.
    fn displaced(&self) -> Vec<Tag> {
        let mut displaced: Vec<Tag> = Vec::new();
        for (_, told) in &self.told {
            if let Told::Applied { tag: Some(tag), .. } = told
                && !displaced.contains(tag)
            {
                displaced.push(*tag);
            }
        }
        displaced
    }

    /// Copies that the latest object has, removed or not; `none` = there is none.
    fn replicas(&self, none: u8) -> u8 {
        let tags = self.told.iter().filter_map(|(_, told)| match told {
            Told::Applied { tag, .. } | Told::Older { tag, .. } => tag.as_ref(),
            Told::Nothing(_) => None,
        });
        tags.max_by_key(|tag| tag.version).map_or(none, |tag| tag.replicas)
    }

    /// The most copies that an object removed had.
    fn reach(&self) -> u8 {
        self.displaced().iter().map(|tag| tag.replicas).max().unwrap_or(0)
    }

    fn any(&self, which: impl Fn(&Told) -> bool) -> bool {
        self.told.iter().any(|(_, told)| which(told))
    }
}

/// `None` = no owner took the delete, or it removed nothing, and there is a later
/// write: draw again.
async fn delete_once(operation: &Operation, key: &Bytes) -> Result<Option<DeleteReport>, Error> {
    let view = operation.views.current();
    let places = Places::of(&view, key);
    if places.all().is_empty() {
        return Err(Error::NoServers { cluster: view.settings().cluster.as_str().into() });
    }
    meet(operation, places.all()).await;
    let version = operation.clocks().draw();
    let mut deletion = Deletion { operation, key, version, told: Vec::new() };
    deletion.tell(places.all()).await;
    // As many owners as the object has copies; without one, as it may have.
    let none = view.settings().replicas_max.max(operation.replicas_in(&view));
    let replicas = deletion.replicas(none);
    // With a copy on every member, they lie further than objects do usually.
    let places = Places::of_copies(&view, key, replicas.max(deletion.reach()));
    deletion.tell(places.all()).await;
    let existed = deletion.any(|told| matches!(told, Told::Applied { removed: true, .. }));
    let is_there = deletion.any(|told| matches!(told, Told::Older { is_object: true, .. }));
    let displaced = deletion.displaced();
    let Deletion { told, .. } = deletion;
    let is_owner = |server: &Arc<str>| places.owners(replicas).contains(server);
    let owners = || told.iter().filter(|(server, _)| is_owner(server)).map(|(_, told)| told);
    let applied = owners().filter(|told| matches!(told, Told::Applied { .. })).count();
    let older = owners().filter(|told| matches!(told, Told::Older { .. })).count();
    let errors = told.iter().filter_map(|(_, told)| match told {
        Told::Nothing(error) => Some(error),
        Told::Applied { .. } | Told::Older { .. } => None,
    });
    let errors: Vec<&Error> = errors.collect();
    let mut problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
    // A client whose clock is behind must not say that there is no object.
    if (applied == 0 && older > 0) || (!existed && is_there) {
        return Ok(None);
    }
    if applied == 0 {
        let in_doubt = errors.iter().any(|error| error.fate() == Fate::MaybeApplied);
        let name = key[1..].into();
        // A stand-in that took the delete may hide the object one day.
        let is_somewhere = told.iter().any(|(_, told)| matches!(told, Told::Applied { .. }));
        if in_doubt || is_somewhere {
            return Err(Error::Indeterminate { name, problems });
        }
        let is_ahead =
            |error: &&Error| matches!(error, Error::Refused { status: Status::Clock, .. });
        let refusal = Error::refusal_among(errors.iter().copied());
        let telling = refusal.or_else(|| errors.into_iter().find(is_ahead)).cloned();
        return Err(telling.unwrap_or(Error::Failed { name, problems }));
    }
    // An owner that missed the delete may serve what it has; a reader that finds
    // stripes missing asks all owners, and learns of the delete.
    let have = told.iter().map(|(server, _)| Arc::clone(server)).collect();
    drop_displaced(operation, key, displaced, Default::default(), have).await;
    let now_ms = operation.clocks().now_ms();
    let owners = places.owners(replicas).len();
    let wanted = if existed { wanted_now(&view, replicas, owners, now_ms) } else { owners };
    if wanted > owners || (!existed && problems.is_empty() && view.is_young(now_ms)) {
        problems.push(why_young(&view).to_owned());
    }
    if !existed && !problems.is_empty() {
        // The delete is known to some; whether there was an object is not.
        return Err(Error::Unknown { name: key[1..].into(), problems });
    }
    Ok(Some(DeleteReport {
        existed,
        wanted: wanted as u32,
        // An owner that holds a later write has applied the delete and was overtaken.
        applied: (applied + older) as u32,
        problems,
    }))
}

async fn tell(operation: &Operation, server: &Arc<str>, key: &Bytes, version: Version) -> Told {
    let mut item = DeleteItem::new(key.clone());
    item.version = version;
    let target = Target::Server(Arc::clone(server));
    match operation.raw().delete(&target, vec![item]).await.remove(0) {
        Ok(answer) => match (answer.status, Tag::decode(key, &answer.tag).ok()) {
            (Status::Ok, tag) => Told::Applied { removed: true, tag },
            (Status::Same | Status::NotFound, _) => Told::Applied { removed: false, tag: None },
            // Every head has a tag, and no delete has one.
            (Status::Older, tag) => Told::Older { is_object: !answer.tag.is_empty(), tag },
            (status, _) => Told::Nothing(Error::refused(server, "a delete", status)),
        },
        Err(error) => Told::Nothing(error),
    }
}
