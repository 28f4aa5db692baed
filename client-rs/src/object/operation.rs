//! One object operation: what all its steps share.

use std::future::Future;
use std::ops::Deref;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use crate::client::Core;
use crate::deadline::Deadline;
use crate::raw::RawClient;
use crate::retry::Attempts;
use crate::work::Work;

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
    /// the deadline holds for what it does all the same. `None` = the client's runtime ends.
    pub(super) fn uncut<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Uncut<T> {
        let runtime = self.core.servers.access().runtime.clone();
        let is_here = Handle::try_current().is_ok_and(|current| current.id() == runtime.id());
        let work = match is_here {
            true => Running::Here(Box::pin(work)),
            // What waits in another runtime would end with that.
            false => Running::Elsewhere(runtime.spawn(work)),
        };
        Uncut { work: Some(work), runtime }
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
        self.within(self.uncut(work(Self::background(&self.core)))).await.flatten()
    }
}

/// Work that a task takes over when whoever waits for it is gone. Until then it costs
/// none.
pub(super) struct Uncut<T: Send + 'static> {
    /// `None` = it is done.
    work: Option<Running<T>>,
    runtime: Handle,
}

enum Running<T> {
    Here(Work<'static, T>),
    Elsewhere(JoinHandle<T>),
}

impl<T: Send + 'static> Future for Uncut<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // What panics is not gone on with.
        let mut work = self.work.take().expect("nobody polls what is done");
        let polled = match &mut work {
            Running::Here(work) => work.as_mut().poll(context).map(Some),
            Running::Elsewhere(task) => Pin::new(task).poll(context).map(|done| match done {
                Ok(done) => Some(done),
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => None,
            }),
        };
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Uncut<T> {
    fn drop(&mut self) {
        // A task goes on by itself.
        if let Some(Running::Here(work)) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

impl Deref for Operation {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}
