//! Putting objects: stripes first, then the head.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::try_join;
use rampuddle_protocol::limits::VALUE_BYTES_MAX;
use rampuddle_protocol::{RowFlags, SetId, crc32c, crc32c_combine};

use super::cleanup::{Cleanup, drop_displaced};
use super::codec::{Codec, Packed, pack};
use super::copies::Copies;
use super::format::{BLOCK_BYTES, INLINE_BYTES_MAX, Seed, Tag, object_bytes_max};
use super::head::check_name;
use super::life::{Life, check_ttl};
use super::observed::observed;
use super::operation::Operation;
use super::put_head::{HeadCrc, NewHead, WrittenHead};
use super::put_stripes::Uploaded;
use super::ranks::{Candidates, why_young};
use super::report::{Progress, PutCondition, PutOptions, PutReport, Source};
use super::sections::{Sections, check_metadata};
use super::source::Stripes;
use super::variable::{BlockEntry, Variable};
use crate::client::Client;
use crate::error::Error;
use crate::metrics::OperationKind;
use crate::options::WritePolicy;
use crate::raw::Rolling;
use crate::view::View;
use crate::work::Work;

/// Length of a stripe unless told otherwise.
const STRIPE_BYTES: u64 = 4 << 20;
/// The shortest inline object whose checksum is computed while it leaves.
const LATE_BYTES_MIN: u64 = 64 << 10;

impl Client {
    /// Writes an object, replacing one of that name unless told otherwise. Visible
    /// only when it is whole. The bytes are striped, checksummed and copied to
    /// as many servers as wanted. Takes about 24 MiB of memory, or one stripe if
    /// that is longer, and some 100 bytes for each stripe written. Memory of the
    /// caller's is sent from where it lies:
    /// `client.put(name, Bytes::from_owner(mapping), &options)` copies nothing, and has
    /// no memory of its own for it.
    ///
    /// # Errors
    /// [`Error::Failed`] when nothing was applied, [`Error::Indeterminate`] when
    /// that cannot be said, [`Error::Exists`], [`Error::Changed`] and
    /// [`Error::Unknown`] by its condition (see [`PutOptions::condition`]),
    /// [`Error::TooLarge`] for more than 128 TiB, and with [`Error::BadOption`] for
    /// metadata that cannot be kept, [`Error::Local`] when the
    /// source fails. With fewer copies than the policy wants the put is applied:
    /// see [`PutReport::is_short`].
    pub async fn put(
        &self,
        name: &[u8],
        source: impl Into<Source>,
        options: &PutOptions,
    ) -> Result<PutReport, Error> {
        let work = self.put_object(name, source.into(), options);
        observed(self.core(), OperationKind::Put, name, work).await
    }

    fn put_object<'a>(
        &'a self,
        name: &'a [u8],
        source: Source,
        options: &'a PutOptions,
    ) -> Work<'a, Result<PutReport, Error>> {
        Box::pin(async move {
            let key = check_name(name)?;
            let mut put = Put::new(Operation::begin(self.core()), key, options)?;
            put.look_first().await?;
            let put = Arc::new(put);
            let mut stripes = Stripes::new(source, &put.operation.servers.access().buffers);
            if let Some(total) = stripes.length().await {
                put.check_length(total)?;
                put.progress.iter().for_each(|progress| progress.set_total(total));
            }
            let failed = |source| Error::local("cannot read the source", source);
            let first = stripes.next(put.stripe_bytes as usize).await.map_err(failed)?;
            if first.len() as u64 <= INLINE_BYTES_MAX && (first.len() as u64) < put.stripe_bytes {
                return put.inline(first).await;
            }
            // Far larger than what the others need.
            Box::pin(put.striped(first, stripes)).await
        })
    }
}

/// Refuses a number of copies that the cluster does not have.
fn check_replicas(replicas: u8, view: &View) -> Result<(), Error> {
    let max = view.settings().replicas_max;
    let (found, expected) = if replicas == u8::MAX {
        return Ok(());
    } else if view.is_cloned() {
        let found = format!("{replicas}, and in this cluster every member has a copy (clone)");
        (found, "255, or no --replicas at all")
    } else if replicas == 0 || replicas > max {
        let found = format!("{replicas}, and this cluster allows at most {max}");
        (found, "1 to that, or 255 for a copy on every member")
    } else {
        return Ok(());
    };
    Err(Error::BadOption { option: "replicas", found, expected })
}

/// One put under way.
pub(super) struct Put {
    pub(super) operation: Operation,
    pub(super) key: Bytes,
    pub(super) upload: SetId,
    pub(super) replicas: u8,
    pub(super) stripe_bytes: u64,
    pub(super) condition: PutCondition,
    keep: bool,
    pub(super) ttl: Option<Duration>,
    /// What the head is known to take the place of before it is written.
    pub(super) replaced: Vec<Tag>,
    pub(super) codec: Codec,
    /// What the head says besides the block table.
    sections: Sections,
    /// The longest object of which all that can be said.
    bytes_max: u64,
    policy: WritePolicy,
    progress: Option<Arc<Progress>>,
}

impl Put {
    fn new(operation: Operation, key: Bytes, options: &PutOptions) -> Result<Self, Error> {
        let view = operation.views.current();
        let replicas = options.replicas.unwrap_or_else(|| operation.replicas_in(&view));
        check_replicas(replicas, &view)?;
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
        check_metadata(&options.metadata)?;
        check_ttl(options.ttl)?;
        let sections = Sections { metadata: options.metadata.clone(), ..Sections::default() };
        // With a codec there will be a checksum of the whole object.
        let crc32c = (options.codec != Codec::None).then_some(0);
        let expires_ms = options.ttl.map(|_| 0);
        let longest = Sections { crc32c, expires_ms, ..sections.clone() }.encode();
        Ok(Self {
            codec: options.codec,
            bytes_max: object_bytes_max(longest.len() as u64),
            upload: SetId(operation.servers.access().environment.unguessable()),
            policy: options.write.unwrap_or(operation.write),
            operation,
            key,
            replicas,
            stripe_bytes,
            condition: options.condition,
            keep: options.keep,
            ttl: options.ttl,
            replaced: Vec::new(),
            sections,
            progress: options.progress.clone(),
        })
    }

    /// Says before anything is moved that the condition does not hold.
    async fn look_first(&mut self) -> Result<(), Error> {
        match self.condition {
            PutCondition::Always => Ok(()),
            // Far larger than what puts without a condition need.
            PutCondition::IfAbsent => Box::pin(self.look_for_none()).await,
            PutCondition::IfVersion(version) => {
                self.replaced = Box::pin(self.look_for(version)).await?;
                Ok(())
            }
        }
    }

    /// Flags of all values of the object.
    pub(super) fn flags(&self) -> RowFlags {
        if self.keep { RowFlags::SEALED | RowFlags::KEEP } else { RowFlags::SEALED }
    }

    /// Where copies of a value of this object go.
    pub(super) fn candidates(&self, key: &[u8]) -> Candidates {
        let now_ms = self.operation.clocks().now_ms();
        Candidates::of(&self.operation.views.current(), key, self.replicas, now_ms)
    }

    /// Refuses what no block table can describe.
    pub(super) fn check_length(&self, bytes: u64) -> Result<(), Error> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(Error::TooLarge { what: "an object", bytes, limit: self.bytes_max })
    }

    pub(super) fn done(&self, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress.add(bytes);
        }
    }

    pub(super) fn name(&self) -> Arc<[u8]> {
        self.key[1..].into()
    }

    /// Nothing was applied, for these reasons.
    pub(super) fn failed(&self, copies: &Copies) -> Error {
        if let Some(refusal) = Error::refusal_among(copies.errors()) {
            return refusal.clone();
        }
        let mut problems: Vec<String> = copies.problems().collect();
        if problems.is_empty() {
            problems.push("no server of the cluster can be written to".to_owned());
        }
        Error::Failed { name: self.name(), problems }
    }

    fn tag(&self, object_bytes: u64) -> Tag {
        Tag {
            replicas: self.replicas,
            codec: Codec::None,
            stripe_bytes: 0,
            object_bytes,
            upload: self.upload,
            version: Default::default(),
            variable_bytes: 0,
            crc32c: 0,
            inline_stored_bytes: 0,
            ends: self.ttl.is_some(),
        }
    }

    /// A stripe, or an inline object, as it is to be stored.
    pub(super) async fn pack(&self, stripe: u64, bytes: Bytes) -> Result<Packed, Error> {
        let (codec, upload) = (self.codec, self.upload);
        let work = move || pack(codec, upload, stripe, bytes);
        if codec == Codec::None {
            return Ok(work());
        }
        let done = self.operation.workers.run(work).await;
        done.map_err(|source| Error::local("cannot compress", source))
    }

    /// An object of one block: its head is all there is.
    async fn inline(self: Arc<Self>, bytes: Bytes) -> Result<PutReport, Error> {
        let length = bytes.len() as u64;
        let says_nothing = self.ttl.is_none() && self.sections == Sections::default();
        if length >= LATE_BYTES_MIN && self.codec == Codec::None && says_nothing {
            let checksum = Arc::new(Rolling::new(bytes.clone(), BLOCK_BYTES as usize));
            let (tag, crc) = (self.tag(length), HeadCrc::Late(checksum));
            let head = NewHead { tag, bytes, crc, life: self.life().await };
            return self.finish_inline(head, length, length).await;
        }
        let packed = self.pack(0, bytes).await?;
        let stored_bytes = packed.bytes.len() as u64;
        let life = self.life().await;
        let (sections, tag) = match packed.is_compressed() {
            false => (self.sections_with(life, None), self.tag(length)),
            true => {
                let sections = self.sections_with(life, Some(packed.plain_crc32c));
                let inline_stored_bytes = stored_bytes as u32;
                (sections, Tag { codec: self.codec, inline_stored_bytes, ..self.tag(length) })
            }
        };
        let head = if sections.is_empty() {
            let tag = Tag { crc32c: self.only_block(&packed), ..tag };
            NewHead { tag, bytes: packed.bytes, crc: HeadCrc::Known(packed.crc32c), life }
        } else {
            let (variable, tag) = self.describe(&packed.entries, &sections, tag);
            let crc = crc32c_combine(packed.crc32c, tag.crc32c, variable.len() as u64);
            let bytes = [&packed.bytes[..], &variable].concat().into();
            NewHead { tag, bytes, crc: HeadCrc::Known(crc), life }
        };
        self.finish_inline(head, length, stored_bytes).await
    }

    async fn finish_inline(
        self: Arc<Self>,
        head: NewHead,
        length: u64,
        stored_bytes: u64,
    ) -> Result<PutReport, Error> {
        let uploaded = Uploaded::inline(length, stored_bytes);
        let report = self.finish(head, uploaded, self.cleanup()).await?;
        self.done(length);
        if let Some(progress) = &self.progress {
            progress.set_total(length);
        }
        Ok(report)
    }

    /// The seeded checksum of an object of one block at most.
    fn only_block(&self, packed: &Packed) -> u32 {
        let no_block = || Seed::new(self.upload, 0, 0).apply(0, 0);
        packed.entries.first().map_or_else(no_block, |entry| entry.crc32c)
    }

    /// The life of an object whose head is written now, by a clock that was compared
    /// with those of the servers.
    async fn life(&self) -> Life {
        self.meet().await;
        Life::beginning(self.ttl, self.operation.clocks().now_ms())
    }

    /// The sections of an object with this life, and, when blocks of it are
    /// compressed, with this checksum.
    fn sections_with(&self, life: Life, crc32c: Option<u32>) -> Vec<u8> {
        Sections { crc32c, expires_ms: life.ends_ms, ..self.sections.clone() }.encode()
    }

    /// A variable part, and the tag that has it.
    fn describe(&self, table: &[BlockEntry], sections: &[u8], tag: Tag) -> (Vec<u8>, Tag) {
        let variable = Variable::encode(table, sections);
        let variable_bytes = variable.len() as u32;
        let tag = Tag { variable_bytes, crc32c: crc32c(&variable), ..tag };
        (variable, tag)
    }

    /// An object of stripes.
    async fn striped(self: Arc<Self>, first: Bytes, source: Stripes) -> Result<PutReport, Error> {
        // A future that is dropped ends the stripes as well as an error does.
        let (mut uploaded, mut cleanup) = (Uploaded::default(), self.cleanup());
        let stored = async {
            self.write_stripes(first, source, &mut uploaded, &mut cleanup).await?;
            self.secure(&mut uploaded).await
        };
        // An error ends the look.
        let looked = self.look_before().map(Ok);
        if let Err(error) = try_join(stored, looked).await {
            cleanup.run(&self.operation).await;
            return Err(error);
        }
        let (life, crc32c) = (self.life().await, uploaded.plain_crc32c());
        let codec = if crc32c.is_some() { self.codec } else { Codec::None };
        let sections = self.sections_with(life, crc32c);
        let stripe_bytes = self.stripe_bytes as u32;
        let tag = Tag { codec, stripe_bytes, ..self.tag(uploaded.bytes) };
        let (variable, tag) = self.describe(uploaded.entries(), &sections, tag);
        let head = NewHead { tag, bytes: variable.into(), crc: HeadCrc::Known(tag.crc32c), life };
        self.finish(head, uploaded, cleanup).await
    }

    fn cleanup(&self) -> Cleanup {
        Cleanup::new(self.operation.core(), self.upload, self.replicas)
    }

    /// Makes the object visible. From here on it is somebody's object, and
    /// finished whatever becomes of the caller's future.
    async fn finish(
        self: &Arc<Self>,
        head: NewHead,
        uploaded: Uploaded,
        cleanup: Cleanup,
    ) -> Result<PutReport, Error> {
        let put = Arc::clone(self);
        let committed = async move { put.commit(head, uploaded, cleanup).await };
        self.operation.uncut(committed).await.unwrap_or_else(|| {
            let problems = vec!["the runtime ended while the head was written".to_owned()];
            Err(Error::Indeterminate { name: self.name(), problems })
        })
    }

    /// Writes the head, has everything stay, and removes what was replaced: in
    /// this order, so that whenever it breaks off one of the two objects is whole.
    async fn commit(
        &self,
        head: NewHead,
        mut uploaded: Uploaded,
        mut cleanup: Cleanup,
    ) -> Result<PutReport, Error> {
        // Whoever may have the head needs the stripes; if nobody has it, they end
        // with their lease.
        cleanup.disarm();
        let mut head = match self.write_head(head).await {
            Ok(head) => head,
            Err(error) => {
                if !matches!(error, Error::Indeterminate { .. }) {
                    Box::pin(cleanup.run(&self.operation)).await;
                }
                return Err(error);
            }
        };
        let mut displaced = head.copies.displaced();
        let unnamed = self.replaced.iter().filter(|tag| !displaced.contains(tag));
        displaced.extend(unnamed.collect::<Vec<_>>());
        let have = head.copies.taken.iter().map(|taken| Arc::clone(&taken.server)).collect();
        if uploaded.stripes() > 0 {
            Box::pin(self.settle(&mut head, &mut uploaded)).await;
        }
        let head_copies = head.copies.applied();
        let mut report = self.report(&head, uploaded);
        // With fewer heads than that, an owner shows the old object still, and tells
        // of it when the next one comes. With all of them nobody finds it any more.
        if head_copies >= report.wanted as usize {
            let left =
                drop_displaced(&self.operation, &self.key, displaced, self.upload, have).await;
            let problem = |server| {
                format!("server \"{server}\" has the object that was replaced, and gives no answer")
            };
            report.problems.extend(left.into_iter().map(problem));
        }
        Ok(report)
    }

    fn report(&self, head: &WrittenHead, uploaded: Uploaded) -> PutReport {
        let view = self.operation.views.current();
        let now_ms = self.operation.clocks().now_ms();
        let candidates = Candidates::of(&view, &self.key, self.replicas, now_ms);
        let wanted = candidates.wanted;
        let of_stripes = uploaded.copies();
        let copies = of_stripes.chain([head.copies.applied()]).min().unwrap_or(0);
        let (stripes, stored_bytes) = (uploaded.stripes(), uploaded.stored_bytes());
        let Uploaded { bytes, mut stand_ins, mut problems, .. } = uploaded;
        let of_head = head.copies.stand_ins().map(ToString::to_string);
        stand_ins.extend(of_head.filter(|name| !stand_ins.contains(name)).collect::<Vec<_>>());
        problems.extend(head.copies.problems());
        if wanted > candidates.ranks.len() {
            problems.push(why_young(&view).to_owned());
        }
        PutReport {
            bytes,
            version: head.tag.version,
            codec: head.tag.codec,
            stored_bytes,
            replicas: self.replicas,
            wanted: wanted as u32,
            needed: self.policy.needed(wanted) as u32,
            copies: copies as u32,
            stripes,
            stand_ins,
            problems,
            expires_unix_ms: head.life.ends_ms,
        }
    }
}
