//! What the object operations take and return.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rampuddle_protocol::{SetId, Version};
use tokio::io::AsyncRead;

use super::codec::Codec;
use super::sections::Metadata;
use crate::options::WritePolicy;

/// How an object is written. Start from the default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PutOptions {
    /// Copies wanted; the client's own number when `None`, 255 = on every member.
    pub replicas: Option<u8>,
    /// Copies that make the put a success; the client's own policy when `None`.
    pub write: Option<WritePolicy>,
    /// Length of a stripe: whole MiB, up to 1 GiB; 4 MiB when `None`.
    pub stripe_bytes: Option<u64>,
    /// What the object may take the place of.
    pub condition: PutCondition,
    /// Never evict it. Servers of this version evict nothing; they remember this
    /// with every copy.
    pub keep: bool,
    /// How blocks are stored; as they are unless set otherwise.
    pub codec: Codec,
    /// What is to be kept beside the bytes, for [`Client::stat`] and
    /// [`Client::get`] to tell: values by name, see [`Metadata`].
    ///
    /// [`Client::stat`]: crate::Client::stat
    /// [`Client::get`]: crate::Client::get
    pub metadata: Metadata,
    /// How long the object lives once it is visible, 1 s to 3,650 days; for good
    /// when `None`. At its end it is gone by itself, from all servers.
    pub ttl: Option<Duration>,
    /// Told how far it is.
    pub progress: Option<Arc<Progress>>,
}

/// What a put may take the place of. `docs/object-format.md` says under
/// "Conditions" exactly what each promises, and what not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PutCondition {
    /// Whatever is there.
    #[default]
    Always,
    /// Nothing: there must be no object of the name. The put ends with
    /// [`Error::Exists`](crate::Error::Exists) when a server has another object
    /// of the name, and with [`Error::Unknown`](crate::Error::Unknown) when an
    /// owner gives no word on that; then nothing of it is left. When it cannot be
    /// sure of that, it ends with
    /// [`Error::Indeterminate`](crate::Error::Indeterminate).
    ///
    /// An object at an owner that answers is never replaced, and of several
    /// writers at once that all ask for this at most one succeeds, perhaps none.
    /// Not seen is an object that only stand-ins have which give no answer, and
    /// what servers had before they lost their memory; writers that disagree on
    /// the members do not see each other.
    IfAbsent,
    /// This version of the object, as the first owner of its head has it, which
    /// decides alone. The put ends with [`Error::Changed`](crate::Error::Changed)
    /// when the first owner holds another version or none, and with
    /// [`Error::Unknown`](crate::Error::Unknown) when it gives no word; then
    /// nothing of the put is left. When its answer was lost on the way, the put
    /// ends with [`Error::Indeterminate`](crate::Error::Indeterminate).
    ///
    /// Of several writers with the same version at most one succeeds, as long as
    /// they know the same members, the first owner keeps its memory, and nobody
    /// writes without a condition. Read what comes next with a new get.
    IfVersion(Version),
}

/// How an object is read. Start from the default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GetOptions {
    /// Compare every block with its checksum, whose bytes are fetched or copied.
    /// True unless set otherwise.
    pub verify: bool,
    /// Do so with blocks that are handed out where they lie, in the memory of a server
    /// on this machine, too: see [`Value::is_mapped`]. False unless set otherwise,
    /// because it reads every byte.
    pub verify_mapped: bool,
    /// Told how far it is.
    pub progress: Option<Arc<Progress>>,
}

impl Default for GetOptions {
    fn default() -> Self {
        Self { verify: true, verify_mapped: false, progress: None }
    }
}

/// How an object is compared. Start from the default.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CompareOptions {
    /// Told how far it is.
    pub progress: Option<Arc<Progress>>,
}

/// What an object is beside the bytes that it was compared with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Comparison {
    /// Just these bytes, in as many copies as its writer wanted, and all are there as
    /// long as the object: for good, or to its end.
    Same(ObjectStat),
    /// Just these bytes, but copies are missing, gave no answer, or end before it
    /// with a lease, because the put that made them came to no end.
    Thin(ObjectStat),
    /// Other bytes, or what this client cannot compare.
    Different(ObjectStat),
    /// There is none.
    Absent,
}

/// How far an operation is: read it from another task while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    /// The total, plus one; 0 = not known.
    total: AtomicU64,
}

impl Progress {
    /// Nothing done, the total not known.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Bytes of the object that are done.
    pub fn done_bytes(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes in all, once they are known.
    pub fn total_bytes(&self) -> Option<u64> {
        self.total.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.total.store(bytes + 1, Ordering::Relaxed);
    }
}

/// Where the bytes of an object come from.
#[non_exhaustive]
pub enum Source {
    /// Memory. It is sent from where it lies, without a copy, unless it is compressed:
    /// `Bytes::from_owner(mapping)` puts a mapping, or any other memory of your own, and
    /// lets go of it when nothing of it is under way any more.
    Bytes(Bytes),
    /// A reader of unknown length, read straight into memory that is used again.
    Reader(Box<dyn AsyncRead + Send + Unpin>),
    /// A file, read to its end, straight into memory that is used again. When it changes
    /// meanwhile, in length or time, the operation fails.
    File(PathBuf),
}

impl Source {
    /// A reader of unknown length.
    pub fn reader(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::Reader(Box::new(reader))
    }

    /// A file, read to its end.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }
}

impl<B: Into<Bytes>> From<B> for Source {
    fn from(bytes: B) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(formatter, "Bytes({} bytes)", bytes.len()),
            Self::Reader(_) => formatter.write_str("Reader"),
            Self::File(path) => write!(formatter, "File({})", path.display()),
        }
    }
}

/// What became of a put that was applied.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PutReport {
    /// Length of the object.
    pub bytes: u64,
    /// Its version.
    pub version: Version,
    /// How its blocks are stored: [`Codec::None`] also when none of them became
    /// shorter.
    pub codec: Codec,
    /// Bytes of one copy as they are stored.
    pub stored_bytes: u64,
    /// Copies asked for.
    pub replicas: u8,
    /// Copies wanted: those asked for, as far as there are members. As long as the
    /// cluster's registry is younger than 10 s, and members may be missing from it,
    /// all that were asked for.
    pub wanted: u32,
    /// Copies that make it a success, by the write policy.
    pub needed: u32,
    /// Copies made of the head and of every stripe, at least.
    pub copies: u32,
    /// Stripes, 0 when the object lies in its head.
    pub stripes: u64,
    /// Servers that keep copies in the place of owners which did not take them.
    pub stand_ins: Vec<String>,
    /// What went wrong on the way, a line each.
    pub problems: Vec<String>,
    /// When it ends, in milliseconds since 1970; `None` = never.
    pub expires_unix_ms: Option<u64>,
}

impl PutReport {
    /// Whether there are fewer copies than the write policy wants. The object is
    /// there all the same.
    pub fn is_short(&self) -> bool {
        self.copies < self.needed
    }
}

/// What became of a get that was written somewhere.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GetReport {
    /// Bytes given.
    pub bytes: u64,
    /// Length of the object.
    pub object_bytes: u64,
    /// Its version.
    pub version: Version,
    /// Bytes by the server that they came from, by name; of compressed blocks as
    /// they came.
    pub served: Vec<(String, u64)>,
    /// Bytes that were read where they lie, in the memory of servers on this machine,
    /// and not sent.
    pub mapped: u64,
    /// What was put beside the bytes.
    pub metadata: Arc<Metadata>,
}

/// An object's bytes, or a range of them.
///
/// They are this process's own, or lie where a server on this machine stores them
/// (see [`Value::is_mapped`]), or some do and some do not.
#[derive(Clone)]
pub struct Value {
    parts: Parts,
    report: GetReport,
}

/// Bytes in pieces; most values have one.
#[derive(Clone)]
enum Parts {
    One(Bytes),
    Many(Arc<[Bytes]>),
}

impl Parts {
    fn all(&self) -> &[Bytes] {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Many(parts) => parts,
        }
    }
}

impl Value {
    pub(crate) fn new(bytes: Bytes, report: GetReport) -> Self {
        Self { parts: Parts::One(bytes), report }
    }

    /// A value in some pieces, in order.
    pub(crate) fn of_parts(mut parts: Vec<Bytes>, report: GetReport) -> Self {
        let parts = match parts.len() {
            0 | 1 => Parts::One(parts.pop().unwrap_or_default()),
            _ => Parts::Many(parts.into()),
        };
        Self { parts, report }
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.parts.all().iter().map(Bytes::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in order, as one slice or a few.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.all().iter().map(|part| &part[..])
    }

    /// The bytes in one piece. Costs a copy only when they are in several.
    pub fn into_bytes(self) -> Bytes {
        match self.parts {
            Parts::One(bytes) => bytes,
            Parts::Many(parts) => parts.concat().into(),
        }
    }

    /// Whether any of the bytes lie in the memory of a server on this machine.
    ///
    /// The server keeps them there, unchanged, as long as this value, a clone of it
    /// or its [`Bytes`] live, also when the object is replaced or deleted, and when the
    /// server is killed. What is kept so counts against a quarter of the server's pool:
    /// let go of what is not needed, or [copy](Value::to_vec) it. They were compared
    /// with their checksums only if [`GetOptions::verify_mapped`] was set.
    pub fn is_mapped(&self) -> bool {
        self.report.mapped > 0
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts.all().concat()
    }

    /// What was put beside them.
    pub fn metadata(&self) -> &Metadata {
        &self.report.metadata
    }

    /// Where they came from.
    pub fn report(&self) -> &GetReport {
        &self.report
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.report.version;
        write!(formatter, "Value({} bytes, version {version})", self.len())
    }
}

/// What is known of an object without its bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ObjectStat {
    /// Its name.
    pub name: Vec<u8>,
    /// Its length.
    pub bytes: u64,
    /// Its version.
    pub version: Version,
    /// Copies asked for.
    pub replicas: u8,
    /// Stripes, 0 when it lies in its head.
    pub stripes: u64,
    /// Length of every stripe but the last.
    pub stripe_bytes: u64,
    /// Names the values of its upload.
    pub upload: SetId,
    /// Whether it is never evicted.
    pub keep: bool,
    /// How its blocks are stored.
    pub codec: Codec,
    /// Bytes of one copy as they are stored. `None` in listings for a compressed
    /// object of several blocks.
    pub stored_bytes: Option<u64>,
    /// What was put beside the bytes. `None` in listings, which look at the
    /// tags of heads only.
    pub metadata: Option<Metadata>,
    /// When it ends, in milliseconds since 1970; `None` = never. In listings as
    /// the server counts it, so it may be some milliseconds off.
    pub expires_unix_ms: Option<u64>,
}

/// An object and where its copies lie.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Located {
    /// The object.
    pub stat: ObjectStat,
    /// Every place that has a copy or should have one: the head's first, then
    /// the stripes' in order.
    pub copies: Vec<CopyPlace>,
}

/// One place of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyPlace {
    /// The stripe; `None` = the head.
    pub stripe: Option<u64>,
    /// The server.
    pub server: String,
    /// Whether placement puts a copy there.
    pub is_owner: bool,
    /// What is there.
    pub state: CopyState,
    /// What is left of its lease, 0 = none: it stays. A put takes the lease off
    /// at its very end.
    pub lease_ms: u64,
}

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyState {
    /// The copy.
    Whole,
    /// Nothing.
    Missing,
    /// Another version.
    Other,
    /// The server gave no answer.
    Unreachable,
}

/// What became of a delete that was applied.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeleteReport {
    /// Whether there was such an object.
    pub existed: bool,
    /// Owners that must know of the delete. As long as the cluster's registry is
    /// younger than 10 s, and members may be missing from it, as many as the object
    /// had copies.
    pub wanted: u32,
    /// Owners that do.
    pub applied: u32,
    /// What went wrong on the way, a line each.
    pub problems: Vec<String>,
}

impl DeleteReport {
    /// Whether an owner missed the delete: until repair, it may serve the object.
    pub fn is_short(&self) -> bool {
        self.applied < self.wanted
    }
}

/// Cuts a range at the end of an object.
pub(crate) fn cut(range: Option<Range<u64>>, object_bytes: u64) -> Range<u64> {
    let range = range.unwrap_or(0..object_bytes);
    let end = range.end.min(object_bytes);
    range.start.min(end)..end
}
