//! A full pool: NO_SPACE, nothing lost, nothing half visible, and the last page
//! can be used, however scattered.

use rampuddle_harness::{
    Counts, Oracle, Pattern, RawClient, Seeded, ServerProcess, Transport, fresh_version,
};
use rampuddle_protocol::limits::{KIB, MIB, PAGE_BYTES};
use rampuddle_protocol::{CreateRow, Opcode, RowFlags, Status};

use crate::{assert_status, over_both};

over_both! {
    a_full_pool_says_no_space_and_loses_nothing
    one_value_takes_every_scattered_page_that_is_free
    a_fragmented_pool_is_filled_again_to_its_last_page
}

const PAGES: u32 = 256;

fn fill_with_pages(client: &mut RawClient, oracle: &mut Oracle) {
    for number in 0..PAGES {
        let (key, pattern) = (number.to_be_bytes(), Pattern(number.into()));
        assert_status!(client.create(&key, PAGE_BYTES, &pattern.bytes(0, PAGE_BYTES)), Ok);
        oracle.created(&key, PAGE_BYTES, PAGE_BYTES, pattern);
    }
    assert_eq!(client.info().used_bytes, u64::from(PAGES) * PAGE_BYTES);
}

fn a_full_pool_says_no_space_and_loses_nothing(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    let mut oracle = Oracle::new();
    fill_with_pages(&mut client, &mut oracle);
    let refused: [&[u8]; 4] = [b"one page", b"large", b"reserved", b"tiny"];
    assert_status!(
        client.create(refused[0], PAGE_BYTES, &Pattern(1).bytes(0, PAGE_BYTES)),
        NoSpace
    );
    assert_status!(client.create(refused[1], 4 * MIB, &Pattern(1).bytes(0, 4 * MIB)), NoSpace);
    assert_status!(client.reserve(refused[2], MIB, fresh_version()), NoSpace);
    assert_status!(client.create(refused[3], 1, b"x"), NoSpace);
    // A replacement needs its pages before it may displace anything.
    let replace =
        CreateRow { version: fresh_version(), flags: RowFlags::REPLACE, ..CreateRow::default() };
    assert_status!(client.create_row(replace, &0_u32.to_be_bytes(), b"", b"x").0, NoSpace);
    Oracle::check_absent(&mut client, refused);
    assert_eq!(client.info().no_space_rows, 5);
    oracle.check_all(&mut client);
    // One request whose rows fit in part: each row by itself.
    for number in 0..2_u32 {
        assert_status!(client.delete(&number.to_be_bytes()), Ok);
        oracle.removed(&number.to_be_bytes());
    }
    let row = |bytes| CreateRow {
        length: bytes,
        value_bytes: bytes,
        version: fresh_version(),
        ..CreateRow::default()
    };
    let rows: [(_, &[u8], &[u8]); 4] = [
        (row(PAGE_BYTES), b"a", b""),
        (row(2 * PAGE_BYTES), b"b", b""),
        (row(PAGE_BYTES), b"c", b""),
        (row(PAGE_BYTES), b"d", b""),
    ];
    let patterns = [(11, 1), (12, 2), (13, 1), (14, 1)];
    let payload: Vec<u8> = patterns
        .iter()
        .flat_map(|(salt, pages)| Pattern(*salt).bytes(0, pages * PAGE_BYTES))
        .collect();
    let answer = client.ask(Opcode::Create, &rows, &payload);
    assert_eq!(answer.statuses(), [Status::Ok, Status::NoSpace, Status::Ok, Status::NoSpace]);
    oracle.created(b"a", PAGE_BYTES, PAGE_BYTES, Pattern(11));
    oracle.created(b"c", PAGE_BYTES, PAGE_BYTES, Pattern(13));
    Oracle::check_absent(&mut client, [&b"b"[..], b"d"]);
    oracle.check_all(&mut client);
    assert_eq!((client.free_bytes(), client.info().reserved_bytes), (0, 0));
}

fn one_value_takes_every_scattered_page_that_is_free(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    let mut oracle = Oracle::new();
    fill_with_pages(&mut client, &mut oracle);
    for number in (0..PAGES).step_by(2) {
        assert_status!(client.delete(&number.to_be_bytes()), Ok);
        oracle.removed(&number.to_be_bytes());
    }
    let free = client.free_bytes();
    assert_eq!(free, u64::from(PAGES) / 2 * PAGE_BYTES);
    assert_status!(client.reserve(b"too large", free + 1, fresh_version()), NoSpace);
    assert_status!(client.upload(b"scattered", free, Pattern(77)), Ok);
    oracle.created(b"scattered", free, free, Pattern(77));
    assert_eq!(client.free_bytes(), 0);
    assert!(client.stat(b"scattered").runs > 100, "every second page is a run of its own");
    oracle.check_all(&mut client);
    // Reads and writes across the runs.
    for offset in [65_535, 65_536, 1_000_001, free - 70_000] {
        let (_, bytes) = client.gather(b"scattered", offset, 200_000);
        oracle.check(b"scattered", offset, &bytes);
        let pattern = Pattern(offset);
        let outcome = client.scatter(b"scattered", offset, &pattern.bytes(0, 150_000));
        oracle.scattered(b"scattered", offset, outcome.length, pattern);
    }
    oracle.check_all(&mut client);
}

fn a_fragmented_pool_is_filled_again_to_its_last_page(transport: Transport) {
    let server = ServerProcess::with_pool_mib(16);
    let mut client = server.client(transport);
    let mut random = Seeded::from_environment("fragmenting");
    let mut counts = Counts::new("fragmenting");
    let mut oracle = Oracle::new();
    let pool = client.info().pool_bytes;
    let mut used = 0;
    let mut next = 0_u64;
    for _ in 0..12 {
        // Fill: values of random size, then ones of whatever is left.
        while used < pool {
            let length = (1 + random.below(700 * KIB)).min(pool - used);
            let key = next.to_be_bytes();
            let outcome = client.create(&key, length, &Pattern(next).bytes(0, length));
            assert_status!(outcome, Ok);
            oracle.created_value(&key, length, length, Pattern(next));
            used += length.next_multiple_of(PAGE_BYTES).min(pool - used);
            next += 1;
            counts.one("created");
            let info = client.info();
            assert_eq!(info.used_bytes, used);
            assert_eq!((info.reserved_bytes, info.values), (0, oracle.len() as u64));
        }
        assert_status!(client.create(b"one more", 1, b"x"), NoSpace);
        counts.one("filled to the last page");
        counts.add("bytes compared", oracle.check_all(&mut client));
        let mut keys: Vec<Vec<u8>> = oracle.keys().map(<[u8]>::to_vec).collect();
        random.shuffle(&mut keys);
        for key in &keys[..keys.len() / 2] {
            used -= (oracle.bytes(key).len() as u64).next_multiple_of(PAGE_BYTES);
            assert_status!(client.delete(key), Ok);
            oracle.removed(key);
            counts.one("deleted");
            assert_eq!(client.info().used_bytes, used);
        }
        // All the holes at once as one value, then that is gone too.
        let free = pool - used;
        assert_status!(client.upload(b"all holes", free, Pattern(next)), Ok);
        oracle.created(b"all holes", free, free, Pattern(next));
        assert_eq!(client.free_bytes(), 0);
        oracle.check_all(&mut client);
        assert_status!(client.delete(b"all holes"), Ok);
        oracle.removed(b"all holes");
    }
    assert_eq!(counts.of("filled to the last page"), 12);
}
