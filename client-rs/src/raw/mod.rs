//! The raw layer: the four operations on values, and a few to look at servers.
//!
//! A value is mutable memory of fixed length under a key, on one server. Nothing
//! here replicates or stripes; a Scatter is neither atomic nor versioned. What
//! people usually want are objects.

mod batch;
mod clock;
mod create;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gather;
mod inspect;
mod items;
mod list;
mod pipeline;
mod rolling;
mod sets;
mod upload;
mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rampuddle_protocol::limits::{KEY_BYTES_MAX, TAG_BYTES_MAX};

use self::batch::{Groups, Results};
pub use self::items::{
    Answer, CreateItem, DeleteItem, DropItem, GatherItem, Info, ListPage, ListQuery, ScatterItem,
    StatAnswer, Target,
};
pub(crate) use self::pipeline::Landing;
pub(crate) use self::rolling::{Late, Rolling};
use crate::client::Core;
use crate::connection::Grants;
use crate::deadline::Deadline;
use crate::environment::Environment;
use crate::error::Error;
use crate::placement::Slot;
use crate::retry::Attempts;
use crate::server::{Class, Lease, Purpose, Server};
use crate::view::View;

/// Answers by the caller's order.
type Answered = Vec<(usize, Result<Answer, Error>)>;

/// Keys from this first byte on belong to the object layer.
const OBJECT_KINDS: u8 = 0xF8;

/// The raw operations, on batches of any size.
///
/// Every call returns one result per item, in the order of the items. `Ok` is
/// the server's own word on the item, which may be a refusal: see
/// [`Answer::status`]. `Err` means that there is no such word; its
/// [`fate`](Error::fate) says whether the item may have been applied.
///
/// Items for different servers are sent in parallel; items for one server in
/// order, over one connection, in as few frames as they fit. Dropping a call's
/// future closes its connections.
#[derive(Debug, Clone)]
pub struct RawClient {
    core: Arc<Core>,
    may_write_objects: bool,
    /// Whether the cluster's settings decide which server a key goes to.
    purpose: Purpose,
    /// Of the operation that this is a part of; `None` = each call is an
    /// operation of its own.
    operation: Option<Deadline>,
}

impl RawClient {
    /// For users: keys of objects can be read, not written.
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, may_write_objects: false, purpose: Purpose::Looking, operation: None }
    }

    /// For the object layer: all keys.
    pub(crate) fn for_objects(core: Arc<Core>) -> Self {
        Self { core, may_write_objects: true, purpose: Purpose::Placing, operation: None }
    }

    /// The same as a part of a larger operation: all its calls together must be
    /// done by `deadline`.
    pub(crate) fn until(mut self, deadline: Deadline) -> Self {
        self.operation = Some(deadline);
        self
    }

    /// The same as one operation on `target`, which begins now unless it is a
    /// part of one that has begun. Every public call begins with this.
    fn begun(&self, target: &Target) -> Self {
        let mut call = self.clone().until(self.deadline());
        if *target == Target::Placement {
            call.purpose = Purpose::Placing;
        }
        call
    }

    /// When the operation must be done.
    fn deadline(&self) -> Deadline {
        self.operation.unwrap_or_else(|| self.core.deadline_from_now())
    }

    fn view(&self) -> Arc<View> {
        self.core.views.current()
    }

    fn environment(&self) -> &Environment {
        &self.core.servers.access().environment
    }

    fn server(&self, name: &str) -> Result<Arc<Server>, Error> {
        self.core.servers.server(name)
    }

    /// A server, and how large its frames may be.
    async fn granted(&self, name: &str) -> Result<(Arc<Server>, Grants), Error> {
        let server = self.server(name)?;
        let grants = server.grants_for(self.purpose, self.deadline()).await?;
        Ok((server, grants))
    }

    /// A connection for one operation.
    async fn acquire(&self, server: &Arc<Server>, class: Class) -> Result<Lease, Error> {
        server.acquire_for(self.purpose, class, self.deadline()).await
    }

    /// A connection for one attempt at a request, which is noted when there is one.
    async fn acquire_for_attempt(
        &self,
        server: &Arc<Server>,
        class: Class,
        attempts: &mut Attempts,
    ) -> Result<Lease, Error> {
        let lease = self.acquire(server, class).await?;
        self.core.retries.note(attempts);
        Ok(lease)
    }

    /// Whether a request that had no effect may be sent to the server again;
    /// waits before that, at least `at_least`.
    async fn may_send_again(
        &self,
        server: &Server,
        attempts: &mut Attempts,
        at_least: Duration,
    ) -> bool {
        let (retries, deadline) = (&self.core.retries, self.deadline());
        let again = retries.again(attempts, self.environment(), at_least, deadline).await;
        if again {
            server.next_verdict(deadline).await;
        }
        again
    }

    /// Sorts items by server. Those that cannot be sent get their result at once.
    fn grouped<T, A>(
        &self,
        target: &Target,
        items: Vec<T>,
        results: &mut Results<A>,
        key_of: impl Fn(&T) -> (&Bytes, u16),
        check: impl Fn(&T) -> Result<(), Error>,
    ) -> Groups<T> {
        let view = self.view();
        let mut groups = Groups::new();
        for (index, item) in items.into_iter().enumerate() {
            let (key, placement_bytes) = key_of(&item);
            let server = check(&item).and_then(|()| place(&view, target, key, placement_bytes));
            match server {
                Ok(server) => groups.entry(server).or_default().push((index, item)),
                Err(error) => results.set(index, Err(error)),
            }
        }
        groups
    }

    fn check_readable(key: &[u8]) -> Result<(), Error> {
        let is_good = (1..=KEY_BYTES_MAX).contains(&key.len());
        if is_good { Ok(()) } else { Err(Error::BadKey { bytes: key.len() }) }
    }

    fn check_writable(&self, key: &[u8]) -> Result<(), Error> {
        Self::check_readable(key)?;
        let first = key[0];
        let is_free = first < OBJECT_KINDS || self.may_write_objects;
        if is_free { Ok(()) } else { Err(Error::ReservedKey { first }) }
    }
}

fn check_tag(tag: &[u8]) -> Result<(), Error> {
    let (bytes, limit) = (tag.len() as u64, TAG_BYTES_MAX as u64);
    if bytes <= limit { Ok(()) } else { Err(Error::TooLarge { what: "a tag", bytes, limit }) }
}

/// The server that a key goes to.
fn place(
    view: &View,
    target: &Target,
    key: &[u8],
    placement_bytes: u16,
) -> Result<Arc<str>, Error> {
    match target {
        Target::Server(name) => Ok(Arc::clone(name)),
        Target::Placement => {
            let owner = view.owners(Slot::of(key, placement_bytes), 1).next().cloned();
            let cluster = || Arc::from(view.settings().cluster.as_str());
            owner.ok_or_else(|| Error::NoServers { cluster: cluster() })
        }
    }
}
