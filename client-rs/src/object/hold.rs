//! Keeping a striped object readable while it is read.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use rampuddle_protocol::SetId;
use tokio::time::sleep;

use crate::client::Core;
use crate::raw::RawClient;

/// How often a hold is renewed, so that the session outlives the silence of a
/// slow reader.
const RENEW_EVERY: Duration = Duration::from_secs(10);

/// Holds of one set on some servers. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    core: Weak<Core>,
    servers: Vec<Arc<str>>,
    set: SetId,
    renewal: tokio::task::AbortHandle,
}

impl Hold {
    /// Holds the set on all of the servers at once. One that does not answer is
    /// read without a hold.
    pub(super) async fn take(core: &Arc<Core>, servers: Vec<Arc<str>>, set: SetId) -> Self {
        hold_all(core, &servers, set).await;
        let renewal = tokio::spawn(renew(Arc::downgrade(core), servers.clone(), set));
        Self { core: Arc::downgrade(core), servers, set, renewal: renewal.abort_handle() }
    }
}

async fn hold_all(core: &Arc<Core>, servers: &[Arc<str>], set: SetId) {
    let raw = &RawClient::for_objects(Arc::clone(core));
    join_all(servers.iter().map(|server| async move { raw.hold(server, &[set]).await })).await;
}

async fn renew(core: Weak<Core>, servers: Vec<Arc<str>>, set: SetId) {
    loop {
        sleep(RENEW_EVERY).await;
        let Some(core) = core.upgrade() else { return };
        hold_all(&core, &servers, set).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewal.abort();
        let Some(core) = self.core.upgrade() else { return };
        let (servers, set) = (std::mem::take(&mut self.servers), self.set);
        let runtime = core.servers.access().runtime.clone();
        runtime.spawn(async move {
            let raw = &RawClient::for_objects(core);
            let each =
                servers.iter().map(|server| async move { raw.release(server, &[set]).await });
            join_all(each).await;
        });
    }
}
