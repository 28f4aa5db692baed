//! Values of an object that lie on this machine, read without a copy.

mod places;
mod read;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{MappedRow, RowFlags, SetId, Status};

use self::places::{Assembly, Places};
pub(super) use self::read::cut_parts;
use super::format::{STRIPE_KIND, Tag};
use super::head::{Head, first_owners};
use super::hedge::{Patience, not_long};
use super::operation::Operation;
use super::ranks::{Places as ServersOf, answers};
use super::read::{blocks_per_stripe, stored_bytes};
use crate::mapping::{Kept, Mapped, Mapping, Question};
use crate::raw::Answer;
use crate::server::{Class, Lease};

/// Owners on this machine that are asked one after the other.
const OWNERS_ASKED: usize = 3;
/// An object of at most so many bytes is copied all the same.
const SMALL_BYTES: u64 = 16 << 10;

/// The values of one upload that servers on this machine keep for this reader. They
/// keep them until this and the last slice of it are gone.
#[derive(Debug, Default)]
pub(super) struct InPlace {
    servers: Vec<OfServer>,
}

/// Those of one server.
#[derive(Debug)]
struct OfServer {
    name: Arc<str>,
    kept: Arc<Kept>,
    found: Found,
}

/// Where values lie in a pool.
#[derive(Debug, Default)]
struct Found {
    /// Of all values, one behind the other.
    runs: Vec<Range<u64>>,
    /// By stripe: which of the runs are its own.
    stripes: Vec<(u64, Range<usize>)>,
    /// Which are the head's.
    head: Range<usize>,
    /// The upload of the first stripe; those of another are left out.
    upload: Option<SetId>,
}

impl InPlace {
    /// Looks an object up on servers of this machine, if those to ask first are such:
    /// its head, and all of it that lies there. `None` = whatever there is to be known
    /// is to be asked for the usual way.
    /// The bytes of one that is copied are compared with their checksum, if wanted.
    pub(super) async fn find(
        operation: &Operation,
        key: &Bytes,
        verify: bool,
    ) -> Option<(Head, Option<Self>)> {
        if !operation.servers.access().maps {
            return None;
        }
        let view = operation.views.current();
        let (places, first) = first_owners(operation, &view, key);
        let mut have_none: Vec<Arc<str>> = Vec::new();
        for name in first.into_iter().take(OWNERS_ASKED) {
            let asked = Self::find_on(operation, key, &places, Arc::clone(&name), verify);
            match not_long(operation, &name, asked).await.unwrap_or(Asked::Other) {
                // An owner by the client's own number of copies may be none by the
                // object's.
                Asked::HasNone => have_none.push(name),
                Asked::Found(found) => {
                    let owners = places.owners(found.0.tag.replicas);
                    // With an owner that should have it everybody is to be asked.
                    let is_sure = !owners.iter().any(|owner| have_none.contains(owner));
                    return is_sure.then_some(*found);
                }
                Asked::Other => return None,
            }
        }
        None
    }

    async fn find_on(
        operation: &Operation,
        key: &Bytes,
        places: &ServersOf,
        name: Arc<str>,
        verify: bool,
    ) -> Asked {
        let Some(mut ready) = OfServer::lease(operation, &name).await else { return Asked::Other };
        let (mut found, mut head) = (Found::default(), None);
        let each = |row: &MappedRow, found_key: &[u8], tag: &[u8]| match head {
            None if found_key == &key[..] => {
                head = Some(answer_of(row, tag));
                found.head = found.begin_value(row);
            }
            _ => found.add(row, found_key),
        };
        let asked = ready.mapping.ask(&mut ready.lease, Question::WithSet(key), each).await;
        let kept = match asked {
            Ok(Mapped::Kept(kept)) => kept,
            Ok(Mapped::Refused(status, deleted)) => {
                if let (Status::Expired, Ok(server)) = (status, operation.servers.server(&name)) {
                    server.forget_mapping(&ready.mapping);
                }
                ready.lease.finish();
                let has_none = status == Status::NotFound && deleted.is_none();
                return if has_none { Asked::HasNone } else { Asked::Other };
            }
            Ok(Mapped::Late) => {
                ready.lease.finish();
                return Asked::Other;
            }
            Err(_) => {
                operation.servers.access().counters.failed_over();
                return Asked::Other;
            }
        };
        ready.lease.finish();
        let Some(head) = head else { return Asked::Other };
        let server = OfServer { name, kept, found };
        match Self::take(operation, key, places, &head, server, verify).await {
            Some(found) => Asked::Found(Box::new(found)),
            None => Asked::Other,
        }
    }

    /// Takes what one server said of a head and its stripes, if that makes sense and is
    /// enough.
    async fn take(
        operation: &Operation,
        key: &Bytes,
        places: &ServersOf,
        answer: &Answer,
        mut server: OfServer,
        verify: bool,
    ) -> Option<(Head, Option<Self>)> {
        let mut head = Head::begin(operation, key, &server.name, answer).ok()?;
        if !places.owners(head.tag.replicas).contains(&server.name) {
            return None;
        }
        let variable = server.head().part(head.tag.inline_bytes()..head.tag.head_bytes())?;
        if head.tag.has_table() {
            head.describe(&variable.joined()).ok()?;
        }
        if head.life().is_over(operation.clocks().now_ms()) {
            return None;
        }
        server.found.finish(&head);
        let in_place = Self { servers: vec![server] };
        if head.tag.is_inline() && is_better_copied(&head) {
            // The server keeps nothing for so little.
            head.take_inline(in_place.inline(&head.tag)?.joined(), verify).ok()?;
            head.unpack_inline(operation).await.ok()?;
            return Some((head, None));
        }
        Some((head, Some(in_place)))
    }

    /// Looks for values of an upload on servers of this machine: those not asked yet, and
    /// with which there is patience.
    pub(super) async fn find_more(
        &mut self,
        operation: &Operation,
        head: &Head,
        patience: &Patience,
    ) {
        let view = operation.views.current();
        let known = |name: &Arc<str>| self.servers.iter().any(|server| server.name == *name);
        let mut others = Vec::new();
        for member in view.members().iter().filter(|member| member.state.is_read_from()) {
            let server = operation.servers.server(&member.name);
            // One that is slow would be waited for once more.
            let is_slow = server.is_ok_and(|server| server.is_slow());
            if !known(&member.name) && !is_slow && answers(operation, &member.name) {
                let found = OfServer::find(operation, &member.name, head);
                others.push(patience.wait(operation, &member.name, found));
            }
        }
        let found = join_all(others).await;
        self.servers.extend(found.into_iter().flatten().flatten());
    }

    /// Whether all stripes of the object are there.
    pub(super) fn is_whole(&self, tag: &Tag) -> bool {
        let has =
            |stripe| self.servers.iter().any(|server| server.found.place_of(stripe).is_some());
        (0..tag.stripes()).all(has)
    }

    /// Where the bytes of an inline object lie, as they are stored.
    fn inline(&self, tag: &Tag) -> Option<Places<'_>> {
        self.servers.first()?.head().part(0..tag.inline_bytes())
    }

    /// Stored bytes of a stripe, and whose they are: where they lie if that is one
    /// piece, else copied.
    pub(super) fn stored(
        &self,
        stripe: u64,
        within: Range<u64>,
    ) -> Option<(&Arc<str>, Cow<'_, [u8]>)> {
        let places = self.stripe(stripe)?.part(within)?;
        let mut slices = places.slices();
        let bytes = match (slices.next(), slices.next()) {
            (Some(slice), None) => Cow::Borrowed(slice),
            _ => Cow::Owned(places.joined()),
        };
        Some((places.server, bytes))
    }

    /// Where a stripe lies.
    fn stripe(&self, stripe: u64) -> Option<Places<'_>> {
        self.servers.iter().find_map(|OfServer { name, kept, found }| {
            let (_, runs) = &found.stripes[found.place_of(stripe)?];
            Some(Places::all(name, kept, &found.runs[runs.clone()]))
        })
    }
}

/// Whether an inline object is small, or not stored as readers want it.
fn is_better_copied(head: &Head) -> bool {
    let is_plain = head.table.iter().all(|block| block.is_plain);
    head.tag.object_bytes <= SMALL_BYTES || !is_plain
}

/// What came of asking one server.
enum Asked {
    Found(Box<(Head, Option<InPlace>)>),
    /// It has no such object, and remembers no delete of one.
    HasNone,
    /// Nothing that is enough to go by.
    Other,
}

/// A connection to a server of this machine, and its pool.
struct Ready {
    lease: Lease,
    mapping: Arc<Mapping>,
}

impl OfServer {
    /// Where the head lies.
    fn head(&self) -> Places<'_> {
        Places::all(&self.name, &self.kept, &self.found.runs[self.found.head.clone()])
    }

    async fn lease(operation: &Operation, name: &Arc<str>) -> Option<Ready> {
        let server = operation.servers.server(name).ok()?;
        let mapping = server.mapping(operation.deadline()).await?;
        let lease = server.acquire(Class::Small, operation.deadline()).await.ok()?;
        // Another run of the server has another pool.
        let is_same = lease.greeting().incarnation == mapping.incarnation() && lease.is_local();
        if !is_same {
            lease.finish();
            return None;
        }
        Some(Ready { lease, mapping })
    }

    async fn find(operation: &Operation, name: &Arc<str>, head: &Head) -> Option<Self> {
        let mut ready = Self::lease(operation, name).await?;
        let mut found = Found::default();
        let question = Question::Set(head.tag.upload);
        let each = |row: &MappedRow, key: &[u8], _: &[u8]| found.add(row, key);
        let asked = ready.mapping.ask(&mut ready.lease, question, each).await.ok()?;
        ready.lease.finish();
        let Mapped::Kept(kept) = asked else { return None };
        found.finish(head);
        Some(Self { name: Arc::clone(name), kept, found })
    }
}

/// What is said of a head, as a Gather of it would say it.
fn answer_of(row: &MappedRow, tag: &[u8]) -> Answer {
    Answer {
        status: row.status(),
        flags: row.flags.among(RowFlags::STORED),
        version: row.version,
        tag: Bytes::copy_from_slice(tag),
        ..Answer::default()
    }
}

impl Found {
    fn begin_value(&mut self, row: &MappedRow) -> Range<usize> {
        let begin = self.runs.len();
        self.runs.push(row.offset..row.offset + row.bytes);
        begin..begin + 1
    }

    /// Takes a run: the first of a value, by its key, or one more of the value before.
    fn add(&mut self, row: &MappedRow, key: &[u8]) {
        if !key.is_empty() {
            let runs = self.begin_value(row);
            // What is no stripe of the upload stands under a number that none has.
            let stripe =
                stripe_of(key).filter(|(upload, _)| *self.upload.get_or_insert(*upload) == *upload);
            self.stripes.push((stripe.map_or(u64::MAX, |(_, stripe)| stripe), runs));
            return;
        }
        let last = self.stripes.last_mut().map_or(&mut self.head, |(_, runs)| runs);
        self.runs.push(row.offset..row.offset + row.bytes);
        last.end = self.runs.len();
    }

    /// Where a stripe stands among those found, which are in order.
    fn place_of(&self, stripe: u64) -> Option<usize> {
        // Where all are found each stands at its own number.
        let own = usize::try_from(stripe).ok()?;
        if self.stripes.get(own).is_some_and(|(found, _)| *found == stripe) {
            return Some(own);
        }
        self.stripes.binary_search_by_key(&stripe, |(found, _)| *found).ok()
    }

    /// Keeps the stripes that are as long as the block table says.
    fn finish(&mut self, head: &Head) {
        let (tag, table, runs) = (&head.tag, &head.table, &self.runs);
        if self.upload != Some(tag.upload) {
            self.stripes.clear();
        }
        let per_stripe = blocks_per_stripe(tag);
        self.stripes.retain(|(stripe, of_stripe)| {
            if *stripe >= tag.stripes() {
                return false;
            }
            let first = stripe * per_stripe;
            let blocks = first as usize..((first + per_stripe) as usize).min(table.len());
            let found: u64 = runs[of_stripe.clone()].iter().map(|run| run.end - run.start).sum();
            table.get(blocks).is_some_and(|blocks| found >= stored_bytes(blocks))
        });
        self.stripes.sort_unstable_by_key(|(stripe, _)| *stripe);
        self.stripes.dedup_by_key(|(stripe, _)| *stripe);
    }
}

/// The upload and the index in the key of a stripe.
fn stripe_of(key: &[u8]) -> Option<(SetId, u64)> {
    let (_, rest) = key.split_first().filter(|(kind, _)| **kind == STRIPE_KIND)?;
    let (upload, stripe) = rest.split_at_checked(16)?;
    Some((SetId(upload.try_into().ok()?), u64::from_be_bytes(stripe.try_into().ok()?)))
}
