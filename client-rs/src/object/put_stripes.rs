//! The stripes of a put: written, kept alive, copied again, made permanent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rampuddle_protocol::limits::HEAD_LEASE_MS;
use rampuddle_protocol::{SetId, crc32c, crc32c_combine};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, interval_at};

use super::cleanup::Cleanup;
use super::codec::Codec;
use super::copies::{Copies, write};
use super::format::{BLOCK_BYTES, Seed, stripe_key, stripe_version};
use super::head::is_overtaken;
use super::life::Lease;
use super::operation::Operation;
use super::put::Put;
use super::put_head::WrittenHead;
use super::read::stored_bytes;
use super::source::Stripes;
use super::variable::BlockEntry;
use crate::error::Error;
use crate::raw::{CreateItem, GatherItem, Late, Rolling, Target};

/// Bytes of stripes in memory at once, being read or written; one stripe may be
/// longer, and is alone then. With a codec as much again for those that are being
/// compressed.
const BUFFER_BYTES: u64 = 24 << 20;
/// Renewals of an upload's lease within its length.
const RENEWALS_PER_LEASE: u32 = 5;
/// How often, before the head is written, what was lost is copied again and the
/// others are asked once more what they have.
const SECURES_MAX: usize = 4;

/// What was written of an object's stripes.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    pub(super) bytes: u64,
    /// The servers that have each stripe.
    servers: Vec<Vec<Arc<str>>>,
    /// How many stripes each server has.
    by_server: BTreeMap<Arc<str>, u64>,
    /// The block table.
    entries: Vec<BlockEntry>,
    /// Length of an object without stripes, as it is stored.
    inline_stored_bytes: u64,
    /// The length of each stripe, and the checksum of its bytes, as they are
    /// without a codec.
    plain: Vec<(u64, u32)>,
    pub(super) stand_ins: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// A stripe as it was written.
struct Written {
    index: usize,
    bytes: u64,
    plain_crc32c: u32,
    entries: Vec<BlockEntry>,
    copies: Copies,
}

impl Uploaded {
    /// An object without stripes.
    pub(super) fn inline(bytes: u64, inline_stored_bytes: u64) -> Self {
        Self { bytes, inline_stored_bytes, ..Self::default() }
    }

    /// Bytes of one copy as they are stored.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.inline_stored_bytes + stored_bytes(&self.entries)
    }

    /// The checksum of all bytes as they are without a codec; `None` when that is
    /// how they are stored.
    pub(super) fn plain_crc32c(&self) -> Option<u32> {
        let is_compressed = self.entries.iter().any(|entry| !entry.is_plain);
        let combined = |crc, (length, next): &(u64, u32)| crc32c_combine(crc, *next, *length);
        is_compressed.then(|| self.plain.iter().fold(0, combined))
    }

    /// The block table.
    pub(super) fn entries(&self) -> &[BlockEntry] {
        &self.entries
    }

    /// How many stripes there are.
    pub(super) fn stripes(&self) -> u64 {
        self.servers.len() as u64
    }

    /// How many copies each stripe has.
    pub(super) fn copies(&self) -> impl Iterator<Item = usize> {
        self.servers.iter().map(Vec::len)
    }

    fn keep(&mut self, first_block: usize, written: Written) {
        let Written { index, bytes, plain_crc32c, entries, copies } = written;
        let end = first_block + entries.len();
        if self.entries.len() < end {
            let unknown = BlockEntry { stored_bytes: 0, is_plain: true, crc32c: 0 };
            self.entries.resize(end, unknown);
        }
        self.entries[first_block..end].copy_from_slice(&entries);
        if self.servers.len() <= index {
            self.servers.resize_with(index + 1, Vec::new);
            self.plain.resize(index + 1, (0, 0));
        }
        self.plain[index] = (bytes, plain_crc32c);
        copies.stored().for_each(|server| self.gain(index, server));
        copies.stand_ins().for_each(|server| self.note_stand_in(server));
        self.note_problems(&copies);
    }

    fn note_problems(&mut self, copies: &Copies) {
        for problem in copies.problems() {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    fn note_stand_in(&mut self, server: &Arc<str>) {
        if !self.stand_ins.iter().any(|known| **known == **server) {
            self.stand_ins.push(server.to_string());
        }
    }

    fn gain(&mut self, stripe: usize, server: &Arc<str>) {
        self.servers[stripe].push(Arc::clone(server));
        *self.by_server.entry(Arc::clone(server)).or_default() += 1;
    }

    /// Forgets the copy that a server lost.
    fn lose(&mut self, stripe: usize, server: &Arc<str>) {
        self.servers[stripe].retain(|other| other != server);
        self.by_server.entry(Arc::clone(server)).and_modify(|count| *count -= 1);
    }

    /// The stripes that a server has.
    fn on(&self, server: &Arc<str>) -> Vec<usize> {
        let has = |stripe: &usize| self.servers[*stripe].contains(server);
        (0..self.servers.len()).filter(has).collect()
    }
}

impl Put {
    pub(super) async fn write_stripes(
        &self,
        first: Bytes,
        mut source: Stripes,
        uploaded: &mut Uploaded,
        cleanup: &mut Cleanup,
    ) -> Result<(), Error> {
        let room = Room::new(self.stripe_bytes);
        let (sender, mut receiver) = mpsc::unbounded_channel::<(Bytes, OwnedSemaphorePermit)>();
        let read = async move {
            let (mut bytes, mut permit) = (first, room.take().await);
            loop {
                let is_last = (bytes.len() as u64) < self.stripe_bytes;
                // The writer is gone only when it failed, and says so itself.
                if bytes.is_empty() || sender.send((bytes, permit)).is_err() || is_last {
                    return Ok(());
                }
                permit = room.take().await;
                let failed = |source| Error::local("cannot read the source", source);
                bytes = source.next(self.stripe_bytes as usize).await.map_err(failed)?;
            }
        };
        let write = async {
            let mut under_way = FuturesUnordered::new();
            let (lease, renew_every) = (Lease::AtLeast(self.lease_ms()), self.renew_every());
            let mut renewal = interval_at(Instant::now() + renew_every, renew_every);
            let (mut index, mut has_ended) = (0_u64, false);
            while !has_ended || !under_way.is_empty() {
                tokio::select! {
                    // In an order, so that simulations have the same run again. The
                    // rarest first: it must not wait for the others.
                    biased;
                    // On its own: the stripes under way must not wait for it.
                    _ = renewal.tick() => self.renew(uploaded, lease),
                    Some(written) = under_way.next(), if !under_way.is_empty() => {
                        let written: Written = written?;
                        self.done(written.bytes);
                        uploaded.keep(self.first_block(written.index), written);
                    }
                    next = receiver.recv(), if !has_ended => match next {
                        Some((bytes, permit)) => {
                            uploaded.bytes += bytes.len() as u64;
                            self.check_length(uploaded.bytes)?;
                            cleanup.begins(index);
                            under_way.push(self.write_stripe(index as usize, bytes, permit));
                            index += 1;
                        }
                        None => has_ended = true,
                    },
                }
            }
            Ok(())
        };
        try_join(read, write).await.map(|_| ())
    }

    /// The number of a stripe's first block within the object.
    fn first_block(&self, stripe: usize) -> usize {
        stripe * (self.stripe_bytes / BLOCK_BYTES) as usize
    }

    /// `permit` stands for the memory of `bytes`.
    async fn write_stripe(
        &self,
        index: usize,
        bytes: Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Result<Written, Error> {
        let length = bytes.len() as u64;
        let (copies, entries, plain_crc32c) = if self.codec == Codec::None {
            let checksum = Arc::new(Rolling::new(bytes.clone(), BLOCK_BYTES as usize));
            let late = Some(Late { checksum: Arc::clone(&checksum), tag: None });
            let item = CreateItem { late, ..self.stripe_item(index, bytes, None) };
            let copies = self.write_copies(item).await;
            (copies, self.plain_entries(index, &checksum), checksum.whole())
        } else {
            let packed = self.pack(index as u64, bytes).await?;
            let item = self.stripe_item(index, packed.bytes, Some(packed.crc32c));
            (self.write_copies(item).await, packed.entries, packed.plain_crc32c)
        };
        drop(permit);
        if copies.stored().next().is_none() {
            return Err(self.failed(&copies));
        }
        Ok(Written { index, bytes: length, plain_crc32c, entries, copies })
    }

    async fn write_copies(&self, item: CreateItem) -> Copies {
        let candidates = self.candidates(&item.key);
        write(&self.operation, &item, &candidates).await
    }

    /// The block table's part of a stripe without a codec.
    fn plain_entries(&self, stripe: usize, checksum: &Rolling) -> Vec<BlockEntry> {
        let blocks = checksum.blocks().into_iter().enumerate();
        let entry = |(block, (length, crc)): (usize, (u64, u32))| {
            BlockEntry::plain(&Seed::new(self.upload, stripe as u64, block as u64), length, crc)
        };
        blocks.map(entry).collect()
    }

    fn lease_ms(&self) -> u64 {
        self.operation.upload_lease.as_millis() as u64
    }

    /// The lease while the head is written. Of an object that ends soon anyway not
    /// much more than its life: a writer that dies now cannot shorten it.
    fn head_lease_ms(&self) -> u64 {
        let life_ms = self.ttl.map_or(HEAD_LEASE_MS, |ttl| ttl.as_millis() as u64);
        HEAD_LEASE_MS.min(life_ms.saturating_add(self.lease_ms()))
    }

    fn stripe_item(&self, index: usize, bytes: Bytes, crc32c: Option<u32>) -> CreateItem {
        let mut item = CreateItem::new(stripe_key(self.upload, index as u64), bytes);
        item.version = stripe_version(self.upload);
        item.flags = self.flags();
        item.crc32c = crc32c;
        item.set = self.upload;
        item.lease_ms = self.lease_ms();
        item.replicas = self.replicas;
        item
    }

    /// The part of the block table that a stripe has.
    fn entries_of<'u>(&self, stripe: usize, uploaded: &'u Uploaded) -> &'u [BlockEntry] {
        let (begin, end) = (self.first_block(stripe), self.first_block(stripe + 1));
        &uploaded.entries[begin..end.min(uploaded.entries.len())]
    }

    /// The checksum of all of a stripe's stored bytes; `None` when a block does not
    /// have its own.
    fn whole_crc(&self, stripe: usize, blocks: &[BlockEntry], mut bytes: &[u8]) -> Option<u32> {
        let mut whole = 0;
        for (index, block) in blocks.iter().enumerate() {
            let (now, rest) = bytes.split_at_checked(block.stored_bytes as usize)?;
            let (crc, length) = (crc32c(now), now.len() as u64);
            let seed = Seed::new(self.upload, stripe as u64, index as u64);
            if seed.apply(crc, length) != block.crc32c {
                return None;
            }
            whole = crc32c_combine(whole, crc, length);
            bytes = rest;
        }
        bytes.is_empty().then_some(whole)
    }

    /// Lengthens the lease of all stripes for the time in which the head is
    /// written, and copies again those that were lost meanwhile.
    pub(super) async fn secure(&self, uploaded: &mut Uploaded) -> Result<(), Error> {
        let lease = Lease::AtLeast(self.head_lease_ms());
        for _ in 0..SECURES_MAX {
            let expected = uploaded.by_server.clone();
            let lost = touch(&self.operation, self.upload, expected, lease).await;
            if lost.is_empty() {
                break;
            }
            let mut renewed = Instant::now();
            for server in lost {
                for stripe in uploaded.on(&server) {
                    self.copy_again(stripe, &server, uploaded).await?;
                    // Much may have been lost.
                    if renewed.elapsed() >= self.renew_every() {
                        self.renew(uploaded, lease);
                        renewed = Instant::now();
                    }
                }
            }
        }
        Ok(())
    }

    fn renew_every(&self) -> Duration {
        self.operation.upload_lease / RENEWALS_PER_LEASE
    }

    fn renew(&self, uploaded: &Uploaded, lease: Lease) {
        let background = Operation::background(self.operation.core());
        let upload = self.upload;
        let expected = uploaded.by_server.clone();
        tokio::spawn(async move { touch(&background, upload, expected, lease).await });
    }

    /// Copies a stripe from a server that has it to one that has not.
    async fn copy_again(
        &self,
        index: usize,
        lost: &Arc<str>,
        uploaded: &mut Uploaded,
    ) -> Result<(), Error> {
        uploaded.lose(index, lost);
        let length = stored_bytes(self.entries_of(index, uploaded));
        let key = stripe_key(self.upload, index as u64);
        let mut bytes = None;
        for server in &uploaded.servers[index] {
            let item = GatherItem::new(key.clone(), 0, length);
            let target = Target::Server(Arc::clone(server));
            let answer = self.operation.raw().gather(&target, vec![item]).await.remove(0);
            let whole = answer.ok().filter(|answer| answer.length == length);
            bytes = whole.map(|answer| answer.bytes);
            if bytes.is_some() {
                break;
            }
        }
        let failed = |problem| Error::Failed { name: self.name(), problems: vec![problem] };
        let Some(bytes) = bytes else {
            return Err(failed(format!(
                "all copies of stripe {index} were lost while it was written"
            )));
        };
        let Some(crc) = self.whole_crc(index, self.entries_of(index, uploaded), &bytes) else {
            return Err(failed(format!("the copy of stripe {index} that is left is damaged")));
        };
        let mut item = self.stripe_item(index, bytes, Some(crc));
        item.lease_ms = self.head_lease_ms();
        let mut candidates = self.candidates(&key);
        let has = &uploaded.servers[index];
        candidates.ranks.retain(|server| server != lost && !has.contains(server));
        candidates.wanted = 1;
        let copies = write(&self.operation, &item, &candidates).await;
        for server in copies.stored() {
            uploaded.gain(index, server);
            uploaded.note_stand_in(server);
        }
        uploaded.note_problems(&copies);
        Ok(())
    }

    /// Lets all stripes stay as long as the head: for good, or to the end of the
    /// object's life. A server that does not answer counts as having lost them,
    /// unless the object was replaced or deleted already, by somebody who removed
    /// them, or is over.
    pub(super) async fn settle(&self, head: &mut WrittenHead, uploaded: &mut Uploaded) {
        // The head is of the set, too.
        let mut expected = uploaded.by_server.clone();
        for server in head.copies.stored() {
            *expected.entry(Arc::clone(server)).or_default() += 1;
        }
        let (upload, all) = (self.upload, expected.keys().cloned().collect());
        let lease = Lease::Of(head.life);
        let touch =
            move |background| async move { touch(&background, upload, expected, lease).await };
        // Behind the deadline nobody knows yet.
        let lost: Vec<Arc<str>> = self.operation.see_through(touch).await.unwrap_or(all);
        let is_over = head.life.is_over(self.operation.clocks().now_ms());
        if lost.is_empty()
            || is_over
            || is_overtaken(&self.operation, &self.key, head.tag.version).await
        {
            return;
        }
        for lost in lost {
            uploaded.problems.push(format!("server \"{lost}\" lost copies before the end"));
            head.copies.lose(&lost);
            for stripe in uploaded.on(&lost) {
                uploaded.lose(stripe, &lost);
            }
        }
    }
}

/// Room for the stripes of a put.
struct Room {
    mib: Arc<Semaphore>,
    stripe_mib: u32,
}

impl Room {
    fn new(stripe_bytes: u64) -> Self {
        let mib = stripe_bytes.max(BUFFER_BYTES) / BLOCK_BYTES;
        let stripe_mib = (stripe_bytes / BLOCK_BYTES) as u32;
        Self { mib: Arc::new(Semaphore::new(mib as usize)), stripe_mib }
    }

    /// Waits until there is room for another stripe.
    async fn take(&self) -> OwnedSemaphorePermit {
        let room = Arc::clone(&self.mib).acquire_many_owned(self.stripe_mib).await;
        room.expect("the semaphore is never closed")
    }
}

/// Gives all values of an upload a new lease, on servers that must have so many
/// each; returns those that have fewer. Asked again when there is no answer: nothing
/// depends on how often.
async fn touch(
    operation: &Operation,
    upload: SetId,
    expected: BTreeMap<Arc<str>, u64>,
    lease: Lease,
) -> Vec<Arc<str>> {
    let raw = &operation.raw();
    let each = expected.into_iter().map(|(server, count)| async move {
        let mut attempts = operation.retries.first_attempt();
        let touch = async || {
            let (lease_ms, flags) = lease.row(operation.clocks().now_ms());
            raw.touch(&server, &[upload], lease_ms, flags).await.remove(0)
        };
        let mut answer = touch().await;
        if answer.is_err() && operation.again(&mut attempts).await {
            answer = touch().await;
        }
        let has_all = answer.is_ok_and(|answer| answer.detail >= count);
        (!has_all).then_some(server)
    });
    join_all(each).await.into_iter().flatten().collect()
}
