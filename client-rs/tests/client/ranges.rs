//! Many ranges in one call.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use rampuddle_client::{
    Client, Codec, Error, GetOptions, Options, Progress, PutOptions, RangeOf, Value,
};
use rampuddle_protocol::{Header, Opcode};
use tokio::sync::Semaphore;

use crate::doors::{Doors, Frame, Verdict, at_once, bytes, open};
use crate::support::{Behaviour, FakeServer};

const MIB: usize = 1 << 20;

type Objects = BTreeMap<String, Vec<u8>>;
type Found = Vec<Result<Option<Value>, Error>>;

/// Puts objects of several kinds: empty, inline, striped, compressed.
async fn objects(client: &Client, count: usize) -> Objects {
    let mut objects = Objects::new();
    for index in 0..count {
        let lengths = [0, 100, 70_000, 600_000, MIB, 5 * MIB + 3, 9 * MIB];
        let length = lengths[index % lengths.len()];
        let mut options = PutOptions::default();
        options.codec = [Codec::None, Codec::Lz4, Codec::Zstd][index % 3];
        options.metadata.insert("index".into(), index.to_string().into());
        let mut object = bytes(length, index as u64);
        // Some blocks become shorter, and some do not.
        object.chunks_mut(MIB).step_by(2).for_each(|block| block.fill(index as u8));
        let name = format!("object-{index}");
        client.put(name.as_bytes(), object.clone(), &options).await.unwrap();
        objects.insert(name, object);
    }
    objects
}

fn range(name: &str, range: Range<usize>) -> RangeOf {
    RangeOf::new(name.to_owned(), range.start as u64..range.end as u64)
}

/// Ranges at random places of random objects, a few of them long.
fn drawn(objects: &Objects, count: usize, seed: u64) -> Vec<RangeOf> {
    println!("seed {seed}");
    let draws = bytes(count * 24, seed);
    let names: Vec<&String> = objects.keys().collect();
    let draw = |draws: &[u8]| u64::from_le_bytes(draws.try_into().unwrap()) as usize;
    draws
        .chunks(24)
        .enumerate()
        .map(|(index, draws)| {
            let name = names[draw(&draws[..8]) % names.len()];
            let begin = draw(&draws[8..16]) % (objects[name].len() + 10);
            let longest = if index % 50 == 0 { 3 * MIB } else { 5_000 };
            range(name, begin..begin + draw(&draws[16..]) % longest)
        })
        .collect()
}

fn assert_right(objects: &Objects, asked: &[RangeOf], found: &Found) {
    assert_eq!(asked.len(), found.len());
    for (RangeOf { name, range }, found) in asked.iter().zip(found) {
        let name = str::from_utf8(name).unwrap();
        let object = &objects[name];
        let end = object.len().min(range.end as usize);
        let wanted = &object[end.min(range.start as usize)..end];
        let value = found.as_ref().unwrap().as_ref().unwrap();
        let report = value.report();
        assert_eq!(report.object_bytes, object.len() as u64, "{name}");
        assert_eq!(report.bytes, wanted.len() as u64, "{name} {range:?}");
        let served: u64 = report.served.iter().map(|(_, bytes)| *bytes).sum();
        // Read by themselves, they count as they came.
        assert_eq!(served > 0, report.bytes > 0, "{name} {range:?}: {:?}", report.served);
        let index = name.trim_start_matches("object-");
        assert_eq!(report.metadata["index"], *index.as_bytes());
        assert!(value.clone().into_bytes() == *wanted, "{name} {range:?}");
    }
}

/// What passed the doors since the last look.
#[derive(Default)]
struct Seen {
    /// Frames that asked for heads, and for stripes, by server.
    heads: BTreeMap<usize, usize>,
    stripes: BTreeMap<usize, usize>,
    head_rows: usize,
    stripe_rows: usize,
    others: Vec<Opcode>,
}

/// Counts frames from now on.
fn watch(doors: &Doors) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let counted = Arc::clone(&seen);
    doors.set(at_once(move |frame: &Frame| {
        let mut seen = counted.lock().unwrap();
        let (heads, stripes) = (frame.heads_asked_for(), frame.stripes_asked_for());
        if heads > 0 {
            *seen.heads.entry(frame.server).or_default() += 1;
        }
        if stripes > 0 {
            *seen.stripes.entry(frame.server).or_default() += 1;
        }
        seen.head_rows += heads;
        seen.stripe_rows += stripes;
        // A connection more may be wanted at any time.
        if heads + stripes == 0 && frame.opcode != Opcode::Hello {
            seen.others.push(frame.opcode);
        }
        Verdict::Pass
    }));
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_ranges_take_a_few_frames_and_each_block_once() {
    let doors = Doors::start(3, 256 << 20).await;
    let client = doors.client().await;
    let objects = objects(&client, 21).await;
    let asked = drawn(&objects, 1_000, 20_260_103);
    let options = GetOptions::default();
    // Hands are shaken, so that only what the call needs is counted.
    client.get(b"object-0", &options).await.unwrap();
    let seen = watch(&doors);
    let progress = Progress::new();
    let mut counted = GetOptions::default();
    counted.progress = Some(progress.clone());
    let found = client.get_ranges(&asked, &counted).await;
    doors.set(open());
    assert_right(&objects, &asked, &found);
    let lengths = found.iter().map(|found| found.as_ref().unwrap().as_ref().unwrap().len() as u64);
    let all: u64 = lengths.sum();
    assert_eq!((progress.done_bytes(), progress.total_bytes()), (all, Some(all)));

    let mut blocks = BTreeSet::new();
    for RangeOf { name, range } in &asked {
        let length = objects[str::from_utf8(name).unwrap()].len();
        let range = (range.start as usize).min(length)..(range.end as usize).min(length);
        if length > MIB && !range.is_empty() {
            blocks.extend((range.start / MIB..range.end.div_ceil(MIB)).map(|block| (name, block)));
        }
    }
    let seen = seen.lock().unwrap();
    println!("{} blocks, {:?} and {:?} frames", blocks.len(), seen.heads, seen.stripes);
    assert!(blocks.len() > 30, "the draw has many blocks");
    assert_eq!(seen.stripe_rows, blocks.len(), "each block is read once");
    // Of inline objects that are longer than their share the rest is asked for.
    assert!(seen.heads.values().all(|frames| *frames <= 3), "{:?}", seen.heads);
    let frames: usize = seen.stripes.values().sum();
    assert!(frames <= blocks.len().div_ceil(4) + 2 * 3, "{frames} for {} blocks", blocks.len());
    assert_eq!(seen.others, [], "nothing is held, nothing is looked at twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_heads_of_a_thousand_objects_are_one_frame_for_each_server() {
    let doors = Doors::start(3, 256 << 20).await;
    let client = doors.client().await;
    let mut objects = Objects::new();
    for index in 0..1_000 {
        let name = format!("object-{index}");
        let mut options = PutOptions::default();
        options.metadata.insert("index".into(), index.to_string().into());
        let object = bytes(300 + index, index as u64);
        client.put(name.as_bytes(), object.clone(), &options).await.unwrap();
        objects.insert(name, object);
    }
    let asked: Vec<RangeOf> =
        objects.iter().map(|(name, object)| range(name, 5..object.len() - 5)).collect();
    let seen = watch(&doors);
    let found = client.get_ranges(&asked, &GetOptions::default()).await;
    assert_right(&objects, &asked, &found);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.heads, BTreeMap::from([(0, 1), (1, 1), (2, 1)]));
    assert_eq!((seen.head_rows, seen.stripe_rows), (1_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_in_the_order_asked_whatever_is_asked() {
    let doors = Doors::start(3, 128 << 20).await;
    let client = doors.client().await;
    let objects = objects(&client, 14).await;
    let nothing = client.get_ranges(&[], &GetOptions::default()).await;
    assert!(nothing.is_empty());
    let long = "object-5";
    let length = objects[long].len();
    let asked = [
        range(long, 0..length),
        range(long, 7..MIB + 7),
        range(long, 7..MIB + 7),
        range(long, MIB - 1..MIB + 1),
        range(long, MIB + 9..MIB + 9),
        range(long, length - 1..length + 500),
        range(long, length..length + 5),
        range(long, length + 1..usize::MAX),
        range("object-0", 0..5),
        range("object-1", 0..usize::MAX),
        range("object-4", MIB - 1..MIB),
        range("object-1", 99..100),
        range(long, 0..1),
    ];
    let found = client.get_ranges(&asked, &GetOptions::default()).await;
    assert_right(&objects, &asked, &found);

    let mut asked = asked.to_vec();
    asked.insert(1, range("nobody", 0..5));
    asked.insert(3, RangeOf::new("", 0..5));
    asked.insert(5, RangeOf::new(vec![b'n'; 901], 0..5));
    asked.push(range("nobody", 9..10));
    let backwards = Range { start: 50, end: 20 };
    asked.push(range("object-1", backwards));
    let mut found = client.get_ranges(&asked, &GetOptions::default()).await;
    let reversed = found.pop().unwrap().unwrap().unwrap();
    assert!(reversed.is_empty());
    for (at, error) in [(16, false), (5, true), (3, true), (1, false)] {
        asked.remove(at);
        match found.remove(at) {
            Err(Error::BadName { .. }) => assert!(error),
            Ok(None) => assert!(!error),
            other => panic!("{at}: {other:?}"),
        }
    }
    asked.pop();
    assert_right(&objects, &asked, &found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_nothing_or_no_block_costs_no_range() {
    let doors = Doors::start(3, 256 << 20).await;
    let writer = doors.client().await;
    let objects = objects(&writer, 14).await;
    let asked = drawn(&objects, 300, 20_260_104);
    for only_blocks in [false, true] {
        for victim in 0..3 {
            let client = doors.client().await;
            doors.set(at_once(move |frame| {
                let is_cut = frame.server == victim && (!only_blocks || frame.asks_for_a_stripe());
                if is_cut { Verdict::Cut } else { Verdict::Pass }
            }));
            let mut asked = asked.clone();
            asked.push(range("nobody", 0..5));
            let mut found = client.get_ranges(&asked, &GetOptions::default()).await;
            asked.pop();
            match found.pop().unwrap() {
                // A server that may have it gives no word.
                Err(Error::Unknown { .. }) => assert!(!only_blocks),
                Ok(None) => assert!(only_blocks),
                other => panic!("{other:?}"),
            }
            assert_right(&objects, &asked, &found);
            doors.set(open());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_between_its_head_and_its_blocks_is_read_anew() {
    let doors = Doors::start(3, 256 << 20).await;
    let (client, other) = (doors.client().await, doors.client().await);
    let mut options = PutOptions::default();
    options.metadata.insert("index".into(), "1".into());
    let kept = bytes(6 * MIB, 7);
    other.put(b"1", kept.clone(), &options).await.unwrap();
    for new_length in [8 * MIB, 50] {
        other.put(b"object-1", bytes(9 * MIB, 1), &options).await.unwrap();
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        doors.set({
            let (came, may_go) = (Arc::clone(&came), Arc::clone(&may_go));
            Arc::new(move |frame: Frame| {
                let (came, may_go) = (Arc::clone(&came), Arc::clone(&may_go));
                Box::pin(async move {
                    if frame.asks_for_a_stripe() {
                        came.add_permits(1);
                        let _ = may_go.acquire().await;
                    }
                    Verdict::Pass
                })
            })
        });
        let asked = [
            range("object-1", 0..10),
            range("object-1", 5 * MIB..7 * MIB),
            range("1", 3 * MIB..4 * MIB),
            range("object-1", 8 * MIB - 1..9 * MIB),
        ];
        let reading = tokio::spawn({
            let (client, asked) = (client.clone(), asked.clone());
            async move { client.get_ranges(&asked, &GetOptions::default()).await }
        });
        came.acquire().await.unwrap().forget();
        let new = bytes(new_length, 2);
        other.put(b"object-1", new.clone(), &options).await.unwrap();
        may_go.close();
        let found = reading.await.unwrap();
        let objects = [("object-1".to_owned(), new), ("1".to_owned(), kept.clone())].into();
        assert_right(&objects, &asked, &found);
        doors.set(open());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_are_wrong_on_one_server_come_from_another() {
    let servers = [FakeServer::start("a").await, FakeServer::start("b").await];
    let url = format!("static:{},{}", servers[0].entry(), servers[1].entry());
    let client = Client::connect(Options::new(url)).await.unwrap();
    let objects = objects(&client, 14).await;
    let asked = drawn(&objects, 200, 20_260_105);
    for (wrong, right) in [(0, 1), (1, 0)] {
        let mangle: crate::support::Mangle = Arc::new(move |_, mut answer| {
            let header = Header::parse(&answer).unwrap();
            if header.opcode == Opcode::Gather as u8 && header.payload_bytes > 0 {
                let last = answer.len() - 1;
                answer[header.head_bytes()] ^= 1;
                answer[last] ^= 1;
            }
            Some(answer)
        });
        servers[wrong].behave(Behaviour { mangle: Some(mangle), ..Behaviour::default() });
        servers[right].behave(Behaviour::default());
        let found = client.get_ranges(&asked, &GetOptions::default()).await;
        assert_right(&objects, &asked, &found);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_objects_than_one_look_takes_and_more_bytes_than_are_on_their_way_at_once() {
    let doors = Doors::start(2, 384 << 20).await;
    let client = doors.client().await;
    let mut objects = Objects::new();
    let mut put = async |index: usize, length: usize| {
        let name = format!("object-{index}");
        let mut options = PutOptions::default();
        options.replicas = Some(1);
        options.metadata.insert("index".into(), index.to_string().into());
        let object = bytes(length, index as u64);
        client.put(name.as_bytes(), object.clone(), &options).await.unwrap();
        objects.insert(name, object);
    };
    for index in 0..1_100 {
        put(index, 10).await;
    }
    // Inline objects that are longer than their share of the first look.
    for index in 1_100..1_150 {
        put(index, 900_000).await;
    }
    for index in 1_150..1_154 {
        put(index, 24 * MIB).await;
    }
    // One that is read by itself.
    put(1_154, 65 * MIB).await;
    let asked: Vec<RangeOf> =
        objects.iter().map(|(name, object)| range(name, 1..object.len() - 1)).collect();
    let found = client.get_ranges(&asked, &GetOptions::default()).await;
    assert_right(&objects, &asked, &found);
}
