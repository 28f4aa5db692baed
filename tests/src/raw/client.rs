//! The operations, one call each.

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;

use rampuddle_protocol::limits::PAYLOAD_BYTES_MAX;
use rampuddle_protocol::{
    CancelRow, CreateRow, DeleteRow, DropRow, GatherRow, HoldRow, InfoRow, ListRow, MapRow,
    MappedRow, Opcode, Outcome, PublishRow, ReleaseRow, Role, Row, RowFlags, ScatterRow,
    ServerHello, SessionId, SetId, SharedRow, StatRequestRow, StatRow, Status, TouchRow, UnmapRow,
    Version,
};

use super::answer::Answer;
use super::connection::{Door, RawConnection};
use super::frame::{Frame, fresh_version};
use crate::pattern::Pattern;
use crate::seed::fresh_bytes;

/// A row of an answer to Map, with its key and tag.
pub type MappedRun = (MappedRow, Vec<u8>, Vec<u8>);

/// A connection that has shaken hands, with a call for each operation. What it
/// derefs to sends and receives anything else.
#[derive(Debug)]
pub struct RawClient {
    connection: RawConnection,
    session: SessionId,
    hello: ServerHello,
    next_id: u64,
}

impl Deref for RawClient {
    type Target = RawConnection;
    fn deref(&self) -> &RawConnection {
        &self.connection
    }
}

impl DerefMut for RawClient {
    fn deref_mut(&mut self) -> &mut RawConnection {
        &mut self.connection
    }
}

impl RawClient {
    /// Connects in a session of its own.
    ///
    /// # Panics
    /// When the server does not want it.
    #[track_caller]
    pub fn connect(door: &Door) -> Self {
        Self::join(door, SessionId(fresh_bytes()))
    }

    /// Connects in a session of its own, unless the server closes at once.
    ///
    /// # Panics
    /// When the server does neither within ten seconds.
    pub fn try_connect(door: &Door) -> Option<Self> {
        let (mut connection, session) = (door.try_connect().ok()?, SessionId(fresh_bytes()));
        let (status, hello) = connection.try_shake_hands(session)?;
        (status == Status::Ok).then_some(Self { connection, session, hello, next_id: 1 })
    }

    /// Connects in a session that may have other connections.
    ///
    /// # Panics
    /// When the server does not want it.
    #[track_caller]
    pub fn join(door: &Door, session: SessionId) -> Self {
        let mut connection = door.connect();
        let (status, hello) = connection.shake_hands(session);
        assert_eq!(status, Status::Ok, "hello");
        Self { connection, session, hello, next_id: 1 }
    }

    /// Connects with a token.
    ///
    /// # Panics
    /// When the server does not want it.
    #[track_caller]
    pub fn connect_with_token(door: &Door, key_id: &str, secret: &[u8], role: Role) -> Self {
        let (mut connection, session) = (door.connect(), SessionId(fresh_bytes()));
        let status = connection.prove(session, key_id, secret, role);
        assert_eq!(status, Status::Ok, "proof");
        Self { connection, session, hello: ServerHello::default(), next_id: 1 }
    }

    /// Its session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The server's hello.
    pub fn server_hello(&self) -> &ServerHello {
        &self.hello
    }

    /// A request id that was not used before on this connection.
    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Sends a request without waiting for its answer; returns its id.
    #[track_caller]
    pub fn post<R: Row>(
        &mut self,
        opcode: Opcode,
        rows: &[(R, &[u8], &[u8])],
        payload: &[u8],
    ) -> u64 {
        let id = self.fresh_id();
        self.connection.send(&Frame::new(opcode, id, rows, payload).bytes);
        id
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Panics
    /// When the answer is to another request.
    #[track_caller]
    pub fn ask<R: Row>(
        &mut self,
        opcode: Opcode,
        rows: &[(R, &[u8], &[u8])],
        payload: &[u8],
    ) -> Answer {
        let id = self.post(opcode, rows, payload);
        let answer = self.connection.receive_answer();
        assert_eq!((answer.header.request_id, answer.header.opcode), (id, opcode as u8));
        answer
    }

    /// A request of one row; outcome and tag.
    #[track_caller]
    pub fn ask_one<R: Row>(
        &mut self,
        opcode: Opcode,
        row: R,
        key: &[u8],
        tag: &[u8],
        payload: &[u8],
    ) -> (Outcome, Vec<u8>) {
        let answer = self.ask(opcode, &[(row, key, tag)], payload);
        let mut outcomes = answer.tagged_outcomes();
        assert_eq!(outcomes.len(), 1, "one row, one outcome");
        outcomes.remove(0)
    }

    /// Create with a fresh version, one row.
    #[track_caller]
    pub fn create(&mut self, key: &[u8], length: u64, bytes: &[u8]) -> Outcome {
        let row = CreateRow { length, version: fresh_version(), ..CreateRow::default() };
        self.create_row(row, key, b"", bytes).0
    }

    /// Create of one row, which gets the lengths of `bytes` (the value's length
    /// when it states none, too); outcome and tag.
    #[track_caller]
    pub fn create_row(
        &mut self,
        row: CreateRow,
        key: &[u8],
        tag: &[u8],
        bytes: &[u8],
    ) -> (Outcome, Vec<u8>) {
        let value_bytes = bytes.len() as u64;
        let length = if row.length == 0 { value_bytes } else { row.length };
        let row = CreateRow { value_bytes, length, ..row };
        self.ask_one(Opcode::Create, row, key, tag, bytes)
    }

    /// Create with RESERVE; the outcome's `detail` is the handle.
    #[track_caller]
    pub fn reserve(&mut self, key: &[u8], length: u64, version: Version) -> Outcome {
        let flags = RowFlags::RESERVE | RowFlags::REPLACE;
        let row = CreateRow { length, version, flags, ..CreateRow::default() };
        self.ask_one(Opcode::Create, row, key, b"", b"").0
    }

    /// Scatter by handle.
    #[track_caller]
    pub fn scatter_reserved(&mut self, handle: u64, offset: u64, bytes: &[u8]) -> Outcome {
        let value_bytes = bytes.len() as u64;
        let row = ScatterRow { handle, offset, value_bytes, ..ScatterRow::default() };
        self.ask_one(Opcode::Scatter, row, b"", b"", bytes).0
    }

    /// Publish without a checksum.
    #[track_caller]
    pub fn publish(&mut self, handle: u64, length: u64, value_bytes: u64) -> Outcome {
        self.publish_row(PublishRow { handle, length, value_bytes, ..PublishRow::default() })
    }

    /// Publish of one row.
    #[track_caller]
    pub fn publish_row(&mut self, row: PublishRow) -> Outcome {
        self.ask_one(Opcode::Publish, row, b"", b"", b"").0
    }

    /// Creates a value of any length from a pattern: RESERVE, Scatter, Publish.
    ///
    /// # Panics
    /// When a step other than the first is refused.
    #[track_caller]
    pub fn upload(&mut self, key: &[u8], length: u64, pattern: Pattern) -> Outcome {
        let reserved = self.reserve(key, length, fresh_version());
        if reserved.status() != Status::Ok {
            return reserved;
        }
        let mut offset = 0;
        while offset < length {
            let bytes = pattern.bytes(offset, PAYLOAD_BYTES_MAX.min(length - offset));
            let outcome = self.scatter_reserved(reserved.detail, offset, &bytes);
            assert_eq!(outcome.status(), Status::Ok, "{outcome:?}");
            offset += bytes.len() as u64;
            assert_eq!((outcome.detail, outcome.length), (offset, bytes.len() as u64));
        }
        self.publish(reserved.detail, length, length)
    }

    /// Scatter by key.
    #[track_caller]
    pub fn scatter(&mut self, key: &[u8], offset: u64, bytes: &[u8]) -> Outcome {
        let value_bytes = bytes.len() as u64;
        let row = ScatterRow { offset, value_bytes, ..ScatterRow::default() };
        self.ask_one(Opcode::Scatter, row, key, b"", bytes).0
    }

    /// Gather of one row: its outcome and its bytes.
    #[track_caller]
    pub fn gather(&mut self, key: &[u8], offset: u64, length: u64) -> (Outcome, Vec<u8>) {
        self.gather_row(GatherRow { offset, length, ..GatherRow::default() }, key)
    }

    /// Gather of one row, with any flags.
    #[track_caller]
    pub fn gather_row(&mut self, row: GatherRow, key: &[u8]) -> (Outcome, Vec<u8>) {
        let answer = self.ask(Opcode::Gather, &[(row, key, b"")], b"");
        let outcome = answer.outcomes().remove(0);
        assert_eq!(outcome.length, answer.payload.len() as u64, "the row's share is the payload");
        (outcome, answer.payload)
    }

    /// The whole of a value, in pieces of 4 MiB; `None` when it is not there.
    #[track_caller]
    pub fn gather_all(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let (outcome, bytes) = self.gather(key, all.len() as u64, PAYLOAD_BYTES_MAX);
            if outcome.status() != Status::Ok {
                return None;
            }
            all.extend_from_slice(&bytes);
            if all.len() as u64 >= outcome.detail {
                return Some(all);
            }
        }
    }

    /// Delete with a fresh version.
    #[track_caller]
    pub fn delete(&mut self, key: &[u8]) -> Outcome {
        self.delete_version(key, fresh_version())
    }

    /// Delete with this version.
    #[track_caller]
    pub fn delete_version(&mut self, key: &[u8], version: Version) -> Outcome {
        let row = DeleteRow { version, ..DeleteRow::default() };
        self.ask_one(Opcode::Delete, row, key, b"", b"").0
    }

    /// Drop of exactly this version.
    #[track_caller]
    pub fn drop_version(&mut self, key: &[u8], version: Version) -> Outcome {
        let row = DropRow { version, ..DropRow::default() };
        self.ask_one(Opcode::Drop, row, key, b"", b"").0
    }

    /// Hold.
    #[track_caller]
    pub fn hold(&mut self, set: SetId) -> Outcome {
        self.ask_one(Opcode::Hold, HoldRow { set, ..HoldRow::default() }, b"", b"", b"").0
    }

    /// Release.
    #[track_caller]
    pub fn release(&mut self, set: SetId) -> Outcome {
        self.ask_one(Opcode::Release, ReleaseRow { set, ..ReleaseRow::default() }, b"", b"", b"").0
    }

    /// Touch.
    #[track_caller]
    pub fn touch(&mut self, set: SetId, lease_ms: u64) -> Outcome {
        self.touch_row(TouchRow { set, lease_ms, ..TouchRow::default() })
    }

    /// Touch with EXACT.
    #[track_caller]
    pub fn touch_exactly(&mut self, set: SetId, lease_ms: u64) -> Outcome {
        self.touch_row(TouchRow { set, flags: RowFlags::EXACT, lease_ms, ..TouchRow::default() })
    }

    /// Touch, as the row says.
    #[track_caller]
    pub fn touch_row(&mut self, row: TouchRow) -> Outcome {
        self.ask_one(Opcode::Touch, row, b"", b"", b"").0
    }

    /// Share: the status, and the mapping with its descriptor.
    #[track_caller]
    pub fn share(&mut self) -> (Status, Option<(SharedRow, OwnedFd)>) {
        self.post::<SharedRow>(Opcode::Share, &[], b"");
        let (answer, descriptor) = self.connection.receive_with_descriptor();
        let row = answer.rows::<SharedRow>().pop().map(|(row, ..)| row);
        assert_eq!(row.is_some(), descriptor.is_some(), "a descriptor comes with its row");
        (answer.status(), row.zip(descriptor))
    }

    /// Map: the status of the frame, and the rows with key and tag.
    #[track_caller]
    pub fn map(&mut self, row: MapRow, key: &[u8]) -> (Status, Vec<MappedRun>) {
        let answer = self.ask(Opcode::Map, &[(row, key, b"")], b"");
        (answer.status(), answer.rows())
    }

    /// Unmap.
    #[track_caller]
    pub fn unmap(&mut self, mapping: u64, hold: u64) -> Outcome {
        self.ask_one(Opcode::Unmap, UnmapRow { mapping, hold }, b"", b"", b"").0
    }

    /// Cancel.
    #[track_caller]
    pub fn post_cancel(&mut self, request_id: u64) -> u64 {
        self.post(Opcode::Cancel, &[(CancelRow { request_id }, b"", b"")], b"")
    }

    /// Stat of one key.
    #[track_caller]
    pub fn stat(&mut self, key: &[u8]) -> StatRow {
        let rows: [(_, _, &[u8]); 1] = [(StatRequestRow::default(), key, b"")];
        let mut stats = self.ask(Opcode::Stat, &rows, b"").stats();
        assert_eq!(stats.len(), 1, "one row, one answer");
        let (row, found, _) = stats.remove(0);
        assert_eq!(found, key);
        row
    }

    /// One page of List: rows with key and tag.
    #[track_caller]
    pub fn list(
        &mut self,
        row: ListRow,
        prefix: &[u8],
        cursor: &[u8],
    ) -> Vec<(StatRow, Vec<u8>, Vec<u8>)> {
        self.ask(Opcode::List, &[(row, prefix, cursor)], b"").stats()
    }

    /// All keys with a prefix, over as many pages as it takes.
    #[track_caller]
    pub fn list_all(&mut self, row: ListRow, prefix: &[u8]) -> Vec<(StatRow, Vec<u8>)> {
        let (mut all, mut cursor) = (Vec::new(), Vec::new());
        loop {
            let page = self.list(row, prefix, &cursor);
            let mut more = None;
            for (stat, key, _) in page {
                assert!(more.is_none(), "INCOMPLETE marks the last row");
                if stat.status() == Status::Incomplete {
                    assert!(key > cursor, "the cursor moves");
                    more = Some(key);
                } else {
                    all.push((stat, key));
                }
            }
            match more {
                Some(key) => cursor = key,
                None => return all,
            }
        }
    }

    /// What the server says of itself. Its books are checked on the way.
    ///
    /// # Panics
    /// When they do not balance.
    #[track_caller]
    pub fn info(&mut self) -> InfoRow {
        let info = self.ask::<StatRequestRow>(Opcode::Info, &[], b"").info();
        assert!(info.used_bytes + info.reserved_bytes <= info.pool_bytes, "{info:?}");
        assert!(info.superseded_bytes <= info.used_bytes, "{info:?}");
        info
    }

    /// Bytes of the pool that nothing uses.
    #[track_caller]
    pub fn free_bytes(&mut self) -> u64 {
        let info = self.info();
        info.pool_bytes - info.used_bytes - info.reserved_bytes
    }

    /// Ping.
    #[track_caller]
    pub fn ping(&mut self) {
        let answer = self.ask::<StatRequestRow>(Opcode::Ping, &[], b"");
        assert_eq!(answer.status(), Status::Ok);
    }
}
