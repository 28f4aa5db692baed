//! `puddle raw`: the four operations and their exit codes.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use common::{Lab, run_with};

#[test]
fn a_value_is_made_written_read_and_deleted() {
    let lab = Lab::with_servers(2);
    let create = lab.puddle(["raw", "create", "k", "--length", "64KiB", "--value", "-"]);
    run_with(create, b"hello").expect(0).says("65536 bytes");
    let made = run_with(
        lab.puddle(["raw", "scatter", "k", "--offset", "1", "--value", "-", "--json"]),
        b"XY",
    );
    let answer = &made.expect(0).json()[0];
    assert_eq!((&answer["status"], &answer["length"]), (&"OK".into(), &2.into()));
    let read = lab.run(["raw", "gather", "k", "--offset", "0", "--length", "6"]).expect(0);
    assert_eq!(read.stdout, b"hXYlo\0");
    let _ = read.says("6 bytes");
    let beyond = lab.run(["raw", "gather", "k", "--offset", "65530", "--length", "1GiB", "-q"]);
    let beyond = beyond.expect(0);
    assert_eq!((beyond.stdout.len(), beyond.stderr.as_str()), (6, ""));
    lab.run(["raw", "delete", "k"]).expect(0);
    lab.run(["raw", "gather", "k", "--length", "1"]).expect(1).says("NOT_FOUND");
}

#[test]
fn refusals_have_their_exit_codes() {
    let lab = Lab::with_servers(1);
    lab.run(["raw", "create", "k", "--length", "1"]).expect(0);
    lab.run(["raw", "create", "k", "--length", "1"]).expect(2).says("EXISTS").says("--replace");
    lab.run(["raw", "create", "k", "--length", "1", "--replace"]).expect(0);
    lab.run(["raw", "create", "big", "--length", "33MiB"]).expect(3).says("NO_SPACE");
    lab.run(["raw", "create", "big", "--length", "2GiB"]).expect(2).says("at most 1GiB");
    let long = run_with(lab.puddle(["raw", "create", "x", "--length", "1", "--value", "-"]), b"ab");
    long.expect(2).says("more than --length 1");
    let behind = lab.puddle(["raw", "scatter", "k", "--offset", "1MiB", "--value", "-"]);
    run_with(behind, b"ab").expect(2).says("BAD_RANGE");
    lab.run(["raw", "delete", "nothing"]).expect(1).says("NOT_FOUND");
    let answer = lab.run(["raw", "delete", "nothing", "--json"]).expect(1).json();
    assert_eq!(answer[0]["status"], "NOT_FOUND");
    lab.run(["raw", "delete", "k", "--server", "nobody"]).expect(2).says("nobody");
    lab.run(["raw", "delete", &"k".repeat(1025)]).expect(2).says("1 to 1024");
    lab.run(["raw", "delete", ""]).expect(2);
    let reserved = [OsStr::new("raw"), OsStr::new("delete"), OsStr::from_bytes(b"\xf8object")];
    lab.run(reserved).expect(2).says("belong to objects");
    lab.run(["raw", "create", "x", "--value", "/nonexistent"])
        .expect(2)
        .says("cannot read the value");
}

#[test]
fn the_server_can_be_chosen() {
    let lab = Lab::with_servers(2);
    lab.run(["raw", "create", "k", "--length", "1", "--server", "s1"]).expect(0);
    lab.run(["raw", "gather", "k", "--length", "1", "--server", "s2"]).expect(1);
    lab.run(["raw", "gather", "k", "--length", "1", "--server", "s1"]).expect(0);
}

#[test]
fn keys_are_any_bytes_and_may_begin_with_a_dash() {
    let lab = Lab::with_servers(1);
    for key in [&b"-k"[..], b"--json", b"a\nb\x1b[2J", b"\xc3\x28"] {
        let create = ["raw", "create", "--length", "1", "--"].map(OsStr::new);
        lab.run(create.into_iter().chain([OsStr::from_bytes(key)])).expect(0);
        let delete = ["raw", "delete", "--json", "--"].map(OsStr::new);
        let answer = lab.run(delete.into_iter().chain([OsStr::from_bytes(key)])).expect(0);
        let answer = &answer.json()[0];
        match std::str::from_utf8(key) {
            Ok(key) => assert_eq!((&answer["name"], answer.get("name_hex")), (&key.into(), None)),
            Err(_) => assert_eq!(
                (&answer["name"], &answer["name_hex"]),
                (&"\\xc3(".into(), &"c328".into())
            ),
        }
    }
}

#[test]
fn without_a_server_nothing_works_and_the_code_is_3() {
    let mut lab = Lab::new();
    std::fs::create_dir(lab.path("members")).unwrap();
    lab.run(["raw", "delete", "k"]).expect(3).says("no server");
    lab.serve("a", &[]).0.signal(rustix::process::Signal::KILL);
    lab.servers[0].0.wait();
    lab.run(["raw", "delete", "k"]).expect(3).says("not alive");
}
