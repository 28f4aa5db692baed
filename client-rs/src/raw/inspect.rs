//! Stat, Info, Ping.

use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::limits::SERVER_NAME_BYTES_MAX;
use rampuddle_protocol::{InfoRow, Opcode, StatRequestRow, StatRow, Status};

use super::batch::{Results, in_parallel};
use super::pipeline::{Prepared, Reply};
use super::write::{failed, key_of};
use super::{Info, RawClient, StatAnswer, Target};
use crate::connection::Connection;
use crate::error::{Error, Misbehaviour};
use crate::server::{Class, Server};
use crate::work::Work;

impl RawClient {
    /// What is known of each key.
    ///
    /// # Errors
    /// Per key: keys of impossible length, failures of servers.
    pub async fn stat(&self, target: &Target, keys: Vec<Bytes>) -> Vec<Result<StatAnswer, Error>> {
        let call = &self.begun(target);
        let mut results = Results::new(keys.len());
        let key_of = key_of(|key: &Bytes| (key, 0));
        let check = |key: &Bytes| Self::check_readable(key);
        let groups = call.grouped(target, keys, &mut results, key_of, check);
        in_parallel(groups, &mut results, |server, keys| call.stat_on(server, keys)).await;
        results.finish()
    }

    fn stat_on<'a>(
        &'a self,
        name: Arc<str>,
        keys: Vec<(usize, Bytes)>,
    ) -> Work<'a, Vec<(usize, Result<StatAnswer, Error>)>> {
        Box::pin(async move {
            let server = match self.server(&name) {
                Ok(server) => server,
                Err(error) => return failed(keys.iter().map(|(index, _)| *index), &error),
            };
            let row = |(index, key)| Prepared::new(index, StatRequestRow::default(), key);
            let rows = keys.into_iter().map(row).collect();
            let replies = self.send_rows::<_, StatRow>(&server, Opcode::Stat, rows).await;
            let answer = |reply| match reply {
                Reply::Row { row, key, tag, .. } => {
                    let row: StatRow = row;
                    self.core.clocks().observe(row.version);
                    StatAnswer { status: row.status(), row, key, tag }
                }
                Reply::Refused(status) => StatAnswer { status, ..StatAnswer::default() },
            };
            replies.into_iter().map(|(index, reply)| (index, reply.map(answer))).collect()
        })
    }

    /// What is known of a server.
    ///
    /// # Errors
    /// When it is no member and not alive, does not answer, or refuses.
    pub async fn info(&self, server: &str) -> Result<Info, Error> {
        self.info_of(&self.server(server)?).await
    }

    pub(super) fn info_of<'a>(&'a self, server: &'a Arc<Server>) -> Work<'a, Result<Info, Error>> {
        Box::pin(async move {
            let mut lease = self.acquire(server, Class::Small).await?;
            let info = ask_info(&mut lease).await?;
            lease.finish();
            Ok(info)
        })
    }
}

pub(super) async fn ask_info(connection: &mut Connection) -> Result<Info, Error> {
    ask_without_rows(connection, Opcode::Info).await?;
    let row = connection.table::<InfoRow>()?.iter().next();
    let name_of = |name: &[u8]| {
        let name = &name[..name.len().min(SERVER_NAME_BYTES_MAX)];
        String::from_utf8_lossy(name).into_owned()
    };
    let row = row.map(|(row, name, _)| (row, name_of(name)));
    let (row, name) =
        row.ok_or_else(|| connection.misbehaved(Misbehaviour::WrongRows { wanted: 1, found: 0 }))?;
    Ok(Info { name, row })
}

async fn ask_without_rows(connection: &mut Connection, opcode: Opcode) -> Result<(), Error> {
    connection.request::<StatRequestRow>(opcode, [], 0);
    connection.flush().await?;
    let header = connection.receive_head().await?;
    match Status::from_number(header.status).unwrap_or(Status::Unsupported) {
        Status::Ok => Ok(()),
        status => {
            let server = Arc::clone(connection.server());
            Err(Error::Refused { server, what: "a question about itself", status })
        }
    }
}
