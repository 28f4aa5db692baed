//! The one trait of all discovery services.

use std::fmt::Debug;

use futures_util::future::{BoxFuture, FutureExt, ready};

use crate::error::DiscoveryError;
use crate::listed;
use crate::model::{Living, Member, Revision, Settings, Snapshot};

/// A service that keeps the members of one cluster and knows who is alive.
///
/// What can be left out is that of a written list: it is read, and only people
/// change it. The sentences that every back end must pass are in
/// [`conformance`](crate::conformance).
pub trait Backend: Send + Sync + Debug {
    /// The URL that it was opened by, without secrets.
    fn url(&self) -> String;

    /// Everything that is known now. Entries that make no sense are left out
    /// with a complaint. Fails when the service cannot be read as a whole;
    /// costs a read of all entries.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>>;

    /// Resolves when something may have changed since the last snapshot; may
    /// also resolve when nothing has. One waiter at a time sees every change
    /// at once, others may see it late. Safe to drop before it resolves.
    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>>;

    /// Records the settings when there are none; returns what is there
    /// afterwards, which is someone else's when they came first. A list has its
    /// own.
    fn create_settings<'a>(
        &'a self,
        _settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Settings, DiscoveryError>> {
        async { self.snapshot().await?.settings.ok_or_else(|| read_only(&self.url())) }.boxed()
    }

    /// Writes a member if its record is at revision `expected`
    /// ([`Revision::ABSENT`]: if there is none), else fails with
    /// [`DiscoveryError::Conflict`] and changes nothing. Returns the new
    /// revision. A list is [`DiscoveryError::ReadOnly`].
    fn write_member<'a>(
        &'a self,
        _member: &'a Member,
        _expected: Revision,
    ) -> BoxFuture<'a, Result<Revision, DiscoveryError>> {
        ready(Err(read_only(&self.url()))).boxed()
    }

    /// Removes a member if its record is at revision `expected`, else fails
    /// with [`DiscoveryError::Conflict`] and changes nothing. A list is
    /// [`DiscoveryError::ReadOnly`].
    fn remove_member<'a>(
        &'a self,
        _name: &'a str,
        _expected: Revision,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        ready(Err(read_only(&self.url()))).boxed()
    }

    /// Makes a server known as alive, until the announcement is withdrawn or
    /// dropped, or the process dies. Fails with
    /// [`DiscoveryError::NameTaken`] while another one lives under the name. A
    /// list takes only whom it has, at the address that it has.
    fn announce<'a>(
        &'a self,
        living: &'a Living,
    ) -> BoxFuture<'a, Result<Announcement, DiscoveryError>> {
        async { listed::announce(&self.snapshot().await?, living, &self.url()) }.boxed()
    }

    /// Takes the entry of a server that was asked and gave no answer from among the
    /// living, if it is still that one; then its name is free at once, not when its
    /// lease ends. Where the service itself knows who lives (locks of one machine) or
    /// a list says it, nothing is done.
    fn free_name<'a>(&'a self, _silent: &'a Living) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        ready(Ok(())).boxed()
    }
}

fn read_only(url: &str) -> DiscoveryError {
    DiscoveryError::ReadOnly { backend: url.to_owned() }
}

/// A server's entry among the living. Dropping it withdraws it, as far as that
/// goes without waiting.
#[derive(Debug)]
#[must_use = "a server is alive only as long as its announcement is held"]
pub struct Announcement {
    entry: Box<dyn Withdraw>,
}

/// A back end's side of an [`Announcement`]; its `Drop` must withdraw as well.
pub trait Withdraw: Send + Sync + Debug {
    /// Takes the entry back.
    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoveryError>>;

    /// Whether the entry is kept up: false when it was removed, or given up for another
    /// server's. Asks no service.
    fn is_kept_up(&self) -> bool {
        true
    }
}

impl Announcement {
    /// Wraps what a back end must do to withdraw.
    pub fn new(entry: impl Withdraw + 'static) -> Self {
        Self { entry: Box::new(entry) }
    }

    /// Whether the entry is where it was made, or comes back by itself, as far as this
    /// process knows without asking. If not, the server is to be announced anew.
    pub fn is_kept_up(&self) -> bool {
        self.entry.is_kept_up()
    }

    /// Takes the entry back; afterwards nobody sees the server alive. Fails
    /// when the service does; the entry then ends as it would for a process
    /// that died.
    pub async fn withdraw(self) -> Result<(), DiscoveryError> {
        self.entry.withdraw().await
    }
}
