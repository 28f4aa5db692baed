//! `puddle serve --zero-copy-from`: the system sends values from where they lie. Over
//! loopback it copies all the same, and on most ways says so; what is kept for it, and
//! for how long, is as over a network device.

use std::thread;
use std::time::{Duration, Instant};

use rampuddle_harness::{
    Counts, Pattern, RawClient, ServeOptions, ServerProcess, Transport, fresh_version, pace, until,
};
use rampuddle_protocol::limits::MIB;
use rampuddle_protocol::{CreateRow, GatherRow, Opcode, RowFlags, Status};

use crate::assert_status;

const SECOND: Duration = Duration::from_secs(1);
/// How long a server looks at a peer that takes nothing.
const WINDOW: Duration = Duration::from_secs(10);

fn start(pool_mib: u64, listen: &str, arguments: &[&str]) -> ServerProcess {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let listen = listen.to_owned();
    ServerProcess::start(ServeOptions {
        listen,
        arguments,
        ..ServeOptions::with_pool_mib(pool_mib)
    })
}

fn lending(pool_mib: u64) -> ServerProcess {
    start(pool_mib, "127.0.0.1:0", &["--zero-copy-from", "64KiB"])
}

/// Stores a value as the client does: sealed.
fn store(client: &mut RawClient, key: &[u8], bytes: &[u8]) -> Status {
    let flags = RowFlags::REPLACE | RowFlags::SEALED;
    let row = CreateRow { flags, version: fresh_version(), ..CreateRow::default() };
    client.create_row(row, key, b"", bytes).0.status()
}

/// A reader that has asked for a value of 1 MiB and takes nothing of it; all of it is in
/// the hands of the system.
fn asked(server: &ServerProcess, other: &mut RawClient) -> RawClient {
    let mut reader = RawClient::connect(&server.door(Transport::Tcp).with_small_buffer());
    let before = other.info().sent_bytes;
    reader.post(Opcode::Gather, &[(row(), b"key", b"")], b"");
    until("the answer to be sent", 5 * SECOND, || other.info().sent_bytes > before + MIB);
    reader
}

fn row() -> GatherRow {
    GatherRow { length: MIB, ..GatherRow::default() }
}

/// Stops a server; returns the sends without a copy that the system took, refused, and
/// reported to be done.
fn told(server: &mut ServerProcess) -> [u64; 3] {
    server.ask_to_stop();
    assert_eq!(server.wait(12 * SECOND).code(), Some(0));
    let said = server.stderr();
    let line = said.lines().find_map(|line| line.strip_prefix("sends without a copy: "));
    let line = line.unwrap_or_else(|| panic!("it does not say what was sent: {said}"));
    let mut numbers = line.split(|one: char| !one.is_ascii_digit()).filter_map(|n| n.parse().ok());
    [(); 3].map(|()| numbers.next().expect("three numbers"))
}

#[test]
fn many_readers_get_whole_values_and_the_system_says_that_it_is_done_with_them() {
    const READERS: u64 = 24;
    let mut counts = Counts::new("values that are lent");
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let mut server = start(32, listen, &["--zero-copy-from", "64KiB"]);
        let mut writer = server.client(Transport::Tcp);
        let baseline = writer.info().used_bytes;
        for salt in 0..4 {
            assert_eq!(
                store(&mut writer, &[salt], &Pattern(salt.into()).bytes(0, 3 * MIB + 5)),
                Status::Ok
            );
        }
        let door = server.door(Transport::Tcp);
        let readers = (0..READERS).map(|number| {
            let door = door.clone();
            thread::spawn(move || {
                let mut reader = RawClient::connect(&door);
                for salt in 0..4_u8 {
                    let (offset, length) = (number * 1_000, 1 + number * 100_000);
                    let (outcome, found) = reader.gather(&[salt], offset, length);
                    assert_status!(outcome, Ok);
                    let wanted = Pattern(salt.into()).bytes(offset, found.len() as u64);
                    assert!(found == wanted, "reader {number} of {salt}");
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.join().expect("a reader read what was written");
        }
        for key in 0..4 {
            assert_status!(writer.delete(&[key]), Ok);
        }
        until("all pages to be free", 5 * SECOND, || writer.info().used_bytes == baseline);
        drop(writer);
        let [sends, refused, done] = told(&mut server);
        assert!(sends >= 2 * READERS, "{sends} sends, {refused} were refused");
        assert!(done >= READERS, "{done} reports of {sends} sends");
        counts.add("sends", sends);
    }
}

#[test]
fn a_slow_reader_gets_the_old_bytes_whole_and_then_their_memory_comes_back() {
    let old = Pattern(1).bytes(0, MIB);
    for lends in [true, false] {
        let mut server = if lends { lending(4) } else { ServerProcess::with_pool_mib(4) };
        let mut other = server.client(Transport::Unix);
        assert_eq!(store(&mut other, b"key", &old), Status::Ok);
        let mut reader = asked(&server, &mut other);
        assert_eq!(store(&mut other, b"key", &Pattern(2).bytes(0, MIB)), Status::Ok);
        assert_status!(other.delete(b"key"), Ok);
        // What was copied is free at once, what was lent is not.
        let kept = other.info().used_bytes;
        assert_eq!(kept, if lends { MIB } else { 0 });
        // Everything that is free is written over.
        let mut fillers = 0_u8;
        while store(&mut other, &[b'f', fillers], &Pattern(3).bytes(0, MIB / 4)) == Status::Ok {
            fillers += 1;
        }
        assert_eq!(u64::from(fillers), 16 - kept / (MIB / 4));
        let before = server.processor_time();
        pace(SECOND);
        let took = server.processor_time() - before;
        assert!(took < SECOND / 4, "the server was busy for {took:?} while nobody asked");
        let answer = reader.receive_answer();
        assert!(answer.payload == old, "the bytes of the time it was asked");
        let rest = u64::from(fillers) * MIB / 4;
        until("the memory to come back", 5 * SECOND, || other.info().used_bytes == rest);
        // The same connection goes on.
        assert_eq!(reader.gather(&[b'f', 0], 0, MIB).1, Pattern(3).bytes(0, MIB / 4));
        if lends {
            let [sends, _, done] = told(&mut server);
            assert!(sends > 0 && done > 0, "{sends} sends, {done} reports");
        }
    }
}

#[test]
fn readers_that_go_amid_what_is_lent_leave_neither_memory_nor_descriptors() {
    let mut server = lending(4);
    let mut other = server.client(Transport::Unix);
    let descriptors = server.open_descriptors();
    for _ in 0..8 {
        assert_eq!(store(&mut other, b"key", &Pattern(1).bytes(0, MIB)), Status::Ok);
        let readers: Vec<RawClient> = (0..3).map(|_| asked(&server, &mut other)).collect();
        assert_status!(other.delete(b"key"), Ok);
        assert_eq!(other.info().used_bytes, MIB);
        drop(readers);
        until("the memory to come back", 5 * SECOND, || other.info().used_bytes == 0);
        until("the sockets to be closed", 5 * SECOND, || server.open_descriptors() <= descriptors);
        assert_eq!(other.info().connections, 1);
    }
    let [sends, _, done] = told(&mut server);
    assert!(sends >= 24 && done >= 24, "{sends} sends, {done} reports");
}

#[test]
fn a_peer_that_takes_nothing_of_what_it_is_lent_is_cut_off_and_the_memory_comes_back() {
    let server = lending(4);
    let mut other = server.client(Transport::Unix);
    let descriptors = server.open_descriptors();
    assert_eq!(store(&mut other, b"key", &Pattern(1).bytes(0, MIB)), Status::Ok);
    let began = Instant::now();
    let reader = asked(&server, &mut other);
    // One that says that it will send no more is waited for in the same way.
    let ended = asked(&server, &mut other);
    ended.end_sending();
    assert_status!(other.delete(b"key"), Ok);
    until("the memory to come back", 2 * WINDOW, || other.info().used_bytes == 0);
    assert!(began.elapsed() >= WINDOW * 9 / 10, "too early: {:?}", began.elapsed());
    until("the sockets to be closed", 5 * SECOND, || server.open_descriptors() <= descriptors);
    assert!(other.info().stalled_connections >= 1);
    drop((reader, ended));
}

#[test]
fn a_reader_that_ends_its_own_side_first_still_gets_all_however_late() {
    let server = lending(4);
    let mut other = server.client(Transport::Unix);
    assert_eq!(store(&mut other, b"key", &Pattern(1).bytes(0, MIB)), Status::Ok);
    let mut reader = asked(&server, &mut other);
    reader.end_sending();
    assert_status!(other.delete(b"key"), Ok);
    // Longer than a socket lingers otherwise.
    pace(2 * SECOND);
    assert_eq!(other.info().used_bytes, MIB);
    assert!(reader.receive_answer().payload == Pattern(1).bytes(0, MIB));
    assert!(reader.receive_to_end(5 * SECOND).is_empty());
    until("the memory to come back", 5 * SECOND, || other.info().used_bytes == 0);
    until("the connection to be over", 5 * SECOND, || other.info().connections == 1);
}

#[test]
fn a_server_that_is_stopped_does_not_wait_for_what_is_lent_and_it_arrives_all_the_same() {
    let mut server = lending(4);
    let mut other = server.client(Transport::Unix);
    assert_eq!(store(&mut other, b"key", &Pattern(1).bytes(0, MIB)), Status::Ok);
    let mut reader = asked(&server, &mut other);
    drop(other);
    let began = Instant::now();
    let [sends, ..] = told(&mut server);
    assert!(sends > 0 && began.elapsed() < 4 * SECOND, "{sends} sends, {:?}", began.elapsed());
    assert!(reader.receive_answer().payload == Pattern(1).bytes(0, MIB));
}
