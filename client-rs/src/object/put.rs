//! Putting objects: stripes first, then the head.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, try_join};
use futures_util::stream::{FuturesUnordered, StreamExt};
use rampuddle_protocol::limits::{HEAD_LEASE_MS, VALUE_BYTES_MAX};
use rampuddle_protocol::{RowFlags, SetId, Status, crc32c, crc32c_combine};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

use super::cleanup::{Cleanup, drop_displaced};
use super::copies::{Candidates, Copies, Copy, meet, wanted_of, write, write_ranks};
use super::format::{
    BLOCK_BYTES, BlockEntry, INLINE_BYTES_MAX, Seed, Tag, encode_table, stripe_key, stripe_version,
};
use super::head::{Part, check_name, find, find_greatest};
use super::report::{Progress, PutOptions, PutReport, Source};
use super::source::Stripes;
use crate::client::{Client, Core};
use crate::error::Error;
use crate::options::WritePolicy;
use crate::placement::Slot;
use crate::raw::{CreateItem, DropItem, GatherItem, RawClient, Target};

/// Length of a stripe unless told otherwise.
const STRIPE_BYTES: u64 = 4 << 20;
/// Stripes being written at once.
const STRIPES_AT_ONCE: usize = 4;
/// Renewals of an upload's lease within its length.
const RENEWALS_PER_LEASE: u32 = 5;
/// Times that a head refused as older is written with a greater version.
const REDRAWS_MAX: usize = 8;

impl Client {
    /// Writes an object, replacing one of that name unless told not to. Visible
    /// only when it is whole. The bytes are striped, checksummed and copied to
    /// as many servers as wanted.
    ///
    /// # Errors
    /// [`Error::Failed`] when nothing was applied, [`Error::Indeterminate`] when
    /// that cannot be said, [`Error::Exists`] when the caller wants no
    /// replacing, [`Error::Local`] when the source fails. With fewer copies than
    /// the policy wants the put is applied: see [`PutReport::is_short`].
    pub async fn put(
        &self,
        name: &[u8],
        source: impl Into<Source>,
        options: &PutOptions,
    ) -> Result<PutReport, Error> {
        let key = check_name(name)?;
        let put = Put::new(self.core(), key, options)?;
        if options.no_clobber && matches!(find(self.core(), &put.key, Part::Tag).await, Ok(Some(_)))
        {
            // Said before anything is moved; the servers say it again at the end.
            return Err(Error::Exists { name: put.name() });
        }
        let mut stripes = Stripes::new(source.into());
        if let (Some(progress), Some(total)) = (&options.progress, stripes.length()) {
            progress.set_total(total);
        }
        let failed = |source| Error::local("cannot read the source", source);
        let first = stripes.next(put.stripe_bytes as usize).await.map_err(failed)?;
        if first.len() as u64 <= INLINE_BYTES_MAX && (first.len() as u64) < put.stripe_bytes {
            return put.inline(first).await;
        }
        put.striped(first, stripes).await
    }
}

/// One put under way.
struct Put<'p> {
    core: &'p Arc<Core>,
    key: Bytes,
    upload: SetId,
    replicas: u8,
    policy: WritePolicy,
    stripe_bytes: u64,
    no_clobber: bool,
    progress: Option<&'p Progress>,
}

/// A stripe and the servers that have it.
#[derive(Debug)]
struct Placed {
    blocks: Vec<BlockEntry>,
    bytes: u64,
    servers: Vec<Arc<str>>,
}

/// What was written of an object's stripes.
#[derive(Debug, Default)]
struct Uploaded {
    stripes: Vec<Placed>,
    bytes: u64,
    stand_ins: Vec<String>,
    problems: Vec<String>,
}

impl Uploaded {
    /// How many stripes each server has.
    fn by_server(&self) -> BTreeMap<Arc<str>, u64> {
        let mut expected = BTreeMap::new();
        for server in self.stripes.iter().flat_map(|placed| &placed.servers) {
            *expected.entry(Arc::clone(server)).or_default() += 1;
        }
        expected
    }
}

impl<'p> Put<'p> {
    fn new(core: &'p Arc<Core>, key: Bytes, options: &'p PutOptions) -> Result<Self, Error> {
        let replicas = options.replicas.unwrap_or(core.replicas);
        let max = core.views.current().settings().replicas_max;
        if replicas == 0 || (replicas > max && replicas != u8::MAX) {
            return Err(Error::BadOption {
                option: "replicas",
                found: format!("{replicas}, and this cluster allows at most {max}"),
                expected: "1 to that, or 255 for a copy on every member",
            });
        }
        let stripe_bytes = options.stripe_bytes.unwrap_or(STRIPE_BYTES);
        if !(BLOCK_BYTES..=VALUE_BYTES_MAX).contains(&stripe_bytes)
            || !stripe_bytes.is_multiple_of(BLOCK_BYTES)
        {
            return Err(Error::BadOption {
                option: "stripe length",
                found: format!("{stripe_bytes} bytes"),
                expected: "whole MiB, from 1 MiB to 1 GiB",
            });
        }
        Ok(Self {
            core,
            key,
            upload: SetId(core.servers.access().environment.unguessable()),
            replicas,
            policy: options.write.unwrap_or(core.write),
            stripe_bytes,
            no_clobber: options.no_clobber,
            progress: options.progress.as_deref(),
        })
    }

    fn done(&self, bytes: u64) {
        if let Some(progress) = self.progress {
            progress.add(bytes);
        }
    }

    fn lease_ms(&self) -> u64 {
        self.core.upload_lease.as_millis() as u64
    }

    fn name(&self) -> Arc<[u8]> {
        self.key[1..].into()
    }

    fn tag(&self, object_bytes: u64) -> Tag {
        Tag {
            replicas: self.replicas,
            stripe_bytes: 0,
            object_bytes,
            upload: self.upload,
            version: Default::default(),
            variable_bytes: 0,
            crc32c: 0,
        }
    }

    /// An object of one block: its head is all there is.
    async fn inline(self, bytes: Bytes) -> Result<PutReport, Error> {
        let length = bytes.len() as u64;
        let crc = crc32c(&bytes);
        let seeded = Seed::new(self.upload, 0, 0).apply(crc, length);
        let tag = Tag { crc32c: seeded, ..self.tag(length) };
        let head = self.write_head(tag, bytes, crc).await?;
        self.done(length);
        if let Some(progress) = self.progress {
            progress.set_total(length);
        }
        Ok(self.report(&head, Uploaded { bytes: length, ..Uploaded::default() }))
    }

    /// An object of stripes.
    async fn striped(self, first: Bytes, source: Stripes) -> Result<PutReport, Error> {
        // A future that is dropped ends the stripes as well as an error does.
        let mut cleanup = Cleanup::new(self.core, self.upload);
        let written = self.write_striped(first, source, &mut cleanup).await;
        // Whoever may have the head needs the stripes; if nobody has it, they end
        // with their lease.
        let is_visible_nowhere =
            matches!(&written, Err(error) if !matches!(error, Error::Indeterminate { .. }));
        if is_visible_nowhere {
            cleanup.run().await;
        }
        written
    }

    async fn write_striped(
        &self,
        first: Bytes,
        source: Stripes,
        cleanup: &mut Cleanup,
    ) -> Result<PutReport, Error> {
        let mut uploaded = Uploaded::default();
        self.write_stripes(first, source, &mut uploaded, cleanup).await?;
        self.secure(&mut uploaded).await?;
        let entries: Vec<BlockEntry> =
            uploaded.stripes.iter().flat_map(|placed| placed.blocks.iter().copied()).collect();
        let table = encode_table(&entries);
        let variable_bytes = u32::try_from(table.len()).map_err(|_| Error::TooLarge {
            what: "the block table of an object",
            bytes: table.len() as u64,
            limit: u32::MAX.into(),
        })?;
        let crc = crc32c(&table);
        let tag = Tag {
            stripe_bytes: self.stripe_bytes as u32,
            variable_bytes,
            crc32c: crc,
            ..self.tag(uploaded.bytes)
        };
        // From here on the head may be visible, whatever becomes of this future.
        cleanup.disarm();
        let head = self.write_head(tag, table.into(), crc).await?;
        self.make_permanent(&head, &mut uploaded).await;
        Ok(self.report(&head, uploaded))
    }

    async fn write_stripes(
        &self,
        first: Bytes,
        mut source: Stripes,
        uploaded: &mut Uploaded,
        cleanup: &mut Cleanup,
    ) -> Result<(), Error> {
        // One stripe is read ahead while others are written.
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
        let read = async move {
            let mut bytes = first;
            loop {
                let is_last = (bytes.len() as u64) < self.stripe_bytes;
                // The writer is gone only when it failed, and says so itself.
                if bytes.is_empty() || sender.send(bytes).await.is_err() || is_last {
                    return Ok(());
                }
                let failed = |source| Error::local("cannot read the source", source);
                bytes = source.next(self.stripe_bytes as usize).await.map_err(failed)?;
            }
        };
        let write = async {
            let mut under_way = FuturesUnordered::new();
            let renew_every = self.core.upload_lease / RENEWALS_PER_LEASE;
            let mut renewal = interval_at(Instant::now() + renew_every, renew_every);
            let (mut index, mut has_ended) = (0_u64, false);
            while !has_ended || !under_way.is_empty() {
                let wants_more = !has_ended && under_way.len() < STRIPES_AT_ONCE;
                tokio::select! {
                    Some((index, written)) = under_way.next(), if !under_way.is_empty() => {
                        self.keep(index, written?, uploaded);
                    }
                    bytes = receiver.recv(), if wants_more => match bytes {
                        Some(bytes) => {
                            uploaded.bytes += bytes.len() as u64;
                            cleanup.begins(index);
                            under_way.push(self.write_stripe(index, bytes));
                            index += 1;
                        }
                        None => has_ended = true,
                    },
                    // On its own: the stripes under way must not wait for it.
                    _ = renewal.tick() => self.renew(uploaded),
                }
            }
            Ok(())
        };
        try_join(read, write).await.map(|_| ())
    }

    fn keep(&self, index: u64, written: Written, uploaded: &mut Uploaded) {
        let Written { placed, stand_ins, problems } = written;
        self.done(placed.bytes);
        let empty = || Placed { blocks: Vec::new(), bytes: 0, servers: Vec::new() };
        let at = index as usize;
        if uploaded.stripes.len() <= at {
            uploaded.stripes.resize_with(at + 1, empty);
        }
        uploaded.stripes[at] = placed;
        for stand_in in stand_ins {
            if !uploaded.stand_ins.contains(&stand_in) {
                uploaded.stand_ins.push(stand_in);
            }
        }
        for problem in problems {
            if !uploaded.problems.contains(&problem) {
                uploaded.problems.push(problem);
            }
        }
    }

    async fn write_stripe(&self, index: u64, bytes: Bytes) -> (u64, Result<Written, Error>) {
        let (blocks, crc) = self.block_entries(index, &bytes);
        let length = bytes.len() as u64;
        let item = self.stripe_item(index, bytes, crc);
        let view = self.core.views.current();
        let candidates = Candidates::of(&view, &item.key, self.replicas);
        let copies = write(self.core, &item, &candidates).await;
        let servers: Vec<Arc<str>> = copies.stored().cloned().collect();
        let problems: Vec<String> = copies.problems().map(str::to_owned).collect();
        if servers.is_empty() {
            return (index, Err(self.failed(&copies)));
        }
        let stand_ins = copies.stand_ins().map(ToString::to_string).collect();
        let placed = Placed { blocks, bytes: length, servers };
        (index, Ok(Written { placed, stand_ins, problems }))
    }

    fn stripe_item(&self, index: u64, bytes: Bytes, crc: u32) -> CreateItem {
        let mut item = CreateItem::new(stripe_key(self.upload, index), bytes);
        item.version = stripe_version(self.upload);
        item.flags = RowFlags::SEALED;
        item.crc32c = Some(crc);
        item.set = self.upload;
        item.lease_ms = self.lease_ms();
        item.replicas = self.replicas;
        item
    }

    /// The stripe's part of the block table, and the checksum of all of it.
    fn block_entries(&self, stripe: u64, bytes: &[u8]) -> (Vec<BlockEntry>, u32) {
        let mut whole = 0;
        let entries = bytes.chunks(BLOCK_BYTES as usize).enumerate().map(|(index, block)| {
            let (crc, length) = (crc32c(block), block.len() as u64);
            whole = if index == 0 { crc } else { crc32c_combine(whole, crc, length) };
            BlockEntry::plain(&Seed::new(self.upload, stripe, index as u64), length, crc)
        });
        (entries.collect(), whole)
    }

    fn failed(&self, copies: &Copies) -> Error {
        let mut problems: Vec<String> = copies.problems().map(str::to_owned).collect();
        if problems.is_empty() {
            problems.push("no server of the cluster can be written to".to_owned());
        }
        Error::Failed { name: self.name(), problems }
    }

    /// Lengthens the lease of all stripes for the time in which the head is
    /// written, and copies again those that were lost meanwhile.
    async fn secure(&self, uploaded: &mut Uploaded) -> Result<(), Error> {
        let expected = uploaded.by_server();
        for server in touch(self.core, self.upload, expected, HEAD_LEASE_MS).await {
            for index in 0..uploaded.stripes.len() {
                let placed = &uploaded.stripes[index];
                if placed.servers.contains(&server) {
                    self.copy_again(index, &server, uploaded).await?;
                }
            }
        }
        Ok(())
    }

    fn renew(&self, uploaded: &Uploaded) {
        let (core, upload, lease_ms) = (Arc::clone(self.core), self.upload, self.lease_ms());
        let expected = uploaded.by_server();
        tokio::spawn(async move { touch(&core, upload, expected, lease_ms).await });
    }

    /// Copies a stripe from a server that has it to one that has not.
    async fn copy_again(
        &self,
        index: usize,
        lost: &Arc<str>,
        uploaded: &mut Uploaded,
    ) -> Result<(), Error> {
        let placed = &mut uploaded.stripes[index];
        placed.servers.retain(|server| server != lost);
        let key = stripe_key(self.upload, index as u64);
        let raw = RawClient::for_objects(Arc::clone(self.core));
        let mut bytes = None;
        for server in &placed.servers {
            let item = GatherItem::new(key.clone(), 0, placed.bytes);
            let answer =
                raw.gather(&Target::Server(Arc::clone(server)), vec![item]).await.remove(0);
            let whole = answer.ok().filter(|answer| answer.length == placed.bytes);
            bytes = whole.map(|answer| answer.bytes);
            if bytes.is_some() {
                break;
            }
        }
        let Some(bytes) = bytes else {
            let problem = format!("all copies of stripe {index} were lost while it was written");
            return Err(Error::Failed { name: self.name(), problems: vec![problem] });
        };
        let (blocks, crc) = self.block_entries(index as u64, &bytes);
        if blocks != placed.blocks {
            let problem = format!("the copy of stripe {index} that is left is damaged");
            return Err(Error::Failed { name: self.name(), problems: vec![problem] });
        }
        let mut item = self.stripe_item(index as u64, bytes, crc);
        item.lease_ms = HEAD_LEASE_MS;
        let mut ranks = write_ranks(&self.core.views.current(), Slot::of(&key, 0));
        ranks.truncate(2 * usize::from(self.core.views.current().settings().replicas_max));
        ranks.retain(|server| server != lost && !placed.servers.contains(server));
        let copies = write(self.core, &item, &Candidates { ranks, wanted: 1 }).await;
        for server in copies.stored() {
            placed.servers.push(Arc::clone(server));
            let name = server.to_string();
            if !uploaded.stand_ins.contains(&name) {
                uploaded.stand_ins.push(name);
            }
        }
        Ok(())
    }

    /// Ends the lease of all stripes: they stay. A server that does not answer
    /// counts as having lost them, unless a later writer has replaced the object
    /// already and removed them.
    async fn make_permanent(&self, head: &WrittenHead, uploaded: &mut Uploaded) {
        // The head is of the set, too.
        let mut expected = uploaded.by_server();
        for server in head.copies.stored() {
            *expected.entry(Arc::clone(server)).or_default() += 1;
        }
        let lost = touch(self.core, self.upload, expected, 0).await;
        if lost.is_empty() || self.was_replaced(&head.tag).await {
            return;
        }
        for lost in lost {
            uploaded.problems.push(format!("server \"{lost}\" lost copies before the end"));
            for placed in &mut uploaded.stripes {
                placed.servers.retain(|server| *server != lost);
            }
        }
    }

    async fn was_replaced(&self, tag: &Tag) -> bool {
        match find_greatest(self.core, &self.key, Part::Tag).await {
            Ok(found) => found.is_some_and(|head| head.tag.version > tag.version),
            Err(_) => false,
        }
    }

    /// Writes the head with a version drawn now, again with a greater one when
    /// every owner holds a greater one already.
    async fn write_head(&self, tag: Tag, bytes: Bytes, crc: u32) -> Result<WrittenHead, Error> {
        let view = self.core.views.current();
        meet(self.core, &Candidates::of(&view, &self.key, self.replicas).ranks).await;
        for _ in 0..REDRAWS_MAX {
            let tag = Tag { version: self.core.clocks().draw(), ..tag };
            let copies = self.write_head_once(&tag, &bytes, crc).await;
            let stored = copies.stored().count();
            if stored == 0 && !copies.is_in_doubt() && copies.overtaken_by().is_some() {
                // Refused as older by all: the clock has seen the greater one.
                continue;
            }
            self.judge_head(&copies, stored).await?;
            let displaced = displaced_tags(&copies);
            if copies.owners_applied() >= copies.wanted {
                drop_displaced(self.core, &displaced, self.upload).await;
            }
            return Ok(WrittenHead { tag, copies });
        }
        let problem = "other writers were faster every time".to_owned();
        Err(Error::Failed { name: self.name(), problems: vec![problem] })
    }

    async fn write_head_once(&self, tag: &Tag, bytes: &Bytes, crc: u32) -> Copies {
        let mut item = CreateItem::new(self.key.clone(), bytes.clone());
        item.tag = Bytes::copy_from_slice(&tag.encode(&self.key));
        item.version = tag.version;
        item.crc32c = Some(crc);
        item.set = self.upload;
        item.replicas = self.replicas;
        item.flags = RowFlags::SEALED;
        if !self.no_clobber {
            item.flags |= RowFlags::REPLACE;
        }
        let view = self.core.views.current();
        let candidates = Candidates::of(&view, &self.key, self.replicas);
        write(self.core, &item, &candidates).await
    }

    /// Whether a head that some servers took, and some did not, is an object.
    async fn judge_head(&self, copies: &Copies, stored: usize) -> Result<(), Error> {
        let exists = copies.taken.iter().any(|(_, _, copy)| matches!(copy, Copy::Exists));
        if exists && self.take_back_head(copies).await && !copies.is_in_doubt() {
            return Err(Error::Exists { name: self.name() });
        }
        if exists || (stored == 0 && copies.is_in_doubt()) {
            let problems = copies.problems().map(str::to_owned).collect();
            return Err(Error::Indeterminate { name: self.name(), problems });
        }
        if copies.applied() > 0 {
            return Ok(());
        }
        Err(self.failed(copies))
    }

    /// Removes the heads that some servers took before another said EXISTS.
    /// Whether all are gone.
    async fn take_back_head(&self, copies: &Copies) -> bool {
        let mut all = true;
        let raw = RawClient::for_objects(Arc::clone(self.core));
        for server in copies.stored() {
            let target = Target::Server(Arc::clone(server));
            let stat = raw.stat(&target, vec![self.key.clone()]).await.remove(0);
            let Ok(stat) = stat else {
                all = false;
                continue;
            };
            if stat.status == Status::Ok && stat.row.set == self.upload {
                let item = DropItem::new(self.key.clone(), stat.row.version);
                all &= raw.drop_version(&target, vec![item]).await.remove(0).is_ok();
            }
        }
        all
    }

    fn report(&self, head: &WrittenHead, uploaded: Uploaded) -> PutReport {
        let members = write_ranks(&self.core.views.current(), Slot::of(&self.key, 0)).len();
        let wanted = wanted_of(self.replicas, members);
        let of_stripes = uploaded.stripes.iter().map(|placed| placed.servers.len());
        let copies = of_stripes.chain([head.copies.applied()]).min().unwrap_or(0);
        let mut stand_ins = uploaded.stand_ins;
        let of_head = head.copies.stand_ins().map(ToString::to_string);
        stand_ins.extend(of_head.filter(|name| !stand_ins.contains(name)).collect::<Vec<_>>());
        let mut problems = uploaded.problems;
        problems.extend(head.copies.problems().map(str::to_owned));
        PutReport {
            bytes: uploaded.bytes,
            version: head.tag.version,
            replicas: self.replicas,
            wanted: wanted as u32,
            needed: self.policy.needed(wanted) as u32,
            copies: copies as u32,
            stripes: uploaded.stripes.len() as u64,
            stand_ins,
            problems,
        }
    }
}

/// Gives all values of an upload a new lease, on servers that must have so many
/// each; returns those that have fewer. Asked twice: nothing depends on how often.
async fn touch(
    core: &Arc<Core>,
    upload: SetId,
    expected: BTreeMap<Arc<str>, u64>,
    lease_ms: u64,
) -> Vec<Arc<str>> {
    let raw = &RawClient::for_objects(Arc::clone(core));
    let each = expected.into_iter().map(|(server, count)| async move {
        let mut answer = raw.touch(&server, &[upload], lease_ms).await.remove(0);
        if answer.is_err() {
            answer = raw.touch(&server, &[upload], lease_ms).await.remove(0);
        }
        let has_all = answer.is_ok_and(|answer| answer.detail >= count);
        (!has_all).then_some(server)
    });
    join_all(each).await.into_iter().flatten().collect()
}

/// A stripe as it was written.
struct Written {
    placed: Placed,
    stand_ins: Vec<String>,
    problems: Vec<String>,
}

/// A head as it was written.
struct WrittenHead {
    tag: Tag,
    copies: Copies,
}

/// The objects that a head took the place of.
fn displaced_tags(copies: &Copies) -> Vec<Tag> {
    let mut tags: Vec<Tag> = Vec::new();
    for (_, _, copy) in &copies.taken {
        if let Copy::Stored { displaced: Some(tag) } = copy
            && !tags.contains(tag)
        {
            tags.push(*tag);
        }
    }
    tags
}
