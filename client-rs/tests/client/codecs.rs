//! Compressed objects: over real servers, behind doors that cut, and over
//! servers that lie.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rampuddle_client::{Client, Codec, GetOptions, ListQuery, Options, PutOptions, Source};
use rampuddle_protocol::{Header, Opcode};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use crate::doors::{Doors, Verdict, at_once, bytes};
use crate::support::{Behaviour, FakeServer, Mangle};

const MIB: usize = 1 << 20;
const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

fn with(codec: Codec) -> PutOptions {
    let mut options = PutOptions::default();
    options.codec = codec;
    options
}

fn text(length: usize) -> Vec<u8> {
    b"one word after the other, ".iter().copied().cycle().take(length).collect()
}

/// Blocks of text and of noise in turn.
fn mixed(length: usize) -> Vec<u8> {
    let (text, noise) = (text(MIB), bytes(MIB, 9));
    [text, noise].concat().into_iter().cycle().take(length).collect()
}

async fn read(client: &Client, name: &[u8], range: Range<usize>) -> Vec<u8> {
    let range = range.start as u64..range.end as u64;
    let value = client.get_range(name, range, &GetOptions::default()).await.unwrap().unwrap();
    value.into_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_objects_of_every_boundary_length_come_back_as_they_were() {
    let doors = Doors::start(3, 128 << 20).await;
    let client = doors.client().await;
    let lengths = [0, 1, 100, 65_535, 65_536, MIB - 1, MIB, MIB + 1, 4 * MIB - 1, 4 * MIB];
    for length in lengths.into_iter().chain([4 * MIB + 1, 9 * MIB + 5]) {
        for (kind, object) in [vec![0; length], bytes(length, 5), mixed(length)].iter().enumerate()
        {
            for codec in CODECS {
                let case = format!("{codec}, kind {kind}, {length} bytes");
                let put = client.put(b"o", object.clone(), &with(codec)).await.unwrap();
                let is_shorter = put.stored_bytes < put.bytes;
                assert_eq!(is_shorter, length >= 100 && kind != 1, "{case}: {put:?}");
                assert_eq!(put.codec, if is_shorter { codec } else { Codec::None }, "{case}");
                let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
                assert!(value.into_bytes() == *object, "{case}");
                let mut buffer = vec![7; length + 1];
                let options = GetOptions::default();
                client.get_into(b"o", &mut buffer, &options).await.unwrap().unwrap();
                assert!(buffer[..length] == object[..] && buffer[length] == 7, "{case}");
                let mut streamed = Vec::new();
                client.get_to(b"o", &mut streamed, None, &options).await.unwrap().unwrap();
                assert!(streamed == *object, "{case}");
                let middle = length / 2;
                for range in [0..length.min(10), middle..middle, length.saturating_sub(3)..length] {
                    assert!(read(&client, b"o", range.clone()).await == object[range], "{case}");
                }
                let stat = client.stat(b"o").await.unwrap().unwrap();
                assert_eq!((stat.codec, stat.bytes), (put.codec, put.bytes), "{case}");
                assert_eq!(stat.stored_bytes, Some(put.stored_bytes), "{case}");
                let listed = client.list(b"").next().await.unwrap().unwrap();
                assert_eq!((listed.codec, listed.bytes), (put.codec, put.bytes), "{case}");
                let is_known = !is_shorter || stat.stripes == 0;
                assert_eq!(listed.stored_bytes, stat.stored_bytes.filter(|_| is_known), "{case}");
            }
        }
    }
}

async fn used_bytes(client: &Client) -> u64 {
    let nodes = client.nodes().await;
    nodes.iter().map(|node| node.info.as_ref().unwrap().row.used_bytes).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compressed_takes_fewer_pages_and_what_is_not_takes_no_more() {
    let doors = Doors::start(2, 64 << 20).await;
    let client = doors.client().await;
    let before = used_bytes(&client).await;
    for codec in CODECS {
        client.put(b"o", text(16 * MIB), &with(codec)).await.unwrap();
        // Two copies of a head and of four stripes, each in a page or a few.
        let used = used_bytes(&client).await - before;
        assert!(used <= 2 * 5 * (4 << 16), "{codec}: {used}");
        client.put(b"o", bytes(16 * MIB, 4), &with(codec)).await.unwrap();
        let used = used_bytes(&client).await - before;
        assert_eq!(used, 2 * (16 * MIB as u64 + (64 << 10)), "{codec}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_cut_off_half_way_is_followed_from_the_byte_reached() {
    for codec in CODECS {
        let doors = Doors::start(3, 128 << 20).await;
        let client = doors.client().await;
        let object = mixed(24 * MIB + 77);
        client.put(b"o", object.clone(), &with(codec)).await.unwrap();
        // The first server that is asked for a stripe answers nothing from then on.
        let victim = Arc::new(AtomicUsize::new(usize::MAX));
        doors.set(at_once(move |frame| {
            if frame.asks_for_a_stripe() {
                let _ = victim.compare_exchange(
                    usize::MAX,
                    frame.server,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                );
            }
            let is_cut = frame.server == victim.load(Ordering::SeqCst);
            if is_cut { Verdict::Cut } else { Verdict::Pass }
        }));
        let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
        let served = value.report().served.clone();
        assert!(value.into_bytes() == object, "{codec}");
        assert!(served.iter().filter(|(_, bytes)| *bytes > 0).count() <= 2, "{served:?}");
        assert!(read(&client, b"o", MIB - 5..9 * MIB).await == object[MIB - 5..9 * MIB]);
    }
}

/// Two servers, and a client of both.
async fn two_fakes() -> ([FakeServer; 2], Client) {
    let servers = [FakeServer::start("a").await, FakeServer::start("b").await];
    let url = format!("static:{},{}", servers[0].entry(), servers[1].entry());
    (servers, Client::connect(Options::new(url)).await.unwrap())
}

/// Replaces the payload of every answer that has more than `least` bytes of it,
/// but for so many first bytes.
fn garbled(least: u64, good: usize) -> Mangle {
    Arc::new(move |_, mut answer| {
        let header = Header::parse(&answer).unwrap();
        if header.opcode == Opcode::Gather as u8 && header.payload_bytes > least {
            let begin = header.head_bytes() + good;
            answer[begin..].fill(0xEE);
        }
        Some(answer)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_are_wrong_are_read_elsewhere_with_and_without_verifying() {
    for codec in CODECS {
        for good in [0, 1_000] {
            let (servers, client) = two_fakes().await;
            // Not so even that a block becomes a few bytes, and none stays as it is.
            let object: Vec<u8> = bytes(6 * MIB, 3).iter().map(|byte| b'a' + byte % 4).collect();
            client.put(b"o", object.clone(), &with(codec)).await.unwrap();
            let inline = object[..MIB / 2].to_vec();
            client.put(b"inline", inline.clone(), &with(codec)).await.unwrap();
            let mangle = Some(garbled(100_000, good));
            servers[1].behave(Behaviour { mangle, ..Behaviour::default() });
            for verify in [true, false] {
                let mut options = GetOptions::default();
                options.verify = verify;
                for _ in 0..4 {
                    let value = client.get(b"o", &options).await.unwrap().unwrap();
                    assert!(value.into_bytes() == object, "{codec} {verify}");
                    let mut streamed = Vec::new();
                    client.get_to(b"o", &mut streamed, None, &options).await.unwrap().unwrap();
                    assert!(streamed == object, "{codec} {verify}");
                    let value = client.get(b"inline", &options).await.unwrap().unwrap();
                    assert!(value.into_bytes() == inline, "{codec} {verify}");
                }
            }
            // Nobody has it whole: an error that says why, and no bytes.
            let mangle = Some(garbled(100_000, good));
            servers[0].behave(Behaviour { mangle, ..Behaviour::default() });
            let mut options = GetOptions::default();
            options.verify = false;
            let failed = client.get(b"o", &options).await.unwrap_err().to_string();
            assert!(failed.contains("cannot be decompressed"), "{failed}");
            options.verify = true;
            let failed = client.get(b"o", &options).await.unwrap_err().to_string();
            assert!(failed.contains("checksum"), "{failed}");
        }
    }
}

/// The keys of all stripes.
async fn stripes(client: &Client, server: &str) -> BTreeSet<Vec<u8>> {
    let page = client.raw().list(server, &ListQuery::prefix(vec![0xF9])).await.unwrap();
    page.entries.iter().map(|entry| entry.key.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_stripe_that_lost_a_copy_is_copied_again() {
    let (servers, client) = two_fakes().await;
    let third = FakeServer::start("c").await;
    let url = format!("static:{},{},{}", servers[0].entry(), servers[1].entry(), third.entry());
    let putter = Client::connect(Options::new(url)).await.unwrap();
    drop(client);
    // Told of every value that is stored.
    let stored = watch::Sender::new(0);
    for server in servers.iter().chain([&third]) {
        let stored = stored.clone();
        let mangle: Mangle = Arc::new(move |_, answer| {
            let opcode = Header::parse(&answer).unwrap().opcode;
            stored.send_modify(|stored| *stored += usize::from(opcode == Opcode::Create as u8));
            Some(answer)
        });
        server.behave(Behaviour { mangle: Some(mangle), ..Behaviour::default() });
    }
    let object = mixed(12 * MIB + 5);
    // A source that, when all but its end was taken, makes a server lose all.
    let (mut writer, reader) = tokio::io::duplex(MIB);
    let source = Source::reader(reader);
    let put = tokio::spawn({
        let putter = putter.clone();
        async move { putter.put(b"o", source, &with(Codec::Lz4)).await }
    });
    writer.write_all(&object[..12 * MIB]).await.unwrap();
    // Three stripes with two copies each are there.
    stored.subscribe().wait_for(|stored| *stored == 6).await.unwrap();
    // Each lies on one of the first two at least.
    let (mut lost, mut loser) = (stripes(&putter, "a").await, &servers[0]);
    if lost.is_empty() {
        (lost, loser) = (stripes(&putter, "b").await, &servers[1]);
    }
    assert!(!lost.is_empty());
    loser.forget_all();
    writer.write_all(&object[12 * MIB..]).await.unwrap();
    drop(writer);
    let report = put.await.unwrap().unwrap();
    assert_eq!((report.copies, report.is_short(), report.codec), (2, false, Codec::Lz4));
    let value = putter.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
    assert!(value.into_bytes() == object);
    // Every stripe has two whole copies: one server of each may go.
    let mut copies = Vec::new();
    for server in ["a", "b", "c"] {
        copies.extend(stripes(&putter, server).await);
    }
    for key in &lost {
        assert_eq!(copies.iter().filter(|copy| *copy == key).count(), 2);
    }
}
