//! Blocks of many objects: many rows in each request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use rampuddle_protocol::{SetId, Status};
use tokio::sync::Semaphore;

use super::super::codec::{Codec, unpack};
use super::super::format::{BLOCK_BYTES, Seed, stripe_key};
use super::super::head::Head;
use super::super::operation::Operation;
use super::super::ranks::{Places, prefer};
use super::super::read::{blocks_per_stripe, stored_bytes};
use super::super::variable::BlockEntry;
use super::assembly::Assembly;
use crate::raw::{Answer, GatherItem, Target};

/// Bytes that are on their way at once.
pub(super) const BYTES_AT_ONCE: u64 = 32 << 20;
/// Bytes that one server is asked for together: two frames.
const BATCH_BYTES: u64 = 8 << 20;
/// What one server is asked for at once.
const BATCHES_PER_SERVER: usize = 2;

/// A block that ranges need.
#[derive(Debug)]
pub(super) struct Wanted {
    upload: SetId,
    replicas: u8,
    codec: Codec,
    pub(super) stripe: u64,
    /// Its number within the stripe.
    block: u64,
    /// Where it begins within the stripe as it is stored.
    pub(super) offset: u64,
    entry: BlockEntry,
    /// Where it begins within the object, and how long it is, without a codec.
    pub(super) begin: u64,
    length: u64,
    /// The ranges.
    pub(super) ranges: Vec<usize>,
}

impl Wanted {
    /// A block of an object, by its number.
    pub(super) fn new(head: &Head, block: u64, ranges: Vec<usize>) -> Self {
        let tag = &head.tag;
        let (stripe, within) = (block / blocks_per_stripe(tag), block % blocks_per_stripe(tag));
        let before = &head.table[(block - within) as usize..block as usize];
        let begin = block * BLOCK_BYTES;
        Self {
            upload: tag.upload,
            replicas: tag.replicas,
            codec: tag.codec,
            stripe,
            block: within,
            offset: stored_bytes(before),
            entry: head.table[block as usize],
            begin,
            length: (tag.object_bytes - begin).min(BLOCK_BYTES),
            ranges,
        }
    }

    fn stored_bytes(&self) -> u64 {
        self.entry.stored_bytes.into()
    }

    /// How long it is, if it is stored as readers want it.
    pub(super) fn plain_bytes(&self) -> Option<u64> {
        self.entry.is_plain.then(|| self.stored_bytes())
    }

    /// What it counts in the bounds: a few bytes may become a whole block.
    fn weight(&self) -> u64 {
        self.stored_bytes().max(self.length)
    }

    fn item(&self) -> GatherItem {
        let key = stripe_key(self.upload, self.stripe);
        let mut item = GatherItem::new(key, self.offset, self.stored_bytes());
        item.set = self.upload;
        item
    }

    /// Whether these are the bytes that are stored.
    pub(super) fn is_right(&self, bytes: &[u8]) -> bool {
        let mut checksum = Seed::new(self.upload, self.stripe, self.block).begin();
        checksum.update(bytes);
        checksum.value() == self.entry.crc32c
    }
}

/// A block, and the servers to ask for it one after the other.
struct Sought {
    wanted: Wanted,
    order: std::vec::IntoIter<Arc<str>>,
}

/// Reads all blocks that are wanted, each from one of its owners; ranges of which
/// no owner gives a block are given up.
pub(super) async fn read<'a>(operation: &Operation, mut assembly: Assembly<'a>) -> Assembly<'a> {
    let wanted = std::mem::take(&mut assembly.wanted);
    let mut sought = with_owners(operation, wanted);
    let assembly = Mutex::new(assembly);
    let permits = &Semaphore::new(BYTES_AT_ONCE as usize);
    while !sought.is_empty() {
        let mut by_server: BTreeMap<Arc<str>, Vec<Sought>> = BTreeMap::new();
        for mut sought in sought {
            match sought.order.next() {
                Some(server) => by_server.entry(server).or_default().push(sought),
                None => lock(&assembly).give_up(&sought.wanted.ranges),
            }
        }
        let reads = by_server.into_iter().map(|(server, sought)| {
            let is_silent = AtomicBool::new(false);
            let reading = OnServer { operation, server, permits, is_silent, assembly: &assembly };
            async move { reading.read(sought).await }
        });
        sought = join_all(reads).await.into_iter().flatten().collect();
    }
    assembly.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<'m, 'a>(assembly: &'m Mutex<Assembly<'a>>) -> MutexGuard<'m, Assembly<'a>> {
    assembly.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where each block may be asked for.
fn with_owners(operation: &Operation, wanted: Vec<Wanted>) -> Vec<Sought> {
    let view = operation.views.current();
    let mut sought: Vec<Sought> = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        // Blocks of one stripe follow one another, and are asked for together.
        let is_same = |last: &&Sought| {
            (last.wanted.upload, last.wanted.stripe) == (wanted.upload, wanted.stripe)
        };
        let order = match sought.last().filter(is_same) {
            Some(last) => last.order.clone(),
            None => {
                let key = stripe_key(wanted.upload, wanted.stripe);
                let places = Places::of_copies(&view, &key, wanted.replicas);
                let mut owners = places.owners(wanted.replicas).to_vec();
                prefer(operation, &mut owners);
                owners.into_iter()
            }
        };
        sought.push(Sought { wanted, order });
    }
    sought
}

/// What one server is asked for.
struct OnServer<'o, 'a> {
    operation: &'o Operation,
    server: Arc<str>,
    permits: &'o Semaphore,
    /// Whether it left something unanswered.
    is_silent: AtomicBool,
    assembly: &'o Mutex<Assembly<'a>>,
}

impl OnServer<'_, '_> {
    /// Reads these blocks; returns those that it did not give.
    async fn read(&self, sought: Vec<Sought>) -> Vec<Sought> {
        let batches = stream::iter(batches(sought));
        let read = batches.map(|batch| self.read_batch(batch));
        let left: Vec<Vec<Sought>> = read.buffer_unordered(BATCHES_PER_SERVER).collect().await;
        left.into_iter().flatten().collect()
    }

    async fn read_batch(&self, batch: Vec<Sought>) -> Vec<Sought> {
        let bytes = batch.iter().map(|sought| sought.wanted.weight()).sum::<u64>();
        let Ok(_permit) = self.permits.acquire_many(bytes as u32).await else { return batch };
        // Each batch would cost the client's patience.
        if self.is_silent.load(Ordering::Relaxed) {
            return batch;
        }
        let items = batch.iter().map(|sought| sought.wanted.item()).collect();
        let target = Target::Server(Arc::clone(&self.server));
        let answers = self.operation.raw().gather(&target, items).await;
        if answers.iter().any(Result::is_err) {
            self.is_silent.store(true, Ordering::Relaxed);
        }
        let verify = lock(self.assembly).options().verify;
        let (mut came, mut left) = (Vec::new(), Vec::new());
        for (sought, answer) in batch.into_iter().zip(answers) {
            let stored = |answer| stored(self.operation, &sought.wanted, answer, verify);
            match answer.ok().and_then(stored) {
                Some(bytes) => came.push((sought, bytes)),
                None => left.push(sought),
            }
        }
        left.extend(self.put(came).await);
        left
    }

    /// Decompresses blocks, and copies them to where they are wanted; returns
    /// those that cannot be.
    async fn put(&self, came: Vec<(Sought, Bytes)>) -> Vec<Sought> {
        let (plain, packed): (Vec<_>, Vec<_>) =
            came.into_iter().partition(|(sought, _)| sought.wanted.entry.is_plain);
        for (sought, bytes) in plain {
            self.put_block(&sought.wanted, &bytes);
        }
        let (mut sought, mut work) = (Vec::new(), Vec::new());
        for (block, bytes) in packed {
            let Wanted { codec, entry, length, .. } = block.wanted;
            work.push((codec, entry, bytes, length));
            sought.push(block);
        }
        if work.is_empty() {
            return sought;
        }
        let unpack_all = move || {
            let unpacked = work
                .into_iter()
                .map(|(codec, entry, bytes, length)| unpack(codec, &[entry], &bytes, length).ok());
            unpacked.collect::<Vec<_>>()
        };
        let Ok(unpacked) = self.operation.workers.run(unpack_all).await else { return sought };
        let mut left = Vec::new();
        for (sought, unpacked) in sought.into_iter().zip(unpacked) {
            match unpacked {
                Some(bytes) => self.put_block(&sought.wanted, &bytes),
                None => left.push(sought),
            }
        }
        left
    }

    fn put_block(&self, wanted: &Wanted, block: &[u8]) {
        lock(self.assembly).put(&wanted.ranges, &self.server, wanted.begin, block);
    }
}

/// The bytes of a block as they are stored, when they are right.
fn stored(operation: &Operation, wanted: &Wanted, answer: Answer, verify: bool) -> Option<Bytes> {
    if answer.status != Status::Ok || answer.length != wanted.stored_bytes() {
        return None;
    }
    if verify && !wanted.is_right(&answer.bytes) {
        operation.servers.access().counters.found_damaged();
        return None;
    }
    Some(answer.bytes)
}

/// Cuts blocks into stretches that are asked for together.
fn batches(sought: Vec<Sought>) -> Vec<Vec<Sought>> {
    let (mut batches, mut bytes) = (vec![Vec::new()], 0);
    for sought in sought {
        let next = sought.wanted.weight();
        if bytes + next > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += next;
        batches.last_mut().expect("there is one from the start").push(sought);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_count_as_what_they_become() {
        let packed = |number: u64| {
            let entry = BlockEntry { stored_bytes: 60, is_plain: false, crc32c: 0 };
            let wanted = Wanted {
                upload: SetId::default(),
                replicas: 1,
                codec: Codec::Zstd,
                stripe: number,
                block: 0,
                offset: 0,
                entry,
                begin: number * BLOCK_BYTES,
                length: BLOCK_BYTES,
                ranges: Vec::new(),
            };
            Sought { wanted, order: Vec::new().into_iter() }
        };
        let batches = batches((0..100).map(packed).collect());
        let lengths: Vec<_> = batches.iter().map(Vec::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 100);
        let most = (BATCH_BYTES / BLOCK_BYTES) as usize;
        assert!(lengths.iter().all(|length| (1..=most).contains(length)), "{lengths:?}");
    }
}
