//! Many ranges in one call, of objects that lie on this machine.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rampuddle_client::{Client, Codec, GetOptions, PutOptions, RangeOf, Value};
use rampuddle_harness::{Cluster, ClusterOptions, Counts, Pattern, Seeded, until};

use crate::objects::bytes;
use crate::same_host::{damage, info, mapped_pages};

const MIB: u64 = 1 << 20;

fn cluster(servers: usize, pool_mib: u64) -> Cluster {
    Cluster::with(&ClusterOptions { servers, pool_mib, ..ClusterOptions::default() })
}

fn put(cluster: &Cluster, client: &Client, name: &str, object: Vec<u8>, with: (u8, Codec)) {
    let mut options = PutOptions::default();
    (options.replicas, options.codec) = (Some(with.0), with.1);
    let put = client.put(name.as_bytes(), object, &options);
    assert!(!cluster.runtime().block_on(put).expect("the object is written").is_short());
}

/// Reads ranges of one object.
fn ranges(cluster: &Cluster, client: &Client, name: &str, of: &[Range<u64>]) -> Vec<Value> {
    let asked: Vec<_> =
        of.iter().map(|range| RangeOf::new(name.to_owned(), range.clone())).collect();
    let options = GetOptions::default();
    let found = cluster.runtime().block_on(client.get_ranges(&asked, &options));
    found.into_iter().map(|found| found.expect("it is read").expect("it is there")).collect()
}

fn assert_ranges(found: &[Value], of: &[Range<u64>], object: &[u8]) {
    assert_eq!(found.len(), of.len());
    for (value, range) in found.iter().zip(of) {
        let end = range.end.min(object.len() as u64) as usize;
        let wanted = &object[(range.start as usize).min(end)..end];
        assert!(value.to_vec() == wanted, "{range:?} of {} bytes", object.len());
        assert!(!value.is_mapped(), "it is memory of the reader's own");
        let served: u64 = value.report().served.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(served, wanted.len() as u64);
    }
}

/// Bytes that the servers send while a client does something.
fn sent<T>(cluster: &Cluster, client: &Client, work: impl FnOnce() -> T) -> (u64, T) {
    let all = || -> u64 { info(cluster, client).iter().map(|row| row.sent_bytes).sum() };
    let before = all();
    let done = work();
    (all() - before, done)
}

/// Ranges within, over and behind the ends of blocks and stripes.
fn many(length: u64) -> Vec<Range<u64>> {
    let begins = [0, 1, MIB - 3, 3 * MIB, 4 * MIB - 1, length / 2, length - length.min(9), length];
    let lengths = [0, 1, 4_096, MIB, 5 * MIB + 3];
    begins.iter().flat_map(|&begin| lengths.map(|length| begin..begin + length)).collect()
}

#[test]
fn ranges_are_copied_from_where_they_lie_and_nothing_stays_held() {
    let cluster = cluster(3, 128);
    let mut counts = Counts::new("ranges on the same host");
    let mut copying = cluster.client_options();
    copying.map = false;
    let copying = cluster.client_with(copying);
    for (salt, length) in [21 * MIB + 7, 4 * MIB, 2 * MIB + 1].into_iter().enumerate() {
        let (object, of) = (bytes(salt as u64, length), many(length));
        put(&cluster, &cluster.client(), "o", object.clone(), (2, Codec::None));
        let through = || ranges(&cluster, &copying, "o", &of);
        let (through_the_socket, found) = sent(&cluster, &copying, through);
        assert_ranges(&found, &of, &object);
        assert!(through_the_socket > length / 4, "{through_the_socket} bytes were sent");
        assert!(info(&cluster, &copying).iter().all(|row| row.mappings == 0), "nobody asked");
        let client = cluster.client();
        let here = || ranges(&cluster, &client, "o", &of);
        let (little, found) = sent(&cluster, &client, here);
        assert_ranges(&found, &of, &object);
        assert!(little < 64 << 10, "{little} bytes were sent");
        // Values in hand keep nothing.
        cluster.runtime().block_on(client.cleaned_up());
        assert_eq!(mapped_pages(&cluster, &client), 0, "nothing is held");
        counts.add("ranges", of.len() as u64);
        drop(client);
        until("the mappings to end", Duration::from_secs(3), || {
            info(&cluster, &copying).iter().all(|row| row.mappings == 0)
        });
    }
}

#[test]
fn ranges_that_cannot_be_copied_here_are_sent() {
    let cluster = cluster(1, 64);
    let client = cluster.client();
    // More than a quarter of the pool, and compressed blocks beside plain ones.
    let mut mixed = bytes(5, 11 * MIB + 3);
    mixed[2 * MIB as usize..6 * MIB as usize].fill(b'x');
    for (name, object, codec) in
        [("large", bytes(4, 20 * MIB), Codec::None), ("mixed", mixed, Codec::Lz4)]
    {
        put(&cluster, &client, name, object.clone(), (1, codec));
        let of = many(object.len() as u64);
        assert_ranges(&ranges(&cluster, &client, name, &of), &of, &object);
    }
    // Another reader has all that may be kept.
    put(&cluster, &client, "kept", bytes(6, 15 * MIB), (1, Codec::None));
    let other = cluster.client();
    let options = GetOptions::default();
    let view = cluster.runtime().block_on(other.get(b"kept", &options));
    assert!(view.as_ref().unwrap().as_ref().unwrap().is_mapped());
    put(&cluster, &client, "o", bytes(7, 5 * MIB), (1, Codec::None));
    let of = many(5 * MIB);
    let work = || ranges(&cluster, &client, "o", &of);
    let (through_the_socket, found) = sent(&cluster, &client, work);
    assert_ranges(&found, &of, &bytes(7, 5 * MIB));
    assert!(through_the_socket > 4 * MIB, "{through_the_socket} bytes were sent");
}

#[test]
fn a_damaged_block_here_is_read_elsewhere() {
    let cluster = cluster(2, 96);
    let client = cluster.client();
    put(&cluster, &client, "o", bytes(1, 9 * MIB), (2, Codec::None));
    let stat = cluster.runtime().block_on(client.stat(b"o")).unwrap().unwrap();
    damage(&cluster, 0, &[&[0xF9], &stat.upload.0[..], &1_u64.to_be_bytes()].concat());
    let of = many(9 * MIB);
    let before = client.metrics().checksum_failures;
    // Now the one server is looked at first, now the other.
    for _ in 0..8 {
        assert_ranges(&ranges(&cluster, &client, "o", &of), &of, &bytes(1, 9 * MIB));
    }
    assert!(client.metrics().checksum_failures > before, "the damage was seen");
}

#[test]
fn ranges_of_objects_that_are_replaced_and_deleted_meanwhile_are_of_one_version() {
    let mut seeded = Seeded::from_environment("ranges beside writers");
    let cluster = cluster(2, 160);
    let (ends, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let length = 6 * MIB + 11;
    let mut counts = Counts::new("ranges beside writers");
    std::thread::scope(|scope| {
        let (cluster, ends, written) = (&cluster, &ends, &written);
        let mut random = Seeded::new(seeded.draw());
        let writer = scope.spawn(move || {
            let client = cluster.client();
            while !ends.load(Ordering::Relaxed) {
                let salt = written.fetch_add(1, Ordering::SeqCst) + 1;
                put(cluster, &client, "o", bytes(salt, length), (1, Codec::None));
                if random.below(4) == 0 {
                    cluster.runtime().block_on(client.delete(b"o")).expect("a delete");
                }
            }
        });
        let client = cluster.client();
        let mut random = Seeded::new(seeded.draw());
        let mut done = BTreeMap::<&str, u64>::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) {
            let begin = random.below(length);
            let range = begin..(begin + 1 + random.below(2 * MIB)).min(length);
            let asked = [RangeOf::new("o", range.clone())];
            let options = GetOptions::default();
            let work = client.get_ranges(&asked, &options);
            match cluster.runtime().block_on(work).remove(0) {
                Ok(Some(value)) => {
                    let found = value.to_vec();
                    // Few bytes say which version it is, and all must be of that one.
                    let bytes = |salt, length| Pattern(salt).bytes(range.start, length);
                    let begin = (range.end - range.start).min(16);
                    let salts = 1..=written.load(Ordering::SeqCst);
                    let alike = salts.filter(|salt| bytes(*salt, begin) == found[..begin as usize]);
                    let mut all = alike.map(|salt| bytes(salt, range.end - range.start));
                    assert!(all.any(|all| all == found), "{range:?}");
                    *done.entry("read").or_default() += 1;
                }
                Ok(None) => *done.entry("not there").or_default() += 1,
                Err(error) if error.to_string().contains("replaced") => {}
                Err(error) => panic!("{error}"),
            }
        }
        ends.store(true, Ordering::Relaxed);
        writer.join().expect("a writer");
        counts.add("written", written.load(Ordering::SeqCst));
        done.into_iter().for_each(|(what, count)| counts.add(what, count));
        cluster.runtime().block_on(client.cleaned_up());
    });
    let client = cluster.client();
    until("all holds to end", Duration::from_secs(40), || mapped_pages(&cluster, &client) == 0);
    assert!(counts.of("read") > 10 && counts.of("written") > 10, "{counts}");
}
