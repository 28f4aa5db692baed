//! Comparing objects with bytes at hand, and waiting for clean-ups.

use std::io::{self, Write as _};
use std::time::Duration;

use rampuddle_client::{Client, Codec, CompareOptions, Comparison, Error, PutOptions, Source};
use rampuddle_protocol::Opcode;
use tokio::io::{AsyncRead, AsyncReadExt as _, DuplexStream};

use crate::doors::{Doors, Frame, Verdict, at_once, bytes, open};

const MIB: usize = 1 << 20;

async fn put(client: &Client, name: &str, bytes: Vec<u8>) {
    let options = PutOptions::default();
    assert!(!client.put(name.as_bytes(), bytes, &options).await.unwrap().is_short());
}

/// The outcome in one word.
async fn compared(client: &Client, name: &str, source: impl Into<Source>) -> &'static str {
    let options = CompareOptions::default();
    match client.compare(name.as_bytes(), source, &options).await.unwrap() {
        Comparison::Same(stat) => {
            assert_eq!(stat.name, name.as_bytes());
            "same"
        }
        Comparison::Thin(_) => "thin",
        Comparison::Different(_) => "different",
        Comparison::Absent => "absent",
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_object_is_the_same_as_its_own_bytes_and_no_others() {
    let doors = Doors::start(3, 96 << 20).await;
    let client = doors.client().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let lengths = [0, 1, 65_536, MIB - 1, MIB, MIB + 1, 4 * MIB, 5 * MIB + 7, 9 * MIB];
    for length in lengths {
        let object = bytes(length, 1);
        assert_eq!(compared(&client, "o", object.clone()).await, "absent");
        put(&client, "o", object.clone()).await;
        file.as_file().set_len(0).unwrap();
        let mut writer = std::fs::File::create(file.path()).unwrap();
        writer.write_all(&object).unwrap();
        assert_eq!(compared(&client, "o", Source::file(file.path())).await, "same", "{length}");
        let reader = || Source::reader(io::Cursor::new(object.clone()));
        assert_eq!(compared(&client, "o", reader()).await, "same", "{length}");
        // One byte of any block, one too many, one too few.
        for at in (0..length).step_by(MIB).chain(length.checked_sub(1)) {
            let mut other = object.clone();
            other[at] ^= 1;
            assert_eq!(compared(&client, "o", other).await, "different", "{length} at {at}");
        }
        let longer = [&object[..], b"x"].concat();
        let of_unknown_length = Source::reader(io::Cursor::new(longer.clone()));
        assert_eq!(compared(&client, "o", of_unknown_length).await, "different", "{length}");
        assert_eq!(compared(&client, "o", longer).await, "different", "{length}");
        if length > 0 {
            let shorter = || object[..length - 1].to_vec();
            assert_eq!(compared(&client, "o", shorter()).await, "different", "{length}");
            let of_unknown_length = Source::reader(io::Cursor::new(shorter()));
            assert_eq!(compared(&client, "o", of_unknown_length).await, "different", "{length}");
        }
        client.delete(b"o").await.unwrap();
    }
}

#[tokio::test]
async fn compressed_objects_and_those_with_metadata_are_compared_by_their_own_bytes() {
    let doors = Doors::start(3, 96 << 20).await;
    let client = doors.client().await;
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        for length in [0, 1, 1_000, MIB - 1, MIB, MIB + 1, 5 * MIB + 3] {
            // Blocks that become shorter, and every third one that does not.
            let mut object = vec![7; length];
            for block in object.chunks_mut(MIB).step_by(3).skip(1) {
                block.copy_from_slice(&bytes(block.len(), 9));
            }
            let mut options = PutOptions::default();
            options.codec = codec;
            options.metadata.insert("kind".to_owned(), "test".into());
            assert!(!client.put(b"o", object.clone(), &options).await.unwrap().is_short());
            assert_eq!(compared(&client, "o", object.clone()).await, "same", "{codec} {length}");
            for at in (0..length).step_by(MIB).chain(length.checked_sub(1)) {
                let mut other = object.clone();
                other[at] ^= 1;
                assert_eq!(compared(&client, "o", other).await, "different", "{codec} {length}");
            }
            let longer = Source::reader(io::Cursor::new([&object[..], b"x"].concat()));
            assert_eq!(compared(&client, "o", longer).await, "different", "{codec} {length}");
        }
    }
}

#[tokio::test]
async fn comparing_moves_no_bytes_of_the_object() {
    let doors = Doors::start(3, 96 << 20).await;
    let client = doors.client().await;
    put(&client, "inline", bytes(MIB, 1)).await;
    put(&client, "striped", bytes(8 * MIB, 1)).await;
    let sent = async || {
        let nodes = client.nodes().await;
        nodes.iter().map(|node| node.info.as_ref().unwrap().row.sent_bytes).sum::<u64>()
    };
    let before = sent().await;
    assert_eq!(compared(&client, "inline", bytes(MIB, 1)).await, "same");
    assert_eq!(compared(&client, "striped", bytes(8 * MIB, 1)).await, "same");
    let moved = sent().await - before;
    assert!(moved < 20_000, "{moved} bytes");
}

#[tokio::test]
async fn a_put_that_came_to_no_end_is_thin_until_it_is_put_again() {
    let doors = Doors::start(3, 96 << 20).await;
    let client = doors.client().await;
    // The head is visible, and nobody says that the stripes stay.
    doors.set(at_once(|frame| match frame.makes_permanent() {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let report = client.put(b"o", bytes(6 * MIB, 1), &PutOptions::default()).await.unwrap();
    assert!(report.is_short(), "{report:?}");
    doors.set(open());
    assert_eq!(compared(&client, "o", bytes(6 * MIB, 1)).await, "thin");
    assert_eq!(compared(&client, "o", bytes(6 * MIB, 2)).await, "different");
    put(&client, "o", bytes(6 * MIB, 1)).await;
    assert_eq!(compared(&client, "o", bytes(6 * MIB, 1)).await, "same");
}

#[tokio::test]
async fn a_copy_too_few_is_thin_and_a_head_that_was_overtaken_does_not_count() {
    let doors = Doors::start(3, 96 << 20).await;
    let client = doors.client().await;
    let mut options = PutOptions::default();
    options.replicas = Some(1);
    client.put(b"one", bytes(1_000, 1), &options).await.unwrap();
    assert_eq!(compared(&client, "one", bytes(1_000, 1)).await, "same", "one copy is wanted");
    // Only one server takes the head of this one.
    doors.set(at_once(|frame: &Frame| match frame.writes_a_head() && frame.server != 0 {
        true => Verdict::Cut,
        false => Verdict::Pass,
    }));
    let report = client.put(b"two", bytes(1_000, 1), &PutOptions::default()).await.unwrap();
    assert_eq!(report.copies, 1, "{report:?}");
    doors.set(open());
    assert_eq!(compared(&client, "two", bytes(1_000, 1)).await, "thin");
}

#[tokio::test]
async fn a_server_that_gives_no_answer_makes_an_object_thin_or_unknown() {
    let doors = Doors::start(2, 64 << 20).await;
    let client = doors.client().await;
    put(&client, "o", bytes(1_000, 1)).await;
    doors.set(at_once(|frame: &Frame| match frame.server {
        1 if frame.opcode != Opcode::Hello => Verdict::Cut,
        _ => Verdict::Pass,
    }));
    assert_eq!(compared(&client, "o", bytes(1_000, 1)).await, "thin");
    let unknown = client.compare(b"none", "x", &CompareOptions::default()).await;
    assert!(matches!(unknown, Err(Error::Unknown { .. })), "{unknown:?}");
}

#[tokio::test]
async fn a_source_that_fails_is_a_local_error() {
    let doors = Doors::start(2, 64 << 20).await;
    let client = doors.client().await;
    put(&client, "o", bytes(1_000, 1)).await;
    let failed = client.compare(b"o", Source::file("/nowhere"), &CompareOptions::default()).await;
    assert!(matches!(failed, Err(Error::Local { .. })), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_clean_ups_finds_the_pools_empty() {
    let doors = Doors::start(3, 96 << 20).await;
    let client = doors.client().await;
    // Nothing to wait for.
    client.cleaned_up().await;
    let in_use = async || {
        let nodes = client.nodes().await;
        let rows = nodes.iter().map(|node| node.info.as_ref().unwrap().row);
        rows.fold((0, 0), |(used, reserved), row| {
            (used + row.used_bytes, reserved + row.reserved_bytes)
        })
    };
    let (endless, _open) = without_end(40 * MIB as u64);
    let writer = client.clone();
    let put = tokio::spawn(async move {
        writer.put(b"o", Source::reader(endless), &PutOptions::default()).await
    });
    // All of it is written: nothing is on its way that could arrive later.
    while in_use().await != (2 * 40 * MIB as u64, 0) {
        tokio::task::yield_now().await;
    }
    put.abort();
    assert!(put.await.unwrap_err().is_cancelled());
    tokio::time::timeout(Duration::from_secs(10), client.cleaned_up()).await.unwrap();
    assert_eq!(in_use().await, (0, 0));
}

/// A reader of so many bytes, behind which nothing comes while the other end is
/// there.
fn without_end(length: u64) -> (impl AsyncRead + Send + Unpin + 'static, DuplexStream) {
    let (ours, other) = tokio::io::duplex(1);
    (tokio::io::repeat(7).take(length).chain(ours), other)
}
