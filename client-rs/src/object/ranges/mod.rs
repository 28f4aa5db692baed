//! Ranges of many objects in one call.
//!
//! ```text
//!  names --> heads: one Gather per server, rests of long ones behind it
//!                 |
//!  heads --> blocks that ranges need, each once: many rows per Gather
//!                 |
//!  blocks --> verified, decompressed, copied to every range that wants them
//!
//!  whatever goes wrong on the way: the object by itself, as any get
//! ```
//!
//! What lies on this machine takes a shorter one: it is copied from where it lies, in
//! the memory of the server.
//!
//! This road takes no holds of sets and asks no second round of servers: whatever it
//! does not find at once is read as [`Client::get_range`] reads it, so that what
//! Found, Absent and Unknown mean is decided in one place.

mod assembly;
mod blocks;
mod heads;
mod here;
mod one_by_one;

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;
use tracing::Instrument as _;

use self::assembly::Assembly;
use super::head::check_name;
use super::hedge::Patience;
use super::observed::{Judged as _, Observation};
use super::operation::Operation;
use super::report::{GetOptions, Value};
use crate::client::Client;
use crate::error::Error;
use crate::metrics::OperationKind;
use crate::work::Work;

/// Objects whose heads are looked at together: what one frame has room for.
const OBJECTS_AT_ONCE: usize = 1_024;
/// Objects that are read by themselves at once.
const ONE_BY_ONE: usize = 4;

/// A range of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RangeOf {
    /// The object's name.
    pub name: Bytes,
    /// Which of its bytes; what lies behind its end is cut.
    pub range: Range<u64>,
}

impl RangeOf {
    /// These bytes of the object of that name.
    pub fn new(name: impl Into<Bytes>, range: Range<u64>) -> Self {
        Self { name: name.into(), range }
    }
}

/// An object, and which of the ranges asked for are of it.
#[derive(Debug)]
struct Asked {
    key: Bytes,
    ranges: Vec<usize>,
}

impl Client {
    /// Reads many ranges, of one object or of many, each into new memory; the
    /// results are in the order of `asked`. `None` = there is no such object.
    ///
    /// What lies on one server is asked for together: all heads in one request,
    /// then the blocks of 1 MiB that the ranges need, each once, however many
    /// ranges need it. An object that makes difficulties (a server is silent, a
    /// block is wrong, it was replaced meanwhile) is read by itself, as
    /// [`Client::get_range`] would, and keeps no other from being read. So is a
    /// range of more than 64 MiB.
    ///
    /// Blocks that lie in the memory of a server on this machine are compared and
    /// copied there, not sent: the server keeps all that it has of the object
    /// meanwhile, of up to 8 objects at once, and nothing afterwards. Compressed ones
    /// are sent, and all of a server that is slow to say where they lie: it is waited
    /// for no longer than 500 ms in all for each 1,024 objects, and once that was not
    /// enough it is not asked for that again.
    ///
    /// Each range is of one version of its object, which its report names. Ranges
    /// of one object are of the same version unless it was replaced meanwhile.
    /// [`GetReport::served`](crate::GetReport::served) counts a range's own bytes.
    ///
    /// Takes, besides the results, at most 32 MiB for bytes on their way and as
    /// much for those that are decompressed, 4 MiB for each server while heads
    /// are looked at, 1,024 of them at once, and what up to 4 objects take that
    /// are read by themselves.
    ///
    /// # Errors
    /// For each range as [`Client::get_range`].
    pub async fn get_ranges(
        &self,
        asked: &[RangeOf],
        options: &GetOptions,
    ) -> Vec<Result<Option<Value>, Error>> {
        let name = asked.first().map_or(&b""[..], |first| &first.name);
        let mut observation = Observation::begin(self.core(), OperationKind::GetRanges, name);
        let begin = Instant::now();
        let results = self.read_ranges(asked, options).instrument(observation.span()).await;
        observation.worked(begin.elapsed());
        observation.end(results.outcome(), results.bytes());
        results
    }

    fn read_ranges<'a>(
        &'a self,
        asked: &'a [RangeOf],
        options: &'a GetOptions,
    ) -> Work<'a, Vec<Result<Option<Value>, Error>>> {
        Box::pin(async move {
            let (operation, patience) = (Operation::begin(self.core()), Patience::default());
            let mut assembly = Assembly::new(asked, options, &operation.servers.access().buffers);
            let objects = by_object(asked, &mut assembly);
            for objects in objects.chunks(OBJECTS_AT_ONCE) {
                patience.renew();
                heads::find(&operation, objects, &patience, &mut assembly).await;
                assembly = blocks::read(&operation, assembly).await;
                read_the_rest(&operation, objects, &mut assembly).await;
            }
            assembly.finish()
        })
    }
}

/// Every object once; ranges under names that no object has are done.
fn by_object(asked: &[RangeOf], assembly: &mut Assembly<'_>) -> Vec<Asked> {
    let mut places: HashMap<&Bytes, usize> = HashMap::new();
    let mut objects: Vec<Asked> = Vec::new();
    for (index, RangeOf { name, .. }) in asked.iter().enumerate() {
        match (places.get(name), check_name(name)) {
            (Some(place), _) => objects[*place].ranges.push(index),
            (None, Err(error)) => assembly.end(index, Err(error)),
            (None, Ok(key)) => {
                places.insert(name, objects.len());
                objects.push(Asked { key, ranges: vec![index] });
            }
        }
    }
    objects
}

/// Reads what is left of these objects, each by itself.
async fn read_the_rest(operation: &Operation, objects: &[Asked], assembly: &mut Assembly<'_>) {
    let left = objects.iter().filter_map(|object| {
        let ranges: Vec<_> = assembly.left_of(&object.ranges).collect();
        (!ranges.is_empty()).then(|| (object.key.clone(), ranges))
    });
    let left: Vec<_> = left.collect();
    let options = GetOptions { progress: None, ..assembly.options().clone() };
    let reads = left.into_iter().map(|(key, ranges)| {
        let options = &options;
        async move { one_by_one::read(operation, &key, ranges, options).await }
    });
    let mut reads = stream::iter(reads).buffer_unordered(ONE_BY_ONE);
    while let Some(done) = reads.next().await {
        for (index, result) in done {
            assembly.end(index, result);
        }
    }
}
