//! Removing what belongs to no object any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use rampuddle_protocol::SetId;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use super::format::Tag;
use super::operation::Operation;
use super::ranks::Places;
use super::removal::{Removal, Stripes};
use super::untold::Untold;
use crate::client::{Client, Core};

/// When stripes of a dropped upload are removed once more.
const SECOND_LOOK: Duration = Duration::from_secs(15);

/// The clean-ups that go on behind puts which were given up, and behind reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cleanups(Arc<RwLock<()>>);

impl Cleanups {
    /// One more, until the guard is dropped; none counts while somebody waits for
    /// the end of all.
    pub(crate) fn begin(&self) -> Option<OwnedRwLockReadGuard<()>> {
        Arc::clone(&self.0).try_read_owned().ok()
    }
}

impl Client {
    /// Waits until puts that were given up, their futures dropped, have removed
    /// what they had written from the servers that answer, and until those have been
    /// told what is read no more. A process that ends before leaves it to the servers,
    /// which wait for the end of a lease, or of its session.
    pub async fn cleaned_up(&self) {
        let cleanups = Arc::clone(&self.core().cleanups.0);
        drop(cleanups.write().await);
    }
}

/// Removes the stripes of an upload that comes to nothing, when it is dropped
/// before it was disarmed.
#[derive(Debug)]
pub(super) struct Cleanup {
    core: Weak<Core>,
    stripes: Stripes,
    is_armed: bool,
}

impl Cleanup {
    pub(super) fn new(core: &Arc<Core>, upload: SetId, replicas: u8) -> Self {
        let stripes = Stripes { upload, replicas, number: 0 };
        Self { core: Arc::downgrade(core), stripes, is_armed: true }
    }

    /// Notes that a stripe may come to lie somewhere.
    pub(super) fn begins(&mut self, stripe: u64) {
        self.stripes.number = self.stripes.number.max(stripe + 1);
    }

    /// Removes the stripes now, armed or not, and once more later.
    pub(super) async fn run(&mut self, operation: &Operation) {
        self.disarm();
        let (stripes, under_way) = (self.stripes, operation.cleanups.begin());
        let drop = move |background: Operation| async move {
            remove_once(&background, stripes).await;
            look_again(background.core(), stripes);
            drop(under_way);
        };
        operation.see_through(drop).await;
    }

    /// The stripes belong to an object now.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let is_needed = self.is_armed && self.stripes.number > 0;
        let Some(core) = self.core.upgrade().filter(|_| is_needed) else { return };
        let (stripes, background) = (self.stripes, Operation::background(&core));
        let runtime = core.servers.access().runtime.clone();
        let under_way = core.cleanups.begin();
        runtime.spawn(async move {
            remove_once(&background, stripes).await;
            drop(under_way);
            look_again(background.core(), stripes);
        });
    }
}

/// Removes stripes once more in a while: one that was on its way may have arrived
/// behind its removal, and a server may answer again.
fn look_again(core: &Arc<Core>, stripes: Stripes) {
    if stripes.number > 0 {
        Untold::later(core, Removal::Stripes(stripes), SECOND_LOOK);
    }
}

/// Removes what a head took the place of: the same heads where this one does not
/// belong, because there were more copies of them or a server stood in for an
/// owner, and their stripes. `new` is the upload of the head, or zero after a
/// delete; `have` are the servers that know of it. Who gives no answer is told
/// again. Returns owners of what was removed that could not be told: they may serve
/// it when they answer again.
pub(super) async fn drop_displaced(
    operation: &Operation,
    key: &Bytes,
    mut displaced: Vec<Tag>,
    new: SetId,
    have: Vec<Arc<str>>,
) -> Vec<Arc<str>> {
    let lacks = |server: &Arc<str>| !have.contains(server);
    let view = operation.views.current();
    // A head without stripes whose servers all know of the new one left nothing behind.
    displaced.retain(|tag| {
        let places = || Places::of_copies(&view, key, tag.replicas);
        tag.upload != new && (tag.stripes() > 0 || places().all().iter().any(lacks))
    });
    drop(view);
    if displaced.is_empty() {
        return Vec::new();
    }
    let key = key.clone();
    let drop = move |background: Operation| async move {
        let lacks = |server: &str| !have.iter().any(|one| &**one == server);
        let mut untold = Vec::new();
        for tag in displaced {
            let Tag { upload, replicas, .. } = tag;
            let stripes = Stripes { upload, replicas, number: tag.stripes() };
            let places = Places::of_copies(&background.views.current(), &key, replicas);
            // Before their stripes, so that nobody finds heads without any.
            let head = Removal::Head { key: key.clone(), tag };
            let silent = remove(&background, head, &lacks).await;
            let owners = places.owners(replicas);
            untold.extend(silent.into_iter().filter(|server| owners.contains(server)));
            remove(&background, Removal::Stripes(stripes), &|_| true).await;
        }
        untold.sort_unstable();
        untold.dedup();
        untold
    };
    operation.see_through(drop).await.unwrap_or_default()
}

/// Removes all copies of stripes that there are now.
async fn remove_once(operation: &Operation, stripes: Stripes) {
    Removal::Stripes(stripes).run(operation, &|_| true).await;
}

/// As [`Removal::run`]; who gives no answer is told again.
async fn remove(
    operation: &Operation,
    removal: Removal,
    is_meant: &(dyn Fn(&str) -> bool + Sync),
) -> Vec<Arc<str>> {
    let silent = removal.run(operation, is_meant).await;
    Untold::again(operation.core(), removal, silent.clone());
    silent
}
