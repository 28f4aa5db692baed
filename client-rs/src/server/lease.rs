//! Connections lent to operations.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use crate::connection::{Connection, Failure};

/// A connection lent to one operation. [`Lease::finish`] returns it; dropping it
/// closes it, which tells the server to give up whatever is under way.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Option<Connection>,
    server: Arc<Server>,
    _permit: OwnedSemaphorePermit,
}

impl Lease {
    pub(super) fn new(
        connection: Connection,
        server: Arc<Server>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        server.access.in_use.fetch_add(1, Ordering::Relaxed);
        Self { connection: Some(connection), server, _permit: permit }
    }

    /// Returns the connection to the pool, unless something is owed on it.
    pub(crate) fn finish(mut self) {
        if let Some(connection) = self.connection.take_if(|connection| connection.is_reusable()) {
            self.server.recovered();
            self.server.give_back(connection);
        }
    }
}

impl Deref for Lease {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only finish and drop take it")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("only finish and drop take it")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.server.access.in_use.fetch_sub(1, Ordering::Relaxed);
        let failure = self.connection.as_ref().and_then(Connection::failure);
        match failure {
            Some(Failure::Lost | Failure::Misbehaved) => self.server.suspect(None),
            Some(Failure::Silent { after, doing }) => self.server.silent(after, doing),
            Some(Failure::Deadline) | None => {}
        }
    }
}
