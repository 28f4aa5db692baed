//! A server's entry among the living: a node that ends with its session.
//!
//! A connection that was lost is not a session that is over: another connection goes on
//! with it, and the node stays. Only when ZooKeeper says that the session is over is
//! there a new session and a new node; what the old one left is removed.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::connection::{Connection, Session};
use super::failure::{Code, Failure};
use super::nodes::{ATTEMPTS_MAX, Step};
use super::service::{ConnectError, Service, node};
use super::wire::{Life, Stat};
use crate::error::DiscoveryError;
use crate::model::Living;
use crate::records;
use crate::remote::keeper::{Beat, Entry};

/// The entry of a server of this process.
#[derive(Debug)]
pub(super) struct LivingNode {
    service: Arc<Service>,
    living: Living,
    key: String,
    data: Vec<u8>,
    session: Option<Session>,
    connection: Option<Connection>,
}

/// Whose node is in our place.
#[derive(Debug)]
enum Holder {
    Nobody,
    Us,
    /// Nobody's who lives: it does not end by itself, or is ours and says something else.
    Rubbish,
    /// That of an earlier session of this server.
    Earlier(Living),
    /// Another's; what it says, if that makes sense.
    Other(Option<Living>),
}

impl LivingNode {
    /// Makes the entry. Fails with [`DiscoveryError::NameTaken`] while there is another
    /// one under the name, even of the same incarnation.
    pub(super) async fn create(
        service: Arc<Service>,
        living: Living,
    ) -> Result<Self, DiscoveryError> {
        let key = service.layout().living(&living.name);
        let data = records::to_bytes(&key, &living)?;
        let mut entry = Self { service, living, key, data, session: None, connection: None };
        match entry.take_place(false).await {
            Ok(()) => Ok(entry),
            Err(error) => {
                // A session that is left alone would keep what it has made.
                let _ = entry.close().await;
                Err(error)
            }
        }
    }

    /// The connection that carries the session, made anew if it was lost. With a session
    /// that is over, of another session.
    async fn connection(&mut self) -> Result<&Connection, DiscoveryError> {
        if !self.connection.as_ref().is_some_and(Connection::is_open) {
            self.connection = None;
            let connected = match self.service.connect(self.session.as_ref()).await {
                Err(ConnectError::Failure(Failure::Expired)) => {
                    self.session = None;
                    self.service.connect(None).await
                }
                connected => connected,
            };
            let connection = connected.map_err(|error| self.service.not_connected(error))?;
            self.session = Some(connection.session.clone());
            self.connection = Some(connection);
        }
        self.connection.as_ref().ok_or(DiscoveryError::Stopped)
    }

    /// Who has our place, as far as the server that we are connected to knows.
    async fn holder(&mut self) -> Result<Holder, DiscoveryError> {
        let path = node(&self.key);
        let connection = self.connection().await?;
        let us = connection.session.id;
        match connection.data(&path).await {
            Ok(None) => Ok(Holder::Nobody),
            Ok(Some((data, stat))) => Ok(self.holder_of(us, &data, stat)),
            Err(Failure::TooLarge { .. }) => Ok(Holder::Other(None)),
            Err(failure) => Err(self.service.failed("look at", failure)),
        }
    }

    fn holder_of(&self, us: i64, data: &[u8], stat: Stat) -> Holder {
        if stat.owner == us || stat.owner == 0 {
            let is_right = stat.owner == us && data == self.data;
            return if is_right { Holder::Us } else { Holder::Rubbish };
        }
        match records::living(&self.key, &self.living.name, data).ok() {
            Some(found) if found.incarnation == self.living.incarnation => Holder::Earlier(found),
            other => Holder::Other(other),
        }
    }

    /// Creates the node. One of an earlier session is replaced if `takes_earlier`.
    async fn take_place(&mut self, takes_earlier: bool) -> Result<(), DiscoveryError> {
        let (parent, path) = (self.service.all_living(), node(&self.key));
        let (root, access) = (self.service.root(), self.service.access());
        for _ in 0..ATTEMPTS_MAX {
            let data = self.data.clone();
            let create = Step::create(&path, &data, access, Life::Ephemeral);
            let connection = self.connection().await?;
            match connection.all([Step::count(&parent), create]).await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.is(Code::NO_NODE) => {
                    let created = connection.create_path(&parent, &root, access).await;
                    created.map_err(|failure| self.service.failed("write to", failure))?;
                }
                Err(failure) if failure.is(Code::NODE_EXISTS) => {
                    self.catch_up().await?;
                    match self.holder().await? {
                        Holder::Nobody => {}
                        Holder::Us => return Ok(()),
                        Holder::Rubbish => self.clear_place().await?,
                        Holder::Earlier(_) if takes_earlier => self.clear_place().await?,
                        Holder::Earlier(living) => return Err(self.taken(Some(living))),
                        Holder::Other(living) => return Err(self.taken(living)),
                    }
                }
                Err(failure) => return Err(self.service.failed("write to", failure)),
            }
        }
        Err(self.service.failed("write to", Failure::Contended(ATTEMPTS_MAX)))
    }

    /// Removes what is in our place, unless another server lives there.
    async fn clear_place(&mut self) -> Result<(), DiscoveryError> {
        self.connection().await?;
        let Some(connection) = &self.connection else { return Ok(()) };
        let us = connection.session.id;
        let may_go = |data: &[u8], stat: Stat| {
            matches!(self.holder_of(us, data, stat), Holder::Rubbish | Holder::Earlier(_))
        };
        let (parent, path) = (self.service.all_living(), node(&self.key));
        let removed = connection.remove_if(&parent, &path, may_go).await;
        removed.map_err(|failure| self.service.failed("write to", failure))
    }

    async fn catch_up(&mut self) -> Result<(), DiscoveryError> {
        let path = node(&self.key);
        let caught_up = self.connection().await?.catch_up(&path).await;
        caught_up.map_err(|failure| self.service.failed("look at", failure))
    }

    fn taken(&self, living: Option<Living>) -> DiscoveryError {
        DiscoveryError::NameTaken {
            name: self.living.name.clone(),
            address: living.as_ref().map(Living::address).unwrap_or_default(),
            incarnation: living.and_then(|living| living.incarnation),
        }
    }

    async fn look(&mut self) -> Result<Beat, DiscoveryError> {
        if let Holder::Us = self.holder().await? {
            return Ok(Beat::Alive);
        }
        // Another server of an ensemble may not know yet what we wrote.
        self.catch_up().await?;
        Ok(match self.holder().await? {
            Holder::Us => Beat::Alive,
            Holder::Other(_) => Beat::Taken,
            Holder::Nobody | Holder::Rubbish | Holder::Earlier(_) => Beat::Lost,
        })
    }

    /// Ends the session, and with it the node.
    async fn close(&mut self) -> Result<(), DiscoveryError> {
        let open = self.connection.take().filter(Connection::is_open);
        let connection = match (open, &self.session) {
            (Some(connection), _) => connection,
            (None, None) => return Ok(()),
            (None, Some(session)) => match self.service.connect(Some(session)).await {
                Err(ConnectError::Failure(Failure::Expired)) => return Ok(()),
                connected => connected.map_err(|error| self.service.not_connected(error))?,
            },
        };
        let closed = connection.close().await;
        closed.map_err(|failure| self.service.failed("write to", failure))
    }
}

impl Entry for LivingNode {
    fn name(&self) -> String {
        format!("server \"{}\" in {}", self.living.name, self.service.url())
    }

    fn beat(&mut self) -> BoxFuture<'_, Result<Beat, DiscoveryError>> {
        let service = Arc::clone(&self.service);
        async move { service.within(self.look()).await }.boxed()
    }

    fn claim(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        let service = Arc::clone(&self.service);
        async move { service.within(self.take_place(true)).await }.boxed()
    }

    fn release(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        let service = Arc::clone(&self.service);
        async move { service.within(self.close()).await }.boxed()
    }
}
