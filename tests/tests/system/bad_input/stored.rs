//! Keys that somebody chose to do harm.

use std::time::Duration;

use rampuddle_harness::{RawClient, Seeded, ServeOptions, ServerProcess, Transport, fresh_version};
use rampuddle_protocol::{CreateRow, DropRow, GatherRow, ListRow, Opcode, Outcome, Status};

use super::Room;
use crate::{assert_status, over_both};

over_both! {
    keys_of_any_bytes_are_stored_found_and_listed_as_they_are
    keys_chosen_to_collide_cost_no_more_than_others
}

/// Names that have a meaning to a terminal, a file system, a shell or a parser,
/// and every byte by itself.
fn strange_keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let texts: [&[u8]; 24] = [
        b"\0\0",
        b"a\0b",
        b"a",
        b"a\0",
        b"line\nanother\r\n",
        b"\x1b[2J\x1b]0;title\x07",
        b"../../etc/passwd",
        b"..",
        b"/",
        b"//",
        b"a/./b/../c",
        b"-rf",
        b"--",
        b"$(reboot)`reboot`;reboot|reboot",
        b"%s%n%x",
        b"{\"a\":1}",
        b"' OR 1=1 --",
        b"\xff\xfe\xfd",
        b"\xc3\x28 not utf-8",
        b"\xed\xa0\x80 half a pair",
        b"\xef\xbb\xbfmark",
        "\u{202e}gnp.exe".as_bytes(),
        "e\u{301} \u{e9} \u{1f4a7}".as_bytes(),
        b"PUDL\x01\x01\x40\0",
    ];
    keys.extend(texts.map(<[u8]>::to_vec));
    keys.extend([0, 0x20, 0xFF].map(|byte| vec![byte; 1_024]));
    keys.push([&[b'a'; 1_023][..], b"\0"].concat());
    // The same up to the length.
    keys.extend((2..=40).map(|length| vec![b'a'; length]));
    keys.sort();
    keys.dedup();
    keys
}

fn keys_of_any_bytes_are_stored_found_and_listed_as_they_are(transport: Transport) {
    let server = ServerProcess::with_pool_mib(32);
    let mut room = Room::open(server, transport, "strange keys");
    let keys = strange_keys();
    room.counts.add("keys", keys.len() as u64);
    room.survives("strange keys", 0, |door, watcher, _| {
        let mut client = RawClient::connect(door);
        let content = |key: &[u8]| [b"value of ", key].concat();
        let version = fresh_version();
        for key in &keys {
            let row = CreateRow { length: 1_100, version, ..CreateRow::default() };
            assert_status!(client.create_row(row, key, b"", &content(key)).0, Ok);
        }
        for key in &keys {
            let bytes = content(key);
            assert_eq!(watcher.gather(key, 0, bytes.len() as u64).1, bytes, "{key:?}");
            assert_status!(watcher.stat(key), Ok);
        }
        let listed = watcher.list_all(ListRow { rows_max: 7, ..ListRow::default() }, b"");
        let listed = listed.into_iter().map(|(_, key)| key);
        let ours: Vec<Vec<u8>> =
            listed.filter(|key| key != b"canary" && key != super::BYSTANDER).collect();
        assert!(ours == keys, "in bytewise order, byte for byte");
        // A prefix is bytes, too.
        let with_nul = watcher.list_all(ListRow::default(), b"a\0");
        let with_nul: Vec<Vec<u8>> = with_nul.into_iter().map(|(_, key)| key).collect();
        assert_eq!(with_nul, [&b"a\0"[..], b"a\0b"]);
        for key in &keys {
            assert_status!(watcher.drop_version(key, version), Ok);
            assert_status!(watcher.stat(key), NotFound);
        }
    });
    room.every_free_page_can_be_used(1);
}

/// How many keys of a kind there are at once.
const KEYS: u32 = 30_000;
/// Rows in a request: the longest keys must fit its table.
const BATCH: usize = 500;

/// Keys made to fall together, wherever somebody looks at a part of them only, or
/// adds parts up. How the server hashes is seeded anew at each start.
fn colliding() -> [(&'static str, Vec<Vec<u8>>); 5] {
    let numbers = || (0..KEYS).map(u32::to_be_bytes);
    let behind = |front: &[u8]| numbers().map(|number| [front, &number].concat()).collect();
    // The same two blocks of eight bytes in every order: what sums, multiplies or
    // combines blocks without regard to their place gets one number for all.
    let blocks = |number: u32| {
        let bits = (0..15).flat_map(|bit| {
            let (one, other) = (*b"one half", *b"another ");
            let pair = if number >> bit & 1 == 0 { [one, other] } else { [other, one] };
            pair.concat()
        });
        bits.collect()
    };
    [
        ("keys with one first word", behind(&[7; 16])),
        ("keys with a thousand first bytes", behind(&[7; 1_000])),
        ("keys of the same blocks", (0..KEYS).map(blocks).collect()),
        (
            "keys in order, backwards",
            numbers().rev().map(|number| [[0; 4], number].concat()).collect(),
        ),
        (
            "keys that differ in zeros at their end",
            (0..1_024)
                .map(|zeros| [&b"k"[..], &vec![0; zeros as usize]].concat())
                .filter(|key| key.len() <= 1_024)
                .collect(),
        ),
    ]
}

/// As many keys of the same lengths that nobody chose.
fn ordinary(keys: &[Vec<u8>], random: &mut Seeded) -> Vec<Vec<u8>> {
    keys.iter().map(|key| random.bytes(key.len())).collect()
}

fn keys_chosen_to_collide_cost_no_more_than_others(transport: Transport) {
    let server = ServerProcess::start(ServeOptions {
        arguments: vec!["--no-prefault".to_owned()],
        ..ServeOptions::with_pool_mib(2_048)
    });
    let mut room = Room::open(server, transport, "keys chosen to collide");
    let mut random = Seeded::from_environment("ordinary keys");
    for (name, keys) in colliding() {
        let plain = ordinary(&keys, &mut random);
        let expected = cost(&mut room, "ordinary keys of the same lengths", &plain);
        let found = cost(&mut room, name, &keys);
        println!("{name}: {found:?} of processor time, ordinary ones {expected:?}");
        assert!(
            found <= 4 * expected + Duration::from_millis(300),
            "{name} took {found:?} of processor time, ordinary ones {expected:?}"
        );
        room.counts.add("keys", 2 * keys.len() as u64);
    }
    assert!(room.counts.of("cases") == 10, "{}", room.counts);
}

/// Processor time of the server for keys that are made, listed, read and dropped.
fn cost(room: &mut Room, name: &'static str, keys: &[Vec<u8>]) -> Duration {
    let before = room.server.processor_time();
    room.survives(name, 0, |_, watcher, _| {
        let version = fresh_version();
        let create = CreateRow { version, ..CreateRow::default() };
        each_batch(watcher, Opcode::Create, create, keys);
        assert_eq!(watcher.list_all(ListRow::default(), b"").len(), keys.len() + 2);
        each_batch(watcher, Opcode::Gather, GatherRow::default(), keys);
        each_batch(watcher, Opcode::Drop, DropRow { version, ..DropRow::default() }, keys);
    });
    room.server.processor_time() - before
}

fn each_batch<R: rampuddle_protocol::Row + Copy>(
    client: &mut RawClient,
    opcode: Opcode,
    row: R,
    keys: &[Vec<u8>],
) {
    for batch in keys.chunks(BATCH) {
        let rows: Vec<(R, &[u8], &[u8])> =
            batch.iter().map(|key| (row, &key[..], &b""[..])).collect();
        let outcomes = client.ask(opcode, &rows, b"").outcomes();
        let is_ok = |outcome: &Outcome| outcome.status() == Status::Ok;
        assert!(outcomes.iter().all(is_ok), "{opcode:?}: {outcomes:?}");
    }
}
