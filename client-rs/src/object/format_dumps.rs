//! `docs/object-format.md` says what the code does: its dumps are decoded,
//! compared with what is written here, encoded again and compared byte by byte;
//! its layouts and numbers are compared with the code.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::sync::OnceLock;

use rampuddle_protocol::limits::{HEAD_LEASE_MS, NAME_BYTES_MAX, UPLOAD_LEASE_MS};
use rampuddle_protocol::{Field, SetId, Version, crc32c};

use super::codec::{Codec, unpack};
use super::format::{
    BLOCK_BYTES, HEAD_KIND, INLINE_BYTES_MAX, STRIPE_KIND, Seed, Tag, head_key, stripe_key,
    stripe_version,
};
use super::life::{TTL_SECONDS_MAX, TTL_SECONDS_MIN};
use super::sections::{
    METADATA_BYTES_MAX, METADATA_NAME_BYTES_MAX, SECTION_CRC32C, SECTION_EXPIRY, SECTION_METADATA,
    SECTION_MUST_BE_KNOWN, Sections,
};
use super::variable::{BlockEntry, Variable};
use crate::placement::Slot;

const UPLOAD: SetId = SetId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const VERSION: Version =
    Version { time: (1_767_225_600_000 << 16) + 3, writer: 0x1122_3344_5566_7788 };
const STRIPE_BYTES: u64 = 4 << 20;
const STRIPED_BYTES: u64 = STRIPE_BYTES + 5;

/// The dumps, each with the layout that its fields follow.
const DUMPS: [(&str, &str); 15] = [
    ("compressed-head", ""),
    ("compressed-table", ""),
    ("compressed-tag", "`Tag`, 64 bytes"),
    ("empty-tag", "`Tag`, 64 bytes"),
    ("expiring-tag", "`Tag`, 64 bytes"),
    ("expiring-variable", ""),
    ("head-key", ""),
    ("inline-tag", "`Tag`, 64 bytes"),
    ("sections", ""),
    ("seed", "`Seed`, 32 bytes"),
    ("stripe-key", "Stripe key, 25 bytes"),
    ("stripe-version", ""),
    ("striped-table", "`BlockEntry`, 8 bytes"),
    ("striped-tag", "`Tag`, 64 bytes"),
    ("zstd-block", ""),
];

/// Where a field lies, and its name.
type Place = (Range<usize>, String);

/// A dump of the document.
#[derive(Debug, Default)]
struct Dump {
    bytes: Vec<u8>,
    fields: Vec<Place>,
}

fn document() -> &'static str {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/object-format.md");
        fs::read_to_string(path).expect("the repository has docs/object-format.md")
    })
}

/// The lines of a chapter, without its heading.
fn chapter(heading: &str) -> impl Iterator<Item = &'static str> + use<> {
    let mut lines = document().lines();
    let found = lines.any(|line| line.strip_prefix("### ") == Some(heading));
    assert!(found, "docs/object-format.md has no chapter \"{heading}\"");
    lines.take_while(|line| !line.starts_with('#'))
}

fn parse(name: &str) -> Dump {
    let mut dump = Dump::default();
    let lines = chapter(&format!("Dump `{name}`")).skip_while(|line| !line.starts_with("```"));
    for line in lines.skip(1).take_while(|line| !line.starts_with("```")) {
        let (hex, comment) = line.split_once('#').expect("a line says what its bytes are");
        let begin = dump.bytes.len();
        let byte = |digits| u8::from_str_radix(digits, 16).expect("two digits of hex");
        dump.bytes.extend(hex.split_whitespace().map(byte));
        let mut words = comment.split_whitespace();
        assert_eq!(words.next(), Some(&*begin.to_string()), "offset in {name}: {line}");
        let field = words.next().expect("a field has a name").to_owned();
        dump.fields.push((begin..dump.bytes.len(), field));
    }
    assert!(!dump.bytes.is_empty(), "docs/object-format.md has no bytes of \"{name}\"");
    dump
}

/// The bytes of a dump.
fn bytes_of(name: &str) -> Vec<u8> {
    parse(name).bytes
}

/// The cells of the first table in a chapter, without backticks; its header is
/// left out.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let lines = chapter(heading).skip_while(|line| !line.starts_with('|'));
    let lines = lines.take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>()
    };
    lines.skip(2).map(cells).collect()
}

fn layout(heading: &str) -> Vec<Place> {
    let place = |cells: Vec<String>| {
        let [begin, bytes] = [0, 1].map(|cell| cells[cell].parse::<usize>().expect("a number"));
        (begin..begin + bytes, cells[2].clone())
    };
    rows(heading).into_iter().map(place).collect()
}

/// Byte number i is i mod 251.
fn pattern() -> Vec<u8> {
    (0..STRIPED_BYTES).map(|index| (index % 251) as u8).collect()
}

fn blocks_of_pattern() -> Vec<BlockEntry> {
    let (bytes, mut entries) = (pattern(), Vec::new());
    for (stripe, stripe_bytes) in bytes.chunks(STRIPE_BYTES as usize).enumerate() {
        for (index, block) in stripe_bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            let seed = Seed::new(UPLOAD, stripe as u64, index as u64);
            entries.push(BlockEntry::plain(&seed, block.len() as u64, crc32c(block)));
        }
    }
    entries
}

/// Compares a dump with a tag, both ways.
fn assert_tag(name: &str, object: &[u8], expected: Tag) {
    let (bytes, key) = (bytes_of(name), head_key(object));
    assert_eq!(Tag::decode(&key, &bytes), Ok(expected), "{name}");
    assert_eq!(expected.encode(&key)[..], bytes, "{name}");
}

fn inline_tag(bytes: &[u8]) -> Tag {
    let length = bytes.len() as u64;
    Tag {
        replicas: 2,
        codec: Codec::None,
        stripe_bytes: 0,
        object_bytes: length,
        upload: UPLOAD,
        version: VERSION,
        variable_bytes: 0,
        crc32c: Seed::new(UPLOAD, 0, 0).apply(crc32c(bytes), length),
        inline_stored_bytes: 0,
        ends: false,
    }
}

fn striped_tag() -> Tag {
    Tag {
        replicas: 2,
        codec: Codec::None,
        stripe_bytes: STRIPE_BYTES as u32,
        object_bytes: STRIPED_BYTES,
        upload: UPLOAD,
        version: VERSION,
        variable_bytes: 40,
        crc32c: 0xb81d_f123,
        inline_stored_bytes: 0,
        ends: false,
    }
}

#[test]
fn every_dump_is_in_the_document_and_tested() {
    let headings = document().lines().filter_map(|line| line.strip_prefix("### Dump `"));
    let mut found: Vec<&str> = headings.map(|heading| heading.trim_end_matches('`')).collect();
    found.sort_unstable();
    assert_eq!(found, DUMPS.map(|(name, _)| name));
    for (name, _) in DUMPS {
        parse(name);
    }
}

#[test]
fn dumps_follow_the_layouts_of_the_document() {
    for (name, heading) in DUMPS.iter().filter(|(_, heading)| !heading.is_empty()) {
        let layout = layout(heading);
        let mut end = 0;
        for (place, field) in &layout {
            assert_eq!(place.start, end, "{field} of {heading}");
            end = place.end;
        }
        let length = format!("{end} bytes");
        assert!(heading.ends_with(&length), "{heading}: its fields have {length}");
        let dump = parse(name);
        assert_eq!(dump.bytes.len() % end, 0, "{name}");
        for (index, (place, field)) in dump.fields.iter().enumerate() {
            let (expected, name_expected) = &layout[index % layout.len()];
            let base = index / layout.len() * end;
            let expected = base + expected.start..base + expected.end;
            assert_eq!((place, field), (&expected, name_expected), "{name}");
        }
    }
    assert_eq!((Tag::BYTES, BlockEntry::BYTES), (64, 8));
}

#[test]
fn numbers_of_the_document_are_the_codes() {
    let constants = BTreeMap::from([
        ("HEAD_KIND", HEAD_KIND.into()),
        ("STRIPE_KIND", STRIPE_KIND.into()),
        ("BLOCK_BYTES", BLOCK_BYTES),
        ("INLINE_BYTES_MAX", INLINE_BYTES_MAX),
        ("NAME_BYTES_MAX", NAME_BYTES_MAX as u64),
        ("SECTION_METADATA", SECTION_METADATA.into()),
        ("SECTION_EXPIRY", SECTION_EXPIRY.into()),
        ("SECTION_CRC32C", SECTION_CRC32C.into()),
        ("SECTION_MUST_BE_KNOWN", SECTION_MUST_BE_KNOWN.into()),
        ("METADATA_BYTES_MAX", METADATA_BYTES_MAX),
        ("METADATA_NAME_BYTES_MAX", METADATA_NAME_BYTES_MAX as u64),
        ("UPLOAD_LEASE_MS", UPLOAD_LEASE_MS),
        ("HEAD_LEASE_MS", HEAD_LEASE_MS),
        ("TTL_SECONDS_MIN", TTL_SECONDS_MIN),
        ("TTL_SECONDS_MAX", TTL_SECONDS_MAX),
    ]);
    let rows = rows("Numbers of the format");
    let written: BTreeMap<&str, u64> = rows
        .iter()
        .map(|cells| (&*cells[0], cells[1].replace(',', "").parse().expect("a number")))
        .collect();
    assert_eq!(written, constants);
}

#[test]
fn keys_versions_and_seeds_are_those_of_the_dumps() {
    let head = head_key(b"model.safetensors");
    assert_eq!(head[..], bytes_of("head-key"));
    assert_eq!(Slot::of(&head, 0), Slot(51_911));
    let stripe = stripe_key(UPLOAD, 1);
    assert_eq!(stripe[..], bytes_of("stripe-key"));
    assert_eq!(Slot::of(&stripe, 0), Slot(45_272));
    let version = bytes_of("stripe-version");
    assert_eq!(Version::take(&version), stripe_version(UPLOAD));
    let mut encoded = [0; 16];
    stripe_version(UPLOAD).put(&mut encoded);
    assert_eq!(encoded[..], version);
    let seed = Seed::new(UPLOAD, 1, 0);
    assert_eq!(seed.begin().value(), crc32c(&bytes_of("seed")));
    assert_eq!(seed.apply(crc32c(b""), 0), crc32c(&bytes_of("seed")));
}

#[test]
fn the_tag_of_an_empty_object_is_that_of_the_dump() {
    let tag = inline_tag(b"");
    assert_eq!(tag.crc32c, 0xa3a2_b9cf);
    assert!(tag.is_inline());
    assert_eq!((tag.stripes(), tag.blocks()), (0, 0));
    assert_tag("empty-tag", b"empty", tag);
}

#[test]
fn the_tag_of_an_inline_object_is_that_of_the_dump() {
    let tag = inline_tag(b"hello");
    assert_eq!(tag.crc32c, 0x7cd0_cb84);
    assert!(tag.is_inline());
    assert_eq!((tag.stripes(), tag.blocks()), (0, 1));
    assert_tag("inline-tag", b"greeting", tag);
}

#[test]
fn the_tag_of_a_striped_object_is_that_of_the_dump() {
    let tag = striped_tag();
    assert!(!tag.is_inline());
    assert_eq!((tag.stripes(), tag.blocks()), (2, 5));
    assert_tag("striped-tag", b"model.safetensors", tag);
}

#[test]
fn the_block_table_of_a_striped_object_is_that_of_the_dump() {
    let bytes = bytes_of("striped-table");
    assert_eq!(crc32c(&bytes), striped_tag().crc32c);
    let Variable { table: entries, sections } = Variable::decode(&striped_tag(), &bytes).unwrap();
    assert_eq!(sections, Sections::default());
    let crcs = [0xe501_71b4, 0x7157_12e1, 0x7968_b157, 0x162d_3d07, 0xdbce_0acb];
    let lengths = [1 << 20, 1 << 20, 1 << 20, 1 << 20, 5];
    let pinned = lengths.into_iter().zip(crcs);
    let pinned =
        pinned.map(|(stored_bytes, crc32c)| BlockEntry { stored_bytes, is_plain: true, crc32c });
    assert_eq!(entries, pinned.collect::<Vec<_>>());
    assert_eq!(entries, blocks_of_pattern());
    assert_eq!(Variable::encode(&entries, b""), bytes);
}

/// The object `letters`.
const LETTERS: [u8; 1_000] = [b'a'; 1_000];

fn compressed_tag() -> Tag {
    Tag {
        replicas: 2,
        codec: Codec::Lz4,
        stripe_bytes: 0,
        object_bytes: 1_000,
        upload: UPLOAD,
        version: VERSION,
        variable_bytes: 20,
        crc32c: crc32c(&bytes_of("compressed-head")[14..]),
        inline_stored_bytes: 14,
        ends: false,
    }
}

#[test]
fn the_head_of_a_compressed_object_is_that_of_the_dump() {
    let tag = compressed_tag();
    assert_tag("compressed-tag", b"letters", tag);
    assert_eq!((tag.inline_bytes(), tag.has_table()), (14, true));
    let head = bytes_of("compressed-head");
    let (block, variable) = head.split_at(14);
    let read = Variable::decode(&tag, variable).unwrap();
    let entry = BlockEntry::compressed(&Seed::new(UPLOAD, 0, 0), 14, crc32c(block));
    assert_eq!(read.table, [entry]);
    assert_eq!(read.sections.crc32c, Some(crc32c(&LETTERS)));
    assert_eq!(Variable::encode(&read.table, &read.sections.encode()), variable);
    assert_eq!(unpack(Codec::Lz4, &read.table, block, 1_000).unwrap(), LETTERS);
    let block = bytes_of("zstd-block");
    let entry = BlockEntry::compressed(&Seed::new(UPLOAD, 0, 0), block.len() as u64, 0);
    assert_eq!(unpack(Codec::Zstd, &[entry], &block, 1_000).unwrap(), LETTERS);
}

#[test]
fn the_table_of_compressed_and_plain_blocks_is_that_of_the_dump() {
    let zeros = vec![0; BLOCK_BYTES as usize];
    let runs = vec![0xFF; 4_111];
    let block = [b"\x1f\0\x01\0", &runs[..], b"\xf6\x50\0\0\0\0\0"].concat();
    let entries = [
        BlockEntry::compressed(&Seed::new(UPLOAD, 0, 0), block.len() as u64, crc32c(&block)),
        BlockEntry::plain(&Seed::new(UPLOAD, 1, 0), 5, crc32c(b"hello")),
    ];
    assert_eq!(unpack(Codec::Lz4, &entries[..1], &block, BLOCK_BYTES).unwrap(), zeros);
    let crc32c = Some(crc32c(&[&zeros[..], b"hello"].concat()));
    let sections = Sections { crc32c, ..Sections::default() };
    let bytes = bytes_of("compressed-table");
    assert_eq!(Variable::encode(&entries, &sections.encode()), bytes);
    let tag = Tag {
        stripe_bytes: 1 << 20,
        object_bytes: BLOCK_BYTES + 5,
        variable_bytes: bytes.len() as u32,
        crc32c: rampuddle_protocol::crc32c(&bytes),
        inline_stored_bytes: 0,
        ends: false,
        ..compressed_tag()
    };
    let read = Variable::decode(&tag, &bytes).unwrap();
    assert_eq!(read, Variable { table: entries.to_vec(), sections });
}

#[test]
fn the_numbers_of_the_codecs_are_the_documents() {
    let rows = rows("Codecs");
    for (row, codec) in rows.iter().zip([Codec::None, Codec::Lz4, Codec::Zstd]) {
        assert_eq!((&*row[0], &*row[1]), (&*codec.to_string(), &*codec.number().to_string()));
    }
    assert_eq!((rows.len(), Codec::from_number(3)), (3, None));
}

/// Changes a byte of a dump and puts the checksum right.
fn with_byte(name: &str, key: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = bytes_of(name);
    bytes[at] = byte;
    let crc = crc32c(&[key, &bytes[..60]].concat());
    crc.put(&mut bytes[60..]);
    bytes
}

#[test]
fn formats_and_codecs_that_are_not_known_are_refused_in_the_documents_words() {
    let key = head_key(b"greeting");
    for (at, byte) in [(0, 0), (0, 2), (2, 3)] {
        let refusal = Tag::decode(&key, &with_byte("inline-tag", &key, at, byte)).unwrap_err();
        assert_eq!(refusal, "it is of a format or codec that this client does not know");
        assert!(document().contains(refusal));
    }
    let mut table = bytes_of("striped-table");
    table[3] &= 0x7f;
    let tag = Tag { crc32c: crc32c(&table), ..striped_tag() };
    let refusal = Variable::decode(&tag, &table).unwrap_err();
    assert_eq!(refusal, "it has compressed blocks, and no codec");
    assert!(document().contains(refusal));
}

#[test]
fn what_later_versions_may_add_is_skipped() {
    let key = head_key(b"greeting");
    for (at, byte) in [(3, 0x81), (3, 0xfd), (56, 1)] {
        let bytes = with_byte("inline-tag", &key, at, byte);
        assert_eq!(Tag::decode(&key, &bytes), Ok(inline_tag(b"hello")));
    }
    let later = b"\x77\0\0\0\x04\0\0\0more";
    let longer = [bytes_of("striped-table"), later.to_vec()].concat();
    let tag = Tag { variable_bytes: 52, crc32c: crc32c(&longer), ..striped_tag() };
    let read = Variable::decode(&tag, &longer).unwrap();
    assert_eq!(read, Variable { table: blocks_of_pattern(), sections: Sections::default() });
}

#[test]
fn the_head_of_an_object_that_ends_is_that_of_the_dumps() {
    let seed = Seed::new(UPLOAD, 0, 0);
    let entry = BlockEntry::plain(&seed, 5, crc32c(b"hello"));
    let sections = Sections { expires_ms: Some(1_767_312_000_000), ..Sections::default() };
    let variable = Variable::encode(&[entry], &sections.encode());
    assert_eq!(variable, bytes_of("expiring-variable"));
    let (crc32c, variable_bytes) = (crc32c(&variable), variable.len() as u32);
    let tag = Tag { ends: true, crc32c, variable_bytes, ..inline_tag(b"hello") };
    assert_tag("expiring-tag", b"greeting", tag);
    let read = Variable::decode(&tag, &variable).unwrap();
    assert_eq!(read, Variable { table: vec![entry], sections });
}

#[test]
fn sections_are_those_of_the_dump() {
    let metadata = [("type", "text/plain"), ("ä", "1")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.into()));
    let sections = Sections {
        metadata: metadata.into(),
        expires_ms: Some(1_767_312_000_000),
        crc32c: Some(crc32c(b"hello")),
    };
    let bytes = bytes_of("sections");
    assert_eq!(Sections::decode(&bytes), Ok(sections.clone()));
    assert_eq!(sections.encode(), bytes);
}

#[test]
fn sections_that_make_no_sense_are_refused_in_the_documents_words() {
    let bytes = bytes_of("sections");
    let last = bytes.len() - 12;
    let longer = [&bytes[..last], b"\x03\0\0\0\x05\0\0\0later"].concat();
    let refusals = [
        Sections::decode(&bytes[1..]).unwrap_err(),
        Sections::decode(&[&bytes[..], &bytes[last..]].concat()).unwrap_err(),
        Sections::decode(&longer).unwrap_err(),
        Sections::decode(b"\x01\0\0\0\x01\0\0\0x").unwrap_err(),
        Sections::decode(b"\x01\x80\0\0\0\0\0\0").unwrap_err(),
    ];
    for (index, refusal) in refusals.iter().enumerate() {
        assert!(document().contains(refusal), "{refusal}");
        assert!(!refusals[..index].contains(refusal), "{refusal}");
    }
}

#[test]
fn damaged_heads_are_refused_in_the_documents_words() {
    let key = head_key(b"model.safetensors");
    let (bytes, table) = (bytes_of("striped-tag"), bytes_of("striped-table"));
    let refusal = |tag: Tag| Tag::decode(&key, &tag.encode(&key)).unwrap_err();
    let longer = Tag { object_bytes: STRIPED_BYTES + 1, ..striped_tag() };
    let refusals = [
        Tag::decode(&key, &bytes[..63]).unwrap_err(),
        Tag::decode(b"\xf8other", &bytes).unwrap_err(),
        refusal(Tag { stripe_bytes: 5 << 19, ..striped_tag() }),
        refusal(Tag { object_bytes: INLINE_BYTES_MAX + 1, ..inline_tag(b"hello") }),
        refusal(Tag { inline_stored_bytes: 1_001, ..compressed_tag() }),
        refusal(Tag { variable_bytes: 0, ..compressed_tag() }),
        refusal(Tag { variable_bytes: 39, ..striped_tag() }),
        refusal(Tag { variable_bytes: 7, ..inline_tag(b"hello") }),
        refusal(Tag { variable_bytes: (1 << 30) + 1, ..striped_tag() }),
        Variable::decode(&striped_tag(), &table[1..]).unwrap_err(),
        Variable::decode(&longer, &table).unwrap_err(),
        Variable::decode(
            &Tag { inline_stored_bytes: 15, ..compressed_tag() },
            &bytes_of("compressed-head")[14..],
        )
        .unwrap_err(),
    ];
    for refusal in refusals {
        assert!(document().contains(refusal), "{refusal}");
    }
}
