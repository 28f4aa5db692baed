//! The pool of a server on this machine, mapped once for each of its runs.

use std::sync::Arc;
use std::time::Duration;

use rampuddle_protocol::{Incarnation, Status};
use tokio::time::Instant;

use super::{Class, Server};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::mapping::Mapping;

/// How long a server is not asked again for its pool that could not hand it out.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of a server's pool.
#[derive(Debug, Default)]
pub(super) enum Sharing {
    /// Nobody asked.
    #[default]
    Unknown,
    /// It is mapped.
    Mapped(Arc<Mapping>),
    /// This run of the server does not hand it out, or not so that it can be used.
    Refused(Incarnation),
    /// It could not do so lately.
    NotBefore(Instant),
}

impl Server {
    /// The server's pool, when it runs on this machine and hands it out.
    pub(crate) async fn mapping(self: &Arc<Self>, deadline: Deadline) -> Option<Arc<Mapping>> {
        if !self.access.maps || !self.is_local() {
            return None;
        }
        if let Some(known) = self.known_mapping() {
            return known;
        }
        // One question for all that wait for its answer.
        let _one = self.sharing.lock().await;
        if let Some(known) = self.known_mapping() {
            return known;
        }
        let found = self.share(deadline).await.unwrap_or_else(|_| later());
        let mapping = match &found {
            Sharing::Mapped(mapping) => Some(Arc::clone(mapping)),
            _ => None,
        };
        self.state().sharing = found;
        mapping
    }

    /// `None` = the server is to be asked.
    fn known_mapping(&self) -> Option<Option<Arc<Mapping>>> {
        let state = self.state();
        let incarnation = state.greeting.as_ref().map(|greeting| greeting.incarnation);
        match &state.sharing {
            Sharing::Mapped(mapping) if Some(mapping.incarnation()) == incarnation => {
                Some(Some(Arc::clone(mapping)))
            }
            Sharing::Refused(by) if Some(*by) == incarnation => Some(None),
            Sharing::NotBefore(then) if Instant::now() < *then => Some(None),
            _ => None,
        }
    }

    /// The server does not know a mapping any more.
    pub(crate) fn forget_mapping(&self, gone: &Arc<Mapping>) {
        let mut state = self.state();
        if matches!(&state.sharing, Sharing::Mapped(mapping) if Arc::ptr_eq(mapping, gone)) {
            state.sharing = Sharing::Unknown;
        }
    }

    async fn share(self: &Arc<Self>, deadline: Deadline) -> Result<Sharing, Error> {
        let mut lease = self.acquire(Class::Small, deadline).await?;
        if !lease.is_local() {
            return Ok(later());
        }
        let shared = lease.share().await?;
        let incarnation = lease.greeting().incarnation;
        lease.finish();
        Ok(match shared {
            Ok((row, pool)) => match Mapping::new(self, incarnation, &row, &pool) {
                Ok(mapping) => Sharing::Mapped(Arc::new(mapping)),
                Err(error) => {
                    tracing::warn!(server = %self.name, %error, "its pool cannot be mapped");
                    Sharing::Refused(incarnation)
                }
            },
            Err(Status::Busy) => later(),
            Err(_) => Sharing::Refused(incarnation),
        })
    }
}

fn later() -> Sharing {
    Sharing::NotBefore(Instant::now() + PAUSE)
}
