//! Any split of the byte stream gives the same answers: a script's stream is
//! sent in one piece and in the script's pieces, to two servers, and the answers
//! are compared.

use rampuddle_protocol::{Header, Opcode, Outcome, StatRow, Status, Table, crc32c};
use rampuddle_server::simulation::SimulatedServer;

use super::line::Line;
use super::reader::Answer;
use super::script::{self, Step};
use super::world::many;
use crate::counts::Counts;

const ROUNDS_MAX: usize = 200_000;

/// Sends the stream of `script` both ways; true when an answer came.
///
/// # Panics
/// When the answers differ.
pub(super) fn compare(
    servers: [&mut SimulatedServer; 2],
    script: &[u8],
    counts: &mut Counts,
) -> bool {
    let [whole, split] = servers;
    let whole = Sent::new(whole, false).send(script);
    let split = Sent::new(split, true).send(script);
    if whole.iter().chain(&split).any(depends_on_pace) {
        // Pages of what was deleted come back when its readers have it.
        counts.one("splits not compared: a full pool");
        return !whole.is_empty();
    }
    // What is written into a value changes what an answer that waits gives of it.
    let has_scatter = has_scatter(script);
    assert_eq!(heads(&whole), heads(&split), "other answers when split");
    for (index, (whole, split)) in whole.iter().zip(&split).enumerate() {
        let (header, other) = (plain(whole), plain(split));
        assert_eq!(header, other, "answer {index}: another header when split");
        assert!(table(whole) == table(split), "{header:?}: other rows when split");
        let is_same = crc32c(&whole.payload) == crc32c(&split.payload);
        assert!(has_scatter || is_same, "{header:?}: other bytes when split");
    }
    counts.one("splits compared");
    counts.add("answers compared", whole.len() as u64);
    !whole.is_empty()
}

/// One way of sending.
struct Sent<'a> {
    server: &'a mut SimulatedServer,
    line: Line,
    is_split: bool,
    /// The pieces in which the rest is moved: over and over.
    pieces: Vec<usize>,
}

impl<'a> Sent<'a> {
    fn new(server: &'a mut SimulatedServer, is_split: bool) -> Self {
        let mut line = Line::default();
        line.connect(server);
        Self { server, line, is_split, pieces: Vec::new() }
    }

    fn send(mut self, script: &[u8]) -> Vec<Answer> {
        let mut rest = script;
        self.line.put_hello(1);
        while let Some(step) = script::next(&mut rest) {
            match step {
                Step::Head(_, head) if Line::names_any(head) => {
                    self.run();
                    self.line.put_head(head);
                }
                // What a Cancel finds depends on what has left already.
                Step::Head(_, head) if head.get(5) == Some(&(Opcode::Cancel as u8)) => {}
                Step::Head(_, head) => self.line.put_head(head),
                Step::Raw(_, bytes) => self.line.put(bytes),
                Step::Fill(_, count) => self.line.fill(count as usize),
                Step::Arrive(_, count) if self.is_split => {
                    self.pieces.push(many(count));
                    self.line.arrive(self.server, many(count));
                    self.server.turn();
                }
                Step::Leave(_, count) if self.is_split => {
                    self.line.leave(self.server, many(count));
                }
                _ => {}
            }
        }
        self.run();
        self.server.check_invariants();
        self.line.cut(self.server);
        self.server.assert_nothing_leaks();
        self.line.reader.answers
    }

    /// Moves bytes until none can be moved.
    fn run(&mut self) {
        if self.pieces.is_empty() {
            self.pieces.push(usize::MAX);
        }
        for round in 0..ROUNDS_MAX {
            let mut moved = usize::from(self.server.wants_turn());
            self.server.turn();
            // Pieces of a few bytes would take long for answers of many MiB.
            let is_over = round >= ROUNDS_MAX / 2;
            let piece = if is_over { usize::MAX } else { self.pieces[round % self.pieces.len()] };
            moved += self.line.arrive(self.server, piece);
            moved += self.line.leave(self.server, piece.max(64));
            if moved == 0 {
                return;
            }
        }
        panic!("bytes still move after {ROUNDS_MAX} rounds");
    }
}

/// Whether an answer says that there was no room, which depends on how soon
/// answers before it were taken.
fn depends_on_pace(answer: &Answer) -> bool {
    let is_one =
        |row: &Outcome| matches!(row.status(), Status::NoSpace | Status::NoIndex | Status::Busy);
    answer.header.operation() != Some(Opcode::List) && answer.outcomes().iter().any(is_one)
}

/// Whether a script writes into values that are there.
fn has_scatter(mut script: &[u8]) -> bool {
    std::iter::from_fn(|| script::next(&mut script)).any(|step| match step {
        Step::Head(_, head) => head.get(5) == Some(&(Opcode::Scatter as u8)),
        Step::Raw(..) => true,
        _ => false,
    })
}

/// Request, operation and status of each answer.
fn heads(answers: &[Answer]) -> Vec<(u64, u8, u8)> {
    let head = |header: &Header| (header.request_id, header.opcode, header.status);
    answers.iter().map(|answer| head(&answer.header)).collect()
}

/// A header without what the rows decide: see [`table`].
fn plain(answer: &Answer) -> Header {
    Header { crc32c: 0, ..answer.header }
}

/// The rows, without what differs from server to server.
fn table(answer: &Answer) -> Vec<u8> {
    let (header, bytes) = (&answer.header, &answer.table);
    let rows = header.rows as usize * usize::from(header.row_bytes);
    let mut again = bytes.clone();
    match header.operation() {
        // Counts bytes and time.
        Some(Opcode::Info) => again.clear(),
        // Handles are random.
        Some(Opcode::Create) if rows > 0 => {
            for (index, mut row) in answer.outcomes().into_iter().enumerate() {
                if row.status() == Status::Ok {
                    row.detail = row.detail.min(1);
                }
                row.encode(&mut again[index * Outcome::BYTES..]);
            }
        }
        // Which runs were free depends on when others left.
        Some(Opcode::Stat | Opcode::List) if rows > 0 => {
            let table = Table::<StatRow>::parse(header, bytes).expect("the reader read it");
            for (index, (row, ..)) in table.iter().enumerate() {
                StatRow { runs: 0, ..row }.encode(&mut again[index * StatRow::BYTES..]);
            }
        }
        _ => {}
    }
    again
}
