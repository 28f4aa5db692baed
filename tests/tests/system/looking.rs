//! Stat, List, Info, Cancel.

use rampuddle_harness::{
    Frame, Pattern, RawClient, ServeOptions, ServerProcess, Transport, fresh_version,
};
use rampuddle_protocol::limits::{MIB, PAGE_BYTES};
use rampuddle_protocol::{
    CreateRow, DeleteRow, GatherRow, ListRow, Opcode, RowFlags, SetId, StatRequestRow, Status,
};

use crate::{assert_status, over_both};

over_both! {
    stat_says_what_is_known_of_each_key
    ten_thousand_keys_are_listed_in_order_page_by_page
    keys_that_come_and_go_while_listing_harm_nobody
    info_counts_what_was_done
    a_cancelled_request_is_answered_with_cancelled
    a_request_whose_deadline_is_over_is_not_begun
}

fn stat_says_what_is_known_of_each_key(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let mut client = server.client(transport);
    let (set, version) = (SetId([6; 16]), fresh_version());
    let row = CreateRow {
        length: 100_000,
        version,
        set,
        lease_ms: 60_000,
        flags: RowFlags::KEEP | RowFlags::SEALED,
        replicas: 3,
        slot: 1_234,
        placement_bytes: 2,
        tenant: 77,
        ..CreateRow::default()
    };
    assert_status!(client.create_row(row, b"key", b"a tag", b"bytes").0, Ok);
    let tombstone = fresh_version();
    assert_status!(client.delete_version(b"gone", tombstone), NotFound);
    let request = StatRequestRow::default();
    let keys: [&[u8]; 4] = [b"gone", b"key", b"absent", b""];
    let rows = keys.map(|key| (request, key, &b""[..]));
    let stats = client.ask(Opcode::Stat, &rows, b"").stats();
    let statuses: Vec<Status> = stats.iter().map(|(stat, _, _)| stat.status()).collect();
    assert_eq!(statuses, [Status::NotFound, Status::Ok, Status::NotFound, Status::BadRow]);
    for ((_, found, _), key) in stats.iter().zip(keys) {
        assert_eq!(found, key);
    }
    assert!(stats[0].0.version == tombstone && stats[0].0.flags.has(RowFlags::TOMBSTONE));
    let (stat, _, tag) = &stats[1];
    assert_eq!(tag, b"a tag");
    assert_eq!((stat.length, stat.filled, stat.version, stat.set), (100_000, 5, version, set));
    assert_eq!((stat.replicas, stat.slot, stat.placement_bytes, stat.tenant), (3, 1_234, 2, 77));
    assert_eq!(stat.flags, RowFlags::KEEP | RowFlags::SEALED);
    assert!((50_000..=60_000).contains(&stat.lease_ms) && stat.runs == 1);
    let too_many = [(request, &b"key"[..], &b""[..]); 101];
    let answer = client.ask(Opcode::Stat, &too_many, b"");
    assert_eq!((answer.status(), answer.header.rows), (Status::TooLarge, 0));
    assert_eq!(client.ask(Opcode::Stat, &too_many[..100], b"").stats().len(), 100);
}

fn key_of(number: u32) -> Vec<u8> {
    // In an order that is not that of creation.
    format!("{:02}/{:05}", number % 7, number.wrapping_mul(7_919) % 10_000).into_bytes()
}

fn create_many(client: &mut RawClient, numbers: std::ops::Range<u32>) {
    let numbers: Vec<u32> = numbers.collect();
    for numbers in numbers.chunks(1_000) {
        let keys: Vec<Vec<u8>> = numbers.iter().map(|number| key_of(*number)).collect();
        let rows: Vec<(CreateRow, &[u8], &[u8])> = keys
            .iter()
            .map(|key| {
                let version = fresh_version();
                let row = CreateRow { length: 1, value_bytes: 1, version, ..CreateRow::default() };
                (row, &key[..], &b"t"[..])
            })
            .collect();
        let answer = client.ask(Opcode::Create, &rows, &vec![1; keys.len()]);
        assert!(answer.statuses().iter().all(|status| *status == Status::Ok));
    }
}

fn ten_thousand_keys_are_listed_in_order_page_by_page(transport: Transport) {
    let server = ServerProcess::start(ServeOptions {
        arguments: vec!["--no-prefault".to_owned()],
        ..ServeOptions::with_pool_mib(640)
    });
    let mut client = server.client(transport);
    create_many(&mut client, 0..10_000);
    let mut wanted: Vec<Vec<u8>> = (0..10_000).map(key_of).collect();
    wanted.sort_unstable();
    wanted.dedup();
    assert_eq!(wanted.len(), 10_000);
    let keys = |listed: Vec<(rampuddle_protocol::StatRow, Vec<u8>)>| -> Vec<Vec<u8>> {
        listed.into_iter().map(|(_, key)| key).collect()
    };
    let row = ListRow::default();
    assert!(keys(client.list_all(row, b"")) == wanted, "all keys, in order, each once");
    let with_prefix: Vec<Vec<u8>> =
        wanted.iter().filter(|key| key.starts_with(b"03/01")).cloned().collect();
    assert!(!with_prefix.is_empty());
    assert!(keys(client.list_all(row, b"03/01")) == with_prefix);
    let small = ListRow { rows_max: 3, ..row };
    let page = client.list(small, b"03/01", b"");
    assert_eq!(page.len(), 4, "three rows, and the one that says that more follow");
    assert_eq!(page[3].0.status(), Status::Incomplete);
    assert!(keys(client.list_all(small, b"03/01")) == with_prefix);
    // A cursor need not be a key, nor have the prefix.
    assert!(client.list(row, b"03", b"04")[..].is_empty());
    assert_eq!(
        client.list(small, b"03", b"02/")[0].1,
        *wanted.iter().find(|key| key.starts_with(b"03")).unwrap()
    );
    assert!(client.list_all(row, b"no such prefix").is_empty());
    let page = client.list(ListRow { rows_max: 1, ..row }, b"", b"");
    assert_eq!((page[0].0.length, &page[0].2[..]), (PAGE_BYTES, &b"t"[..]));
    // Tombstones only when asked for.
    for key in &with_prefix {
        assert_status!(client.delete(key), Ok);
    }
    assert!(client.list_all(row, b"03/01").is_empty());
    let tombstones = client.list_all(ListRow { flags: RowFlags::TOMBSTONE, ..row }, b"03/01");
    assert!(tombstones.iter().all(|(stat, _)| stat.flags.has(RowFlags::TOMBSTONE)));
    assert!(keys(tombstones) == with_prefix);
}

fn keys_that_come_and_go_while_listing_harm_nobody(transport: Transport) {
    let server = ServerProcess::with_pool_mib(32);
    let mut client = server.client(transport);
    create_many(&mut client, 0..400);
    let stay: Vec<Vec<u8>> = (0..400).step_by(2).map(key_of).collect();
    let mut seen = Vec::new();
    let (mut cursor, mut number) = (Vec::new(), 1);
    loop {
        let page = client.list(ListRow { rows_max: 17, ..ListRow::default() }, b"", &cursor);
        let more = page.last().filter(|row| row.0.status() == Status::Incomplete).cloned();
        let rows = page.len() - usize::from(more.is_some());
        seen.extend(page[..rows].iter().map(|row| row.1.clone()));
        // The cursor's own key may be deleted meanwhile.
        for _ in 0..8 {
            if number < 400 {
                assert_status!(client.delete(&key_of(number)), Ok);
                number += 2;
            }
        }
        match more {
            Some(row) => cursor = row.1,
            None => break,
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "in order, none twice");
    assert!(stay.iter().all(|key| seen.contains(key)), "those that stayed are all there");
}

fn info_counts_what_was_done(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let start = client.info();
    assert_eq!((start.pool_bytes, start.used_bytes, start.values), (8 * MIB, 0, 0));
    let (set, lease) = (SetId([3; 16]), 50);
    let row = |set, lease_ms| CreateRow {
        version: fresh_version(),
        set,
        lease_ms,
        ..CreateRow::default()
    };
    assert_status!(client.create_row(row(set, 0), b"held", b"", b"x").0, Ok);
    assert_status!(client.create_row(row(SetId::NONE, lease), b"leased", b"", b"x").0, Ok);
    assert_status!(client.scatter(b"held", 0, b"yy"), Ok);
    assert_eq!(&client.gather(b"held", 0, 2).1, b"yy");
    assert_status!(client.hold(set), Ok);
    assert_status!(client.delete(b"held"), Ok);
    assert_status!(client.reserve(b"r", MIB, fresh_version()), Ok);
    rampuddle_harness::until("the lease to end", std::time::Duration::from_secs(10), || {
        client.info().leases_ended == 1
    });
    let info = client.info();
    assert_eq!((info.incarnation, info.store_id), (start.incarnation, start.store_id));
    assert_eq!(info.incarnation, client.server_hello().incarnation);
    assert_eq!(format!("{}", info.incarnation), server.ready()["incarnation"].as_str().unwrap());
    assert_eq!((info.used_bytes, info.superseded_bytes), (PAGE_BYTES, PAGE_BYTES));
    assert_eq!((info.reserved_bytes, info.reservations, info.holds), (MIB, 1, 1));
    assert_eq!((info.values, info.tombstones), (0, 1));
    assert_eq!((info.create_rows, info.scatter_rows), (3, 1));
    assert_eq!((info.gather_rows, info.delete_rows), (1, 1));
    assert_eq!((info.connections, info.sessions), (1, 1));
    assert!(info.received_bytes > start.received_bytes && info.sent_bytes > start.sent_bytes);
    assert!(info.uptime_ms >= start.uptime_ms && info.clock_unix_ms >= start.clock_unix_ms);
    assert_status!(client.release(set), Ok);
    assert_eq!((client.info().used_bytes, client.info().holds), (0, 0));
}

fn a_cancelled_request_is_answered_with_cancelled(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let mut client = server.client(transport);
    let bytes = Pattern(1).bytes(0, 4 * MIB);
    assert_status!(client.create(b"key", 4 * MIB, &bytes), Ok);
    let mut reader = RawClient::connect(&server.door(transport).with_small_buffer());
    let row = GatherRow { length: 4 * MIB, ..GatherRow::default() };
    let ids: Vec<u64> =
        (0..12).map(|_| reader.post(Opcode::Gather, &[(row, b"key", b"")], b"")).collect();
    rampuddle_harness::until("the gathers", std::time::Duration::from_secs(10), || {
        client.info().gather_rows >= 12
    });
    let cancels =
        [reader.post_cancel(ids[11]), reader.post_cancel(ids[5]), reader.post_cancel(999)];
    // The first has begun to leave, but is not answered in whole: too late.
    let too_late = reader.post_cancel(ids[0]);
    let (mut whole, mut cancelled, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..12 + 4 {
        let answer = reader.receive_answer();
        let id = answer.header.request_id;
        if answer.status() == Status::Cancelled {
            assert_eq!((answer.header.rows, answer.payload.len()), (0, 0));
            cancelled.push(id);
        } else if answer.header.opcode == Opcode::Cancel as u8 {
            told.push((id, answer.statuses()[0]));
        } else {
            assert!(answer.payload == bytes, "a request that was not cancelled");
            whole.push(id);
        }
    }
    cancelled.sort_unstable();
    assert_eq!(cancelled, [ids[5], ids[11]]);
    assert_eq!(whole.len(), 10);
    told.sort_unstable_by_key(|(id, _)| *id);
    let wanted = [
        (cancels[0], Status::Ok),
        (cancels[1], Status::Ok),
        (cancels[2], Status::NotFound),
        (too_late, Status::NotFound),
    ];
    assert_eq!(told, wanted);
    // No pin is left behind.
    assert_status!(client.delete(b"key"), Ok);
    assert_eq!(client.free_bytes(), 8 * MIB);
}

fn a_request_whose_deadline_is_over_is_not_begun(transport: Transport) {
    let server = ServerProcess::with_pool_mib(4);
    let (mut client, mut other) = (server.client(transport), server.client(transport));
    assert_status!(client.create(b"key", 1, b"x"), Ok);
    let row = |bytes| CreateRow {
        length: bytes,
        value_bytes: bytes,
        version: fresh_version(),
        ..CreateRow::default()
    };
    let rows: [(_, &[u8], &[u8]); 2] = [(row(4), b"first", b""), (row(4), b"second", b"")];
    let frame = Frame::new(Opcode::Create, 1, &rows, b"aaaabbbb")
        .with_header(|header| header.deadline_ms = 50);
    // The first row takes too long: the second is not begun.
    client.send(&frame.bytes[..frame.head_bytes + 2]);
    rampuddle_harness::pace(std::time::Duration::from_millis(200));
    client.send(&frame.bytes[frame.head_bytes + 2..]);
    assert_eq!(client.receive_answer().statuses(), [Status::Ok, Status::Expired]);
    assert_eq!(&other.gather(b"first", 0, 4).1, b"aaaa");
    assert_status!(other.stat(b"second"), NotFound);
    // With time enough it is.
    let delete = DeleteRow { version: fresh_version(), ..DeleteRow::default() };
    let frame = Frame::new(Opcode::Delete, 2, &[(delete, b"first", b"")], b"")
        .with_header(|header| header.deadline_ms = 60_000);
    client.send(&frame.bytes);
    assert_eq!(client.receive_answer().statuses(), [Status::Ok]);
}
