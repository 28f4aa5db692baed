//! `dir:` a directory that the processes of one machine share.
//!
//! ```text
//! PATH/CLUSTER/              mode 0700
//!   settings.json            written once
//!   lock                     held while anything below is written; holds the
//!                            last revision that was given out
//!   members/NAME.json        a member and its revision, replaced by renaming
//!   living/NAME.json         where a server listens; the server holds a lock
//!                            on it as long as it lives
//! ```
//!
//! The records are JSON. Fields that a reader does not know are ignored. A record
//! whose field `format` is greater than [`RECORD_FORMAT`](crate::validate::RECORD_FORMAT)
//! is of a later version: a member's stays as it was known, settings are an error.
//!
//! A server is alive while its entry is locked exclusively: the kernel lets
//! go of the lock however the process ends. A stale entry means nothing.

mod folder;
mod living;
mod lock;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::time::timeout;

use crate::backend::{Announcement, Backend};
use crate::blocking::blocking;
use crate::error::DiscoveryError;
use crate::events::{Change, DirectoryEvents};
use crate::model::{Living, Member, Revision, Settings, Snapshot};
use crate::validate;
use folder::Folder;

/// How often waiters wake without an event, for changes that the kernel told
/// nobody about.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// `dir:PATH`: members as files, and locks for the living, on one machine.
///
/// Needs a local file system. Reading costs a few microseconds per member and
/// per living server. A process that is killed is seen as gone within
/// milliseconds. Writers take turns; one that is stopped while it writes makes
/// the others fail with [`DiscoveryError::Locked`] after five seconds.
#[derive(Debug)]
pub struct DirBackend {
    root: PathBuf,
    folder: Arc<Folder>,
    events: DirectoryEvents,
}

impl DirBackend {
    /// Uses the directory at an absolute path. Touches nothing yet: whoever
    /// writes creates it, and to whoever only looks it may be missing.
    pub fn new(root: impl Into<PathBuf>, cluster: &str) -> Result<Self, DiscoveryError> {
        validate::name(cluster)?;
        let root = root.into();
        let folder = Folder::new(&root, cluster);
        Ok(Self {
            root,
            events: DirectoryEvents::new(folder.directories().map(Into::into).to_vec()),
            folder: Arc::new(folder),
        })
    }

    /// Runs `work` on a blocking thread.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, DiscoveryError> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, DiscoveryError>> {
        let folder = self.folder.clone();
        blocking(move || work(&folder)).boxed()
    }

    /// Changes after a reading wake a waiter, also one that comes later.
    async fn read(&self) -> Result<Snapshot, DiscoveryError> {
        self.events.arm();
        self.call(Folder::snapshot).await
    }

    async fn wait_for_change(&self) -> Result<(), DiscoveryError> {
        match timeout(POLL_INTERVAL, self.record_changes()).await {
            Ok(closed) => self.call(move |folder| folder.settle(&closed)).await,
            Err(_elapsed) => Ok(()),
        }
    }

    /// Waits until records changed; returns the living entries that somebody
    /// closed, perhaps by dying.
    async fn record_changes(&self) -> Vec<String> {
        loop {
            let changes = self.events.next().await;
            if changes.is_empty() || changes.iter().any(is_of_record) {
                return changes.iter().filter_map(closed_living).collect();
            }
        }
    }
}

/// Whether a change is of a record, not of the lock or a temporary file.
fn is_of_record(change: &Change) -> bool {
    let name = change.name.to_str();
    name.is_some_and(|name| folder::record_name(name).is_some())
}

fn closed_living(change: &Change) -> Option<String> {
    let name = folder::record_name(change.name.to_str()?)?;
    let closed = change.closed && change.directory == Folder::LIVING;
    closed.then(|| name.to_owned())
}

impl Backend for DirBackend {
    fn url(&self) -> String {
        format!("dir:{}", self.root.display())
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.read().boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.wait_for_change().boxed()
    }

    fn create_settings<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Settings, DiscoveryError>> {
        let settings = settings.clone();
        self.call(move |folder| folder.create_settings(&settings))
    }

    fn write_member<'a>(
        &'a self,
        member: &'a Member,
        expected: Revision,
    ) -> BoxFuture<'a, Result<Revision, DiscoveryError>> {
        let member = member.clone();
        self.call(move |folder| folder.write_member(&member, expected))
    }

    fn remove_member<'a>(
        &'a self,
        name: &'a str,
        expected: Revision,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        let name = name.to_owned();
        self.call(move |folder| folder.remove_member(&name, expected))
    }

    fn announce<'a>(
        &'a self,
        living: &'a Living,
    ) -> BoxFuture<'a, Result<Announcement, DiscoveryError>> {
        let living = living.clone();
        let entry = self.call(move |folder| folder.announce(&living));
        entry.map(|entry| entry.map(Announcement::new)).boxed()
    }
}

#[cfg(test)]
mod tests;
