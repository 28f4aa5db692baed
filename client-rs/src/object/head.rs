//! Finding an object's head: Found, Absent or Unknown.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::limits::{MIB, NAME_BYTES_MAX};
use rampuddle_protocol::{RowFlags, Status, Version};

use super::codec::{Codec, unpack};
use super::copies::meet;
use super::format::{INLINE_BYTES_MAX, Seed, Tag, head_key};
use super::hedge::first_good;
use super::life::Life;
use super::operation::Operation;
use super::ranks::{Places, prefer, why_young};
use super::read::stored_bytes;
use super::report::ObjectStat;
use super::sections::Sections;
use super::variable::{BlockEntry, Variable};
use crate::error::Error;
use crate::raw::{Answer, GatherItem, Landing, RawClient};
use crate::view::View;

/// Bytes of a head asked for at once: all of an inline object, or the block
/// table of one of up to 128 GiB.
pub(super) const FIRST_BYTES: u64 = MIB;

const _: () = assert!(FIRST_BYTES >= INLINE_BYTES_MAX);
/// Times that a head which is replaced while it is read is read from its start.
const READS_MAX: usize = 4;

/// A head as one server gave it, checked.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) key: Bytes,
    pub(super) tag: Tag,
    /// Whether that server may not evict it.
    pub(super) keep: bool,
    /// The server that gave it.
    pub(super) server: Arc<str>,
    /// Inline: the object's bytes, when they were asked for, as they are without a
    /// codec. None when they went to the reader's memory.
    pub(super) inline: Bytes,
    /// Inline: its bytes went there.
    pub(super) has_landed: bool,
    /// Striped: the block table, when it was asked for.
    pub(super) table: Vec<BlockEntry>,
    /// What it says besides, when it was asked for.
    pub(super) sections: Sections,
}

/// How much of a head is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The tag, and of an object that ends the sections.
    Tag,
    /// The tag and, when it says that there are any, the sections.
    Described,
    /// All of it: inline bytes, block table, sections.
    All,
}

/// How whoever reads an object wants the bytes of an inline one.
#[derive(Debug)]
pub(super) struct Wanted<'b> {
    /// Compared with their checksum.
    pub(super) verify: bool,
    /// In this memory, if there is room for all and they need not be unpacked.
    pub(super) into: Option<&'b mut [u8]>,
}

impl Wanted<'_> {
    /// Compared, in memory of their own.
    pub(super) fn usual() -> Self {
        Self { verify: true, into: None }
    }
}

/// What one server said about a head.
pub(super) enum Said {
    Has(Box<Head>),
    /// It has none; it remembers a delete of this version (none = no delete), or
    /// has a head of it that is over.
    HasNot(Version),
    /// It gave no answer that counts.
    Nothing(Problem),
}

/// Why an answer does not count.
#[derive(Debug)]
pub(super) enum Problem {
    /// There was none, or a refusal.
    Failed(Error),
    /// It makes no sense.
    Damaged(String),
    /// The head was replaced or deleted while it was read.
    Changed,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(formatter),
            Self::Damaged(problem) => formatter.write_str(problem),
            Self::Changed => formatter.write_str("the head was replaced again and again"),
        }
    }
}

/// The name of an object, checked.
pub(super) fn check_name(name: &[u8]) -> Result<Bytes, Error> {
    let bytes = name.len();
    if (1..=NAME_BYTES_MAX).contains(&bytes) {
        Ok(head_key(name))
    } else {
        Err(Error::BadName { bytes })
    }
}

impl Head {
    /// All that is known of the object; its sections must have been asked for.
    pub(super) fn stat(&self) -> ObjectStat {
        let of_tag = stat_of(&self.key[1..], &self.tag, self.keep);
        let stored_bytes = of_tag.stored_bytes.unwrap_or_else(|| stored_bytes(&self.table));
        let metadata = Some(self.sections.metadata.clone());
        let expires_unix_ms = self.life().ends_ms;
        ObjectStat { stored_bytes: Some(stored_bytes), metadata, expires_unix_ms, ..of_tag }
    }

    /// To when the object lives, by the sections, which must have been asked for.
    pub(super) fn life(&self) -> Life {
        Life { ends_ms: self.sections.expires_ms }
    }
}

/// What a tag says of an object.
pub(super) fn stat_of(name: &[u8], tag: &Tag, keep: bool) -> ObjectStat {
    let stored_bytes = match tag.codec {
        Codec::None => Some(tag.object_bytes),
        // The block table has the lengths of stripes.
        _ => tag.is_inline().then(|| tag.inline_bytes()),
    };
    ObjectStat {
        name: name.to_vec(),
        bytes: tag.object_bytes,
        version: tag.version,
        replicas: tag.replicas,
        stripes: tag.stripes(),
        stripe_bytes: tag.stripe_bytes.into(),
        upload: tag.upload,
        keep,
        codec: tag.codec,
        stored_bytes,
        metadata: None,
        expires_unix_ms: None,
    }
}

/// Looks an object up. `None` = Absent, which every server that may have it has
/// confirmed; [`Error::Unknown`] when one could not.
pub(super) async fn find(
    operation: &Operation,
    key: &Bytes,
    part: Part,
) -> Result<Option<Head>, Error> {
    find_wanted(operation, key, part, &mut Wanted::usual()).await
}

/// As [`find`], for whoever reads all of an inline object. When other servers must
/// be asked, too, its bytes come in memory of their own.
pub(super) async fn find_wanted(
    operation: &Operation,
    key: &Bytes,
    part: Part,
    wanted: &mut Wanted<'_>,
) -> Result<Option<Head>, Error> {
    let view = operation.views.current();
    let (places, first) = first_owners(operation, &view, key);
    let mut first = first.into_iter();
    let (first, second) = (first.next(), first.next());
    let Some(first) = first else {
        return Err(Error::NoServers { cluster: view.settings().cluster.as_str().into() });
    };
    // An owner by the object's own number of copies is enough; what a stand-in
    // has may be old.
    let is_owner = |head: &Head| places.owners(head.tag.replicas).contains(&head.server);
    let asked = ask_wanted(operation, key, &first, part, wanted);
    let second = || second.as_ref().map(|server| ask(operation, key, server, part));
    let is_good = |said: &Said| matches!(said, Said::Has(head) if is_owner(head));
    match first_good(operation, &first, asked, second, is_good).await {
        Said::Has(head) if is_owner(&head) => Ok(Some(*head)),
        said => {
            if matches!(said, Said::Nothing(_)) {
                operation.servers.access().counters.failed_over();
            }
            find_everywhere(operation, &view, key, part, Some((first, said))).await
        }
    }
}

/// The servers that may have a head, and those to ask first, in that order: the
/// owners by the client's own number of copies.
pub(super) fn first_owners(
    operation: &Operation,
    view: &View,
    key: &Bytes,
) -> (Places, Vec<Arc<str>>) {
    let places = Places::of(view, key);
    let first = places.all().len().min(operation.replicas_in(view).into());
    let mut first = places.all()[..first].to_vec();
    prefer(operation, &mut first);
    (places, first)
}

/// Asks every server that may have the head, and takes the greatest.
pub(super) async fn find_greatest(
    operation: &Operation,
    key: &Bytes,
    part: Part,
) -> Result<Option<Head>, Error> {
    let view = operation.views.current();
    find_everywhere(operation, &view, key, part, None).await
}

/// Whether a later head, or a later delete, is known somewhere.
pub(super) async fn is_overtaken(operation: &Operation, key: &Bytes, version: Version) -> bool {
    let said = ask_all(operation, &operation.views.current(), key, Part::Tag, None).await;
    said.iter().any(|said| match said {
        Said::Has(head) => head.tag.version > version,
        Said::HasNot(deleted) => *deleted > version,
        Said::Nothing(_) => false,
    })
}

/// What every server that may have the head says of it; `asked` did already.
async fn ask_all(
    operation: &Operation,
    view: &View,
    key: &Bytes,
    part: Part,
    asked: Option<(Arc<str>, Said)>,
) -> Vec<Said> {
    let places = Places::of(view, key);
    let is_new = |name: &&Arc<str>| asked.as_ref().is_none_or(|(asked, _)| asked != *name);
    let rest = places.all().iter().filter(is_new);
    let mut said = join_all(rest.map(|server| ask(operation, key, server, part))).await;
    said.extend(asked.map(|(_, said)| said));
    said
}

/// What each of these servers says of the head.
pub(super) async fn ask_each(
    operation: &Operation,
    key: &Bytes,
    servers: &[Arc<str>],
    part: Part,
) -> Vec<(Arc<str>, Said)> {
    let each = servers
        .iter()
        .map(|server| async move { (Arc::clone(server), ask(operation, key, server, part).await) });
    join_all(each).await
}

async fn find_everywhere(
    operation: &Operation,
    view: &View,
    key: &Bytes,
    part: Part,
    asked: Option<(Arc<str>, Said)>,
) -> Result<Option<Head>, Error> {
    let (mut greatest, mut deleted, mut silent) = (None::<Box<Head>>, Version::NONE, Vec::new());
    for one in ask_all(operation, view, key, part, asked).await {
        match one {
            Said::Has(head) => {
                let is_greater =
                    greatest.as_ref().is_none_or(|best| head.tag.version > best.tag.version);
                if is_greater {
                    greatest = Some(head);
                }
            }
            Said::HasNot(version) => deleted = deleted.max(version),
            Said::Nothing(problem) => silent.push(problem),
        }
    }
    // A delete that is greater than what was found hides it.
    if let Some(head) = greatest.filter(|head| head.tag.version > deleted) {
        return Ok(Some(*head));
    }
    // A server that refuses this client says more than others that are silent.
    let failures = silent.iter().filter_map(|problem| match problem {
        Problem::Failed(error) => Some(error),
        Problem::Damaged(_) | Problem::Changed => None,
    });
    if let Some(refusal) = Error::refusal_among(failures) {
        return Err(refusal.clone());
    }
    let mut problems: Vec<String> = silent.iter().map(ToString::to_string).collect();
    if view.is_young(operation.clocks().now_ms()) {
        problems.push(why_young(view).to_owned());
    }
    if problems.is_empty() {
        return Ok(None);
    }
    Err(Error::Unknown { name: key[1..].into(), problems })
}

/// What one server says of a head.
pub(super) async fn ask(operation: &Operation, key: &Bytes, server: &Arc<str>, part: Part) -> Said {
    ask_wanted(operation, key, server, part, &mut Wanted::usual()).await
}

async fn ask_wanted(
    operation: &Operation,
    key: &Bytes,
    server: &Arc<str>,
    part: Part,
    wanted: &mut Wanted<'_>,
) -> Said {
    for _ in 0..READS_MAX {
        match ask_for(operation, key, server, part, wanted).await {
            Ok(said) => return said,
            Err(Problem::Changed) => {}
            Err(problem) => return Said::Nothing(problem),
        }
    }
    Said::Nothing(Problem::Changed)
}

async fn ask_for(
    operation: &Operation,
    key: &Bytes,
    server: &Arc<str>,
    part: Part,
    reader: &mut Wanted<'_>,
) -> Result<Said, Problem> {
    let raw = operation.raw();
    let length = if part == Part::All { FIRST_BYTES } else { 0 };
    let item = item_of(key, 0, length, Version::NONE);
    let landing = |bytes| Landing { bytes, share: Some(Tag::plain_inline_bytes) };
    let landing = reader.into.as_deref_mut().map(landing);
    let answer = raw.gather_one(server, &item, landing).await?;
    match answer.status {
        Status::Ok => {}
        Status::NotFound => return Ok(Said::HasNot(answer.version)),
        status => return Err(Error::refused(server, "a look at a head", status).into()),
    }
    let mut head = Head::begin(operation, key, server, &answer)?;
    let tag = head.tag;
    let (inline, variable) = (tag.inline_bytes(), u64::from(tag.variable_bytes));
    let landed = answer.length - answer.bytes.len() as u64;
    let wanted = match part {
        Part::All => landed..inline + variable,
        // Whether it is over stands there, too.
        Part::Tag if tag.ends => inline..inline + variable,
        Part::Described if has_more_to_say(&tag) => inline..inline + variable,
        Part::Described | Part::Tag => inline..inline,
    };
    let is_nothing = wanted.is_empty();
    let bytes = read_on(&raw, server, key, &tag, wanted, answer.bytes).await?;
    let broken = |why: &str| {
        operation.servers.access().counters.found_damaged();
        damaged(server, why)
    };
    let filled = match (part, &reader.into) {
        (Part::All, Some(into)) if landed > 0 => {
            head.land(&into[..landed as usize], &bytes, reader.verify)
        }
        (Part::All, _) => head.fill(bytes, reader.verify),
        _ if is_nothing => Ok(()),
        _ => head.describe(&bytes),
    };
    filled.map_err(broken)?;
    // Over, though the server has it still: as good as deleted. Of that no clock
    // decides that was compared with one server alone.
    if head.life().is_over(operation.clocks().now_ms()) {
        meet(operation, Places::of(&operation.views.current(), key).all()).await;
        if head.life().is_over(operation.clocks().now_ms()) {
            return Ok(Said::HasNot(tag.version));
        }
    }
    head.unpack_inline(operation).await.map_err(broken)?;
    Ok(Said::Has(Box::new(head)))
}

/// Whether the variable part describes more of the object than its tag does.
fn has_more_to_say(tag: &Tag) -> bool {
    tag.has_sections() || tag.codec != Codec::None
}

fn damaged(server: &Arc<str>, why: &str) -> Problem {
    Problem::Damaged(format!("the head on server \"{server}\" is damaged: {why}"))
}

impl Head {
    /// What the tag of an answer says.
    pub(super) fn begin(
        operation: &Operation,
        key: &Bytes,
        server: &Arc<str>,
        answer: &Answer,
    ) -> Result<Self, Problem> {
        operation.clocks().observe(answer.version);
        let tag = Tag::decode(key, &answer.tag).map_err(|why| damaged(server, why))?;
        if tag.version != answer.version {
            return Err(damaged(server, "its version is not that of its tag"));
        }
        Ok(Self {
            key: key.clone(),
            tag,
            keep: answer.flags.has(RowFlags::KEEP),
            server: Arc::clone(server),
            inline: Bytes::new(),
            has_landed: false,
            table: Vec::new(),
            sections: Sections::default(),
        })
    }

    /// Takes all bytes of the head, and compares them with their checksums; those of
    /// an inline object only when told so.
    pub(super) fn fill(&mut self, mut bytes: Bytes, verify: bool) -> Result<(), &'static str> {
        if (bytes.len() as u64) < self.tag.inline_bytes() {
            return Err("it is shorter than the object");
        }
        let variable = bytes.split_off(self.tag.inline_bytes() as usize);
        if self.tag.has_table() {
            self.describe(&variable)?;
        }
        if self.tag.is_inline() {
            self.check_inline(&bytes, verify)?;
            self.inline = bytes;
        }
        Ok(())
    }

    /// The same of a head whose inline bytes are where the reader wants them.
    fn land(&mut self, inline: &[u8], variable: &[u8], verify: bool) -> Result<(), &'static str> {
        if inline.len() as u64 != self.tag.inline_bytes() {
            return Err("it is not as long as the object");
        }
        if self.tag.has_table() {
            self.describe(variable)?;
        }
        self.has_landed = true;
        self.check_inline(inline, verify)
    }

    /// Takes the stored bytes of an inline object, and compares them with their
    /// checksum if that is wanted. The variable part must have been taken before.
    pub(super) fn take_inline(&mut self, bytes: Vec<u8>, verify: bool) -> Result<(), &'static str> {
        self.check_inline(&bytes, verify)?;
        self.inline = bytes.into();
        Ok(())
    }

    /// Takes the bytes of the variable part.
    pub(super) fn describe(&mut self, variable: &[u8]) -> Result<(), &'static str> {
        let Variable { table, sections } = Variable::decode(&self.tag, variable)?;
        (self.table, self.sections) = (table, sections);
        Ok(())
    }

    /// Brings the bytes of an inline object into their own form again.
    pub(super) async fn unpack_inline(
        &mut self,
        operation: &Operation,
    ) -> Result<(), &'static str> {
        let Tag { codec, object_bytes, .. } = self.tag;
        if self.inline.is_empty() || self.table.iter().all(|block| block.is_plain) {
            return Ok(());
        }
        let (table, stored) = (self.table.clone(), std::mem::take(&mut self.inline));
        let work = move || unpack(codec, &table, &stored, object_bytes);
        let unpacked = operation.workers.run(work).await.ok().and_then(Result::ok);
        self.inline = unpacked.ok_or("its bytes cannot be decompressed")?.into();
        Ok(())
    }

    /// Compares the bytes of an inline object with their checksum.
    fn check_inline(&self, bytes: &[u8], verify: bool) -> Result<(), &'static str> {
        if !verify || self.is_right_inline([bytes]) {
            Ok(())
        } else {
            Err("its bytes do not have their checksum")
        }
    }

    /// Whether these, piece by piece, are the stored bytes of an inline object.
    pub(super) fn is_right_inline<'b>(&self, bytes: impl IntoIterator<Item = &'b [u8]>) -> bool {
        let crc = match self.table.first() {
            Some(entry) => entry.crc32c,
            None if !self.tag.has_table() => self.tag.crc32c,
            // An empty object has no block, and what follows has its own checksum.
            None => return true,
        };
        let mut checksum = Seed::new(self.tag.upload, 0, 0).begin();
        bytes.into_iter().for_each(|bytes| checksum.update(bytes));
        checksum.value() == crc
    }
}

/// The `wanted` bytes of a head, of which `first` are the first, or more than
/// that. Fewer when the value is shorter.
async fn read_on(
    raw: &RawClient,
    server: &Arc<str>,
    key: &Bytes,
    tag: &Tag,
    wanted: Range<u64>,
    first: Bytes,
) -> Result<Bytes, Problem> {
    let all = wanted.end - wanted.start;
    if first.len() as u64 >= all {
        return Ok(first.slice(..all as usize));
    }
    let mut bytes = first.to_vec();
    while (bytes.len() as u64) < all {
        let offset = bytes.len() as u64;
        let length = (all - offset).min(4 * MIB);
        let answer = gather(raw, server, key, wanted.start + offset, length, tag.version).await?;
        match answer.status {
            Status::Ok => {}
            Status::Mismatch | Status::NotFound => return Err(Problem::Changed),
            status => return Err(Error::refused(server, "the rest of a head", status).into()),
        }
        if answer.bytes.is_empty() {
            break;
        }
        let problem = |_| Problem::Damaged(format!("there is no memory for a head of {all} bytes"));
        bytes.try_reserve(answer.bytes.len()).map_err(problem)?;
        bytes.extend_from_slice(&answer.bytes);
    }
    Ok(bytes.into())
}

async fn gather(
    raw: &RawClient,
    server: &Arc<str>,
    key: &Bytes,
    offset: u64,
    length: u64,
    if_version: Version,
) -> Result<Answer, Error> {
    raw.gather_one(server, &item_of(key, offset, length, if_version), None).await
}

fn item_of(key: &Bytes, offset: u64, length: u64, if_version: Version) -> GatherItem {
    let mut item = GatherItem::new(key.clone(), offset, length);
    item.flags = RowFlags::FILLED | RowFlags::TAG;
    item.if_version = if_version;
    item
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::crc32c;

    use super::*;
    use crate::client::Client;
    use crate::object::GetOptions;
    use crate::object::codec::pack;
    use crate::options::Options;
    use crate::raw::{CreateItem, Target};
    use crate::support::FakeServer;

    /// What a later version may say of an object.
    const LATER: &[u8] = b"\x77\0\0\0\x05\0\0\0later";

    /// Puts an inline object with a variable part, and reads it.
    async fn read_with_variable(object: &[u8], table: &[u8], more: &[u8]) -> Result<Bytes, Error> {
        let variable = [table, more].concat();
        let tag = Tag {
            replicas: 1,
            codec: Codec::None,
            stripe_bytes: 0,
            object_bytes: object.len() as u64,
            upload: UPLOAD,
            version: Version { time: 5 << 16, writer: 9 },
            variable_bytes: variable.len() as u32,
            crc32c: crc32c(&variable),
            inline_stored_bytes: 0,
            ends: false,
        };
        read_made(tag, [object, &variable].concat()).await
    }

    const UPLOAD: rampuddle_protocol::SetId = rampuddle_protocol::SetId([7; 16]);

    /// Puts a head with a tag and a value as they are given, and reads it.
    async fn read_made(tag: Tag, value: Vec<u8>) -> Result<Bytes, Error> {
        let server = FakeServer::start("a").await;
        let client = Client::connect(Options::new(format!("static:{}", server.entry())));
        let client = client.await.unwrap();
        let key = head_key(b"o");
        let mut item = CreateItem::new(key.clone(), value);
        item.tag = Bytes::copy_from_slice(&tag.encode(&key));
        item.version = tag.version;
        let raw = Operation::begin(client.core()).raw();
        let made = raw.create(&Target::server("a"), vec![item]).await.remove(0);
        assert_eq!(made.unwrap().status, Status::Ok);
        let value = client.get(b"o", &GetOptions::default()).await?;
        Ok(value.unwrap().into_bytes())
    }

    #[tokio::test]
    async fn inline_bytes_that_do_not_decompress_to_their_length_are_no_object() {
        for codec in [Codec::Lz4, Codec::Zstd] {
            let object = Bytes::from(vec![7; 5_000]);
            let packed = pack(codec, UPLOAD, 0, object.clone());
            // The longest form that a codec may have, and bytes that are none.
            let seed = Seed::new(UPLOAD, 0, 0);
            let garbage = vec![0xEE; packed.bytes.len()];
            let wrong = BlockEntry::compressed(&seed, garbage.len() as u64, crc32c(&garbage));
            let cases = [
                (&packed.bytes[..], packed.entries[0], 5_000, ""),
                (&packed.bytes[..], packed.entries[0], 4_999, "cannot be decompressed"),
                (&packed.bytes[..], packed.entries[0], 5_001, "cannot be decompressed"),
                (&packed.bytes[..], packed.entries[0], 1 << 20, "cannot be decompressed"),
                (&packed.bytes[..], packed.entries[0], 5, "lengths contradict"),
                (&garbage[..], wrong, 5_000, "cannot be decompressed"),
                (&garbage[..], packed.entries[0], 5_000, "do not have their checksum"),
            ];
            for (stored, entry, object_bytes, problem) in cases {
                let variable = Variable::encode(&[entry], b"");
                let tag = Tag {
                    replicas: 1,
                    codec,
                    stripe_bytes: 0,
                    object_bytes,
                    upload: UPLOAD,
                    version: Version { time: 5 << 16, writer: 9 },
                    variable_bytes: variable.len() as u32,
                    crc32c: crc32c(&variable),
                    inline_stored_bytes: stored.len() as u32,
                    ends: false,
                };
                match read_made(tag, [stored, &variable].concat()).await {
                    Ok(bytes) => assert!(problem.is_empty() && bytes == object),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(!problem.is_empty() && error.contains(problem), "{error}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn an_empty_object_may_have_a_variable_part() {
        assert_eq!(read_with_variable(b"", b"", LATER).await.unwrap(), Bytes::new());
    }

    #[tokio::test]
    async fn a_variable_part_behind_the_longest_inline_object_is_read_too() {
        let object = vec![3; INLINE_BYTES_MAX as usize];
        let seed = Seed::new(UPLOAD, 0, 0);
        let entry = BlockEntry::plain(&seed, INLINE_BYTES_MAX, crc32c(&object));
        let table = Variable::encode(&[entry], b"");
        let found = read_with_variable(&object, &table, LATER).await.unwrap();
        assert!(found == object);
        let mut wrong = object.clone();
        wrong[0] ^= 1;
        assert!(read_with_variable(&wrong, &table, LATER).await.is_err());
    }
}
