//! Reading the stripes of an object, each from whichever server has it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rampuddle_protocol::limits::PAYLOAD_BYTES_MAX;
use rampuddle_protocol::{GatherRow, Opcode, Outcome, SetId, Status};

use super::format::{BLOCK_BYTES, Tag, stripe_key};
use super::operation::Operation;
use super::ranks::{Places, prefer};
use super::report::Progress;
use super::variable::BlockEntry;
use super::verifier::Verifier;
use crate::connection::Connection;
use crate::error::{Error, Misbehaviour};
use crate::retry::Attempts;
use crate::server::Class;

/// Blocks of a piece at most: one frame's worth.
const PIECE_BLOCKS: u64 = PAYLOAD_BYTES_MAX / BLOCK_BYTES;

/// Times that every server is asked for a stripe before it is given up; the
/// second one is a retry.
const ROUNDS: usize = 2;

/// Neighbouring blocks of one stripe.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) stripe: u64,
    /// Blocks by their number within the object.
    blocks: Range<u64>,
    /// Where the first one begins within the stripe.
    offset: u64,
    /// Bytes of all.
    pub(super) bytes: u64,
}

/// Where the pieces begin that cover `range`: they are whole blocks, because a
/// checksum covers one.
pub(super) fn begin_of(range: &Range<u64>) -> u64 {
    range.start / BLOCK_BYTES * BLOCK_BYTES
}

/// The pieces, each within one stripe, that cover `range` of an object.
pub(super) fn pieces(tag: &Tag, range: &Range<u64>) -> impl Iterator<Item = Piece> + use<> {
    let end = if range.is_empty() { 0 } else { range.end.div_ceil(BLOCK_BYTES) };
    let (object_bytes, stripe_bytes) = (tag.object_bytes, u64::from(tag.stripe_bytes));
    let per_stripe = stripe_bytes / BLOCK_BYTES;
    let mut block = range.start / BLOCK_BYTES;
    std::iter::from_fn(move || {
        if block >= end {
            return None;
        }
        let stripe = block / per_stripe;
        let blocks = block..end.min((stripe + 1) * per_stripe).min(block + PIECE_BLOCKS);
        let begin = blocks.start * BLOCK_BYTES;
        let bytes = object_bytes.min(blocks.end * BLOCK_BYTES) - begin;
        let offset = begin - stripe * stripe_bytes;
        block = blocks.end;
        Some(Piece { stripe, blocks, offset, bytes })
    })
}

/// Why a piece could not be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// Every server that should have this stripe says that it has not.
    Missing(u64),
    /// Some gave no answer, or wrong bytes.
    Failed(Vec<String>),
}

impl Unread {
    /// The reasons, a line each.
    pub(super) fn problems(self) -> Vec<String> {
        match self {
            Self::Failed(problems) => problems,
            Self::Missing(stripe) => vec![format!("no server has a copy of stripe {stripe}")],
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
    pub(super) fn add(&self, server: &Arc<str>, bytes: u64) {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *served.entry(Arc::clone(server)).or_default() += bytes;
    }

    pub(super) fn list(&self) -> Vec<(String, u64)> {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        served.iter().map(|(server, bytes)| (server.to_string(), *bytes)).collect()
    }
}

impl Reading<'_> {
    /// Reads a piece into `out`, from one server after the other: a server that
    /// fails half way is followed by the next from the byte reached, a block
    /// that is wrong is read again elsewhere.
    pub(super) async fn piece(&self, piece: &Piece, out: &mut [u8]) -> Result<(), Unread> {
        let key = stripe_key(self.tag.upload, piece.stripe);
        let view = self.operation.views.current();
        let places = Places::of_copies(&view, &key, self.tag.replicas);
        let (owners, others) = places.split(self.tag.replicas);
        let mut owners = owners.to_vec();
        prefer(self.operation, &mut owners);
        let first_block = piece.blocks.start % (u64::from(self.tag.stripe_bytes) / BLOCK_BYTES);
        let blocks = &self.table[piece.blocks.start as usize..piece.blocks.end as usize];
        let mut verifier =
            Verifier::new(self.tag.upload, piece.stripe, first_block, blocks, self.verify);
        let stripe = piece.stripe;
        let mut problems: Vec<String> = Vec::new();
        let mut attempts = self.operation.retries.first_attempt();
        for round in 1..=ROUNDS {
            let mut missing = 0;
            for server in owners.iter().chain(others) {
                let before = verifier.reached();
                let ask = self.ask_server(server, &key, piece, out, &mut verifier, &mut attempts);
                let outcome = ask.await;
                let gained = verifier.reached() - before;
                self.served.add(server, gained);
                let problem = match outcome {
                    Ok(Came::All) => {
                        if let Some(progress) = self.progress {
                            progress.add(piece.bytes);
                        }
                        return Ok(());
                    }
                    Ok(Came::Nothing(Status::NotFound)) => {
                        missing += 1;
                        format!("server \"{server}\" has no copy of stripe {stripe}")
                    }
                    Ok(Came::Nothing(status)) => {
                        format!("server \"{server}\" answered {status} for stripe {stripe}")
                    }
                    Ok(Came::Wrong) => {
                        verifier.restart_block();
                        format!("stripe {stripe} on server \"{server}\" does not have its checksum")
                    }
                    Err(error) => error.to_string(),
                };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
            if missing == places.all().len() {
                return Err(Unread::Missing(stripe));
            }
            if round < ROUNDS && !self.operation.again(&mut attempts).await {
                break;
            }
        }
        Err(Unread::Failed(problems))
    }

    async fn ask_server(
        &self,
        name: &Arc<str>,
        key: &[u8],
        piece: &Piece,
        out: &mut [u8],
        verifier: &mut Verifier<'_>,
        attempts: &mut Attempts,
    ) -> Result<Came, Error> {
        let server = self.operation.servers.server(name)?;
        let deadline = self.operation.deadline();
        let mut lease = server.acquire(Class::of(piece.bytes), deadline).await?;
        self.operation.retries.note(attempts);
        while verifier.reached() < piece.bytes {
            let from = verifier.reached();
            let want = (piece.bytes - from).min(lease.grants().payload_bytes);
            let slice = &mut out[from as usize..(from + want) as usize];
            let offset = piece.offset + from;
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
async fn gather(
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
    use rampuddle_protocol::Version;

    use super::*;

    fn tag(object_bytes: u64) -> Tag {
        Tag {
            replicas: 1,
            stripe_bytes: 4 << 20,
            object_bytes,
            upload: SetId([1; 16]),
            version: Version { time: 1, writer: 1 },
            variable_bytes: 0,
            crc32c: 0,
        }
    }

    #[test]
    fn pieces_cover_a_range_in_whole_blocks_and_within_stripes() {
        let length = (9 << 20) + 5;
        for range in [0..length, 0..1, 5..6, (4 << 20) - 1..(4 << 20) + 1, length - 1..length, 7..7]
        {
            let begin = begin_of(&range);
            let pieces: Vec<Piece> = pieces(&tag(length), &range).collect();
            let bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
            if range.is_empty() {
                assert_eq!(bytes, 0);
                continue;
            }
            assert!(begin <= range.start && begin.is_multiple_of(BLOCK_BYTES));
            assert!(begin + bytes >= range.end && begin + bytes <= length);
            assert!(pieces.iter().all(|piece| piece.offset + piece.bytes <= 4 << 20));
        }
        assert_eq!(pieces(&tag(length), &(0..length)).count(), 3);
    }
}
