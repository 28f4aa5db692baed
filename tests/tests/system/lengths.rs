//! Every number of every message, set to what hurts most.

use std::time::Duration;

use rampuddle_harness::{
    CANARY_BOUND, Canary, Counts, Frame, RawClient, ServerProcess, Transport, fresh_version,
};
use rampuddle_protocol::limits::{MIB, PAGE_BYTES};
use rampuddle_protocol::{
    CancelRow, CreateRow, DeleteRow, DropRow, GatherRow, Header, HoldRow, Layout, ListRow, Opcode,
    PublishRow, ReleaseRow, ScatterRow, SetId, StatRequestRow, TouchRow,
};

use crate::{assert_status, over_both};

over_both! {
    every_field_of_every_message_may_have_any_number
}

const NUMBERS: [u64; 10] = [
    0,
    1,
    u8::MAX as u64,
    u16::MAX as u64,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// A good request of each operation, with the layout of its row.
fn requests() -> Vec<(Frame, Layout)> {
    let version = fresh_version();
    let set = SetId([7; 16]);
    let create = CreateRow { length: 9, value_bytes: 9, version, ..CreateRow::default() };
    let scatter = ScatterRow { value_bytes: 9, ..ScatterRow::default() };
    let nine = b"123456789";
    let (key, none) = (&b"key"[..], &b""[..]);
    vec![
        (Frame::new(Opcode::Create, 1, &[(create, key, b"tag")], nine), CreateRow::LAYOUT),
        (Frame::new(Opcode::Scatter, 1, &[(scatter, key, none)], nine), ScatterRow::LAYOUT),
        (
            Frame::new(
                Opcode::Gather,
                1,
                &[(GatherRow { length: 9, ..GatherRow::default() }, key, none)],
                b"",
            ),
            GatherRow::LAYOUT,
        ),
        (
            Frame::new(
                Opcode::Delete,
                1,
                &[(DeleteRow { version, ..DeleteRow::default() }, b"gone", none)],
                b"",
            ),
            DeleteRow::LAYOUT,
        ),
        (
            Frame::new(Opcode::Publish, 1, &[(PublishRow::default(), none, none)], b""),
            PublishRow::LAYOUT,
        ),
        (
            Frame::new(Opcode::Cancel, 1, &[(CancelRow::default(), none, none)], b""),
            CancelRow::LAYOUT,
        ),
        (
            Frame::new(
                Opcode::Drop,
                1,
                &[(DropRow { version, ..DropRow::default() }, b"gone", none)],
                b"",
            ),
            DropRow::LAYOUT,
        ),
        (
            Frame::new(
                Opcode::Hold,
                1,
                &[(HoldRow { set, ..HoldRow::default() }, none, none)],
                b"",
            ),
            HoldRow::LAYOUT,
        ),
        (
            Frame::new(
                Opcode::Release,
                1,
                &[(ReleaseRow { set, ..ReleaseRow::default() }, none, none)],
                b"",
            ),
            ReleaseRow::LAYOUT,
        ),
        (
            Frame::new(
                Opcode::Touch,
                1,
                &[(TouchRow { set, ..TouchRow::default() }, none, none)],
                b"",
            ),
            TouchRow::LAYOUT,
        ),
        (
            Frame::new(Opcode::Stat, 1, &[(StatRequestRow::default(), key, none)], b""),
            StatRequestRow::LAYOUT,
        ),
        (
            Frame::new(Opcode::List, 1, &[(ListRow::default(), key, b"cursor")], b""),
            ListRow::LAYOUT,
        ),
        (Frame::bare(Opcode::Info, 1), &[]),
        (Frame::bare(Opcode::Ping, 1), &[]),
    ]
}

fn every_field_of_every_message_may_have_any_number(transport: Transport) {
    let server = ServerProcess::with_pool_mib(8);
    let door = server.door(transport);
    let mut client = RawClient::connect(&door);
    assert_status!(client.create(b"other", 5, b"other"), Ok);
    let canary = Canary::start(&door);
    let mut counts = Counts::new("numbers in fields");
    canary.assert_within(CANARY_BOUND, || {
        for (frame, row) in requests() {
            let header = Header::LAYOUT.iter().filter(|field| field.0 != "crc32c");
            let header = header.map(|(name, at, size)| (*name, *at, *size));
            let row = row.iter().map(|(name, at, size)| (*name, Header::BYTES + at, *size));
            for (name, at, size) in header.chain(row).filter(|field| field.2 <= 8) {
                for number in NUMBERS {
                    let mut frame = frame.clone();
                    frame.overwrite(at, size, number);
                    try_it(&door, &frame, name, &mut counts);
                }
            }
        }
        client.ping();
    });
    assert_eq!(&client.gather(b"other", 0, 5).1, b"other");
    let info = client.info();
    assert!(info.used_bytes <= 4 * PAGE_BYTES && info.reserved_bytes == 0, "{info:?}");
    assert!(counts.of("answers") > 2_000 && counts.of("closed") > 20, "{counts}");
}

/// Sends a frame and then no more: whatever it asks for, the connection ends.
fn try_it(door: &rampuddle_harness::Door, frame: &Frame, name: &str, counts: &mut Counts) {
    let mut client = RawClient::connect(door);
    let _ = client.try_send(&frame.bytes);
    client.end_sending();
    let answer = client.receive_to_end(Duration::from_secs(5));
    counts.one(if answer.is_empty() { "closed" } else { "answers" });
    assert!(answer.len() as u64 <= 5 * MIB, "{name}: {} bytes", answer.len());
}
