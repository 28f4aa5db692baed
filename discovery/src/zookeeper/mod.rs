//! `zk:` a ZooKeeper that a cluster shares.
//!
//! ```text
//! /PATH/CLUSTER/               created when something is first written
//!   settings                   written once
//!   members/NAME               a member; its revision is the number of its last write
//!                              in the order of all writes (mzxid)
//!   living/NAME                where a server listens; an ephemeral node
//! ```
//!
//! What is written is checked by versions of nodes, and a version begins anew with a
//! node that is created anew. So each creation and each removal below `members` and
//! `living` is also a write to the node above, in one step: a write or a removal that
//! is based on an older count of those finds out.
//!
//! The protocol is spoken here, by some hundred lines: one connection carries a
//! session, reads go over one of their own, and each announcement has a session.

mod connection;
mod entry;
mod failure;
mod hosts;
mod members;
mod nodes;
mod service;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, try_join3};
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tokio::time::sleep;

use self::connection::Connection;
use self::entry::LivingNode;
use self::failure::Failure;
use self::nodes::Names;
use self::service::{Service, node};
use crate::backend::{Announcement, Backend};
use crate::error::DiscoveryError;
use crate::model::{Living, Member, Revision, Settings, Snapshot};
use crate::records;
use crate::remote::keeper;
use crate::remote::layout::Listing;
use crate::remote::pace::{Pace, jittered};
use crate::validate::{self, ANSWER_BYTES_MAX, MEMBERS_MAX, RECORD_BYTES_MAX};

/// How far apart two rounds of looking are at least, however much is changed.
const ROUNDS_APART: Duration = Duration::from_millis(50);
/// How often a service that cannot be reached is tried while somebody waits for a change.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How many records are asked for at once: all that may be there are read in time from
/// far away too.
const ASKED_AT_ONCE: usize = 500;

/// `zk://HOST:PORT,HOST:PORT/PATH`: members as nodes, and ephemeral nodes for the
/// living.
///
/// Needs ZooKeeper 3.6 or later. A reading costs one request per member and per living
/// server, all in flight together. A server that dies is seen as gone when its session
/// ends: 4 s after its last sign of life, or what ZooKeeper gives at least, plus its
/// tick. A server that only lost its connection, and one whose ZooKeeper was restarted,
/// never was gone.
#[derive(Debug)]
pub struct ZooKeeperBackend {
    service: Arc<Service>,
    reading: tokio::sync::Mutex<Option<Arc<Connection>>>,
    looked: Mutex<Option<Looked>>,
    pace: Pace,
}

/// When the last reading began.
#[derive(Clone, Debug)]
struct Looked {
    events: watch::Receiver<u64>,
    seen: u64,
}

impl Looked {
    fn at(connection: &Connection) -> Self {
        let events = connection.events();
        let seen = *events.borrow();
        Self { events, seen }
    }

    /// Resolves at the first change since; false when the connection was lost before.
    async fn changed(&mut self) -> bool {
        let seen = self.seen;
        self.events.wait_for(|count| *count != seen).await.is_ok()
    }
}

impl ZooKeeperBackend {
    /// Takes the URL apart and reads the files that it names; connects to nothing yet.
    pub fn new(url: &str, cluster: &str) -> Result<Self, DiscoveryError> {
        validate::name(cluster)?;
        Ok(Self {
            service: Arc::new(Service::new(url, cluster)?),
            reading: tokio::sync::Mutex::default(),
            looked: Mutex::default(),
            pace: Pace::default(),
        })
    }

    /// The connection for everything but announcements, made at its first use and again
    /// after it was lost. It is told of all changes of the cluster.
    async fn connection(&self) -> Result<Arc<Connection>, DiscoveryError> {
        let mut reading = self.reading.lock().await;
        if let Some(connection) = reading.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        let connected = self.service.connect(None).await;
        let connection = connected.map_err(|error| self.service.not_connected(error))?;
        let watched = connection.watch(&self.service.root()).await;
        watched.map_err(|failure| self.service.failed("watch", failure))?;
        let connection = Arc::new(connection);
        *reading = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn read(&self) -> Result<Snapshot, DiscoveryError> {
        let connection = self.connection().await?;
        self.look(Some(Looked::at(&connection)));
        let layout = self.service.layout();
        let mut listing = Listing::new(layout);
        let (settings, members, living) = self.names(&connection).await?;
        if let Some(data) = settings {
            listing.take(&layout.settings(), &data, Revision::ABSENT, false)?;
        }
        for (names, key) in [(members, layout.member("")), (living, layout.living(""))] {
            self.collect(&connection, names, &key, &mut listing).await?;
        }
        Ok(listing.finish())
    }

    /// The settings, the names of the members and those of the living.
    async fn names(
        &self,
        connection: &Connection,
    ) -> Result<(Option<Vec<u8>>, Names, Names), DiscoveryError> {
        let service = &self.service;
        let key = service.layout().settings();
        let settings = async {
            match connection.data(&node(&key)).await {
                Err(Failure::TooLarge { .. }) => Err(too_large(&key)),
                found => found
                    .map(|found| found.map(|(data, _)| data))
                    .map_err(|failure| service.failed("read", failure)),
            }
        };
        let names = async |path: String| {
            let names = connection.names(&path).await;
            names.map_err(|failure| service.failed("read", failure))
        };
        let caught_up = connection.catch_up(&service.root()).await;
        caught_up.map_err(|failure| service.failed("read", failure))?;
        try_join3(settings, names(service.members()), names(service.all_living())).await
    }

    /// Reads the records under these names.
    async fn collect(
        &self,
        connection: &Connection,
        names: Names,
        parent: &str,
        listing: &mut Listing<'_>,
    ) -> Result<(), DiscoveryError> {
        for odd in &names.odd {
            listing.take(&format!("{parent}{odd}"), &[], Revision::ABSENT, false)?;
        }
        if names.left_out > 0 {
            let count = names.left_out;
            listing.complain(format_args!(
                "{count} records in {parent} ignored: expected at most {MEMBERS_MAX}"
            ));
        }
        let keys = stream::iter(names.good).map(|name| format!("{parent}{name}"));
        let mut records = keys
            .map(async |key: String| {
                let found = connection.data(&node(&key)).await;
                (key, found)
            })
            .buffered(ASKED_AT_ONCE);
        let mut bytes = 0;
        while let Some((key, found)) = records.next().await {
            match found {
                Ok(Some((data, stat))) => {
                    bytes += data.len() as u64;
                    listing.take(&key, &data, Revision(stat.modified), stat.owner != 0)?;
                }
                // Removed since the names were read.
                Ok(None) => {}
                Err(Failure::TooLarge { .. }) => listing.refuse(&key, too_large(&key))?,
                Err(failure) => return Err(self.service.failed("read", failure)),
            }
            if bytes > ANSWER_BYTES_MAX {
                return Err(self
                    .service
                    .failed("read", Failure::TooLarge { bytes, bytes_max: ANSWER_BYTES_MAX }));
            }
        }
        Ok(())
    }

    fn look(&self, looked: Option<Looked>) {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = looked;
    }

    /// A lost connection is told once; after that, when there is one again.
    async fn wait_for_change(&self) -> Result<(), DiscoveryError> {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match looked {
            Some(mut looked) => {
                if !looked.changed().await {
                    self.look(None);
                    return Err(self.service.failed("watch", Failure::Lost));
                }
                looked.seen = *looked.events.borrow();
                self.pace.round(ROUNDS_APART).await;
                self.look(Some(looked));
            }
            None => {
                let connection = self.until_connected().await;
                self.pace.round(ROUNDS_APART).await;
                self.look(Some(Looked::at(&connection)));
            }
        }
        Ok(())
    }

    async fn until_connected(&self) -> Arc<Connection> {
        loop {
            match self.service.within(self.connection()).await {
                Ok(connection) => return connection,
                Err(_) => sleep(jittered(RETRY_EVERY)).await,
            }
        }
    }

    async fn announce(&self, living: &Living) -> Result<Announcement, DiscoveryError> {
        validate::living(living)?;
        let entry = LivingNode::create(Arc::clone(&self.service), living.clone());
        Ok(keeper::keep(self.service.within(entry).await?))
    }

    async fn free(&self, silent: &Living) -> Result<(), DiscoveryError> {
        validate::name(&silent.name)?;
        let key = self.service.layout().living(&silent.name);
        let is_silent = |data: &[u8], _| records::is_entry_of(&key, silent, data);
        let connection = self.connection().await?;
        let parent = self.service.all_living();
        let removed = connection.remove_if(&parent, &node(&key), is_silent).await;
        removed.map_err(|failure| self.service.failed("write to", failure))
    }
}

fn too_large(key: &str) -> DiscoveryError {
    DiscoveryError::TooLarge { path: key.into(), bytes_max: RECORD_BYTES_MAX }
}

impl Backend for ZooKeeperBackend {
    fn url(&self) -> String {
        self.service.url()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.service.within(self.read()).boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.wait_for_change().boxed()
    }

    fn create_settings<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Settings, DiscoveryError>> {
        self.service.within(self.settle(settings)).boxed()
    }

    fn write_member<'a>(
        &'a self,
        member: &'a Member,
        expected: Revision,
    ) -> BoxFuture<'a, Result<Revision, DiscoveryError>> {
        self.service.within(self.write(member, expected)).boxed()
    }

    fn remove_member<'a>(
        &'a self,
        name: &'a str,
        expected: Revision,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.service.within(self.remove(name, expected)).boxed()
    }

    fn announce<'a>(
        &'a self,
        living: &'a Living,
    ) -> BoxFuture<'a, Result<Announcement, DiscoveryError>> {
        self.announce(living).boxed()
    }

    fn free_name<'a>(&'a self, silent: &'a Living) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.service.within(self.free(silent)).boxed()
    }
}
