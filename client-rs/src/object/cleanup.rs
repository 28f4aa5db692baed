//! Removing stripes that belong to no object any more.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::SetId;
use tokio::time::sleep;

use super::copies::answers;
use super::format::{Tag, stripe_key, stripe_version};
use super::head::read_ranks;
use crate::client::Core;
use crate::placement::Slot;
use crate::raw::{DropItem, RawClient, Target};

/// When stripes of a dropped upload are removed once more.
const SECOND_LOOK: Duration = Duration::from_secs(15);
/// Stripes whose removal is asked for at once.
const STRIPES_AT_ONCE: u64 = 512;

/// Removes the stripes of an upload that comes to nothing, when it is dropped
/// before it was disarmed.
#[derive(Debug)]
pub(super) struct Cleanup {
    core: Weak<Core>,
    upload: SetId,
    stripes: u64,
    is_armed: bool,
}

impl Cleanup {
    pub(super) fn new(core: &Arc<Core>, upload: SetId) -> Self {
        Self { core: Arc::downgrade(core), upload, stripes: 0, is_armed: true }
    }

    /// Notes that a stripe may come to lie somewhere.
    pub(super) fn begins(&mut self, stripe: u64) {
        self.stripes = self.stripes.max(stripe + 1);
    }

    /// Removes the stripes now, armed or not.
    pub(super) async fn run(&mut self) {
        if let Some(core) = self.core.upgrade() {
            drop_stripes(&core, self.upload, self.stripes).await;
        }
        self.disarm();
    }

    /// The stripes belong to an object now.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade().filter(|_| self.is_armed && self.stripes > 0) else {
            return;
        };
        let (upload, stripes) = (self.upload, self.stripes);
        let runtime = core.servers.access().runtime.clone();
        // What cannot be reached now ends with its lease.
        runtime.spawn(async move {
            drop_stripes(&core, upload, stripes).await;
            // A stripe that was on its way may have arrived behind its removal.
            sleep(SECOND_LOOK).await;
            drop_stripes(&core, upload, stripes).await;
        });
    }
}

/// Removes the stripes of objects that were displaced, but not of `keep`.
pub(super) async fn drop_displaced(core: &Arc<Core>, displaced: &[Tag], keep: SetId) {
    for tag in displaced.iter().filter(|tag| tag.upload != keep) {
        drop_stripes(core, tag.upload, tag.stripes()).await;
    }
}

/// Removes all copies of an upload's stripes that can be reached.
async fn drop_stripes(core: &Arc<Core>, upload: SetId, stripes: u64) {
    let raw = &RawClient::for_objects(Arc::clone(core));
    let mut begin = 0;
    while begin < stripes {
        let end = stripes.min(begin + STRIPES_AT_ONCE);
        let mut by_server = std::collections::BTreeMap::<Arc<str>, Vec<DropItem>>::new();
        for stripe in begin..end {
            let key: Bytes = stripe_key(upload, stripe);
            for server in read_ranks(&core.views.current(), Slot::of(&key, 0)) {
                if !answers(core, &server) {
                    continue;
                }
                let item = DropItem::new(key.clone(), stripe_version(upload));
                by_server.entry(server).or_default().push(item);
            }
        }
        let each = by_server.into_iter().map(|(server, items)| async move {
            raw.drop_version(&Target::Server(server), items).await
        });
        join_all(each).await;
        begin = end;
    }
}
