//! The pool of a server on this machine, handed over.

use std::os::fd::OwnedFd;

use rampuddle_protocol::{Opcode, SharedRow, Status};

use super::Connection;
use crate::error::{Error, Misbehaviour};

impl Connection {
    /// Whether the other side is on this machine, and can hand over descriptors.
    pub(crate) fn is_local(&self) -> bool {
        self.stream.is_local()
    }

    /// Asks for the server's pool: its row and a descriptor, or why not.
    ///
    /// # Errors
    /// When the connection fails, or the server breaks the protocol.
    pub(crate) async fn share(&mut self) -> Result<Result<(SharedRow, OwnedFd), Status>, Error> {
        self.request::<SharedRow>(Opcode::Share, [], 0);
        self.flush().await?;
        self.takes_descriptor = true;
        let header = self.receive_head().await;
        self.takes_descriptor = false;
        let (header, descriptor) = (header?, self.descriptor.take());
        if header.status != Status::Ok as u8 {
            return Ok(Err(Status::from_number(header.status).unwrap_or(Status::Unsupported)));
        }
        let row = self.table::<SharedRow>()?.iter().next().map(|(row, ..)| row);
        match row.zip(descriptor) {
            Some(shared) => Ok(Ok(shared)),
            None => Err(self.misbehaved(Misbehaviour::NoDescriptor)),
        }
    }
}
