//! Reading every copy of everything, and comparing every block.

use std::sync::Arc;

use bytes::Bytes;
use rampuddle_protocol::Version;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::list::Listing;
use super::operation::Operation;
use super::report::Progress;
use super::verify_object::verify_object;
use crate::client::Client;
use crate::error::Error;
use crate::metrics::OperationKind;
use crate::work::Work;

/// Objects that are looked at at once.
const OBJECTS_AT_ONCE: usize = 4;
/// Copies of stripes that are read at once, each through a buffer of at most
/// 4 MiB.
const READS_AT_ONCE: usize = 8;

/// How objects are verified. Start from the default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Told how many bytes were read; the total is not known.
    pub progress: Option<Arc<Progress>>,
}

/// How it stands with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifyState {
    /// As many copies of everything as are wanted, all right.
    Whole,
    /// Everything can be read, from fewer copies than are wanted.
    TooFew,
    /// A copy does not have its checksums, or makes no sense.
    Damaged,
    /// No server has a copy of some of it.
    Missing,
    /// Copies may be where no answer came from, and elsewhere are too few.
    Unreachable,
    /// It was replaced again and again while it was looked at.
    Unsettled,
}

/// An object that was verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verified {
    /// Its name.
    pub name: Vec<u8>,
    /// How it stands with it.
    pub state: VerifyState,
    /// Whether a right copy of everything was found.
    pub is_readable: bool,
    /// Its version; none when no head could be read.
    pub version: Option<Version>,
    /// Its length.
    pub bytes: u64,
    /// Copies asked for.
    pub replicas: u8,
    /// Stripes, 0 when it lies in its head.
    pub stripes: u64,
    /// Copies wanted of each value: those asked for, as far as there are members.
    pub wanted: u32,
    /// Right copies that stay of the head, or of the stripe that has fewest.
    pub copies: u32,
    /// Bytes of all copies that were read and compared.
    pub read_bytes: u64,
    /// Copies that are damaged.
    pub damaged: u64,
    /// Copies that are not where placement puts them, nor elsewhere in their
    /// place; those that end before the object included.
    pub missing: u64,
    /// Copies that could not be looked at.
    pub unreachable: u64,
    /// What is wrong, a line each; of many the first.
    pub problems: Vec<String>,
}

/// The objects whose names begin with a prefix, each verified. Dropped, it ends
/// what is under way.
#[derive(Debug)]
pub struct Verification {
    listing: Listing,
    is_listed: bool,
    shared: Arc<Shared>,
    under_way: JoinSet<Option<Verified>>,
}

/// What the looks at all objects share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) operation: Operation,
    /// A permit stands for a buffer.
    pub(super) reads: Semaphore,
    pub(super) progress: Option<Arc<Progress>>,
}

impl Shared {
    pub(super) fn read(&self, bytes: u64) {
        self.progress.iter().for_each(|progress| progress.add(bytes));
    }
}

impl Client {
    /// Verifies all objects whose names begin with `prefix`: reads the head from
    /// every server that may have it, and every copy of every stripe, and compares
    /// all blocks. What readers and writers do meanwhile is neither hindered nor
    /// taken for damage: an object that is read is held, and one that looks wrong
    /// is looked at again when it was written or replaced just now.
    ///
    /// [`Options::deadline`](crate::Options::deadline) does not hold for it.
    ///
    /// Takes about 32 MiB of memory, and for each of four objects at once its
    /// head from every server that may have it, up to 1 MiB each for objects of
    /// up to 128 GiB.
    pub fn verify(&self, prefix: &[u8], options: &VerifyOptions) -> Verification {
        let shared = Shared {
            operation: Operation::background(self.core()),
            reads: Semaphore::new(READS_AT_ONCE),
            progress: options.progress.clone(),
        };
        Verification {
            listing: self.list_for(
                OperationKind::Verify,
                Operation::background(self.core()),
                prefix,
            ),
            is_listed: false,
            shared: Arc::new(shared),
            under_way: JoinSet::new(),
        }
    }
}

impl Verification {
    /// The next object; `None` at the end. They come about in the order of their
    /// names. One that was deleted meanwhile does not come.
    ///
    /// # Errors
    /// When no server at all gives an answer to a listing.
    pub async fn next(&mut self) -> Option<Result<Verified, Error>> {
        let (span, begin) = (self.listing.span(), Instant::now());
        let next = self.next_verified().instrument(span).await;
        self.listing.observe(begin.elapsed(), &next);
        next
    }

    fn next_verified(&mut self) -> Work<'_, Option<Result<Verified, Error>>> {
        Box::pin(async move {
            loop {
                while self.under_way.len() < OBJECTS_AT_ONCE && !self.is_listed {
                    match self.listing.next_listed().await {
                        None => self.is_listed = true,
                        Some(Err(error)) => return Some(Err(error)),
                        Some(Ok(listed)) if listed.is_delete() => {}
                        Some(Ok(listed)) => self.begin(listed.key),
                    }
                }
                let verified = self.under_way.join_next().await?;
                if let Some(verified) = verified.expect("nobody ends it, and it never panics") {
                    return Some(Ok(verified));
                }
            }
        })
    }

    fn begin(&mut self, key: Bytes) {
        let (shared, span) = (Arc::clone(&self.shared), self.listing.span());
        let look = async move { verify_object(&shared, &key).await };
        self.under_way.spawn(look.instrument(span));
    }

    /// Servers that gave no answer to a listing: objects that only they have are
    /// not among those verified.
    pub fn unreachable(&self) -> &[String] {
        self.listing.unreachable()
    }

    /// Whether the registry may have been wiped: see
    /// [`Listing::is_of_young_registry`].
    pub fn is_of_young_registry(&self) -> bool {
        self.listing.is_of_young_registry()
    }
}
