//! One object operation: what all its steps share.

use std::future::Future;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use crate::client::Core;
use crate::deadline::Deadline;
use crate::raw::RawClient;
use crate::retry::Attempts;

/// The client, and when the operation must be done.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    core: Arc<Core>,
    deadline: Deadline,
}

impl Operation {
    /// One that begins now.
    pub(super) fn begin(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), deadline: core.deadline_from_now() }
    }

    /// What goes on behind an operation, and has no deadline.
    pub(super) fn background(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), deadline: None }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// The operations on values, all within the deadline.
    pub(super) fn raw(&self) -> RawClient {
        RawClient::for_objects(Arc::clone(&self.core)).until(self.deadline)
    }

    /// Whether a request that failed may be sent to the same server again; waits
    /// before that.
    pub(super) async fn again(&self, attempts: &mut Attempts) -> bool {
        let environment = &self.core.servers.access().environment;
        self.core.retries.again(attempts, environment, Duration::ZERO, self.deadline).await
    }

    /// Waits for `work` until the deadline; `None` = it was given up.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.deadline {
            None => Some(work.await),
            Some(deadline) => timeout_at(deadline, work).await.ok(),
        }
    }

    /// Runs `work`, which goes on to its end though the caller's future is dropped;
    /// the deadline holds for what it does all the same. `None` = the runtime ends.
    pub(super) async fn uncut<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        match self.core.servers.access().runtime.spawn(work).await {
            Ok(done) => Some(done),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }

    /// Waits until the deadline for `work`, which goes on to its end whatever
    /// becomes of the operation: it has no deadline, and no caller ends it.
    pub(super) async fn see_through<T, F>(
        &self,
        work: impl FnOnce(Self) -> F + Send + 'static,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let background = Self::background(&self.core);
        let task = self.core.servers.access().runtime.spawn(work(background));
        self.within(task).await?.ok()
    }
}

impl Deref for Operation {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}
