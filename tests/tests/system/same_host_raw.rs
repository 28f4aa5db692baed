//! Share, Map and Unmap, byte for byte: who gets the pool, what stays where it is,
//! and what becomes of those who die or lie.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Duration;

use rampuddle_harness::{
    MappedRun, Pattern, RawClient, ServeOptions, ServerProcess, Transport, fresh_version, until,
};
use rampuddle_protocol::limits::{MIB, PAGE_BYTES};
use rampuddle_protocol::{CreateRow, MapRow, Opcode, RowFlags, SetId, Status, UnmapRow};
use rustix::fs::{SealFlags, fcntl_get_seals};

use crate::assert_status;

const PATIENCE: Duration = Duration::from_secs(3);
const SET: SetId = SetId([7; 16]);

/// A pool in the hands of this process.
struct Pool {
    mapping: u64,
    file: File,
    bytes: u64,
}

fn share(client: &mut RawClient) -> Pool {
    let (status, shared) = client.share();
    assert_eq!(status, Status::Ok);
    let (row, descriptor) = shared.expect("a mapping");
    Pool { mapping: row.mapping, file: descriptor.into(), bytes: row.pool_bytes }
}

impl Pool {
    fn row(&self, hold: u64) -> MapRow {
        MapRow { mapping: self.mapping, hold, ..MapRow::default() }
    }

    /// The bytes of a value, whose runs begin with the first of these rows.
    fn read(&self, rows: &[MappedRun]) -> Vec<u8> {
        let of_value = |(index, row): &(usize, &MappedRun)| {
            *index == 0 || (row.1.is_empty() && row.0.status() == Status::Ok)
        };
        let mut bytes = Vec::new();
        for (_, (row, ..)) in rows.iter().enumerate().take_while(of_value) {
            assert!(row.offset + row.bytes <= self.bytes, "{row:?}");
            let begin = bytes.len();
            bytes.resize(begin + row.bytes as usize, 0);
            self.file.read_exact_at(&mut bytes[begin..], row.offset).expect("the pool is there");
        }
        bytes
    }
}

fn server() -> (ServerProcess, RawClient) {
    let server = ServerProcess::with_pool_mib(16);
    let client = server.client(Transport::Unix);
    (server, client)
}

fn sealed(client: &mut RawClient, key: &[u8], set: SetId, bytes: &[u8]) {
    let flags = RowFlags::SEALED | RowFlags::REPLACE;
    let row = CreateRow { version: fresh_version(), flags, set, ..CreateRow::default() };
    assert_status!(client.create_row(row, key, b"tag", bytes).0, Ok);
}

/// The one row of a refusal.
fn refusal(answer: (Status, Vec<MappedRun>)) -> Status {
    let (status, rows) = answer;
    assert_eq!((status, rows.len()), (Status::Ok, 1), "{rows:?}");
    rows[0].0.status()
}

#[test]
fn a_value_and_its_set_are_found_where_they_lie() {
    let (_server, mut client) = server();
    let parts: Vec<Vec<u8>> = (0..5).map(|part| Pattern(part).bytes(0, 100_000)).collect();
    sealed(&mut client, b"head", SET, b"the head");
    for (index, bytes) in parts.iter().enumerate() {
        sealed(&mut client, &[b's', index as u8], SET, bytes);
    }
    sealed(&mut client, b"other", SetId([8; 16]), b"of another set");
    let pool = share(&mut client);
    assert_eq!(pool.bytes, 16 * MIB);
    let (status, rows) = client.map(MapRow { flags: RowFlags::SET, ..pool.row(1) }, b"head");
    assert_eq!(status, Status::Ok);
    let firsts: Vec<usize> = (0..rows.len()).filter(|index| !rows[*index].1.is_empty()).collect();
    assert_eq!(firsts.len(), 6, "the head and its five parts: {rows:?}");
    assert_eq!((&rows[0].1[..], &rows[0].2[..]), (&b"head"[..], &b"tag"[..]));
    assert_eq!(pool.read(&rows), b"the head");
    assert_eq!((rows[0].0.length, rows[0].0.filled), (PAGE_BYTES, 8));
    for first in &firsts[1..] {
        let (row, key, _) = &rows[*first];
        assert!(pool.read(&rows[*first..]) == parts[usize::from(key[1])], "{key:?}");
        assert_eq!((row.set, row.filled), (SET, 100_000));
    }
    let info = client.info();
    assert_eq!((info.mappings, info.mapped_pages), (1, 1 + 5 * 2));
    // By the set alone, it is the same memory; each value counts once.
    let (_, again) = client.map(MapRow { set: SET, ..pool.row(2) }, b"");
    assert_eq!(again.iter().filter(|row| !row.1.is_empty()).count(), 6);
    assert_eq!(client.info().mapped_pages, 11);
    assert_eq!(assert_status!(client.unmap(pool.mapping, 1), Ok).detail, 6);
    assert_eq!(client.info().mapped_pages, 11, "the other hold keeps them");
    assert_eq!(assert_status!(client.unmap(pool.mapping, 2), Ok).detail, 6);
    assert_status!(client.unmap(pool.mapping, 2), NotFound);
    assert_eq!(client.info().mapped_pages, 0);
}

#[test]
fn what_is_mapped_stays_when_its_value_goes_and_ends_with_the_reader() {
    let (server, mut client) = server();
    let bytes = Pattern(1).bytes(0, MIB);
    sealed(&mut client, b"key", SET, &bytes);
    // The session that maps ends at once; the descriptor is what counts.
    let mut reader = server.client(Transport::Unix);
    let pool = share(&mut reader);
    let (_, rows) = reader.map(pool.row(1), b"key");
    drop(reader);
    sealed(&mut client, b"key", SET, b"another");
    assert_status!(client.delete(b"key"), Ok);
    // All the rest of the pool is written once.
    for round in 0..3 {
        for index in 0..15_u8 {
            sealed(&mut client, &[index], SetId::NONE, &vec![0xEE; MIB as usize]);
        }
        for index in 0..15_u8 {
            client.delete(&[index]);
        }
        assert!(pool.read(&rows) == bytes, "round {round}");
    }
    let info = client.info();
    assert_eq!((info.mappings, info.mapped_pages, info.used_bytes), (1, 16, MIB));
    drop(pool);
    until("the memory to come back", PATIENCE, || client.info().used_bytes == 0);
    let info = client.info();
    assert_eq!((info.mappings, info.mapped_pages), (0, 0));
}

#[test]
fn the_pool_is_given_over_the_unix_socket_only_and_only_when_it_is_shared() {
    let (server, mut client) = server();
    sealed(&mut client, b"key", SET, b"bytes");
    let pool = share(&mut client);
    let mut remote = RawClient::join(&server.door(Transport::Tcp), client.session());
    assert_eq!(remote.share().0, Status::Unsupported);
    assert_eq!(remote.map(pool.row(1), b"key").0, Status::Unsupported);
    assert_eq!(client.map(pool.row(1), b"key").1.len(), 1);
    // To end a hold needs no socket of this machine.
    assert_status!(remote.unmap(pool.mapping, 1), Ok);
    let arguments = vec!["--no-share-pool".to_owned()];
    let private = ServeOptions { arguments, ..ServeOptions::with_pool_mib(4) };
    let private = ServerProcess::start(private);
    let mut client = private.client(Transport::Unix);
    assert_eq!(client.share().0, Status::Unsupported);
    assert_eq!(client.map(pool.row(1), b"key").0, Status::Unsupported);
    assert_status!(client.unmap(pool.mapping, 1), Expired);
}

#[test]
fn a_mapping_is_of_its_session_alone() {
    let (server, mut client) = server();
    sealed(&mut client, b"key", SET, b"bytes");
    let pool = share(&mut client);
    let mut stranger = server.client(Transport::Unix);
    let others = share(&mut stranger);
    assert_eq!(refusal(stranger.map(pool.row(1), b"key")), Status::Expired);
    assert_eq!(client.map(pool.row(1), b"key").1.len(), 1);
    assert_status!(stranger.unmap(pool.mapping, 1), Expired);
    // The same number of a hold under another mapping is another hold.
    assert_status!(stranger.unmap(others.mapping, 1), NotFound);
    assert_eq!(client.info().mapped_pages, 1);
    for number in [0, 1, pool.mapping ^ 1, pool.mapping ^ (1 << 40), u64::MAX] {
        let row = MapRow { mapping: number, ..pool.row(2) };
        assert_eq!(refusal(client.map(row, b"key")), Status::Expired, "{number:#x}");
        assert_status!(client.unmap(number, 1), Expired);
    }
}

#[test]
fn rows_that_make_no_sense_are_refused_and_keep_nothing() {
    let (_server, mut client) = server();
    sealed(&mut client, b"key", SET, b"bytes");
    let pool = share(&mut client);
    let row = pool.row(9);
    let with = |change: &dyn Fn(&mut MapRow)| {
        let mut row = row;
        change(&mut row);
        row
    };
    let cases: [(MapRow, &[u8], Status); 13] = [
        (with(&|row| row.hold = 0), b"key", Status::BadRow),
        (row, b"", Status::BadRow),
        (with(&|row| row.set = SET), b"key", Status::BadRow),
        (with(&|row| row.cursor = 1 << 32), b"key", Status::BadRow),
        (with(&|row| row.cursor = 1 << 32), b"", Status::BadRow),
        (with(&|row| row.cursor = u64::MAX), b"", Status::BadRow),
        (with(&|row| (row.set, row.flags) = (SET, RowFlags::SET)), b"", Status::BadRow),
        (with(&|row| row.flags = RowFlags::KEEP), b"key", Status::BadRow),
        (with(&|row| row.flags = RowFlags(1 << 31)), b"key", Status::Unsupported),
        (row, &[b'k'; 1_025], Status::BadRow),
        (row, b"nothing", Status::NotFound),
        (with(&|row| row.set = SetId([9; 16])), b"", Status::NotFound),
        (with(&|row| row.mapping = 0), b"key", Status::Expired),
    ];
    for (row, key, status) in cases {
        assert_eq!(refusal(client.map(row, key)), status, "{row:?}");
    }
    assert_eq!(client.info().mapped_pages, 0);
    assert_eq!(client.map(row, b"key").1.len(), 1);
    assert_eq!(refusal(client.map(row, b"key")), Status::BadRow, "the hold is there");
    for cursor in [1, (1 << 32) + 5, (1 << 32) + 1_000_000, 2 << 32, 1 << 63] {
        let row = MapRow { cursor, ..row };
        assert_eq!(refusal(client.map(row, b"")), Status::BadRow, "{cursor:#x}");
    }
    // What is not sealed, or has a gap, is only read by Gather.
    assert_status!(client.create(b"open", 4, b"open"), Ok);
    assert_eq!(refusal(client.map(pool.row(10), b"open")), Status::Unsupported);
    let flags = RowFlags::SEALED;
    let gap = CreateRow { version: fresh_version(), flags, length: 200_000, ..Default::default() };
    assert_status!(client.create_row(gap, b"short", b"", b"begin").0, Ok);
    let (_, rows) = client.map(pool.row(11), b"short");
    assert_eq!((rows.len(), rows[0].0.bytes, rows[0].0.length), (1, 5, 200_000), "what was given");
    // Two rows in one Map, none in another.
    let rows = [(pool.row(12), &b"key"[..], &b""[..]), (pool.row(13), b"key", b"")];
    assert_eq!(client.ask(Opcode::Map, &rows, b"").status(), Status::BadRow);
    assert_eq!(client.ask::<MapRow>(Opcode::Map, &[], b"").status(), Status::BadRow);
    let answer = client.ask::<UnmapRow>(Opcode::Unmap, &[], b"");
    assert_eq!(answer.status(), Status::Ok);
}

#[test]
fn a_quarter_of_the_pool_is_kept_for_readers_and_no_more() {
    let (_server, mut client) = server();
    for index in 0..6_u8 {
        sealed(&mut client, &[index], SetId::NONE, &Pattern(index.into()).bytes(0, MIB));
    }
    let pool = share(&mut client);
    for index in 0..4_u8 {
        assert_eq!(
            client.map(pool.row(u64::from(index) + 1), &[index]).1[0].0.status(),
            Status::Ok
        );
    }
    let (_, rows) = client.map(pool.row(5), &[4]);
    assert_eq!((rows[0].0.status(), rows[0].0.detail > 0), (Status::Busy, true));
    // What is kept already costs nothing more.
    assert_eq!(client.map(pool.row(6), &[0]).1[0].0.status(), Status::Ok);
    assert_status!(client.unmap(pool.mapping, 2), Ok);
    assert_eq!(client.map(pool.row(5), &[4]).1[0].0.status(), Status::Ok);
    // Writers do not wait: what is kept and gone is not theirs, all the rest is.
    for index in 0..6_u8 {
        assert_status!(client.delete(&[index]), Ok);
    }
    assert_eq!(client.info().used_bytes, 4 * MIB);
    for index in 0..12_u8 {
        sealed(&mut client, &[index], SetId::NONE, &vec![1; MIB as usize]);
    }
    assert_eq!(client.free_bytes(), 0);
}

#[test]
fn an_answer_of_many_runs_comes_in_several_frames() {
    let server = ServerProcess::with_pool_mib(512);
    let mut client = server.client(Transport::Unix);
    let count = 1_500_u16;
    for index in 0..count {
        sealed(&mut client, &index.to_be_bytes(), SET, &index.to_le_bytes());
        // Values in between, so that neighbours are not one run.
        sealed(&mut client, &[b'x', index as u8, (index >> 8) as u8], SetId::NONE, b"x");
    }
    let pool = share(&mut client);
    let (mut seen, mut frames, mut row) =
        (vec![false; count.into()], 0, MapRow { set: SET, ..pool.row(1) });
    loop {
        let (status, rows) = client.map(row, b"");
        assert_eq!(status, Status::Ok);
        frames += 1;
        let mut more = None;
        for (index, (found, key, _)) in rows.iter().enumerate() {
            match found.status() {
                Status::Incomplete => more = Some(found.detail),
                _ => {
                    let number = u16::from_be_bytes(key[..].try_into().expect("a key of ours"));
                    assert_eq!(pool.read(&rows[index..]), number.to_le_bytes());
                    assert!(!std::mem::replace(&mut seen[usize::from(number)], true));
                }
            }
        }
        match more {
            Some(cursor) => row = MapRow { cursor, ..pool.row(1) },
            None => break,
        }
    }
    assert!(seen.iter().all(|seen| *seen) && frames > 1, "{frames} frames");
    assert_eq!(client.info().mapped_pages, u32::from(count));
    assert_eq!(assert_status!(client.unmap(pool.mapping, 1), Ok).detail, u64::from(count));
}

/// Huge pages that were reserved for a test. Dropped, there are as many as before.
struct HugePages {
    before: u64,
}

impl HugePages {
    const RESERVED: &str = "/proc/sys/vm/nr_hugepages";

    /// So many more of 2 MiB; `None` where there cannot be, which is said.
    fn reserve(more: u64) -> Option<Self> {
        let reserved = || fs::read_to_string(Self::RESERVED).ok()?.trim().parse::<u64>().ok();
        let pages = Self { before: reserved()? };
        let wanted = pages.before + more;
        let written = fs::write(Self::RESERVED, wanted.to_string());
        let has_them = written.is_ok() && reserved() == Some(wanted);
        if !has_them {
            eprintln!("skipped: {more} huge pages cannot be reserved here, see vm.nr_hugepages");
        }
        has_them.then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(Self::RESERVED, self.before.to_string());
    }
}

#[test]
fn in_a_pool_of_huge_pages_long_values_begin_where_one_does() {
    let Some(_reserved) = HugePages::reserve(32) else { return };
    let arguments = vec!["--huge-pages".to_owned()];
    let options = ServeOptions { arguments, ..ServeOptions::with_pool_mib(64) };
    let server = ServerProcess::start(options);
    let mut client = server.client(Transport::Unix);
    let bytes_of = |salt| Pattern(salt).bytes(0, 3 * MIB);
    for salt in 0..4_u8 {
        sealed(&mut client, &[b'a', salt], SET, b"short");
        sealed(&mut client, &[b'b', salt], SET, &bytes_of(salt.into()));
    }
    let pool = share(&mut client);
    assert_eq!(pool.file.metadata().unwrap().blksize(), 2 * MIB, "what a huge page has");
    for salt in 0..4_u8 {
        let (_, rows) = client.map(pool.row(1 + u64::from(salt)), &[b'b', salt]);
        assert_eq!((rows.len(), rows[0].0.bytes, rows[0].0.offset % (2 * MIB)), (1, 3 * MIB, 0));
        assert!(pool.read(&rows) == bytes_of(salt.into()));
    }
}

#[test]
fn mappings_that_come_and_go_leave_no_descriptor_behind() {
    let (server, mut client) = server();
    sealed(&mut client, b"key", SET, b"bytes");
    let before = server.open_descriptors();
    let mut busy = 0;
    for _ in 0..1_000 {
        let pool = share(&mut client);
        assert_eq!(client.map(pool.row(1), b"key").1.len(), 1);
    }
    // Four at once, and no more for one session.
    let mut pools: Vec<Pool> = (0..4).map(|_| share(&mut client)).collect();
    for _ in 0..100 {
        let (status, shared) = client.share();
        assert!(status == Status::Busy && shared.is_none(), "{status}");
        busy += 1;
    }
    assert_eq!(busy, 100);
    // The thread that announces the server has a file open now and then.
    until("no descriptor to be left", PATIENCE, || server.open_descriptors() <= before);
    pools.truncate(1);
    drop(share(&mut client));
    // Clients who never read their answer, and are gone.
    for _ in 0..200 {
        let mut rude = server.client(Transport::Unix);
        rude.post::<MapRow>(Opcode::Share, &[], b"");
    }
    drop(pools);
    until("all mappings to end", PATIENCE, || client.info().mappings == 0);
    assert_eq!((client.info().mapped_pages, client.info().used_bytes), (0, PAGE_BYTES));
    until("their connections to end", PATIENCE, || server.open_descriptors() <= before);
}

#[test]
fn who_has_the_pool_can_only_read_it() {
    let (_server, mut client) = server();
    let bytes = Pattern(3).bytes(0, 5_000);
    sealed(&mut client, b"key", SET, &bytes);
    let pool = share(&mut client);
    let (_, rows) = client.map(pool.row(1), b"key");
    let seals = fcntl_get_seals(&pool.file).unwrap();
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
    assert!(seals.contains(all), "{seals:?}");
    assert!((&pool.file).write(b"x").is_err(), "opened for reading");
    // Opened anew to be written, which the owner of the file may.
    let path = format!("/proc/self/fd/{}", pool.file.as_raw_fd());
    let again = File::options().read(true).write(true).open(path).unwrap();
    assert!(again.write_at(b"x", rows[0].0.offset).is_err());
    assert!(again.set_len(pool.bytes / 2).is_err() && again.set_len(pool.bytes * 2).is_err());
    use rustix::fs::{FallocateFlags, fallocate};
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(fallocate(again.as_fd(), hole, 0, pool.bytes).is_err());
    assert!(pool.read(&rows) == bytes);
    let _: OwnedFd = again.into();
}
