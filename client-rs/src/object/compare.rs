//! Comparing an object with bytes at hand, by its checksums: its own bytes are
//! not read.

use rampuddle_protocol::{crc32c, crc32c_combine};

use super::format::{BLOCK_BYTES, Seed, Tag};
use super::head::{Head, Part, check_name, find, find_greatest, stat_of};
use super::observed::observed;
use super::operation::Operation;
use super::report::{CompareOptions, Comparison, Source};
use super::source::Stripes;
use super::stat::has_all_copies;
use super::variable::BlockEntry;
use crate::client::Client;
use crate::error::Error;
use crate::metrics::OperationKind;
use crate::work::Work;

impl Client {
    /// Whether an object has just these bytes, and all its copies. Asks all
    /// servers that may have it about its head, and when it has stripes and the
    /// length fits, one for the block table and all about the stripes. Reads the
    /// source to its end, or to the first difference, in steps of 1 MiB.
    ///
    /// Blocks that are stored compressed are compared all together, by the checksum
    /// of the whole object.
    ///
    /// # Errors
    /// As [`Client::get`], and [`Error::Local`] when the source fails or changes
    /// while it is read.
    pub async fn compare(
        &self,
        name: &[u8],
        source: impl Into<Source>,
        options: &CompareOptions,
    ) -> Result<Comparison, Error> {
        let work = self.compare_source(name, source.into(), options);
        observed(self.core(), OperationKind::Compare, name, work).await
    }

    fn compare_source<'a>(
        &'a self,
        name: &'a [u8],
        source: Source,
        options: &'a CompareOptions,
    ) -> Work<'a, Result<Comparison, Error>> {
        Box::pin(async move {
            let operation = &Operation::begin(self.core());
            let key = check_name(name)?;
            let Some(mut head) = find_greatest(operation, &key, Part::Tag).await? else {
                return Ok(Comparison::Absent);
            };
            let mut source = Stripes::new(source, &operation.servers.access().buffers);
            if source.length().await.is_some_and(|bytes| bytes != head.tag.object_bytes) {
                return Ok(Comparison::Different(stat_of(name, &head.tag, head.keep)));
            }
            if head.tag.variable_bytes > 0 {
                head = match with_table(operation, head).await? {
                    Some(head) => head,
                    None => return Ok(Comparison::Absent),
                };
            }
            let stat = head.stat();
            if !is_same(&head, &mut source, options).await? {
                return Ok(Comparison::Different(stat));
            }
            Ok(match has_all_copies(operation, &head).await {
                true => Comparison::Same(stat),
                false => Comparison::Thin(stat),
            })
        })
    }
}

/// The same head, or the one that took its place, with its block table.
async fn with_table(operation: &Operation, head: Head) -> Result<Option<Head>, Error> {
    match find(operation, &head.key, Part::All).await? {
        // This server missed the write.
        Some(found) if found.tag.version < head.tag.version => {
            find_greatest(operation, &head.key, Part::All).await
        }
        found => Ok(found),
    }
}

/// What the head says of its blocks.
fn blocks_of(head: &Head) -> Vec<BlockEntry> {
    let Tag { object_bytes, variable_bytes, crc32c, .. } = head.tag;
    match variable_bytes {
        0 if object_bytes == 0 => Vec::new(),
        // The only block's is in the tag.
        0 => vec![BlockEntry { stored_bytes: object_bytes as u32, is_plain: true, crc32c }],
        _ => head.table.clone(),
    }
}

/// Whether the source has just the object's blocks, and then ends.
async fn is_same(
    head: &Head,
    source: &mut Stripes,
    options: &CompareOptions,
) -> Result<bool, Error> {
    let failed = |source| Error::local("cannot read the source", source);
    if let Some(progress) = &options.progress {
        progress.set_total(head.tag.object_bytes);
    }
    let mut blocks = Blocks::new(head);
    for entry in blocks_of(head) {
        let bytes = source.next(blocks.next_bytes() as usize).await.map_err(failed)?;
        if !blocks.take(&entry, &bytes) {
            return Ok(false);
        }
        if let Some(progress) = &options.progress {
            progress.add(bytes.len() as u64);
        }
    }
    Ok(blocks.are_same() && source.next(1).await.map_err(failed)?.is_empty())
}

/// The blocks of an object beside those of a source.
struct Blocks<'h> {
    head: &'h Head,
    /// Bytes that were compared.
    bytes: u64,
    /// Their checksum.
    crc32c: u32,
    is_any_compressed: bool,
}

impl<'h> Blocks<'h> {
    fn new(head: &'h Head) -> Self {
        Self { head, bytes: 0, crc32c: 0, is_any_compressed: false }
    }

    /// Length of the next one.
    fn next_bytes(&self) -> u64 {
        (self.head.tag.object_bytes - self.bytes).min(BLOCK_BYTES)
    }

    /// Compares the next one, as far as can be said now.
    fn take(&mut self, entry: &BlockEntry, bytes: &[u8]) -> bool {
        let length = bytes.len() as u64;
        if length < self.next_bytes() {
            return false;
        }
        let crc = crc32c(bytes);
        self.is_any_compressed |= !entry.is_plain;
        let is_other = entry.is_plain && BlockEntry::plain(&self.seed(), length, crc) != *entry;
        self.crc32c = crc32c_combine(self.crc32c, crc, length);
        self.bytes += length;
        !is_other
    }

    fn seed(&self) -> Seed {
        let Tag { stripe_bytes, upload, .. } = self.head.tag;
        let per_stripe = (u64::from(stripe_bytes) / BLOCK_BYTES).max(1);
        let block = self.bytes / BLOCK_BYTES;
        Seed::new(upload, block / per_stripe, block % per_stripe)
    }

    /// Whether all that were taken are the object's.
    fn are_same(&self) -> bool {
        !self.is_any_compressed || self.head.sections.crc32c == Some(self.crc32c)
    }
}
