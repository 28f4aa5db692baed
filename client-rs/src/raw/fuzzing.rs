//! The decoder of answers for fuzzers: questions asked of a server whose bytes
//! are given.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use rampuddle_protocol::{
    DeleteRow, GatherRow, Opcode, Outcome, Row, SessionId, StatRequestRow, StatRow, Status,
};

use super::pipeline::{AnswerRow, Prepared, Reply, exchange};
use super::{ListQuery, inspect, list};
use crate::connection::{Connection, Introduction};
use crate::environment::Environment;
use crate::error::{Error, Misbehaviour};
use crate::token::Token;
use crate::transport::{Address, Duplex, Stream};

/// What is asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// So many bytes from the begin of each key.
    Gather(Vec<(Bytes, u64)>),
    /// Deletes of these keys.
    Delete(Vec<Bytes>),
    /// What is known of these keys.
    Stat(Vec<Bytes>),
    /// One page of keys.
    List(ListQuery),
    /// What is known of the server.
    Info,
}

/// What the client made of the server's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// It shook hands.
    pub is_greeted: bool,
    /// What it was told of each row, in the order of arrival: the question, the
    /// row, the status and the bytes (of Stat and List: the key).
    pub rows: Vec<(usize, usize, Status, Bytes)>,
    /// Questions answered to the end.
    pub answered: usize,
    /// What ended it before all were answered.
    pub error: Option<String>,
    /// The bytes that did so were no frame.
    pub is_framing: bool,
    /// It would wait for bytes for ever: never, when the stream ends.
    pub waits: bool,
}

/// Shakes hands with the server `"server"` of `"cluster"`, then asks each
/// question, one after the other. The stream must always be ready.
pub fn converse(
    stream: impl Duplex + 'static,
    environment: &Environment,
    token: Option<&Token>,
    questions: &[Question],
) -> Conversation {
    let mut seen = Conversation::default();
    let ended = ask_all(Stream::other(stream), environment, token, questions, &mut seen);
    match ended.now_or_never() {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            let framing = |what: &Misbehaviour| matches!(what, Misbehaviour::Framing(_));
            seen.is_framing = matches!(&error, Error::PeerMisbehaved { what, .. } if framing(what));
            seen.error = Some(error.to_string());
        }
        None => seen.waits = true,
    }
    seen
}

async fn ask_all(
    stream: Stream,
    environment: &Environment,
    token: Option<&Token>,
    questions: &[Question],
    seen: &mut Conversation,
) -> Result<(), Error> {
    let introduction = Introduction {
        server: &"server".into(),
        cluster: &"cluster".into(),
        session: SessionId([1; 16]),
        token,
        environment,
        patience: Duration::from_secs(5),
        deadline: None,
        placing: None,
        activity: &Arc::default(),
        in_use: &Arc::default(),
    };
    let address = Arc::new(Address::Tcp("memory".to_owned()));
    let mut connection = Connection::open(stream, address, introduction).await?;
    seen.is_greeted = true;
    for (index, question) in questions.iter().enumerate() {
        ask(&mut connection, index, question, seen).await?;
        seen.answered += 1;
    }
    Ok(())
}

async fn ask(
    connection: &mut Connection,
    index: usize,
    question: &Question,
    seen: &mut Conversation,
) -> Result<(), Error> {
    match question {
        Question::Gather(ranges) => {
            let row = |(at, (key, length)): (usize, &(Bytes, u64))| Prepared {
                answer_bytes: *length,
                ..Prepared::new(
                    at,
                    GatherRow { length: *length, ..Default::default() },
                    key.clone(),
                )
            };
            let rows = ranges.iter().enumerate().map(row).collect();
            told::<_, Outcome>(connection, Opcode::Gather, rows, index, seen, Outcome::status).await
        }
        Question::Delete(keys) => {
            let rows = prepared(keys, DeleteRow::default());
            told::<_, Outcome>(connection, Opcode::Delete, rows, index, seen, Outcome::status).await
        }
        Question::Stat(keys) => {
            let rows = prepared(keys, StatRequestRow::default());
            told::<_, StatRow>(connection, Opcode::Stat, rows, index, seen, StatRow::status).await
        }
        Question::List(query) => {
            let page = list::ask(connection, query).await?;
            let rows = page.entries.into_iter().enumerate();
            seen.rows.extend(rows.map(|(at, entry)| (index, at, entry.status, entry.key)));
            let next = page.next.into_iter();
            seen.rows.extend(next.map(|key| (index, usize::MAX, Status::Incomplete, key)));
            Ok(())
        }
        Question::Info => {
            let info = inspect::ask_info(connection).await?;
            seen.rows.push((index, 0, Status::Ok, info.name.into()));
            Ok(())
        }
    }
}

fn prepared<'b, R: Row>(keys: &[Bytes], row: R) -> Vec<Prepared<'b, R>> {
    keys.iter().enumerate().map(|(at, key)| Prepared::new(at, row, key.clone())).collect()
}

async fn told<R: Row, A: AnswerRow>(
    connection: &mut Connection,
    opcode: Opcode,
    mut rows: Vec<Prepared<'_, R>>,
    index: usize,
    seen: &mut Conversation,
    status: fn(&A) -> Status,
) -> Result<(), Error> {
    let mut take = |at: usize, reply: Reply<A>| {
        let (status, bytes) = match reply {
            Reply::Row { row, bytes, key, .. } if bytes.is_empty() => (status(&row), key),
            Reply::Row { row, bytes, .. } => (status(&row), bytes),
            Reply::Refused(status) => (status, Bytes::new()),
        };
        seen.rows.push((index, at, status, bytes));
    };
    exchange(connection, &Arc::default(), opcode, &mut rows, &mut take)
        .await
        .map_err(|stopped| stopped.error)
}
