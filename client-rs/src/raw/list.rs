//! List.

use bytes::Bytes;
use rampuddle_protocol::limits::KEY_BYTES_MAX;
use rampuddle_protocol::{ListRow, Opcode, RowFlags, StatRow, Status};

use super::{ListPage, ListQuery, RawClient, StatAnswer};
use crate::connection::Connection;
use crate::error::{Error, Misbehaviour};
use crate::retry::Attempts;
use crate::server::Class;
use crate::work::Work;

impl RawClient {
    /// One page of a server's keys in bytewise order. Go on with
    /// [`ListPage::next`] as the cursor until there is none.
    ///
    /// # Errors
    /// When the server is no member and not alive, fails, refuses, or answers
    /// with keys that are out of order or that nobody asked for: a listing
    /// always goes forward, and ends.
    pub async fn list(&self, server: &str, query: &ListQuery) -> Result<ListPage, Error> {
        let mut attempts = self.core.retries.first_attempt();
        self.list_attempt(server, query, &mut attempts).await
    }

    /// One attempt at a page.
    pub(crate) fn list_attempt<'a>(
        &'a self,
        server: &'a str,
        query: &'a ListQuery,
        attempts: &'a mut Attempts,
    ) -> Work<'a, Result<ListPage, Error>> {
        Box::pin(async move {
            for (what, bytes) in [("a prefix", &query.prefix), ("a cursor", &query.cursor)] {
                let (bytes, limit) = (bytes.len() as u64, KEY_BYTES_MAX as u64);
                if bytes > limit {
                    return Err(Error::TooLarge { what, bytes, limit });
                }
            }
            let server = self.server(server)?;
            let mut lease = self.acquire_for_attempt(&server, Class::Small, attempts).await?;
            let page = ask(&mut lease, query).await?;
            page.entries.iter().for_each(|entry| self.core.clocks().observe(entry.row.version));
            lease.finish();
            Ok(page)
        })
    }
}

pub(super) async fn ask(connection: &mut Connection, query: &ListQuery) -> Result<ListPage, Error> {
    let flags = if query.tombstones { RowFlags::TOMBSTONE } else { RowFlags::NONE };
    let row = ListRow { flags, rows_max: query.rows_max, ..ListRow::default() };
    connection.request(Opcode::List, [(row, &query.prefix[..], &query.cursor[..])], 0);
    connection.flush().await?;
    let header = connection.receive_head().await?;
    if header.status != Status::Ok as u8 {
        let status = Status::from_number(header.status).unwrap_or(Status::Unsupported);
        let server = connection.server().clone();
        return Err(Error::Refused { server, what: "a listing", status });
    }
    let copied = Bytes::copy_from_slice;
    let table = connection.table::<StatRow>()?;
    let mut entries: Vec<StatAnswer> = table
        .iter()
        .map(|(row, key, tag)| StatAnswer {
            status: row.status(),
            row,
            key: copied(key),
            tag: copied(tag),
        })
        .collect();
    let next = entries.pop_if(|last| last.status == Status::Incomplete).map(|last| last.key);
    if !is_in_order(query, &entries, next.as_ref()) {
        return Err(connection.misbehaved(Misbehaviour::Listing));
    }
    Ok(ListPage { entries, next })
}

/// No more keys than asked for, each of a key's length. They must have the
/// prefix and grow from the cursor on; the next cursor must lie beyond the old
/// one, so that no listing goes round in circles.
fn is_in_order(query: &ListQuery, entries: &[StatAnswer], next: Option<&Bytes>) -> bool {
    if query.rows_max > 0 && entries.len() > query.rows_max as usize {
        return false;
    }
    // Keys have at least one byte, so the empty cursor lies before all of them.
    let mut last = &query.cursor;
    for entry in entries {
        let is_asked_for = entry.key > *last
            && entry.key.len() <= KEY_BYTES_MAX
            && entry.key.starts_with(&query.prefix)
            && entry.status == Status::Ok;
        if !is_asked_for {
            return false;
        }
        last = &entry.key;
    }
    let goes_on =
        |next: &Bytes| next >= last && *next > query.cursor && next.len() <= KEY_BYTES_MAX;
    next.is_none_or(goes_on)
}
