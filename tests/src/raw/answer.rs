//! Answers, taken apart.

use rampuddle_protocol::{FrameFlags, Header, InfoRow, Outcome, Row, StatRow, Status, Table};

/// One frame from a server.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its header.
    pub header: Header,
    /// Its table.
    pub table: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Answer {
    /// Why the request was refused as a whole, or OK.
    ///
    /// # Panics
    /// When the server sent a status that nobody knows.
    pub fn status(&self) -> Status {
        Status::from_number(self.header.status).expect("a known status")
    }

    /// Whether it ends the connection.
    pub fn is_framing_error(&self) -> bool {
        self.header.flags == FrameFlags::ANSWER | FrameFlags::FRAMING_ERROR
    }

    /// The rows, each with its key and tag.
    pub fn rows<R: Row>(&self) -> Vec<(R, Vec<u8>, Vec<u8>)> {
        let table = Table::<R>::parse(&self.header, &self.table).expect("a sound table");
        table.iter().map(|(row, key, tag)| (row, key.to_vec(), tag.to_vec())).collect()
    }

    /// How each row fared.
    ///
    /// # Panics
    /// When the request was refused as a whole.
    #[track_caller]
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.tagged_outcomes().into_iter().map(|(outcome, _)| outcome).collect()
    }

    /// How each row fared, with its tag.
    ///
    /// # Panics
    /// When the request was refused as a whole.
    #[track_caller]
    pub fn tagged_outcomes(&self) -> Vec<(Outcome, Vec<u8>)> {
        assert_eq!(self.status(), Status::Ok, "the request was refused as a whole");
        self.rows().into_iter().map(|(outcome, _, tag)| (outcome, tag)).collect()
    }

    /// The statuses of the rows.
    #[track_caller]
    pub fn statuses(&self) -> Vec<Status> {
        self.outcomes().iter().map(Outcome::status).collect()
    }

    /// Each row's share of the payload.
    ///
    /// # Panics
    /// When the shares do not add up to the payload.
    #[track_caller]
    pub fn shares(&self) -> Vec<Vec<u8>> {
        let mut rest = &self.payload[..];
        let mut shares = Vec::new();
        for outcome in self.outcomes() {
            let (share, others) = rest.split_at(outcome.length as usize);
            shares.push(share.to_vec());
            rest = others;
        }
        assert!(rest.is_empty(), "{} bytes of payload belong to no row", rest.len());
        shares
    }

    /// The rows of Stat and List: row, key, tag.
    #[track_caller]
    pub fn stats(&self) -> Vec<(StatRow, Vec<u8>, Vec<u8>)> {
        assert_eq!(self.status(), Status::Ok, "the request was refused as a whole");
        self.rows()
    }

    /// The row of Info.
    ///
    /// # Panics
    /// When this is not an answer to Info.
    #[track_caller]
    pub fn info(&self) -> InfoRow {
        assert_eq!(self.status(), Status::Ok, "the request was refused as a whole");
        self.rows().pop().expect("Info has one row").0
    }
}
