//! A server that is full, has as many connections as it may, and works for long:
//! its memory, its descriptors and its pages are what they were said to be.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rampuddle_harness::{
    CANARY_BOUND, Canary, Counts, Door, Frame, Pattern, RawClient, RawConnection, Seeded,
    ServeOptions, ServerProcess, Transport, fresh_version, until,
};
use rampuddle_protocol::limits::{KEY_BYTES_MAX, MIB, PAGE_BYTES, PAYLOAD_BYTES_MAX};
use rampuddle_protocol::{
    CreateRow, GatherRow, ListRow, Opcode, RowFlags, SessionId, SetId, Status,
};

use crate::assert_status;

const PATIENCE: Duration = Duration::from_secs(60);
/// What a server may have beside its pool, its index and its connections.
const FIXED: u64 = 64 * MIB;
/// What one connection may take.
const PER_CONNECTION: u64 = 64 << 10;

/// The most memory that the process ever had.
fn peak_bytes(server: &ServerProcess) -> u64 {
    let path = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a number of kB") << 10
}

/// What the server said at its start that its index takes.
fn index_bytes(server: &ServerProcess) -> u64 {
    let said = server.stderr();
    let line = said.lines().find(|line| line.trim_start().starts_with("index"));
    let mib = line.and_then(|line| {
        line.split(" MiB").next()?.split_whitespace().next_back()?.parse::<f64>().ok()
    });
    (mib.expect("a line of the index in MiB") * MIB as f64) as u64
}

/// A key of the greatest length.
fn long_key(number: u64) -> Vec<u8> {
    let mut key = number.to_be_bytes().to_vec();
    key.resize(KEY_BYTES_MAX, b'k');
    key
}

#[test]
fn a_full_server_with_a_thousand_silent_claims_stays_within_its_memory_and_answers() {
    const POOL_MIB: u64 = 256;
    let server = ServerProcess::with_pool_mib(POOL_MIB);
    let index = index_bytes(&server);
    let assert_within = |connections: u64| {
        let bound = POOL_MIB * MIB + index + FIXED + connections * PER_CONNECTION;
        let peak = peak_bytes(&server);
        assert!(peak <= bound, "{peak} bytes with {connections} connections, bound {bound}");
        println!("{connections} connections: {} of {} MiB", peak / MIB, bound / MIB);
    };
    let mut counts = Counts::new("a full server");
    let mut client = server.client(Transport::Tcp);
    let page = Pattern(5).bytes(0, PAGE_BYTES);
    let refused = (0..).find_map(|number| {
        let status = client.create(&long_key(number), PAGE_BYTES, &page).status();
        (status != Status::Ok).then_some((number, status))
    });
    let (values, status) = refused.expect("it is full some time");
    assert_eq!((values, status), (POOL_MIB * MIB / PAGE_BYTES, Status::NoSpace));
    counts.add("values", values);
    // Room for the canary and for what is put beside it.
    for number in 0..2 {
        assert_status!(client.delete(&long_key(number)), Ok);
    }
    let canary = Canary::start(&server.door(Transport::Tcp));
    assert_within(2);

    let mut busy: Vec<RawClient> = (0..200).map(|_| server.client(Transport::Tcp)).collect();
    for (number, client) in busy.iter_mut().enumerate() {
        // Tables that need one of the few large buffers, and answers of 4 MiB.
        let keys: Vec<Vec<u8>> = (0..64).map(|row| long_key(2 + row + number as u64)).collect();
        let row = GatherRow { length: PAGE_BYTES, ..GatherRow::default() };
        let rows: Vec<_> = keys.iter().map(|key| (row, &key[..], &b""[..])).collect();
        let answer = client.ask(Opcode::Gather, &rows, b"");
        assert!(answer.statuses().iter().all(|status| *status == Status::Ok));
        counts.add(
            "values read",
            answer.shares().iter().filter(|share| **share == page).count() as u64,
        );
    }
    assert_within(202);

    let mut silent: Vec<RawConnection> = Vec::new();
    canary.assert_within(CANARY_BOUND, || {
        for number in 0..1_000_u64 {
            let mut connection = server.door(Transport::Tcp).connect();
            let session = SessionId([(number % 251) as u8 + 1; 16]);
            assert_eq!(connection.shake_hands(session).0, Status::Ok);
            connection.send(&claim(number));
            silent.push(connection);
        }
    });
    counts.add("silent claims", silent.len() as u64);
    canary.assert_within(CANARY_BOUND, || {
        for number in 0..50 {
            let bytes = Pattern(number).bytes(0, 30_000);
            assert_status!(client.create(b"beside", PAGE_BYTES, &bytes), Ok);
            let (outcome, found) = client.gather(b"beside", 0, 30_000);
            assert_status!(outcome, Ok);
            assert!(found == bytes);
            assert_status!(client.delete(b"beside"), Ok);
            counts.one("puts and gets beside them");
        }
    });
    assert_within(1_202);
    drop((silent, busy, canary));
    until("the claims to be given up", PATIENCE, || client.info().connections == 1);
    assert_eq!(client.info().reserved_bytes, 0);
    assert_within(1_202);
    assert_eq!(counts.of("values read"), 200 * 64);
}

/// A request that claims as much as one may, without its payload, or without the
/// most of its table.
fn claim(number: u64) -> Vec<u8> {
    let key = long_key(number);
    if number.is_multiple_of(2) {
        let payload = vec![0; PAYLOAD_BYTES_MAX as usize];
        let row = CreateRow {
            length: PAYLOAD_BYTES_MAX,
            value_bytes: PAYLOAD_BYTES_MAX,
            version: fresh_version(),
            flags: RowFlags::REPLACE,
            ..CreateRow::default()
        };
        let mut bytes = Frame::new(Opcode::Create, 1, &[(row, &key, b"")], &payload).bytes;
        bytes.truncate(bytes.len() - payload.len());
        return bytes;
    }
    let row = GatherRow { length: PAYLOAD_BYTES_MAX / 1_000, ..GatherRow::default() };
    let rows: Vec<_> = (0..900).map(|_| (row, &key[..], &b""[..])).collect();
    let mut bytes = Frame::new(Opcode::Gather, 1, &rows, b"").bytes;
    bytes.truncate(100);
    bytes
}

/// Threads that work at once.
const WORKERS: u64 = 4;
/// Keys of each; nobody else touches them.
const KEYS: u64 = 24;
/// Where the bytes of all values come from.
const LAKE_BYTES: u64 = 8 * MIB;

/// Operations done, and bytes moved.
#[derive(Debug, Default)]
struct Work {
    operations: AtomicU64,
    bytes: AtomicU64,
    given_up: AtomicU64,
}

/// What a key must hold: two halves, each from a place in the lake.
#[derive(Debug, Clone, Copy)]
struct Held {
    length: u64,
    halves: [u64; 2],
}

impl Held {
    fn half(&self) -> u64 {
        self.length / 2
    }
}

/// Does all operations, mixed.
struct Worker {
    door: Door,
    client: RawClient,
    random: Seeded,
    lake: Arc<Vec<u8>>,
    work: Arc<Work>,
    number: u64,
    held: BTreeMap<Vec<u8>, Held>,
}

impl Worker {
    fn key(&mut self) -> Vec<u8> {
        format!("{}/{}", self.number, self.random.below(KEYS)).into_bytes()
    }

    fn set(&self) -> SetId {
        SetId([self.number as u8 + 1; 16])
    }

    fn stretch(&self, start: u64, length: u64) -> &[u8] {
        &self.lake[start as usize..(start + length) as usize]
    }

    fn place(&mut self, length: u64) -> u64 {
        self.random.below(LAKE_BYTES - length)
    }

    fn done(&self, bytes: u64) {
        self.work.operations.fetch_add(1, Ordering::Relaxed);
        self.work.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One operation, and what it says compared with what it must.
    fn step(&mut self) {
        let key = self.key();
        let held = self.held.get(&key).copied();
        match (self.random.below(20), held) {
            (0..3, _) | (3..14, None) => self.create(&key),
            (3..12, Some(held)) => self.gather(&key, held),
            (12..14, Some(held)) => self.scatter(&key, held),
            (14, _) => {
                let status = self.client.delete(&key).status();
                let wanted = if held.is_some() { Status::Ok } else { Status::NotFound };
                assert_eq!(status, wanted);
                self.held.remove(&key);
                self.done(0);
            }
            (15, _) => {
                let stat = self.client.stat(&key);
                assert_eq!(stat.status() == Status::Ok, held.is_some());
                assert!(held.is_none_or(|held| stat.length == held.length));
                self.done(0);
            }
            (16, _) => {
                let prefix = format!("{}/", self.number);
                let listed = self.client.list_all(ListRow::default(), prefix.as_bytes());
                assert_eq!(listed.len(), self.held.len());
                self.done(0);
            }
            (17, _) => {
                let set = self.set();
                // Besides what is there, what sessions given up hold still: less and less.
                let held = self.client.hold(set).detail;
                let released = self.client.release(set).detail;
                assert!(released <= held, "{released} values were let go, {held} were held");
                self.done(0);
            }
            (18, _) => self.reserve(&key),
            _ => {
                // Of a request that was never sent.
                let nothing = self.client.fresh_id();
                let id = self.client.post_cancel(nothing);
                assert_eq!(self.client.receive_answer().header.request_id, id);
                self.done(0);
            }
        }
    }

    fn length(&mut self) -> u64 {
        PAGE_BYTES + self.random.below(8 * PAGE_BYTES)
    }

    fn create(&mut self, key: &[u8]) {
        let length = self.length();
        let start = self.place(length);
        let row = CreateRow {
            length,
            version: fresh_version(),
            flags: RowFlags::REPLACE,
            set: self.set(),
            ..CreateRow::default()
        };
        let lake = Arc::clone(&self.lake);
        let bytes = &lake[start as usize..(start + length) as usize];
        assert_status!(self.client.create_row(row, key, b"tag", bytes).0, Ok);
        let halves = [start, start + length / 2];
        self.held.insert(key.to_vec(), Held { length, halves });
        self.done(length);
    }

    fn gather(&mut self, key: &[u8], held: Held) {
        let (outcome, found) = self.client.gather(key, 0, PAYLOAD_BYTES_MAX);
        assert_status!(outcome, Ok);
        assert_eq!(found.len() as u64, held.length);
        let (first, second) = found.split_at(held.half() as usize);
        assert!(first == self.stretch(held.halves[0], held.half()), "first half of {key:?}");
        let length = held.length - held.half();
        assert!(second == self.stretch(held.halves[1], length), "second half of {key:?}");
        self.done(held.length);
    }

    fn scatter(&mut self, key: &[u8], mut held: Held) {
        let which = self.random.below(2) as usize;
        let (offset, length) = [(0, held.half()), (held.half(), held.length - held.half())][which];
        held.halves[which] = self.place(length);
        let lake = Arc::clone(&self.lake);
        let bytes = &lake[held.halves[which] as usize..][..length as usize];
        let outcome = assert_status!(self.client.scatter(key, offset, bytes), Ok);
        assert_eq!(outcome.length, length);
        self.held.insert(key.to_vec(), held);
        self.done(length);
    }

    /// A value in two pieces. Each third one is published too early; of those, each
    /// twentieth is given up with its session, which holds a set, too.
    fn reserve(&mut self, key: &[u8]) {
        let length = self.length();
        let (start, half) = (self.place(length), length / 2);
        let reserved = self.client.reserve(key, length, fresh_version());
        // Others may have as much under way as the server allows.
        if reserved.status() == Status::Busy {
            return self.done(0);
        }
        let handle = assert_status!(reserved, Ok).detail;
        let lake = Arc::clone(&self.lake);
        let bytes = &lake[start as usize..(start + length) as usize];
        let (first, second) = bytes.split_at(half as usize);
        assert_status!(self.client.scatter_reserved(handle, 0, first), Ok);
        if self.random.below(3) == 0 {
            assert_status!(self.client.publish(handle, length, length), Incomplete);
            if self.random.below(20) == 0 {
                self.client.hold(self.set());
                self.client = RawClient::connect(&self.door);
                self.work.given_up.fetch_add(1, Ordering::Relaxed);
                return self.done(half);
            }
        }
        assert_status!(self.client.scatter_reserved(handle, half, second), Ok);
        assert_status!(self.client.publish(handle, length, length), Ok);
        self.held.insert(key.to_vec(), Held { length, halves: [start, start + half] });
        self.done(length);
    }
}

#[test]
fn soak_a_million_mixed_operations_leave_memory_descriptors_and_pages_as_they_were() {
    let is_soak = std::env::var_os("PUDDLE_SOAK").is_some_and(|value| value == "1");
    let (operations, bytes) = if is_soak { (1_000_000, 200 << 30) } else { (5_000, 1 << 30) };
    // Sessions that are given up keep for 30 s at most half of it in reservations, of
    // which half is filled, and a quarter in values that they hold.
    let server = ServerProcess::start(ServeOptions::with_pool_mib(192));
    let mut watcher = server.client(Transport::Tcp);
    let before = (server.resident_bytes(), server.open_descriptors());
    let lake = Arc::new(Pattern(11).bytes(0, LAKE_BYTES));
    let work = Arc::new(Work::default());
    let mut random = Seeded::from_environment("a million operations");
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let transport = if number % 2 == 0 { Transport::Tcp } else { Transport::Unix };
            let mut worker = Worker {
                client: server.client(transport),
                door: server.door(transport),
                random: Seeded::new(random.draw()),
                lake: Arc::clone(&lake),
                work: Arc::clone(&work),
                number,
                held: BTreeMap::new(),
            };
            thread::spawn(move || {
                let left = |work: &Work| {
                    work.operations.load(Ordering::Relaxed) < operations
                        || work.bytes.load(Ordering::Relaxed) < bytes
                };
                while left(&worker.work) {
                    worker.step();
                }
                for key in std::mem::take(&mut worker.held).into_keys() {
                    assert_status!(worker.client.delete(&key), Ok);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("the worker is content");
    }
    until("connections and sessions to end", PATIENCE, || {
        let info = watcher.info();
        (info.connections, info.sessions) == (1, 1)
    });
    let info = watcher.info();
    let in_use = (info.used_bytes, info.reserved_bytes, info.superseded_bytes, info.values);
    assert_eq!(in_use, (0, 0, 0, 0), "{info:?}");
    assert_eq!((info.holds, info.reservations), (0, 0), "{info:?}");
    until("descriptors to come back", PATIENCE, || server.open_descriptors() <= before.1);
    let after = server.resident_bytes();
    assert!(after <= before.0 + 2 * MIB, "{after} bytes in RAM, {} before", before.0);
    let mut counts = Counts::new("mixed operations");
    counts.add("operations", work.operations.load(Ordering::Relaxed));
    counts.add("GiB moved", work.bytes.load(Ordering::Relaxed) >> 30);
    counts.add("sessions given up", work.given_up.load(Ordering::Relaxed));
    counts.add("KiB in RAM more than before", after.saturating_sub(before.0) >> 10);
}
