//! Reading the stripes of an object, each from whichever server has it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rampuddle_protocol::limits::PAYLOAD_BYTES_MAX;
use rampuddle_protocol::{GatherRow, Opcode, Outcome, SetId, Status};

use super::codec::unpack;
use super::format::{BLOCK_BYTES, Tag, stripe_key};
use super::hedge::Course;
use super::operation::Operation;
use super::ranks::{Places, answers, prefer};
use super::report::Progress;
use super::variable::BlockEntry;
use super::verifier::Verifier;
use crate::buffers::Buffer;
use crate::connection::Connection;
use crate::error::{Error, Misbehaviour};
use crate::retry::Attempts;
use crate::server::{Class, Server};

/// Blocks of a piece at most. Longer ones are no faster, and the last ones of a read
/// would keep it waiting for longer.
const PIECE_BLOCKS: u64 = 1;

const _: () = assert!(PIECE_BLOCKS * BLOCK_BYTES <= PAYLOAD_BYTES_MAX);

/// Times that every server is asked for a stripe before it is given up; the
/// second one is a retry.
const ROUNDS: usize = 2;

/// Neighbouring blocks of one stripe.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) stripe: u64,
    /// Blocks by their number within the object.
    pub(super) blocks: Range<u64>,
    /// Bytes of all, as they are without a codec.
    pub(super) bytes: u64,
}

/// Where the bytes of a piece go as they come in.
enum Room<'o> {
    /// To where they are wanted: all of its blocks are stored as they are.
    Final(&'o mut [u8]),
    /// Some are compressed: to where there is room for all as they are stored.
    Stored(&'o mut Vec<u8>),
}

impl Room<'_> {
    fn bytes(&mut self) -> &mut [u8] {
        match self {
            Self::Final(bytes) => bytes,
            Self::Stored(bytes) => bytes,
        }
    }
}

/// Where the pieces begin that cover `range`: they are whole blocks, because a
/// checksum covers one.
pub(super) fn begin_of(range: &Range<u64>) -> u64 {
    range.start / BLOCK_BYTES * BLOCK_BYTES
}

pub(super) fn blocks_per_stripe(tag: &Tag) -> u64 {
    u64::from(tag.stripe_bytes) / BLOCK_BYTES
}

/// Bytes of these blocks as they are stored.
pub(super) fn stored_bytes(blocks: &[BlockEntry]) -> u64 {
    blocks.iter().map(|block| u64::from(block.stored_bytes)).sum()
}

/// The pieces, each within one stripe, that cover `range` of an object.
pub(super) fn pieces(tag: &Tag, range: &Range<u64>) -> impl Iterator<Item = Piece> + use<> {
    pieces_of_at_most(PIECE_BLOCKS, tag, range)
}

/// The same, of another number of blocks at most.
pub(super) fn pieces_of_at_most(
    blocks_max: u64,
    tag: &Tag,
    range: &Range<u64>,
) -> impl Iterator<Item = Piece> + use<> {
    let end = if range.is_empty() { 0 } else { range.end.div_ceil(BLOCK_BYTES) };
    let (object_bytes, per_stripe) = (tag.object_bytes, blocks_per_stripe(tag));
    let mut block = range.start / BLOCK_BYTES;
    std::iter::from_fn(move || {
        if block >= end {
            return None;
        }
        let stripe = block / per_stripe;
        let blocks = block..end.min((stripe + 1) * per_stripe).min(block + blocks_max);
        let begin = blocks.start * BLOCK_BYTES;
        let bytes = object_bytes.min(blocks.end * BLOCK_BYTES) - begin;
        block = blocks.end;
        Some(Piece { stripe, blocks, bytes })
    })
}

/// Why a piece could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// Every server that should have this stripe says that it has not.
    Missing(u64),
    /// The same; and one did have it for this reader, until there was too much
    /// that was kept so.
    GaveWay(u64),
    /// Some gave no answer, or wrong bytes.
    Failed(Vec<String>),
}

impl Unread {
    /// The reasons, a line each.
    pub(super) fn problems(self) -> Vec<String> {
        match self {
            Self::Failed(problems) => problems,
            Self::Missing(stripe) => vec![format!("no server has a copy of stripe {stripe}")],
            Self::GaveWay(stripe) => {
                let kept = "readers kept a quarter of a server's memory";
                vec![format!("stripe {stripe} gave way to writers: {kept}")]
            }
        }
    }
}

/// A read of one object: what all its pieces share.
#[derive(Debug)]
pub(super) struct Reading<'r> {
    pub(super) operation: &'r Operation,
    pub(super) tag: Tag,
    pub(super) table: &'r [BlockEntry],
    pub(super) verify: bool,
    pub(super) progress: Option<&'r Progress>,
    pub(super) served: Served,
}

/// Bytes by server.
#[derive(Debug, Default)]
pub(super) struct Served(Mutex<BTreeMap<Arc<str>, u64>>);

impl Served {
    /// A server that was asked in vain has served nothing.
    pub(super) fn add(&self, server: &Arc<str>, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *served.entry(Arc::clone(server)).or_default() += bytes;
    }

    pub(super) fn list(&self) -> Vec<(String, u64)> {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        served.iter().map(|(server, bytes)| (server.to_string(), *bytes)).collect()
    }
}

/// Which owners are a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Those that were not outrun lately.
    Better,
    /// All that answer.
    Any,
}

impl Reading<'_> {
    /// Reads a piece into `out`.
    pub(super) async fn piece(
        &self,
        piece: &Piece,
        out: &mut [u8],
        course: &Course,
    ) -> Result<(), Unread> {
        if self.is_stored_as_it_is(piece) {
            return self.fetch(piece, &mut Room::Final(out), course).await;
        }
        out.copy_from_slice(&self.unpacked(piece, course).await?);
        Ok(())
    }

    /// Whether more than one server should have each piece.
    pub(super) fn has_choice(&self) -> bool {
        self.tag.replicas > 1
    }

    /// Whether a piece has an owner that answers, besides this one.
    pub(super) fn has_owner_besides(&self, piece: &Piece, than: &Server, choice: Choice) -> bool {
        let key = stripe_key(self.tag.upload, piece.stripe);
        let places = Places::of_copies(&self.operation.views.current(), &key, self.tag.replicas);
        let mut others = places.owners(self.tag.replicas).iter().filter(|it| *it != than.name());
        others.any(|name| {
            let server = self.operation.servers.server(name);
            let is_outrun_good = choice == Choice::Any;
            let is_good =
                server.is_ok_and(|it| !it.is_slow() && (is_outrun_good || !it.is_outrun()));
            is_good && answers(self.operation, name)
        })
    }

    /// Reads a piece into memory of its own.
    pub(super) async fn new_piece(&self, piece: &Piece, course: &Course) -> Result<Bytes, Unread> {
        if !self.is_stored_as_it_is(piece) {
            return Ok(self.unpacked(piece, course).await?.into());
        }
        let mut bytes = self.memory(piece)?;
        self.fetch(piece, &mut Room::Final(&mut bytes), course).await?;
        Ok(bytes.into_bytes())
    }

    /// Memory for a piece.
    pub(super) fn memory(&self, piece: &Piece) -> Result<Buffer, Unread> {
        let memory = self.operation.servers.access().buffers.take(piece.bytes);
        memory.map_err(|error| Unread::Failed(vec![error.to_string()]))
    }

    /// Reads a piece of which blocks are compressed.
    async fn unpacked(&self, piece: &Piece, course: &Course) -> Result<Vec<u8>, Unread> {
        let mut bytes = vec![0; stored_bytes(self.blocks_of(piece)) as usize];
        self.fetch(piece, &mut Room::Stored(&mut bytes), course).await?;
        Ok(bytes)
    }

    /// Its blocks.
    pub(super) fn blocks_of(&self, piece: &Piece) -> &[BlockEntry] {
        &self.table[piece.blocks.start as usize..piece.blocks.end as usize]
    }

    /// Whether none of its blocks is compressed.
    pub(super) fn is_stored_as_it_is(&self, piece: &Piece) -> bool {
        self.blocks_of(piece).iter().all(|block| block.is_plain)
    }

    /// Reads a piece, from one server after the other: a server that fails half
    /// way is followed by the next from the byte reached, a block that is wrong
    /// is read again elsewhere. In the end `room` has the bytes as they are
    /// without a codec.
    async fn fetch(
        &self,
        piece: &Piece,
        room: &mut Room<'_>,
        course: &Course,
    ) -> Result<(), Unread> {
        let key = stripe_key(self.tag.upload, piece.stripe);
        let view = self.operation.views.current();
        let places = Places::of_copies(&view, &key, self.tag.replicas);
        let (owners, others) = places.split(self.tag.replicas);
        let mut owners = owners.to_vec();
        prefer(self.operation, &mut owners);
        course.sort(self.operation, &mut owners);
        let first_block = piece.blocks.start % blocks_per_stripe(&self.tag);
        let blocks = self.blocks_of(piece);
        let mut verifier =
            Verifier::new(self.tag.upload, piece.stripe, first_block, blocks, self.verify);
        let stripe = piece.stripe;
        let mut problems: Vec<String> = Vec::new();
        let mut attempts = course.first_attempt(self.operation);
        let mut has_failed = false;
        for round in 1..=ROUNDS {
            let (mut missing, mut gave_way) = (0, false);
            for server in owners.iter().chain(others) {
                if std::mem::take(&mut has_failed) {
                    self.operation.servers.access().counters.failed_over();
                }
                course.asks(self.operation, server);
                let before = verifier.reached();
                let ask = self.ask_server(server, &key, piece, room, &mut verifier, &mut attempts);
                let outcome = ask.await;
                let gained = verifier.reached() - before;
                self.served.add(server, gained);
                let problem = match outcome {
                    Ok(Came::All) => match self.unpack(piece, room).await? {
                        None => {
                            self.progress.iter().for_each(|progress| progress.add(piece.bytes));
                            return Ok(());
                        }
                        Some(block) => {
                            verifier.go_back_to(block);
                            format!(
                                "stripe {stripe} on server \"{server}\" has a block that cannot \
                                 be decompressed"
                            )
                        }
                    },
                    Ok(Came::Nothing(Status::NotFound)) => {
                        missing += 1;
                        format!("server \"{server}\" has no copy of stripe {stripe}")
                    }
                    Ok(Came::Nothing(Status::Superseded)) => {
                        (missing, gave_way) = (missing + 1, true);
                        format!("server \"{server}\" broke its hold of stripe {stripe}")
                    }
                    Ok(Came::Nothing(status)) => {
                        format!("server \"{server}\" answered {status} for stripe {stripe}")
                    }
                    Ok(Came::Wrong) => {
                        verifier.restart_block();
                        has_failed = true;
                        self.operation.servers.access().counters.found_damaged();
                        format!("stripe {stripe} on server \"{server}\" does not have its checksum")
                    }
                    Err(error) => {
                        has_failed = true;
                        error.to_string()
                    }
                };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
            if missing == places.all().len() {
                // It does not come back.
                let gone = if gave_way { Unread::GaveWay } else { Unread::Missing };
                return Err(gone(stripe));
            }
            if round < ROUNDS && !self.operation.again(&mut attempts).await {
                break;
            }
        }
        Err(Unread::Failed(problems))
    }

    /// Decompresses what came in, if it must be. The first block that cannot be,
    /// by its number within the piece.
    async fn unpack(&self, piece: &Piece, room: &mut Room<'_>) -> Result<Option<usize>, Unread> {
        let Room::Stored(stored) = room else { return Ok(None) };
        let (codec, length) = (self.tag.codec, piece.bytes);
        let (blocks, bytes) = (self.blocks_of(piece).to_vec(), std::mem::take(*stored));
        let work = move || (unpack(codec, &blocks, &bytes, length), bytes);
        let done = self.operation.workers.run(work).await;
        let (unpacked, bytes) = done.map_err(|error| Unread::Failed(vec![error.to_string()]))?;
        let wrong = unpacked.as_ref().err().copied();
        **stored = unpacked.unwrap_or(bytes);
        Ok(wrong)
    }

    /// Where the stored bytes of a piece begin in the value of its stripe, and how
    /// many there are.
    pub(super) fn place_of(&self, piece: &Piece) -> (u64, u64) {
        let first = (piece.stripe * blocks_per_stripe(&self.tag)) as usize;
        let before = &self.table[first..piece.blocks.start as usize];
        (stored_bytes(before), stored_bytes(self.blocks_of(piece)))
    }

    async fn ask_server(
        &self,
        name: &Arc<str>,
        key: &[u8],
        piece: &Piece,
        room: &mut Room<'_>,
        verifier: &mut Verifier<'_>,
        attempts: &mut Attempts,
    ) -> Result<Came, Error> {
        let server = self.operation.servers.server(name)?;
        let deadline = self.operation.deadline();
        let (begin, length) = self.place_of(piece);
        let mut lease = server.acquire(Class::of(length), deadline).await?;
        self.operation.retries.note(attempts);
        while verifier.reached() < length {
            let from = verifier.reached();
            let want = (length - from).min(lease.grants().payload_bytes);
            let slice = &mut room.bytes()[from as usize..(from + want) as usize];
            let offset = begin + from;
            let status = gather(&mut lease, self.tag.upload, key, offset, slice, verifier).await?;
            if let Some(status) = status {
                lease.finish();
                return Ok(Came::Nothing(status));
            }
            if verifier.is_wrong() {
                lease.finish();
                return Ok(Came::Wrong);
            }
        }
        lease.finish();
        Ok(Came::All)
    }
}

/// What came of asking one server.
enum Came {
    All,
    /// A row that was refused.
    Nothing(Status),
    /// Bytes without their checksum.
    Wrong,
}

/// Fills `slice` from a value; `Some` = the row's status when it was refused.
pub(super) async fn gather(
    connection: &mut Connection,
    set: SetId,
    key: &[u8],
    offset: u64,
    slice: &mut [u8],
    verifier: &mut Verifier<'_>,
) -> Result<Option<Status>, Error> {
    let length = slice.len() as u64;
    let row = GatherRow { offset, length, set, ..GatherRow::default() };
    connection.request(Opcode::Gather, [(row, key, &b""[..])], length);
    connection.flush().await?;
    let header = connection.receive_head().await?;
    if header.status != Status::Ok as u8 {
        return Ok(Some(Status::from_number(header.status).unwrap_or(Status::Unsupported)));
    }
    let outcome: Outcome = match connection.table::<Outcome>()?.iter().next() {
        Some((outcome, _, _)) => outcome,
        None => return Err(connection.misbehaved(Misbehaviour::WrongRows { wanted: 1, found: 0 })),
    };
    if outcome.status() != Status::Ok {
        connection.skip_payload(header.payload_bytes).await?;
        return Ok(Some(outcome.status()));
    }
    if outcome.length != length || header.payload_bytes != length {
        // The value is shorter than the table says: not this object's bytes.
        connection.skip_payload(header.payload_bytes).await?;
        return Ok(Some(Status::BadRange));
    }
    connection.receive_payload_into(slice, |bytes| verifier.feed(bytes)).await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::format::plain_tag;

    #[test]
    fn a_server_that_gave_nothing_is_not_among_those_that_served() {
        let served = Served::default();
        served.add(&Arc::from("dead"), 0);
        served.add(&Arc::from("living"), 7);
        assert_eq!(served.list(), [("living".to_owned(), 7)]);
    }

    #[test]
    fn pieces_cover_a_range_in_whole_blocks_and_within_stripes() {
        let length = (9 << 20) + 5;
        for range in [0..length, 0..1, 5..6, (4 << 20) - 1..(4 << 20) + 1, length - 1..length, 7..7]
        {
            let begin = begin_of(&range);
            let pieces: Vec<Piece> = pieces(&plain_tag(length), &range).collect();
            let bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
            if range.is_empty() {
                assert_eq!(bytes, 0);
                continue;
            }
            assert!(begin <= range.start && begin.is_multiple_of(BLOCK_BYTES));
            assert!(begin + bytes >= range.end && begin + bytes <= length);
            let is_within = |piece: &Piece| {
                let stripe = piece.stripe * 4..(piece.stripe + 1) * 4;
                stripe.start <= piece.blocks.start && piece.blocks.end <= stripe.end
            };
            assert!(pieces.iter().all(is_within));
        }
        assert_eq!(pieces(&plain_tag(length), &(0..length)).count(), 10, "a block each");
    }
}
