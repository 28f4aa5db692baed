//! `put -r` and `get -r`: which files, under which names, and what is said of the
//! others.

mod common;

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use common::{Lab, left_in, on_terminal, run, run_on_terminal, run_unread, run_with, text};
use rustix::process::Signal;
use serde_json::Value;

/// A directory `d` of files in folders.
fn with_tree(lab: &Lab) {
    fs::create_dir_all(lab.path("d/sub/deep")).unwrap();
    for (name, bytes) in [("empty", 0), ("a b", 10), ("sub/b", 70_000), ("sub/deep/c", 1_500_000)] {
        lab.file(&format!("d/{name}"), bytes);
    }
    fs::create_dir(lab.path("d/nothing")).unwrap();
}

/// The names of the lines of which this is said.
fn names<'l>(lines: &'l [Value], action: &str) -> Vec<&'l str> {
    lines.iter().filter(|line| line["action"] == action).map(|line| text(&line["name"])).collect()
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}

fn same_files(lab: &Lab, one: &str, other: &str) {
    for name in ["empty", "a b", "sub/b", "sub/deep/c"] {
        let read = |folder: &str| fs::read(lab.path(folder).join(name)).unwrap();
        assert!(read(one) == read(other), "{name}");
    }
}

#[test]
fn a_tree_goes_there_and_back_and_only_what_changed_goes_again() {
    let lab = Lab::with_servers(2);
    with_tree(&lab);
    lab.run(["put", "-r", "d"]).expect(0).says("sent 4 files").says("0 the same (0 B), 0 failed");
    let names_there = "d/a b\nd/empty\nd/sub/b\nd/sub/deep/c\n";
    assert_eq!(lab.run(["ls"]).expect(0).text(), names_there);
    lab.run(["get", "-r", "d", "back"]).expect(0).says("received 4 files");
    same_files(&lab, "d", "back");
    assert_eq!(
        sorted(left_in(&lab.path("back")).iter().map(String::as_str).collect()),
        ["a b", "empty", "sub"]
    );

    let again = lab.run(["put", "-r", "d", "--json"]).expect(0).json();
    assert_eq!((names(&again, "same").len(), names(&again, "sent").len()), (4, 0));
    let summary = again.last().unwrap();
    assert_eq!((&summary["event"], &summary["same_bytes"]), (&"summary".into(), &1_570_010.into()));
    let again = lab.run(["get", "-r", "d", "back", "--json"]).expect(0).json();
    assert_eq!((names(&again, "same").len(), names(&again, "received").len()), (4, 0));

    // As long as before, and other bytes; longer; new; with more copies.
    fs::write(lab.path("d/a b"), "0123456789").unwrap();
    fs::write(lab.path("d/empty"), "no more").unwrap();
    lab.file("d/new", 5);
    let changed = lab.run(["put", "-r", "d", "--json"]).expect(0).json();
    assert_eq!(sorted(names(&changed, "sent")), ["d/a b", "d/empty", "d/new"]);
    let changed = lab.run(["get", "-r", "d", "back", "--json"]).expect(0).json();
    assert_eq!(sorted(names(&changed, "received")), ["d/a b", "d/empty", "d/new"]);
    same_files(&lab, "d", "back");
    let fewer = lab.run(["put", "-r", "d", "--json", "--replicas", "1"]).expect(0).json();
    assert_eq!((names(&fewer, "sent").len(), names(&fewer, "same").len()), (5, 0));
    let kept = lab.run(["put", "-r", "d", "--json"]).expect(0).json();
    assert_eq!(names(&kept, "same").len(), 5, "nobody asked for another number of copies");
    // Metadata and compression belong to what is sent; only metadata makes it be sent.
    let described = ["put", "-r", "d", "--json", "--meta", "kind=test", "--compress", "zstd"];
    assert_eq!(names(&lab.run(described).expect(0).json(), "sent").len(), 5);
    assert_eq!(names(&lab.run(described).expect(0).json(), "same").len(), 5);
    let stat = lab.run(["stat", "d/sub/b", "--json"]).expect(0).json();
    assert_eq!(stat[0]["metadata"]["kind"], "test");
    let plain = lab.run(["put", "-r", "d", "--json"]).expect(0).json();
    assert_eq!(names(&plain, "same").len(), 5);
}

#[test]
fn files_that_are_to_live_for_a_time_are_sent_again_and_live_from_then_on() {
    let lab = Lab::with_servers(2);
    with_tree(&lab);
    let ends = || {
        let stat = lab.run(["stat", "d/sub/b", "--json"]).expect(0).json().remove(0);
        stat["expires"].as_u64()
    };
    lab.run(["put", "-r", "d", "--ttl", "1h"]).expect(0).says("sent 4 files");
    let first = ends().expect("it ends");
    lab.run(["verify", "d/"]).expect(0).says("4 objects verified, 4 whole");
    lab.run(["put", "-r", "d", "--ttl", "1h"]).expect(0).says("sent 4 files");
    assert!(ends().expect("it ends") >= first);
    lab.run(["put", "-r", "d"]).expect(0).says("sent 4 files");
    assert_eq!(ends(), None);
    lab.run(["put", "-r", "d"]).expect(0).says("sent 0 files").says("4 the same");
}

#[test]
fn a_name_before_the_slash_is_the_directorys_or_the_one_given() {
    let lab = Lab::with_servers(1);
    fs::create_dir_all(lab.path("x/d")).unwrap();
    lab.file("x/d/f", 3);
    let put = |arguments: &[&str]| {
        let arguments = [&["put", "--replicas", "1", "-r"], arguments].concat();
        lab.run(&arguments).expect(0);
        let listed = lab.run(["ls"]).expect(0).text();
        lab.run(["rm", "--yes", "--prefix", ""]).expect(0);
        listed
    };
    for (arguments, name) in [
        (&["x/d"][..], "d/f"),
        (&["x/d/"], "d/f"),
        (&["x/d", "p"], "p/f"),
        (&["x/d", "p/q//"], "p/q/f"),
        (&["x/d", ""], "f"),
        (&["x/d", "/"], "f"),
        (&["--", "x/d", "-p"], "-p/f"),
    ] {
        assert_eq!(put(arguments), format!("{name}\n"), "{arguments:?}");
    }
    let mut here = lab.puddle(["put", "-r", ".", "--replicas", "1"]);
    here.current_dir(lab.path("x"));
    run(here).expect(0);
    assert_eq!(lab.run(["ls"]).expect(0).text(), "d/f\n");
    lab.run(["get", "-r", "", "all"]).expect(0);
    assert_eq!(fs::read(lab.path("all/d/f")).unwrap(), fs::read(lab.path("x/d/f")).unwrap());
}

#[test]
fn what_is_no_file_is_left_out_with_a_line_and_the_rest_goes_on() {
    let lab = Lab::with_servers(1);
    with_tree(&lab);
    symlink("empty", lab.path("d/link")).unwrap();
    symlink("nowhere", lab.path("d/lost")).unwrap();
    symlink("..", lab.path("d/sub/circle")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, lab.path("d/fifo"), fifo, 0o600.into(), 0).unwrap();
    let _socket = UnixListener::bind(lab.path("d/socket")).unwrap();
    let long = "n".repeat(250);
    let deep = [long.as_str(); 4].join("/");
    fs::create_dir_all(lab.path("d").join(&deep)).unwrap();
    fs::write(lab.path("d").join(&deep).join("f"), "x").unwrap();
    let put =
        |more: &[&str]| lab.run([&["put", "-r", "--replicas", "1", "d"], more].concat()).expect(3);

    let ran = put(&[]).says("sent 4 files (1.5 MiB), 0 the same (0 B), 6 failed");
    let lines: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("puddle: ")).collect();
    assert_eq!(lines.len(), 6, "{ran:?}");
    for (file, why) in [
        ("d/fifo", "it is a FIFO and no file"),
        ("d/link", "it is a symbolic link; --dereference takes links"),
        ("d/lost", "it is a symbolic link"),
        ("d/socket", "it is a socket"),
        ("d/sub/circle", "it is a symbolic link"),
        (&format!("d/{deep}/f"), "1 to 900"),
    ] {
        let is_told = |line: &&&str| line.contains(file) && line.contains(why);
        assert_eq!(lines.iter().filter(is_told).count(), 1, "{file}: {lines:?}");
    }
    let json = put(&["--json"]).json();
    assert_eq!((names(&json, "same").len(), names(&json, "failed").len()), (4, 6));
    let failed = json.iter().find(|line| line["name"] == "d/fifo").unwrap();
    assert!(text(&failed["error"]).contains("it is a FIFO"), "{failed}");
    assert_eq!((&failed["path"], &failed["bytes"]), (&"d/fifo".into(), &0.into()));

    let ran = put(&["-L", "--json"]);
    assert_eq!(names(&ran.json(), "sent"), ["d/link"]);
    let ran = ran.says("d/lost is left out: No such file");
    ran.says("d/sub/circle is left out: it leads back to a directory that it is in");
    // A directory that is a link itself was named by the user.
    symlink("d/sub", lab.path("to-sub")).unwrap();
    let ran = lab.run(["put", "-r", "--replicas", "1", "to-sub", "--json"]);
    assert_eq!(sorted(names(&ran.json(), "sent")), ["to-sub/b", "to-sub/deep/c"]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_goes_on() {
    let lab = Lab::with_servers(1);
    with_tree(&lab);
    // Root may read everything but what is no file behind a link.
    if rustix::process::geteuid().is_root() {
        symlink("/proc/self/mem", lab.path("d/unread")).unwrap();
    } else {
        lab.file("d/unread", 10);
        fs::set_permissions(lab.path("d/unread"), Permissions::from_mode(0o000)).unwrap();
    }
    let ran = lab.run(["put", "-r", "-L", "--replicas", "1", "d"]).expect(3);
    let ran = ran.says("sent 4 files").says("1 failed");
    ran.says("d/unread is not stored: ");
}

#[test]
fn names_of_any_bytes_go_there_and_back_and_steer_no_terminal() {
    let lab = Lab::with_servers(1);
    fs::create_dir(lab.path("d")).unwrap();
    for name in [&b"\xff\xfe"[..], b"line\nbreak", b"\x1b[2J", b"-dash", b" "] {
        fs::write(lab.path("d").join(OsStr::from_bytes(name)), name).unwrap();
    }
    let ran = lab.run(["put", "-r", "d", "--replicas", "1", "--json"]).expect(0);
    assert_eq!(names(&ran.json(), "sent").len(), 5);
    assert!(!ran.text().contains('\x1b'), "{ran:?}");
    let hex: Vec<_> = ran.json().iter().filter_map(|line| line.get("name_hex").cloned()).collect();
    assert_eq!(hex, ["642ffffe"]);
    lab.run(["get", "-r", "d", "back"]).expect(0);
    for name in [&b"\xff\xfe"[..], b"line\nbreak", b"\x1b[2J", b"-dash", b" "] {
        assert_eq!(fs::read(lab.path("back").join(OsStr::from_bytes(name))).unwrap(), name);
    }
    fs::remove_file(lab.path("back").join(OsStr::from_bytes(b"\x1b[2J"))).unwrap();
    fs::create_dir(lab.path("back").join(OsStr::from_bytes(b"\x1b[2J"))).unwrap();
    let ran = lab.run(["get", "-r", "d", "back"]).expect(3).says("back/\\x1b[2J is as it was");
    assert!(!ran.stderr.contains('\x1b'), "{ran:?}");
}

#[test]
fn no_name_of_an_object_leads_out_of_the_folder() {
    let lab = Lab::with_servers(1);
    let names_there = [
        "p/../out",
        "p/a/../../out",
        "p//b",
        "p/c/",
        "p/./d",
        "p/..",
        "p/.",
        "p//",
        "p/fine",
        "p/f",
        "p/f-x",
        "p/f/g",
        "p/f/h/i",
        "/etc/x",
    ];
    for name in names_there {
        run_with(lab.puddle(["put", "--replicas", "1", "-", name]), b"x").expect(0);
    }
    fs::create_dir(lab.path("in")).unwrap();
    let ran = lab.run(["get", "-r", "p", "in/side", "--json"]).expect(3);
    let json = ran.json();
    assert_eq!(sorted(names(&json, "received")), ["p/f", "p/f-x", "p/fine"]);
    assert_eq!(names(&json, "failed").len(), 10);
    assert_eq!(ran.stderr.lines().filter(|line| line.contains("cannot be a file")).count(), 10);
    let ran = ran.says("\"p/../out\" cannot be a file: it has a part \"..\"");
    let ran = ran.says("\"p/f/g\" cannot be a file: \"p/f\" is one");
    ran.says("\"p//b\" cannot be a file: it has an empty part");
    assert_eq!(left_in(&lab.path("in")), ["side"]);
    let left = left_in(&lab.path("in/side"));
    assert_eq!(sorted(left.iter().map(String::as_str).collect()), ["f", "f-x", "fine"]);
    // An absolute name is one below the prefix that ends with its slash.
    lab.run(["get", "-r", "/etc", "in/etc"]).expect(0);
    assert_eq!(left_in(&lab.path("in/etc")), ["x"]);
    lab.run(["get", "-r", "", "in/all"]).expect(3).says("\"/etc/x\" cannot be a file");
}

#[test]
fn what_stands_in_the_way_of_a_file_stays_and_is_told() {
    let lab = Lab::with_servers(1);
    for name in ["p/a", "p/b/c", "p/d/e", "p/f", "p/g", "p/h"] {
        run_with(lab.puddle(["put", "--replicas", "1", "-", name]), b"x").expect(0);
    }
    for folder in ["out", "out/a", "elsewhere"] {
        fs::create_dir(lab.path(folder)).unwrap();
    }
    fs::write(lab.path("out/b"), "a file").unwrap();
    symlink("../elsewhere", lab.path("out/d")).unwrap();
    fs::write(lab.path("elsewhere/target"), "kept").unwrap();
    symlink("../elsewhere/target", lab.path("out/f")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, lab.path("out/g"), fifo, 0o600.into(), 0).unwrap();

    let ran = lab.run(["get", "-r", "p", "out"]).expect(3).says("received 2 files");
    let ran = ran.says("out/a is as it was: it is a folder here; remove it first");
    let ran = ran.says("out/b/c is as it was: out/b is no folder here");
    let ran = ran.says("out/d/e is as it was: out/d is a symbolic link here");
    ran.says("out/g is as it was: it is a FIFO, a socket or a device here");
    assert_eq!(fs::read(lab.path("out/b")).unwrap(), b"a file");
    // The link is replaced, and what it names is as it was.
    assert!(!lab.path("out/f").is_symlink());
    assert_eq!(fs::read(lab.path("out/f")).unwrap(), b"x");
    assert_eq!(fs::read(lab.path("elsewhere/target")).unwrap(), b"kept");
    assert_eq!(left_in(&lab.path("elsewhere")), ["target"]);
    assert_eq!(fs::read(lab.path("out/h")).unwrap(), b"x");
}

#[test]
fn what_no_file_could_do_better_ends_the_command() {
    let mut lab = Lab::with_servers(1);
    with_tree(&lab);
    let put = |more: &[&str]| lab.run([&["put", "-r", "d"], more].concat());
    put(&["--replicas", "4"]).expect(2).says("at most 3");
    put(&["--stripe", "100KiB"]).expect(2).says("whole MiB");
    let tokens = lab.token_file("tokens", "a:write:0123456789abcdef\n");
    let ran = put(&["--token-file", tokens.to_str().unwrap()]).expect(2);
    let lines = ran.stderr.lines().filter(|line| line.starts_with("puddle: ")).count();
    assert_eq!(lines, 1, "one line, not one for each file: {ran:?}");

    // Without clobbering, what is there and different stays.
    put(&["--replicas", "1"]).expect(0);
    fs::write(lab.path("d/empty"), "other").unwrap();
    let ran = put(&["--no-clobber", "--replicas", "1"]).expect(3).says("exists already");
    ran.says("3 the same").says("1 failed");
    assert_eq!(lab.run(["get", "d/empty", "-"]).expect(0).stdout, b"");

    // Who closed stdout does not want to know, and all is done.
    run_unread(lab.puddle(["put", "-r", "d", "q", "--json", "--replicas", "1"])).expect(0);
    assert_eq!(lab.run(["ls", "q/"]).expect(0).text().lines().count(), 4);

    // Too few servers: each file is told, and put again the next time.
    let second = lab.serve("s2", &[]).0.id();
    let pid = rustix::process::Pid::from_raw(second as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    lab.servers[1].0.wait();
    let ran = lab.run(["put", "-r", "d", "few", "--json"]).expect(3);
    assert_eq!(names(&ran.json(), "failed").len(), 4);
    ran.says("is stored, but in 1 of 2 copies");
}

#[test]
fn nothing_below_a_prefix_is_absent_and_an_empty_directory_is_done() {
    let lab = Lab::with_servers(1);
    fs::create_dir(lab.path("d")).unwrap();
    lab.run(["put", "-r", "d"]).expect(0).says("sent 0 files");
    lab.run(["get", "-r", "nothing", "out"]).expect(1).says("begins with \"nothing/\"");
    // A name is no prefix of a part of another.
    run_with(lab.puddle(["put", "--replicas", "1", "-", "model-2/x"]), b"x").expect(0);
    lab.run(["get", "-r", "model", "out"]).expect(1);
}

#[test]
fn on_a_terminal_each_file_in_flight_has_a_line_and_all_have_one() {
    let lab = Lab::with_servers(1);
    with_tree(&lab);
    lab.file("d/large", 5_000_000);
    let put = lab.puddle(["put", "-r", "d", "--replicas", "1", "--jobs", "8"]);
    // The server pauses until all can be seen.
    let server = &lab.servers[0].0;
    server.signal(Signal::STOP);
    let mut put = on_terminal(&put);
    let mut put = put.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut terminal, mut shown) = (put.stdout.take().unwrap(), Vec::new());
    let has = |shown: &[u8], text: &str| String::from_utf8_lossy(shown).contains(text);
    while !(has(&shown, "5 files") && has(&shown, "d/large")) {
        let mut bytes = [0; 4_096];
        let count = terminal.read(&mut bytes).unwrap();
        assert!(count > 0, "{:?}", String::from_utf8_lossy(&shown));
        shown.extend(&bytes[..count]);
    }
    server.signal(Signal::CONT);
    terminal.read_to_end(&mut shown).unwrap();
    assert!(put.wait().unwrap().success());
    assert!(has(&shown, "sent 5 files"), "{:?}", String::from_utf8_lossy(&shown));
    for quiet in [&["--quiet"][..], &["--json"]] {
        let mut put = lab.puddle(["put", "-r", "d", "q", "--replicas", "1"]);
        put.args(quiet);
        let shown = run_on_terminal(&put, b"").expect(0).text();
        assert!(!shown.contains('\x1b'), "{shown:?}");
    }
    let ran = lab.run(["get", "-r", "d", "back"]).expect(0);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}
