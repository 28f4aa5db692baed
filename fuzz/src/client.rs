//! The client's decoder of answers: the connection and the batches above it,
//! against a server whose bytes the input gives.
//!
//! An input is a byte of modes, the questions (see [`question`]), and stretches
//! of the server's bytes (see [`Stretch`]). Each is read in one piece, and again
//! in small ones: what the client makes of it must be the same.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use rampuddle_client::fuzzing::{Conversation, Question, converse};
use rampuddle_client::{Environment, ListQuery, SeededRandom, SystemClock, TcpUnixConnector};
use rampuddle_protocol::{Header, Opcode, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::answers::{answer, outcomes, refusal, server_hello, stats};
use crate::corpus::recorded;
use crate::counts::Counts;
use crate::mutate::{damage, distort, repair, seal};
use crate::random::Random;
use crate::target::Target;

const QUESTIONS_MAX: usize = 4;
const ROWS_MAX: usize = 8;
/// Bytes that one stretch may have of a pattern.
const PATTERN_MAX: usize = 1 << 16;

/// A stretch of the server's bytes: a byte, a length of two bytes, and the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stretch {
    /// A head, sealed when it is read. More comes with the next read only.
    Last = 0,
    /// A head, sealed when it is read.
    Head = 1,
    /// Bytes as they are.
    Raw = 2,
    /// So many bytes of a pattern, which are not in the input.
    Pattern = 3,
}

/// The target.
#[derive(Debug)]
pub struct ClientDecoder;

impl Target for ClientDecoder {
    fn run(&mut self, input: &[u8], counts: &mut Counts) -> bool {
        let mut rest = input;
        let (cut, count) = (usize::from(byte(&mut rest)), usize::from(byte(&mut rest)));
        let questions: Vec<_> =
            (0..count % (QUESTIONS_MAX + 1)).map(|_| question(&mut rest)).collect();
        let server = Arc::new(ServerBytes::read(&mut rest));
        let whole = talk(&server, usize::MAX, &questions);
        let cut = talk(&server, 1 + cut % 200, &questions);
        assert!(!whole.waits && !cut.waits, "waits for bytes though the stream has ended");
        // Bytes behind a hello are seen at once only when they come with it.
        if !format!("{:?}", whole.error).contains("nobody asked for") {
            assert_eq!(whole, cut, "the pieces that bytes come in change what they mean");
        }
        assert_bytes(&whole, &questions, &server.bytes);
        count_up(&whole, questions.len(), counts)
    }

    fn generate(&self, random: &mut Random) -> Vec<u8> {
        let mut input = vec![random.draw() as u8];
        let count = 1 + random.below(QUESTIONS_MAX);
        input.push(count as u8);
        let hello = server_hello(random);
        let is_by_row = granted_rows(&hello) == 1;
        let mut frames = vec![(hello, 0)];
        let mut id = 1;
        for _ in 0..count {
            let at = input.len();
            let kind = random.below(5) as u8;
            input.extend([kind, 1 + random.below(ROWS_MAX) as u8, random.below(300) as u8]);
            let asked = question(&mut &input[at..]);
            answers_to(random, &asked, is_by_row, &mut id, &mut frames);
        }
        if random.percent(10) {
            let last = frames.len() - 1;
            frames.swap(last, 1 + random.below(last));
        }
        write_frames(random, frames, &mut input);
        input
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let answers = recorded().iter().filter(|frame| frame[8] & 1 != 0 && frame[5] != 16);
        let mut random = Random::of_execution(1, 1);
        let one = |frame: &Vec<u8>| {
            let kind = match Opcode::from_number(frame[5]) {
                Some(Opcode::Gather) => 0,
                Some(Opcode::Stat) => 2,
                Some(Opcode::List) => 3,
                Some(Opcode::Info) => 4,
                _ => 1,
            };
            let mut input = vec![7, 1, kind, 1, 100];
            stretch(&mut input, Stretch::Last, &server_hello(&mut random));
            stretch(&mut input, Stretch::Last, frame);
            input
        };
        answers.map(one).collect()
    }
}

fn byte(rest: &mut &[u8]) -> u8 {
    let Some((first, tail)) = rest.split_first() else { return 0 };
    *rest = tail;
    *first
}

/// Three bytes: what is asked, of how many rows, and how many bytes of each.
fn question(rest: &mut &[u8]) -> Question {
    let [kind, rows, length] = [byte(rest), byte(rest), byte(rest)];
    let rows = 1 + usize::from(rows) % ROWS_MAX;
    let key = |index: usize| Bytes::from(vec![b'k', b'0' + index as u8]);
    let keys = (0..rows).map(key);
    match kind % 5 {
        0 => Question::Gather(keys.map(|key| (key, u64::from(length))).collect()),
        1 => Question::Delete(keys.collect()),
        2 => Question::Stat(keys.collect()),
        3 => {
            let mut query = ListQuery::prefix("k");
            query.rows_max = if length % 2 == 0 { 0 } else { rows as u32 };
            query.tombstones = length % 3 == 0;
            Question::List(query)
        }
        _ => Question::Info,
    }
}

/// All that the server says, and up to where one read may go.
#[derive(Debug, Default)]
struct ServerBytes {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl ServerBytes {
    fn read(rest: &mut &[u8]) -> Self {
        let mut server = Self::default();
        while !rest.is_empty() {
            let kind = byte(rest) % 4;
            let length = usize::from(u16::from_le_bytes([byte(rest), byte(rest)]));
            if kind == Stretch::Pattern as u8 {
                server.pattern(length);
                continue;
            }
            let (bytes, tail) = rest.split_at(length.min(rest.len()));
            *rest = tail;
            let start = server.bytes.len();
            server.bytes.extend_from_slice(bytes);
            if kind != Stretch::Raw as u8 && bytes.len() >= Header::BYTES {
                let head = &mut server.bytes[start..];
                let head_bytes = Header::decode(head).head_bytes().clamp(Header::BYTES, head.len());
                seal(&mut head[..head_bytes]);
            }
            if kind == Stretch::Last as u8 {
                server.ends.push(server.bytes.len());
            }
        }
        server.ends.push(server.bytes.len());
        server
    }

    fn pattern(&mut self, length: usize) {
        let start = self.bytes.len();
        let length = length.min(PATTERN_MAX);
        let of = |at: usize| ((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8;
        self.bytes.extend((start..start + length).map(of));
    }
}

/// The server's side of a connection.
struct Script {
    server: Arc<ServerBytes>,
    at: usize,
    piece: usize,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let at = self.at;
        let end = self.server.ends.iter().copied().find(|end| *end > at).unwrap_or(at);
        let count = (end - at).min(self.piece).min(buffer.remaining());
        buffer.put_slice(&self.server.bytes[at..at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len().min(self.piece)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn talk(server: &Arc<ServerBytes>, piece: usize, questions: &[Question]) -> Conversation {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    let environment = ENVIRONMENT.get_or_init(|| {
        let random = Arc::new(SeededRandom::new(1));
        Environment::new(Arc::new(SystemClock), random, Arc::new(TcpUnixConnector::default()))
    });
    let script = Script { server: Arc::clone(server), at: 0, piece };
    converse(script, environment, None, questions)
}

/// Bytes given to the caller are the server's, in order, and no more than asked.
fn assert_bytes(seen: &Conversation, questions: &[Question], mut server: &[u8]) {
    for (index, row, _, bytes) in &seen.rows {
        let Question::Gather(rows) = &questions[*index] else { continue };
        let (key, length) = &rows[*row];
        if bytes == key {
            continue;
        }
        assert!(bytes.len() as u64 <= *length, "more bytes than asked");
        let found = server.windows(bytes.len().max(1)).position(|window| window == bytes);
        let found = found.filter(|_| !bytes.is_empty()).or(bytes.is_empty().then_some(0));
        let at = found.expect("bytes that the server never sent, or not in this order");
        server = &server[at + bytes.len()..];
    }
}

fn count_up(seen: &Conversation, questions: usize, counts: &mut Counts) -> bool {
    counts.add("rows", seen.rows.len() as u64);
    counts.add("questions answered", seen.answered as u64);
    if !seen.is_greeted {
        counts.one("hello refused");
        return false;
    }
    let is_lost = seen.error.as_ref().is_some_and(|error| error.contains("end of file"));
    counts.one(match &seen.error {
        None => "conversations to the end",
        Some(_) if seen.is_framing => "no frame",
        Some(_) if is_lost => "cut off",
        Some(_) => "misbehaviour seen",
    });
    assert!(seen.error.is_some() || seen.answered == questions);
    !seen.rows.is_empty() || (!seen.is_framing && !is_lost) || seen.answered > 0
}

fn granted_rows(hello: &[u8]) -> u32 {
    let header = Header::decode(hello);
    let parsed = rampuddle_protocol::ServerHello::parse(&header, header.table(hello));
    parsed.expect("a hello of ours").0.rows_max
}

/// The frames that answer a question, each with the length of its payload.
fn answers_to(
    random: &mut Random,
    asked: &Question,
    is_by_row: bool,
    id: &mut u64,
    frames: &mut Vec<(Vec<u8>, u64)>,
) {
    let (opcode, rows) = match asked {
        Question::Gather(rows) => (Opcode::Gather, rows.len()),
        Question::Delete(keys) => (Opcode::Delete, keys.len()),
        Question::Stat(keys) => (Opcode::Stat, keys.len()),
        Question::List(_) => (Opcode::List, 1),
        Question::Info => (Opcode::Info, 1),
    };
    let size = if is_by_row { 1 } else { rows };
    for first in (0..rows).step_by(size) {
        let count = size.min(rows - first);
        let frame = if random.percent(6) {
            let status = random.pick(Status::ALL);
            (refusal(opcode, *id, status), 0)
        } else {
            match asked {
                Question::Gather(rows) => {
                    let share = |random: &mut Random, most: u64| match random.below(4) {
                        0 => 0,
                        1 => random.below(most as usize + 1) as u64,
                        _ => most,
                    };
                    let of = |row: &(Bytes, u64)| share(random, row.1);
                    let lengths: Vec<u64> = rows[first..first + count].iter().map(of).collect();
                    outcomes(random, opcode, *id, &lengths)
                }
                Question::Delete(_) => outcomes(random, opcode, *id, &vec![0; count]),
                Question::Stat(keys) => {
                    let keys: Vec<Vec<u8>> =
                        keys[first..first + count].iter().map(|key| key.to_vec()).collect();
                    (stats(random, opcode, *id, &keys, false), 0)
                }
                Question::List(_) | Question::Info => answer(random, opcode, *id),
            }
        };
        frames.push(frame);
        *id += 1;
    }
}

/// Writes the frames as stretches, one of them changed in every second input.
fn write_frames(random: &mut Random, frames: Vec<(Vec<u8>, u64)>, input: &mut Vec<u8>) {
    let changed = if random.percent(50) { random.below(frames.len()) } else { usize::MAX };
    let joins = random.percent(30);
    let last = frames.len() - 1;
    for (index, (mut head, payload)) in frames.into_iter().enumerate() {
        // Another hello than the client's own ends the conversation at once.
        let is_changed = index == changed && (index > 0 || random.percent(20));
        let mut is_sealed = true;
        if is_changed && random.percent(85) {
            distort(random, &mut head);
            if random.percent(80) {
                repair(&mut head);
            }
        } else if is_changed {
            damage(random, &mut head);
            is_sealed = random.percent(50);
        }
        let ends = payload == 0 && (index == 0 || !joins || index == last);
        let kind = match (is_sealed, ends) {
            (false, _) => Stretch::Raw,
            (true, true) => Stretch::Last,
            (true, false) => Stretch::Head,
        };
        head.truncate(usize::from(u16::MAX));
        stretch(input, kind, &head);
        if payload > 0 {
            let payload = if random.percent(4) { payload / 2 } else { payload };
            input.push(Stretch::Pattern as u8);
            input.extend((payload.min(u64::from(u16::MAX)) as u16).to_le_bytes());
        }
    }
}

fn stretch(input: &mut Vec<u8>, kind: Stretch, bytes: &[u8]) {
    input.push(kind as u8);
    input.extend((bytes.len() as u16).to_le_bytes());
    input.extend_from_slice(bytes);
}
