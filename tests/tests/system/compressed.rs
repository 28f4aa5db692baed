//! Compressed objects, metadata, and many ranges in one call, over clusters of
//! real processes.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::{fs, io};

use rampuddle_client::{
    Client, Codec, Error, GetOptions, PutOptions, PutReport, RangeOf, Source, Value,
};
use rampuddle_harness::{Cluster, ClusterOptions, Counts, Pattern, Seeded, puddle_binary};
use rustix::process::{Signal, kill_process};
use tokio::io::AsyncWrite;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const STRIPE: u64 = 4 * MIB;
const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];
/// What the bytes of objects are.
const KINDS: [&str; 4] = ["zeros", "text", "noise", "mixed"];

/// An object's bytes: zeros, words in an order that is drawn, noise, or a MiB of
/// each in turn.
fn object(kind: &str, salt: u64, length: u64) -> Vec<u8> {
    let mut bytes = Pattern(salt).bytes(0, length);
    match kind {
        "zeros" => bytes.fill(0),
        "text" => make_text(&mut bytes),
        "mixed" => {
            for (index, block) in bytes.chunks_mut(MIB as usize).enumerate() {
                match index % 3 {
                    0 => make_text(block),
                    1 => {}
                    _ => block.fill(0),
                }
            }
        }
        _ => {}
    }
    bytes
}

fn make_text(bytes: &mut [u8]) {
    const WORDS: [&[u8; 8]; 4] = [b"puddles ", b"stripes ", b"servers ", b"objects "];
    for word in bytes.chunks_mut(8) {
        let length = word.len();
        word.copy_from_slice(&WORDS[usize::from(word[0] % 4)][..length]);
    }
}

fn put(
    cluster: &Cluster,
    client: &Client,
    name: &str,
    source: impl Into<Source>,
    codec: Codec,
) -> PutReport {
    let mut options = PutOptions::default();
    options.codec = codec;
    let put = client.put(name.as_bytes(), source, &options);
    let report = cluster.runtime().block_on(put).expect("the object is written");
    assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
    report
}

fn get(cluster: &Cluster, client: &Client, name: &str) -> Vec<u8> {
    let options = GetOptions::default();
    let value = cluster.runtime().block_on(client.get(name.as_bytes(), &options));
    value.unwrap().expect("the object is there").into_bytes().to_vec()
}

fn get_ranges(
    cluster: &Cluster,
    client: &Client,
    asked: &[RangeOf],
) -> Vec<Result<Option<Value>, Error>> {
    cluster.runtime().block_on(client.get_ranges(asked, &GetOptions::default()))
}

/// Ranges of an object that are drawn, and those at its ends.
fn ranges(random: &mut Seeded, name: &str, length: u64, count: usize) -> Vec<RangeOf> {
    let of = |range| RangeOf::new(name.to_owned(), range);
    let mut ranges = vec![of(0..1), of(0..0), of(length..length + 1), of(0..u64::MAX)];
    ranges.push(of(length.saturating_sub(1)..length));
    for _ in 0..count {
        let start = random.below(length + 1);
        ranges.push(of(start..start + random.below(length - start + 1)));
    }
    ranges
}

fn assert_ranges(object: &[u8], asked: &[RangeOf], found: Vec<Result<Option<Value>, Error>>) {
    for (RangeOf { range, .. }, found) in asked.iter().zip(found) {
        let end = (object.len() as u64).min(range.end);
        let wanted = &object[range.start.min(end) as usize..end as usize];
        let value = found.unwrap().expect("the object is there");
        assert!(value.into_bytes() == wanted, "{range:?}");
    }
}

#[test]
fn compressed_objects_of_every_boundary_length_come_back_from_memory_and_from_a_pipe() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 96, ..ClusterOptions::default() });
    let client = cluster.client();
    let mut counts = Counts::new("compressed objects of boundary lengths");
    let mut random = Seeded::from_environment("ranges of compressed objects");
    let mut lengths = vec![0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1];
    for boundary in [MIB, STRIPE] {
        lengths.extend([boundary - 1, boundary, boundary + 1]);
    }
    for length in lengths {
        for (kind, codec) in KINDS.iter().flat_map(|kind| CODECS.map(|codec| (*kind, codec))) {
            let bytes = object(kind, length, length);
            let case = format!("{length} bytes of {kind} by {codec}");
            let report = put(&cluster, &client, "memory", bytes.clone(), codec);
            let is_shorter = report.stored_bytes < length;
            assert_eq!(is_shorter, length > 1 && kind != "noise", "{case}: {report:?}");
            assert_eq!(report.codec, if is_shorter { codec } else { Codec::None }, "{case}");
            assert!(get(&cluster, &client, "memory") == bytes, "{case} from memory");
            let reader = Source::reader(Cursor::new(bytes.clone()));
            let piped = put(&cluster, &client, "pipe", reader, codec);
            assert_eq!((piped.stored_bytes, piped.codec), (report.stored_bytes, report.codec));
            assert!(get(&cluster, &client, "pipe") == bytes, "{case} from a pipe");
            let asked = ranges(&mut random, "pipe", length, 5);
            assert_ranges(&bytes, &asked, get_ranges(&cluster, &client, &asked));
            for RangeOf { range, .. } in &asked {
                let options = GetOptions::default();
                let one = client.get_range(b"pipe", range.clone(), &options);
                let one = vec![cluster.runtime().block_on(one)];
                assert_ranges(&bytes, &[RangeOf::new("pipe", range.clone())], one);
            }
            counts.one("objects");
            counts.add(if is_shorter { "compressed" } else { "plain" }, 1);
        }
    }
    assert_eq!(counts.of("objects"), 11 * 4 * 2);
    assert!(counts.of("compressed") > 50 && counts.of("plain") > 20);
}

/// Takes all bytes, and calls back once when so many are in.
struct Collecting<F: FnMut() + Unpin> {
    bytes: Vec<u8>,
    call_at: usize,
    call: Option<F>,
}

impl<F: FnMut() + Unpin> AsyncWrite for Collecting<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= self.call_at {
            self.call.take().into_iter().for_each(|mut call| call());
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_compressed_object_survives_a_server_that_is_killed_in_the_middle_of_a_read() {
    let mut counts = Counts::new("compressed reads beside a kill");
    let length = 96 * MIB + 12_345;
    for (victim, codec) in (0..3).zip([Codec::Lz4, Codec::Zstd, Codec::Lz4]) {
        let mut cluster =
            Cluster::with(&ClusterOptions { pool_mib: 128, ..ClusterOptions::default() });
        let client = cluster.client();
        let bytes = object("mixed", 7, length);
        let report = put(&cluster, &client, "o", bytes.clone(), codec);
        assert!(report.stored_bytes < length * 2 / 3, "{report:?}");
        let pid = cluster.servers()[victim].pid();
        let call = Some(move || kill_process(pid, Signal::KILL).unwrap());
        let call_at = length as usize / 4;
        let mut writer = Collecting { bytes: Vec::new(), call_at, call };
        let options = GetOptions::default();
        let read = client.get_to(b"o", &mut writer, None, &options);
        cluster.runtime().block_on(read).unwrap().expect("the object is there");
        assert!(writer.call.is_none() && writer.bytes == bytes, "{codec}");
        cluster.kill(victim);
        // Also by a client that does not know yet that it is dead.
        let mut random = Seeded::from_environment("many ranges beside a kill");
        for client in [client, cluster.client()] {
            let asked = ranges(&mut random, "o", length, 10);
            assert_ranges(&bytes, &asked, get_ranges(&cluster, &client, &asked));
            counts.add("ranges", asked.len() as u64);
        }
        counts.one("kills");
    }
    assert_eq!((counts.of("kills"), counts.of("ranges")), (3, 90));
}

#[test]
fn many_ranges_are_right_while_their_objects_are_replaced() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 128, ..ClusterOptions::default() });
    let client = cluster.client();
    let (length, versions) = (6 * MIB, 30);
    let names: Vec<String> = (0..4).map(|index| format!("o{index}")).collect();
    // The salt of a version is in its metadata.
    let write = |client: &Client, name: &str, salt: u64| {
        let mut options = PutOptions::default();
        options.codec = [Codec::None, Codec::Lz4, Codec::Zstd][salt as usize % 3];
        options.metadata.insert("salt".into(), salt.to_string().into());
        let (client, name) = (client.clone(), name.to_owned());
        async move {
            let bytes = object("mixed", salt, length);
            client.put(name.as_bytes(), bytes, &options).await.map(drop)
        }
    };
    for name in &names {
        cluster.runtime().block_on(write(&client, name, 0)).unwrap();
    }
    let writer = cluster.client();
    let writing = {
        let puts: Vec<_> = (1..=versions)
            .map(|salt| write(&writer, &names[salt as usize % names.len()], salt))
            .collect();
        cluster.runtime().spawn(async move {
            for put in puts {
                put.await.expect("an object is replaced");
            }
        })
    };
    let mut counts = Counts::new("ranges beside replacing");
    let mut random = Seeded::from_environment("ranges beside replacing");
    let mut versions_seen = BTreeMap::new();
    while !writing.is_finished() || counts.of("ranges") < 500 {
        let mut asked: Vec<RangeOf> =
            names.iter().flat_map(|name| ranges(&mut random, name, length, 20)).collect();
        asked.retain(|asked| asked.range.end < MIB * 64);
        for (asked, found) in asked.iter().zip(get_ranges(&cluster, &client, &asked)) {
            let value = found.unwrap().expect("it is there at all times");
            let salt = str::from_utf8(&value.metadata()["salt"]).unwrap().parse().unwrap();
            // Its bytes are those of the version that it says it is.
            let end = asked.range.end.min(length) as usize;
            let start = (asked.range.start as usize).min(end);
            let whole = versions_seen.entry(salt).or_insert_with(|| object("mixed", salt, length));
            assert!(value.into_bytes() == whole[start..end], "{asked:?}");
            counts.one("ranges");
        }
    }
    cluster.runtime().block_on(writing).unwrap();
    assert!(versions_seen.len() > names.len(), "some were replaced while they were read");
}

fn puddle(cluster: &Cluster, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(puddle_binary());
    command.env("PUDDLE_DISCOVERY", cluster.discovery()).env("PUDDLE_CLUSTER", cluster.name());
    let ran = command.args(arguments).output().expect("the binary runs");
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

#[test]
fn metadata_and_codec_that_the_command_line_gave_are_what_everybody_sees() {
    let cluster = Cluster::with(&ClusterOptions { pool_mib: 96, ..ClusterOptions::default() });
    let client = cluster.client();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("file");
    for length in [0, 100, MIB, STRIPE + 1] {
        let bytes = object("text", 3, length);
        fs::write(&path, &bytes).unwrap();
        let path = path.to_str().unwrap();
        let put = ["put", path, "o", "--compress", "zstd", "--meta", "origin=a=b", "--meta", "e="];
        puddle(&cluster, &put);
        let stat: serde_json::Value =
            serde_json::from_slice(&puddle(&cluster, &["stat", "o", "--json"])).unwrap();
        assert_eq!(stat["metadata"], serde_json::json!({"e": "", "origin": "a=b"}));
        let codec = if length > 0 { "zstd" } else { "none" };
        assert_eq!((&stat["codec"], &stat["bytes"]), (&codec.into(), &length.into()));
        assert!(stat["stored_bytes"].as_u64().unwrap() <= length * 15 / 16, "{stat}");
        assert!(puddle(&cluster, &["get", "o", "-"]) == bytes);
        let options = GetOptions::default();
        let value = cluster.runtime().block_on(client.get(b"o", &options)).unwrap().unwrap();
        assert_eq!((value.metadata().len(), &value.metadata()["origin"][..]), (2, &b"a=b"[..]));
    }
}
