//! Requests behind the hello, each wrong in one way.

use rampuddle_harness::{Frame, fresh_version};
use rampuddle_protocol::limits::{FRAME_PAYLOAD_BYTES_MAX, GIB, LEASE_MS_MAX, MIB};
use rampuddle_protocol::{
    CancelRow, CreateRow, DeleteRow, DropRow, GatherRow, Header, HoldRow, ListRow, Opcode,
    PublishRow, ReleaseRow, Row, RowFlags, ScatterRow, SetId, StatRequestRow, Status, TouchRow,
    Version,
};

use super::{BYSTANDER, Case, Wanted};

const END_OF_TIME: Version = Version { time: u64::MAX, writer: u64::MAX };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = lengths();
    cases.extend(cut_short());
    cases.extend(order());
    cases.extend(tables());
    cases.extend(creates());
    cases.extend(versions());
    cases.extend(scatters());
    cases.extend(gathers());
    cases.extend(others());
    cases
}

/// One row with this key, and a payload.
fn one<R: Row>(opcode: Opcode, row: R, key: &[u8], payload: &[u8]) -> Vec<u8> {
    Frame::new(opcode, 1, &[(row, key, b"")], payload).bytes
}

fn row<R: Row>(
    name: &'static str,
    opcode: Opcode,
    row: R,
    key: &[u8],
    payload: &[u8],
    status: Status,
) -> Case {
    Case::new(name, one(opcode, row, key, payload), Wanted::Rows(vec![status]))
}

fn good_gather() -> Frame {
    let row = GatherRow { length: 9, ..GatherRow::default() };
    Frame::new(Opcode::Gather, 1, &[(row, b"absent", b"")], b"")
}

/// Lengths that contradict each other or the limits; each field by itself has
/// every number in `lengths.rs`.
fn lengths() -> Vec<Case> {
    let with = |name, change: fn(&mut Header)| {
        let frame = good_gather().with_header(change);
        Case::new(name, frame.bytes, Wanted::Framing(Status::BadLength))
    };
    vec![
        with("a header of no bytes", |header| header.header_bytes = 0),
        with("a header of 63 bytes", |header| header.header_bytes = 63),
        with("a header of 1,025 bytes", |header| header.header_bytes = 1_025),
        with("rows of 1,025 bytes", |header| header.row_bytes = 1_025),
        with("1,025 rows", |header| header.rows = 1_025),
        with("more rows than the table has room for", |header| header.rows = 2),
        with("rows whose bytes wrap in 32 bits", |header| {
            (header.rows, header.row_bytes) = (1 << 26, 64);
        }),
        with("a table of a MiB and a byte", |header| header.table_bytes = MIB as u32 + 1),
        with("a payload of 4 MiB, a trailer and a byte", |header| {
            header.payload_bytes = FRAME_PAYLOAD_BYTES_MAX + 1;
        }),
        with("a payload of a GiB", |header| header.payload_bytes = GIB),
        with("a payload whose end wraps", |header| header.payload_bytes = u64::MAX - 63),
        with("a row and no table", |header| header.table_bytes = 0),
    ]
}

fn cut_short() -> Vec<Case> {
    let left = Wanted::Closed { is_counted: false };
    let create = CreateRow {
        length: MIB,
        value_bytes: 1_000,
        version: fresh_version(),
        ..CreateRow::default()
    };
    let create = one(Opcode::Create, create, b"cut", &[7; 1_000]);
    let scatter = ScatterRow { value_bytes: 1_000, ..ScatterRow::default() };
    let scatter = one(Opcode::Scatter, scatter, b"absent", &[7; 1_000]);
    let gather = good_gather().bytes;
    vec![
        Case::ended("half a header, and the end", &gather[..32], left.clone()),
        Case::ended("half a table, and the end", &gather[..90], left.clone()),
        Case::ended("a Create less its payload", &create[..create.len() - 1_000], left.clone()),
        Case::ended("a Create less a byte", &create[..create.len() - 1], left.clone()),
        Case::ended("a refused Scatter less a byte", &scatter[..scatter.len() - 1], left),
    ]
}

fn order() -> Vec<Case> {
    let mut hello = Vec::new();
    rampuddle_protocol::ClientHello::default().frame("test", "", &mut hello);
    let mut proof = Vec::new();
    rampuddle_protocol::Proof::default().frame(&mut proof);
    let out_of_order = Wanted::Framing(Status::OutOfOrder);
    let answer = good_gather().with_header(|header| header.flags.0 = 1).bytes;
    let mut damaged = good_gather().bytes;
    damaged[70] ^= 0x80;
    vec![
        Case::new("a hello behind the hello", hello, out_of_order.clone()),
        Case::new("a proof that nobody wants", proof, out_of_order.clone()),
        Case::new("an answer instead of a request", answer, out_of_order),
        Case::new("a damaged row", damaged, Wanted::Framing(Status::BadChecksum)),
        Case::new(
            "an operation that nobody has, with a payload of 4 MiB",
            unknown_with_payload(),
            Wanted::Refused(Status::Unsupported),
        ),
        Case::new(
            "a flag that nobody has",
            good_gather().with_header(|header| header.flags.0 = 1 << 15).bytes,
            Wanted::Refused(Status::Unsupported),
        ),
        Case::new(
            "everything that is left for later, set",
            good_gather()
                .with_header(|header| {
                    (header.priority, header.reserved_0) = (255, u16::MAX);
                    header.reserved_1 = [255; 16];
                })
                .bytes,
            Wanted::Rows(vec![Status::NotFound]),
        ),
    ]
}

fn unknown_with_payload() -> Vec<u8> {
    let header = Header { payload_bytes: 4 * MIB, ..Header::new(99, 1) };
    let mut bytes = Frame::of_header(header).bytes;
    bytes.resize(bytes.len() + 4 * MIB as usize, 0xAA);
    bytes
}

/// Tables that do not add up are refused whole, and their payload is not taken
/// for the next request.
fn tables() -> Vec<Case> {
    let refused = Wanted::Refused(Status::BadRow);
    let list = ListRow::default();
    let key = &b"k"[..];
    let two_lists = Frame::new(Opcode::List, 1, &[(list, key, b""), (list, key, b"")], b"");
    let with = |at: usize, size: usize, number: u64| {
        let mut frame = good_gather();
        frame.overwrite(Header::BYTES + at, size, number);
        frame.bytes
    };
    let create = |value_bytes| CreateRow {
        length: 9,
        value_bytes,
        version: fresh_version(),
        ..CreateRow::default()
    };
    let shares = |first: u64, second: u64| {
        let rows = [(create(first), key, &b""[..]), (create(second), key, b"")];
        Frame::new(Opcode::Create, 1, &rows, b"123456789").bytes
    };
    let stray = {
        let mut bytes = good_gather().with_header(|header| header.payload_bytes = 64).bytes;
        // What lies there would be a request by itself.
        bytes.extend(Frame::bare(Opcode::Ping, 77).bytes);
        bytes
    };
    vec![
        Case::new("a List of no rows", Frame::bare(Opcode::List, 1).bytes, refused.clone()),
        Case::new("a List of two rows", two_lists.bytes, refused.clone()),
        Case::new("a key longer than the table by one", with(0, 2, 7), refused.clone()),
        Case::new("a key shorter than the table by one", with(0, 2, 5), refused.clone()),
        Case::new("a key of 65,535 bytes that are not there", with(0, 2, 65_535), refused.clone()),
        Case::new("shares one short of the payload", shares(4, 4), refused.clone()),
        Case::new("shares one over the payload", shares(5, 5), refused.clone()),
        Case::new("shares that wrap to the payload", shares(u64::MAX, 10), refused.clone()),
        Case::new("shares that wrap to nothing", shares(1 << 63, 1 << 63), refused.clone()),
        Case::new("a Gather with a payload that is a request", stray, refused),
    ]
}

fn creates() -> Vec<Case> {
    let good =
        CreateRow { length: 9, value_bytes: 9, version: fresh_version(), ..CreateRow::default() };
    let nine = b"123456789";
    let create = |name, change: &dyn Fn(&mut CreateRow), status| {
        let mut changed = good;
        change(&mut changed);
        row(name, Opcode::Create, changed, b"bad", nine, status)
    };
    use Status::{BadRow, Exists, Mismatch, NoSpace, TooLarge, Unsupported};
    let flags = |flags| move |row: &mut CreateRow| row.flags = flags;
    vec![
        create("a value of no bytes with bytes", &|row| row.length = 0, BadRow),
        create("a value shorter than its bytes", &|row| row.length = 8, BadRow),
        create("a value of a GiB and a byte", &|row| row.length = GIB + 1, TooLarge),
        create("a value of 2^63 bytes", &|row| row.length = 1 << 63, TooLarge),
        create("a value of 2^64 - 1 bytes", &|row| row.length = u64::MAX, TooLarge),
        create("a value of a GiB in a pool of 4 MiB", &|row| row.length = GIB, NoSpace),
        create("a lease of 2^64 - 1", &|row| row.lease_ms = u64::MAX, BadRow),
        create("a lease over a hundred years", &|row| row.lease_ms = LEASE_MS_MAX + 1, BadRow),
        // With TRAILER the shares would not add up.
        create("nearly every flag", &flags(RowFlags(!RowFlags::TRAILER.0)), Unsupported),
        create(
            "a trailer and no checksum",
            &|row| (row.flags, row.length, row.value_bytes) = (RowFlags::TRAILER, 1, 1),
            BadRow,
        ),
        create(
            "a trailer of any eight bytes",
            &|row| {
                row.flags = RowFlags::CHECKSUM | RowFlags::TRAILER;
                (row.length, row.value_bytes) = (1, 1);
            },
            Status::Corrupt,
        ),
        create("the highest flag", &flags(RowFlags(1 << 31)), Unsupported),
        create("a tombstone", &flags(RowFlags::TOMBSTONE), BadRow),
        create("a value that says that it is held", &flags(RowFlags::HELD), BadRow),
        create("a reservation with bytes", &flags(RowFlags::RESERVE), BadRow),
        create(
            "a checksum that the bytes have not",
            &|row| (row.flags, row.crc32c) = (RowFlags::CHECKSUM, 1),
            Status::Corrupt,
        ),
        create(
            "only if it is a version of the future",
            &|row| row.if_version = END_OF_TIME,
            Mismatch,
        ),
        row("a bystander's key", Opcode::Create, good, BYSTANDER, nine, Exists),
        row("a key of no bytes", Opcode::Create, good, b"", nine, BadRow),
        row("a key of 1,025 bytes", Opcode::Create, good, &[b'k'; 1_025], nine, BadRow),
        row("a key of 65,535 bytes", Opcode::Create, good, &[b'k'; 65_535], nine, BadRow),
    ]
}

fn versions() -> Vec<Case> {
    let far = |unix_ms| Version::from_unix_ms(unix_ms, 1);
    let soon = far(fresh_version().unix_ms() + 10 * 60_000);
    use Status::{BadRow, Clock, Mismatch, NotFound};
    let create = |version| CreateRow { length: 1, value_bytes: 1, version, ..CreateRow::default() };
    let delete = |version| DeleteRow { version, ..DeleteRow::default() };
    let drop_row = |version| DropRow { version, ..DropRow::default() };
    let replace = CreateRow { flags: RowFlags::REPLACE, ..create(END_OF_TIME) };
    vec![
        row("no version", Opcode::Create, create(Version::NONE), b"v", b"x", BadRow),
        row("a version in ten minutes", Opcode::Create, create(soon), b"v", b"x", Clock),
        row(
            "a version of the year 10,000",
            Opcode::Create,
            create(far(253_402_300_800_000)),
            b"v",
            b"x",
            Clock,
        ),
        row("the last version of all", Opcode::Create, create(END_OF_TIME), b"v", b"x", Clock),
        row("a bystander replaced for ever", Opcode::Create, replace, BYSTANDER, b"x", Clock),
        row(
            "a bystander deleted for ever",
            Opcode::Delete,
            delete(END_OF_TIME),
            BYSTANDER,
            b"",
            Clock,
        ),
        row(
            "a delete without a version",
            Opcode::Delete,
            delete(Version::NONE),
            BYSTANDER,
            b"",
            BadRow,
        ),
        row(
            "a delete older than everything",
            Opcode::Delete,
            delete(far(1)),
            BYSTANDER,
            b"",
            Status::Older,
        ),
        row(
            "a drop of a version that is not there",
            Opcode::Drop,
            drop_row(END_OF_TIME),
            BYSTANDER,
            b"",
            Mismatch,
        ),
        row(
            "a drop without a version",
            Opcode::Drop,
            drop_row(Version::NONE),
            BYSTANDER,
            b"",
            Mismatch,
        ),
        row("a drop of nothing", Opcode::Drop, drop_row(END_OF_TIME), b"absent", b"", NotFound),
    ]
}

fn scatters() -> Vec<Case> {
    let nine = b"123456789";
    let scatter = |name, row_: ScatterRow, key: &[u8], status| {
        let row_ = ScatterRow { value_bytes: 9, ..row_ };
        row(name, Opcode::Scatter, row_, key, nine, status)
    };
    let at = |offset| ScatterRow { offset, ..ScatterRow::default() };
    let handle = |handle| ScatterRow { handle, ..ScatterRow::default() };
    use Status::{BadRange, BadRow, Expired, Mismatch, NotFound, Ok, Unsupported};
    vec![
        scatter("a write behind the end", at(100_001), BYSTANDER, BadRange),
        scatter("a write whose end wraps", at(u64::MAX - 8), BYSTANDER, BadRange),
        scatter("a write that wraps to the begin", at(u64::MAX - 3), BYSTANDER, BadRange),
        scatter("a write at the very end", at(100_000), BYSTANDER, Ok),
        scatter("a write to nothing", at(0), b"absent", NotFound),
        scatter("a write to a key of no bytes", at(0), b"", BadRow),
        scatter("a write to a key of 1,025 bytes", at(0), &[0; 1_025], BadRow),
        scatter(
            "a write only if it is another version",
            ScatterRow { if_version: END_OF_TIME, ..at(0) },
            BYSTANDER,
            Mismatch,
        ),
        scatter(
            "a write with a flag",
            ScatterRow { flags: RowFlags::SEALED, ..at(0) },
            BYSTANDER,
            BadRow,
        ),
        scatter(
            "a write with an unknown flag",
            ScatterRow { flags: RowFlags(1 << 30), ..at(0) },
            BYSTANDER,
            Unsupported,
        ),
        scatter("a write by a handle of nobody", handle(1), b"", Expired),
        scatter("a write by the last handle", handle(u64::MAX), b"", Expired),
        scatter("a handle beside a bystander's key", handle(7), BYSTANDER, Expired),
    ]
}

fn gathers() -> Vec<Case> {
    let gather = |name, row_: GatherRow, key: &[u8], status| {
        row(name, Opcode::Gather, row_, key, b"", status)
    };
    let range = |offset, length| GatherRow { offset, length, ..GatherRow::default() };
    let flags = |flags| GatherRow { flags, ..range(0, 9) };
    use Status::{BadRow, Mismatch, NotFound, Ok, Unsupported};
    vec![
        gather("a read from the last byte of all", range(u64::MAX, u64::MAX), BYSTANDER, Ok),
        gather("a read of everything there could be", range(0, u64::MAX), BYSTANDER, Ok),
        gather("a read whose end wraps to the begin", range(u64::MAX, 2), BYSTANDER, Ok),
        gather("a read of no bytes", range(50, 0), BYSTANDER, Ok),
        gather("a read of a key of no bytes", range(0, 9), b"", BadRow),
        gather("a read of a key of 1,025 bytes", range(0, 9), &[0xFF; 1_025], BadRow),
        gather("a read with a flag of Create", flags(RowFlags::REPLACE), BYSTANDER, BadRow),
        gather("a read with an unknown flag", flags(RowFlags(1 << 29)), BYSTANDER, Unsupported),
        gather(
            "a read only if it is another version",
            GatherRow { if_version: END_OF_TIME, ..range(0, 9) },
            BYSTANDER,
            Mismatch,
        ),
        gather(
            "a read of a set of nobody",
            GatherRow { set: SetId([255; 16]), ..range(0, 9) },
            BYSTANDER,
            NotFound,
        ),
    ]
}

fn others() -> Vec<Case> {
    use Status::{BadRow, Expired, NotFound, Unsupported};
    let none = SetId::NONE;
    let set = SetId([3; 16]);
    let publish = |handle| PublishRow { handle, length: 9, ..PublishRow::default() };
    let hold = |set, flags| HoldRow { set, flags, ..HoldRow::default() };
    let touch = |set, lease_ms| TouchRow { set, lease_ms, ..TouchRow::default() };
    let key = &[b'k'; 1_025][..];
    let list = |row: ListRow, prefix: &[u8], cursor: &[u8]| {
        Frame::new(Opcode::List, 1, &[(row, prefix, cursor)], b"").bytes
    };
    let itself = CancelRow { request_id: 1 };
    let stats = vec![(StatRequestRow::default(), &b"k"[..], &b""[..]); 1_024];
    vec![
        row("a publish of nothing", Opcode::Publish, publish(0), b"", b"", Expired),
        row("a publish of the last handle", Opcode::Publish, publish(u64::MAX), b"", b"", Expired),
        row("a hold of no set", Opcode::Hold, hold(none, RowFlags::NONE), b"", b"", BadRow),
        row("a hold with a flag", Opcode::Hold, hold(set, RowFlags::KEEP), b"", b"", BadRow),
        row("a hold of an empty set", Opcode::Hold, hold(set, RowFlags::NONE), b"", b"", NotFound),
        row(
            "a release of what nobody holds",
            Opcode::Release,
            ReleaseRow { set, ..ReleaseRow::default() },
            b"",
            b"",
            NotFound,
        ),
        row("a touch of no set", Opcode::Touch, touch(none, 1), b"", b"", BadRow),
        row("a touch for 2^64 - 1 ms", Opcode::Touch, touch(set, u64::MAX), b"", b"", BadRow),
        row("a touch of an empty set", Opcode::Touch, touch(set, 1), b"", b"", NotFound),
        row("a cancel of itself", Opcode::Cancel, itself, b"", b"", NotFound),
        row(
            "a cancel of nothing",
            Opcode::Cancel,
            CancelRow { request_id: u64::MAX },
            b"",
            b"",
            NotFound,
        ),
        Case::new(
            "a Stat of 1,024 rows",
            Frame::new(Opcode::Stat, 1, &stats, b"").bytes,
            Wanted::Refused(Status::TooLarge),
        ),
        Case::new(
            "a List with a prefix of 1,025 bytes",
            list(ListRow::default(), key, b""),
            Wanted::Refused(BadRow),
        ),
        Case::new(
            "a List with a cursor of 1,025 bytes",
            list(ListRow::default(), b"", key),
            Wanted::Refused(BadRow),
        ),
        Case::new(
            "a List with a flag of Create",
            list(ListRow { flags: RowFlags::REPLACE, ..ListRow::default() }, b"", b""),
            Wanted::Refused(BadRow),
        ),
        Case::new(
            "a List with an unknown flag",
            list(ListRow { flags: RowFlags(1 << 28), ..ListRow::default() }, b"", b""),
            Wanted::Refused(Unsupported),
        ),
    ]
}
