//! Asking a server where values lie.

use std::sync::Arc;

use rampuddle_protocol::{Header, MapRow, MappedRow, Opcode, RowFlags, SetId, Status, Version};

use super::{Holding, Kept, Mapping};
use crate::connection::Connection;
use crate::error::{Error, Misbehaviour};

/// Which values are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Question<'a> {
    /// The value under a key, and all of its set.
    WithSet(&'a [u8]),
    /// All of a set.
    Set(SetId),
}

/// What a server answers.
#[derive(Debug)]
pub(crate) enum Mapped {
    /// It keeps what it described.
    Kept(Arc<Kept>),
    /// It keeps nothing; the version of a delete that it remembers.
    Refused(Status, Version),
    /// The deadline was over when it came to it.
    Late,
}

impl Mapping {
    /// Asks where values lie, and has them kept there. `each` is told of every run
    /// in order: its row, and the key and the tag of a value whose first run it is.
    /// A server that keeps too much already is told first which holds have ended, if it
    /// may not know of some. All of them lie within the pool, and no two values of the answer have the
    /// same memory unless the server lies.
    ///
    /// # Errors
    /// When the connection fails, or the server breaks the protocol.
    ///
    /// # Panics
    /// When the connection is to another run of the server.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        connection: &mut Connection,
        question: Question<'_>,
        mut each: impl FnMut(&MappedRow, &[u8], &[u8]) + Send,
    ) -> Result<Mapped, Error> {
        // Places in one pool say nothing about another.
        assert_eq!(connection.greeting().incarnation, self.incarnation, "another pool");
        let mut kept = self.begin();
        let (mut row, mut key) = (MapRow { mapping: self.number, ..MapRow::default() }, &b""[..]);
        row.hold = kept.hold;
        match question {
            Question::WithSet(value) => (row.flags, key) = (RowFlags::SET, value),
            Question::Set(set) => row.set = set,
        }
        let (mut described, mut has_ended) = (0, false);
        loop {
            match self.ask_once(connection, row, key, &mut described, &mut each).await? {
                Page::Last => break,
                Page::More(cursor) => {
                    kept.state = Holding::Held;
                    let (mapping, hold) = (row.mapping, row.hold);
                    (row, key) = (MapRow { mapping, hold, cursor, ..MapRow::default() }, b"");
                }
                // What it described before, if anything, is let go of.
                Page::Late => {
                    if kept.state == Holding::Asked {
                        kept.state = Holding::Nothing;
                    }
                    return Ok(Mapped::Late);
                }
                Page::Refused(status, version) => {
                    let is_full = status == Status::Busy && kept.state == Holding::Asked;
                    // What this process let go of just now keeps it from nothing.
                    let may_ask_again = is_full && !std::mem::replace(&mut has_ended, true);
                    if may_ask_again && self.end_now(connection).await? {
                        continue;
                    }
                    if kept.state == Holding::Asked {
                        kept.state = Holding::Nothing;
                    }
                    return Ok(Mapped::Refused(status, version));
                }
            }
        }
        kept.state = Holding::Held;
        Ok(Mapped::Kept(Arc::new(kept)))
    }

    async fn ask_once(
        self: &Arc<Self>,
        connection: &mut Connection,
        row: MapRow,
        key: &[u8],
        described: &mut u64,
        each: &mut (impl FnMut(&MappedRow, &[u8], &[u8]) + Send),
    ) -> Result<Page, Error> {
        // What has ended goes ahead: one write for both, and more may be kept.
        let may_go_ahead = connection.grants().outstanding_requests > 1;
        let mut ended = self.take_ended().filter(|_| may_go_ahead);
        let mut ahead = ended.as_ref().map(|ended| ended.request(connection));
        connection.request(Opcode::Map, [(row, key, &b""[..])], 0);
        connection.flush().await?;
        let mut page = None;
        while page.is_none() || ahead.is_some() {
            let header = connection.receive_head().await?;
            match (&mut ended, ahead) {
                (Some(ended), Some(id)) if id == header.request_id => {
                    ended.answered(connection, &header)?;
                    ahead = None;
                }
                _ => page = Some(self.take_page(connection, &header, described, each)?),
            }
        }
        Ok(page.expect("the loop ends with one"))
    }

    fn take_page(
        &self,
        connection: &mut Connection,
        header: &Header,
        described: &mut u64,
        each: &mut (impl FnMut(&MappedRow, &[u8], &[u8]) + Send),
    ) -> Result<Page, Error> {
        if header.status == Status::Expired as u8 {
            return Ok(Page::Late);
        }
        if header.status != Status::Ok as u8 {
            let status = Status::from_number(header.status).unwrap_or(Status::Unsupported);
            return Ok(Page::Refused(status, Version::NONE));
        }
        let (mut page, mut runs) = (Page::Last, 0);
        let table = connection.table::<MappedRow>()?;
        let mut is_sound = !table.is_empty();
        for (row, key, tag) in &table {
            // What describes no value stands last.
            is_sound &= matches!(page, Page::Last);
            match row.status() {
                Status::Ok => {
                    runs += 1;
                    *described = described.saturating_add(row.bytes);
                    let end = row.offset.checked_add(row.bytes);
                    is_sound &= end.is_some_and(|end| end <= self.memory.len());
                    // Values lie beside each other, so that no answer is without end.
                    is_sound &=
                        *described <= self.memory.len() && (row.bytes > 0 || !key.is_empty());
                    if is_sound {
                        each(&row, key, tag);
                    }
                }
                Status::Incomplete => page = Page::More(row.detail),
                status => page = Page::Refused(status, row.version),
            }
        }
        is_sound &= runs > 0 || matches!(page, Page::Refused(..));
        match is_sound {
            true => Ok(page),
            false => Err(connection.misbehaved(Misbehaviour::Places)),
        }
    }
}

/// How one answer ends.
enum Page {
    Last,
    /// More runs follow, from there on.
    More(u64),
    Refused(Status, Version),
    /// The deadline was over when the server came to it.
    Late,
}
