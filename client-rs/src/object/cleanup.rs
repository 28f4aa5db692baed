//! Removing what belongs to no object any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::SetId;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::sleep;

use super::format::{Tag, stripe_key, stripe_version};
use super::operation::Operation;
use super::ranks::{Places, answers};
use crate::client::{Client, Core};
use crate::raw::{DropItem, Target};

/// When stripes of a dropped upload are removed once more.
const SECOND_LOOK: Duration = Duration::from_secs(15);
/// When servers that gave no answer are told again: at first, at most, and how often.
/// In all 15 minutes, after which what has a lease is gone by itself.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
const TIMES_AGAIN: u32 = 19;
/// Stripes whose removal is asked for at once.
const STRIPES_AT_ONCE: u64 = 512;

/// The stripes of one upload.
#[derive(Debug, Clone, Copy)]
struct Stripes {
    upload: SetId,
    /// As in the tag.
    replicas: u8,
    number: u64,
}

/// The clean-ups that go on behind puts which were given up, and behind reads.
#[derive(Debug, Default)]
pub(crate) struct Cleanups(Arc<RwLock<()>>);

impl Cleanups {
    /// One more, until the guard is dropped; none counts while somebody waits for
    /// the end of all.
    pub(super) fn begin(&self) -> Option<OwnedRwLockReadGuard<()>> {
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
        let stripes = self.stripes;
        let drop = move |background| async move { drop_stripes(&background, stripes, None).await };
        operation.see_through(drop).await;
        look_again(operation.core(), stripes);
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
            drop_stripes(&background, stripes, None).await;
            drop(under_way);
            look_again(background.core(), stripes);
        });
    }
}

/// Removes stripes once more in a while: one that was on its way may have arrived
/// behind its removal, and a server may answer again. Keeps no client alive.
fn look_again(core: &Arc<Core>, stripes: Stripes) {
    if stripes.number == 0 {
        return;
    }
    let (runtime, core) = (core.servers.access().runtime.clone(), Arc::downgrade(core));
    runtime.spawn(async move {
        sleep(SECOND_LOOK).await;
        let Some(strong) = core.upgrade() else { return };
        let silent = drop_stripes(&Operation::background(&strong), stripes, None).await;
        drop(strong);
        tell_again(core, stripes, silent).await;
    });
}

/// Removes stripes from servers that gave no answer, until they do or it has been
/// tried often enough. What stays then is left to repair.
async fn tell_again(core: Weak<Core>, stripes: Stripes, mut silent: Vec<Arc<str>>) {
    let (mut pause, longest) = AGAIN;
    for _ in 0..TIMES_AGAIN {
        if silent.is_empty() {
            return;
        }
        sleep(pause).await;
        pause = longest.min(pause * 2);
        let Some(core) = core.upgrade() else { return };
        silent = drop_stripes(&Operation::background(&core), stripes, Some(&silent)).await;
    }
}

/// Removes what a head took the place of: the same heads where this one does not
/// belong, because there were more copies of them or a server stood in for an
/// owner, and their stripes. `new` is the upload of the head, or zero after a
/// delete; `have` are the servers that know of it. Returns owners of what was
/// removed that could not be told: they may serve it when they answer again.
pub(super) async fn drop_displaced(
    operation: &Operation,
    key: &Bytes,
    mut displaced: Vec<Tag>,
    new: SetId,
    have: Vec<Arc<str>>,
) -> Vec<Arc<str>> {
    displaced.retain(|tag| tag.upload != new);
    if displaced.is_empty() {
        return Vec::new();
    }
    let key = key.clone();
    let drop = move |background: Operation| async move {
        let mut untold = Vec::new();
        for tag in &displaced {
            // Before their stripes, so that nobody finds heads without any.
            untold.extend(drop_heads(&background, &key, tag, &have).await);
            let Tag { upload, replicas, .. } = *tag;
            let stripes = Stripes { upload, replicas, number: tag.stripes() };
            let silent = drop_stripes(&background, stripes, None).await;
            if !silent.is_empty() {
                let core = Arc::downgrade(background.core());
                tokio::spawn(tell_again(core, stripes, silent));
            }
        }
        untold.sort_unstable();
        untold.dedup();
        untold
    };
    operation.see_through(drop).await.unwrap_or_default()
}

/// Removes a head from those servers that a later one has not reached; returns its
/// owners among them that gave no answer.
async fn drop_heads(
    operation: &Operation,
    key: &Bytes,
    tag: &Tag,
    have: &[Arc<str>],
) -> Vec<Arc<str>> {
    let places = Places::of_copies(&operation.views.current(), key, tag.replicas);
    let owners = places.owners(tag.replicas);
    let left = places.all().iter().filter(|server| !have.contains(server));
    let each = left.map(|server| async move {
        let is_told = answers(operation, server) && {
            let item = DropItem::new(key.clone(), tag.version);
            let target = Target::Server(Arc::clone(server));
            operation.raw().drop_version(&target, vec![item]).await.remove(0).is_ok()
        };
        (!is_told && owners.contains(server)).then(|| Arc::clone(server))
    });
    join_all(each).await.into_iter().flatten().collect()
}

/// Removes all copies of stripes, or those on some servers; returns the servers that
/// may have some still, because they gave no answer.
async fn drop_stripes(
    operation: &Operation,
    stripes: Stripes,
    only: Option<&[Arc<str>]>,
) -> Vec<Arc<str>> {
    let Stripes { upload, replicas, number } = stripes;
    let raw = &operation.raw();
    let mut silent = BTreeSet::new();
    let mut begin = 0;
    while begin < number {
        let end = number.min(begin + STRIPES_AT_ONCE);
        let view = operation.views.current();
        let mut by_server = BTreeMap::<Arc<str>, Vec<DropItem>>::new();
        for stripe in begin..end {
            let key: Bytes = stripe_key(upload, stripe);
            let places = Places::of_copies(&view, &key, replicas);
            let told = |server: &&Arc<str>| only.is_none_or(|only| only.contains(server));
            for server in places.all().iter().filter(told) {
                if !answers(operation, server) {
                    silent.insert(Arc::clone(server));
                } else if !silent.contains(server) {
                    let item = DropItem::new(key.clone(), stripe_version(upload));
                    by_server.entry(Arc::clone(server)).or_default().push(item);
                }
            }
        }
        let each = by_server.into_iter().map(|(server, items)| async move {
            let answers = raw.drop_version(&Target::Server(Arc::clone(&server)), items).await;
            answers.iter().any(Result::is_err).then_some(server)
        });
        silent.extend(join_all(each).await.into_iter().flatten());
        begin = end;
    }
    silent.into_iter().collect()
}
