//! `put`, `get`, `ls`, `stat`, `rm` against real servers.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::Stdio;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use common::{Lab, PATIENCE, behind, left_in, run, run_on_terminal, run_unread, run_with, text};
use rustix::process::Signal;

#[test]
fn files_of_all_lengths_come_back_whole() {
    let lab = Lab::with_servers(3);
    const MIB: usize = 1 << 20;
    for bytes in [0, 1, 65_535, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1] {
        let file = lab.file("file", bytes);
        let put = lab.run(["put", "file", "--json"]).expect(0).json();
        assert_eq!((&put[0]["name"], &put[0]["bytes"]), (&"file".into(), &bytes.into()));
        assert_eq!((&put[0]["replicas"], &put[0]["copies"]), (&2.into(), &2.into()));
        lab.run(["get", "file", "back"]).expect(0);
        assert!(fs::read(&file).unwrap() == fs::read(lab.path("back")).unwrap(), "{bytes}");
        let read = lab.run(["get", "file", "-", "-q"]).expect(0);
        assert!(fs::read(&file).unwrap() == read.stdout, "{bytes}");
    }
}

#[test]
fn ranges_are_cut_at_the_end() {
    let lab = Lab::with_servers(2);
    let file = fs::read(lab.file("file", 6_000_000)).unwrap();
    lab.run(["put", "file"]).expect(0);
    let range =
        |range: &str| lab.run(["get", "file", "-", "-q", "--range", range]).expect(0).stdout;
    assert!(range("4MiB:1KiB") == file[4 << 20..(4 << 20) + 1024]);
    assert!(range("4194300:100") == file[4_194_300..4_194_400]);
    assert!(range("5999990:1GiB") == file[5_999_990..]);
    assert_eq!(range("6000000:5"), b"");
    assert_eq!(range("18446744073709551615:5"), b"");
    assert_eq!(range("0:0"), b"");
    lab.run(["get", "file", "part", "--range", "10:5"]).expect(0);
    assert_eq!(fs::read(lab.path("part")).unwrap(), file[10..15]);
}

#[test]
fn stdin_and_pipes_are_sources_and_directories_are_not() {
    let lab = Lab::with_servers(2);
    let bytes = fs::read(lab.file("file", 5_000_000)).unwrap();
    run_with(lab.puddle(["put", "-", "a/stdin"]), &bytes).expect(0);
    assert!(lab.run(["get", "a/stdin", "-"]).expect(0).stdout == bytes);

    let pipe = lab.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let writer = std::thread::spawn({
        let bytes = bytes.clone();
        move || fs::write(pipe, bytes)
    });
    lab.run(["put", "pipe"]).expect(0);
    writer.join().unwrap().unwrap();
    assert!(lab.run(["get", "pipe", "-"]).expect(0).stdout == bytes);

    lab.run(["put", "-"]).expect(2).says("has no name");
    lab.run(["put", "."]).expect(2).says("is a directory");
    lab.run(["put", "nonexistent"]).expect(2).says("No such file");
    lab.run(["put", "/dev/zero"]).expect(2).says("may have no end").says("| puddle put - NAME");
    lab.run(["put", "file", &"n".repeat(900)]).expect(0);
    lab.run(["put", "file", &"n".repeat(901)]).expect(2).says("1 to 900");
    lab.run(["put", "file", ""]).expect(2).says("1 to 900");
    lab.run(["put", "file", "--stripe", "100KiB"]).expect(2).says("stripe");
    lab.run(["put", "file", "--replicas", "4"]).expect(2).says("at most 3");
}

#[test]
fn get_writes_to_files_folders_links_and_devices() {
    let lab = Lab::with_servers(1);
    lab.file("file", 100_000);
    lab.run(["put", "--replicas", "1", "file", "x/y/name"]).expect(0);
    let is_whole =
        |path: &str| fs::read(lab.path(path)).unwrap() == fs::read(lab.path("file")).unwrap();
    lab.run(["get", "x/y/name"]).expect(0);
    assert!(is_whole("name"));
    fs::create_dir(lab.path("folder")).unwrap();
    lab.run(["get", "x/y/name", "folder"]).expect(0);
    assert!(is_whole("folder/name"));
    fs::write(lab.path("target"), "before").unwrap();
    std::os::unix::fs::symlink("target", lab.path("link")).unwrap();
    lab.run(["get", "x/y/name", "link"]).expect(0);
    assert!(is_whole("target") && lab.path("link").is_symlink());
    lab.run(["get", "x/y/name", "/dev/null"]).expect(0);
    assert!(
        fs::metadata("/dev/null").unwrap().file_type()
            != fs::metadata(lab.path("target")).unwrap().file_type()
    );
    lab.run(["get", "x/y/name", "/dev/full"]).expect(3).says("No space left").says("/dev/full");
    assert_eq!(left_in(&lab.path("folder")), ["name"]);

    // What stdout is stays what it is, also when it has another name.
    for stdout in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let file = fs::File::create(lab.path("out")).unwrap();
        let inode = file.metadata().unwrap().ino();
        let mut command = lab.puddle(["get", "x/y/name", stdout]);
        command.stdout(file);
        run(command).expect(0);
        assert!(is_whole("out"), "{stdout}");
        assert_eq!(fs::metadata(lab.path("out")).unwrap().ino(), inode, "{stdout}");
    }
}

/// As in a shell: `{ echo before; puddle get NAME /dev/fd/1; echo behind; } >> file`.
#[test]
fn get_goes_on_where_an_open_descriptor_is() {
    let lab = Lab::with_servers(1);
    let bytes = fs::read(lab.file("file", 3_000_000)).unwrap();
    lab.run(["put", "--replicas", "1", "file"]).expect(0);
    let expected = [b"before\n", &bytes[..], b"behind\n"].concat();
    for (path, redirection) in [
        ("/dev/fd/1", ">> out"),
        ("/proc/self/fd/1", "> out"),
        ("/proc/thread-self/fd/1", ">> out"),
        ("/dev/stdout", "> out"),
        ("/dev/stderr", "2>> out 1>&2"),
        ("/dev/fd/7", "7>> out 1>&7"),
    ] {
        fs::write(lab.path("out"), "").unwrap();
        let puddle = lab.puddle(["get", "file", path, "-q"]);
        let script = format!("{{ echo before; \"$@\"; echo behind; }} {redirection}");
        let ran = run(behind(&["sh", "-c", &script, "sh"], &puddle)).expect(0);
        assert!(fs::read(lab.path("out")).unwrap() == expected, "{path}: {ran:?}");
    }
    // Nobody opened that.
    lab.run(["get", "file", "/dev/fd/999"]).expect(2).says("cannot write to /dev/fd/999");
}

#[test]
fn get_writes_into_a_pipe_that_has_a_name() {
    let lab = Lab::with_servers(1);
    let bytes = fs::read(lab.file("file", 3_000_000)).unwrap();
    lab.run(["put", "--replicas", "1", "file"]).expect(0);
    let pipe = lab.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    lab.run(["get", "file", "pipe"]).expect(0);
    assert!(reader.join().unwrap() == bytes);
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
}

#[test]
fn a_destination_that_cannot_be_is_refused_before_anything_is_done() {
    let lab = Lab::with_servers(1);
    lab.file("file", 100_000);
    lab.run(["put", "--replicas", "1", "file"]).expect(0);
    fs::create_dir_all(lab.path("sub/file")).unwrap();
    for (destination, told) in [
        ("nowhere/file", "there is no folder nowhere; create it first"),
        ("nowhere/", "there is no folder nowhere/"),
        ("sub", "sub/file: it is a folder"),
        ("file/name", "Not a directory"),
        ("/proc/name", "cannot create a file in /proc"),
        (&"n".repeat(256), "File name too long"),
    ] {
        lab.run(["get", "file", destination]).expect(2).says(told);
    }
    let mut left = left_in(lab.folder.path());
    left.sort();
    assert_eq!(left, ["file", "members", "sub"]);
    // What a folder takes, get takes.
    lab.run(["get", "file", &"n".repeat(255)]).expect(0);
}

#[test]
fn a_failed_get_leaves_no_file_and_does_not_touch_the_old_one() {
    let lab = Lab::with_servers(1);
    fs::write(lab.path("old"), "old").unwrap();
    lab.run(["get", "absent", "old"]).expect(1).says("there is no object \"absent\"");
    assert_eq!(fs::read(lab.path("old")).unwrap(), b"old");
    let mut left = left_in(lab.folder.path());
    left.sort();
    assert_eq!(left, ["members", "old"]);
}

#[test]
fn what_is_not_there_exits_with_1_and_what_cannot_be_known_with_3() {
    let mut lab = Lab::with_servers(1);
    let list = lab.static_list();
    for arguments in
        [&["get", "a", "-"][..], &["stat", "a"], &["rm", "a"], &["rm", "--prefix", "a", "--yes"]]
    {
        lab.run(arguments).expect(1);
    }
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    for arguments in
        [&["get", "a", "-"][..], &["stat", "a"], &["rm", "a"], &["ls"], &["put", "members"]]
    {
        let code = if arguments[0] == "put" { 2 } else { 3 };
        run({
            let mut command = lab.puddle(arguments);
            command.env("PUDDLE_DISCOVERY", &list);
            command
        })
        .expect(code);
    }
    lab.file("file", 10);
    lab.run(["put", "file"]).expect(3);
}

#[test]
fn no_clobber_refuses_and_leaves_the_object() {
    let lab = Lab::with_servers(2);
    run_with(lab.puddle(["put", "-", "a"]), b"one").expect(0);
    run_with(lab.puddle(["put", "-", "a", "--no-clobber"]), b"two")
        .expect(2)
        .says("exists already");
    assert_eq!(lab.run(["get", "a", "-"]).expect(0).stdout, b"one");
    run_with(lab.puddle(["put", "-", "a"]), b"three").expect(0);
    assert_eq!(lab.run(["get", "a", "-"]).expect(0).stdout, b"three");
}

#[test]
fn an_object_that_is_kept_is_shown_to_be() {
    let lab = Lab::with_servers(2);
    run_with(lab.puddle(["put", "-", "a", "--keep"]), b"one").expect(0);
    run_with(lab.puddle(["put", "-", "b"]), b"two").expect(0);
    for (name, is_kept, word) in [("a", true, "yes"), ("b", false, "no")] {
        assert_eq!(lab.run(["stat", name, "--json"]).expect(0).json()[0]["keep"], is_kept);
        let line = format!("keep      {word}\n");
        assert!(lab.run(["stat", name]).expect(0).text().contains(&line), "{name}");
    }
}

#[test]
fn an_object_with_a_ttl_says_when_it_ends_and_ends_then() {
    let lab = Lab::with_servers(2);
    let json = |arguments: &[&str]| lab.run(arguments).expect(0).json().remove(0);
    run_with(lab.puddle(["put", "-", "for-good"]), b"one").expect(0);
    assert!(json(&["stat", "for-good", "--json"])["expires"].is_null());
    assert!(lab.run(["stat", "for-good"]).expect(0).text().contains("expires   never\n"));
    let put = run_with(lab.puddle(["put", "-", "a", "--ttl", "2h", "--json"]), b"two").expect(0);
    let expires = put.json()[0]["expires"].as_u64().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 7_100..=now + 7_201).contains(&expires), "{expires} at {now}");
    assert_eq!(json(&["stat", "a", "--json"])["expires"], expires);
    assert!(lab.run(["stat", "a"]).expect(0).text().contains("expires   20"));
    run_with(lab.puddle(["put", "-", "a", "--ttl", "1s"]), b"three").expect(0);
    let began = Instant::now();
    while lab.run(["ls"]).expect(0).text() != "for-good\n" {
        assert!(began.elapsed() < PATIENCE, "it never ends");
    }
    for bad in ["", "90", "1.5h", "-1s", "1w"] {
        let refused = lab.run(["put", "members", "--ttl", bad]).expect(2);
        refused.says("such as 90s, 15m, 2h or 7d");
    }
    for bad in ["0s", "3651d"] {
        let refused = run_with(lab.puddle(["put", "-", "b", "--ttl", bad]), b"x").expect(2);
        refused.says("expected 1 s to 3,650 days");
    }
}

#[test]
fn if_version_replaces_that_version_only() {
    let lab = Lab::with_servers(2);
    let version = |ran: common::Ran| text(&ran.json()[0]["version"]).to_owned();
    let put = |if_version: &str, bytes: &[u8]| {
        run_with(lab.puddle(["put", "-", "a", "--json", "--if-version", if_version]), bytes)
    };
    let nothing = "0000000000000001-0000000000000001";
    let first = version(run_with(lab.puddle(["put", "-", "a", "--json"]), b"one").expect(0));
    assert_eq!(version(lab.run(["stat", "a", "--json"]).expect(0)), first);
    put(nothing, b"two").expect(2).says(&format!("its version is {first} now"));
    let second = version(put(&first, b"two").expect(0));
    assert!(second > first, "as text they sort as they count");
    put(&first, b"three").expect(2).says(&second);
    assert_eq!(lab.run(["get", "a", "-"]).expect(0).stdout, b"two");
    for bad in ["", "7", "-1", &first[1..]] {
        put(bad, b"x").expect(2).says("expected TIME-WRITER, each of 16 hexadecimal digits");
    }
    put("0000000000000000-0000000000000000", b"x").expect(2).says("which no object has");
    let both = ["put", "-", "a", "--no-clobber", "--if-version", &first];
    lab.run(both).expect(2).says("cannot be used with");
}

#[test]
fn listing_is_in_order_by_prefix_and_escaped() {
    let lab = Lab::with_servers(3);
    let names: [&[u8]; 5] = [b"-dash", b"a", b"a/1", b"a\xff\x1b[2J", b"b"];
    for name in names {
        let arguments =
            [OsStr::new("put"), OsStr::new("--"), OsStr::new("-"), OsStr::from_bytes(name)];
        run_with(lab.puddle(arguments), b"xyz").expect(0);
    }
    assert_eq!(lab.run(["ls"]).expect(0).text(), "-dash\na\na/1\na\\xff\\x1b[2J\nb\n");
    assert_eq!(lab.run(["ls", "a/"]).expect(0).text(), "a/1\n");
    assert_eq!(lab.run(["ls", "--", "-"]).expect(0).text(), "-dash\n");
    assert_eq!(lab.run(["ls", "zzz"]).expect(0).text(), "");
    let json = lab.run(["ls", "--json", "a"]).expect(0).json();
    assert_eq!((&json[0]["name"], &json[0]["bytes"]), (&"a".into(), &3.into()));
    assert!(json[0].get("name_hex").is_none() && text(&json[0]["version"]).len() == 33);
    assert_eq!(json[2]["name_hex"], "61ff1b5b324a");
    assert!(lab.run(["ls", "-l", "b"]).expect(0).text().ends_with("Z  b\n"));
}

#[test]
fn stat_tells_where_each_copy_lies_and_what_is_missing() {
    let mut lab = Lab::with_servers(3);
    lab.file("file", 9_000_000);
    let put = lab.run(["put", "file", "--json"]).expect(0).json().remove(0);
    let stat = lab.run(["stat", "file", "--json"]).expect(0).json().remove(0);
    for field in ["name", "bytes", "version", "replicas", "stripes"] {
        assert_eq!(stat[field], put[field], "{field}");
    }
    assert!(stat["seconds"].as_f64().unwrap() > 0.0 && put["seconds"].as_f64().unwrap() > 0.0);
    let copies = stat["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 2 * (1 + 3));
    assert!(copies.iter().all(|copy| copy["owner"] == true && copy["state"] == "whole"));
    assert!(copies[0]["stripe"].is_null() && copies[7]["stripe"] == 2);
    assert!(lab.run(["stat", "file"]).expect(0).text().contains("stripe 2"));

    let victim = text(&copies[7]["server"]).to_owned();
    let at = lab.servers.iter().position(|(_, ready)| ready["name"] == *victim).unwrap();
    lab.servers[at].0.signal(Signal::KILL);
    lab.servers[at].0.wait();
    let stat = lab.run(["stat", "file", "--json"]).expect(0).json().remove(0);
    let copies = stat["copies"].as_array().unwrap();
    let of_victim = copies.iter().filter(|copy| copy["server"] == *victim);
    assert!(of_victim.clone().count() > 0);
    assert!(of_victim.clone().all(|copy| copy["state"] == "unreachable"));
    lab.run(["get", "file", "back"]).expect(0);
    assert!(fs::read(lab.path("file")).unwrap() == fs::read(lab.path("back")).unwrap());
}

#[test]
fn rm_deletes_by_name_and_by_prefix_and_asks_where_it_can() {
    let lab = Lab::with_servers(2);
    for name in ["a/1", "a/2", "b", "c", "-d"] {
        let mut command = lab.puddle(["put", "--", "-", name]);
        command.stdin(Stdio::null());
        run(command).expect(0);
    }
    lab.run(["rm", "--prefix", "a/"]).expect(2).says("--yes");
    assert_eq!(lab.run(["ls", "a/"]).expect(0).text(), "a/1\na/2\n");
    let gone = lab.run(["rm", "--prefix", "a/", "--yes", "--json"]).expect(0).json();
    assert_eq!((gone.len(), &gone[0]["existed"]), (2, &true.into()));
    lab.run(["rm", "b", "nothing", "c"]).expect(1).says("there is no object \"nothing\"");
    lab.run(["rm", "--", "-d"]).expect(0);
    assert_eq!(lab.run(["ls"]).expect(0).text(), "");
    lab.run(["rm", "--prefix", "", "--yes"]).expect(1).says("no object was found");
}

/// Members may be missing from it: it may have been wiped a moment ago.
#[test]
fn a_registry_of_only_seconds_is_not_taken_for_the_whole_truth() {
    const YOUNG: &str = "registry is only seconds old";
    let lab = Lab::young_with_servers(1);
    let settled = |arguments: &[&str]| {
        let mut command = lab.puddle(arguments);
        command.env("PUDDLE_DISCOVERY", lab.static_list());
        run(command)
    };
    lab.file("file", 10);
    lab.run(["put", "file", "a/1"]).expect(3).says("in 1 of 2 copies").says(YOUNG);
    lab.run(["put", "file", "a/2", "--replicas", "1"]).expect(0);
    settled(&["put", "file", "b"]).expect(0);

    assert_eq!(lab.run(["ls", "a/"]).expect(3).says(YOUNG).text(), "a/1\na/2\n");
    assert_eq!(lab.run(["ls", "c"]).expect(3).says(YOUNG).text(), "");
    assert_eq!(settled(&["ls", "a/"]).expect(0).text(), "a/1\na/2\n");

    lab.run(["rm", "nothing"]).expect(3).says("whether \"nothing\" exists is unknown");
    lab.run(["rm", "--prefix", "c", "--yes"]).expect(3).says(YOUNG);
    lab.run(["rm", "--prefix", "a/", "--yes"]).expect(3).says(YOUNG);
    lab.run(["rm", "b"]).expect(3).says("1 of 2 owners").says(YOUNG);
    assert_eq!(settled(&["ls"]).expect(0).text(), "");
}

#[test]
fn rm_asks_once_on_a_terminal() {
    let lab = Lab::with_servers(2);
    let put = |names: &[&str]| {
        for name in names {
            run_with(lab.puddle(["put", "-", name]), b"x").expect(0);
        }
    };
    let typing =
        |arguments: &[&str], typed: &str| run_on_terminal(&lab.puddle(arguments), typed.as_bytes());
    let listed = || lab.run(["ls"]).expect(0).text();
    put(&["a/1", "a/2", "b"]);
    for (arguments, asked) in [
        (&["rm", "b"][..], "Delete 1 object: \"b\"? [y/N]"),
        (&["rm", "a/1", "b"], "Delete 2 objects: \"a/1\", \"b\"? [y/N]"),
        (&["rm", "--prefix", "a/"], "Delete 2 objects (2 B) whose names begin with \"a/\"? [y/N]"),
    ] {
        for refusal in ["n\n", "\n", "", "yess\n"] {
            let ran = typing(arguments, refusal).expect(2);
            let shown = ran.text();
            assert_eq!(shown.matches(asked).count(), 1, "{shown}");
            assert!(shown.contains("nothing was deleted"), "{shown}");
        }
    }
    assert_eq!(listed(), "a/1\na/2\nb\n");
    typing(&["rm", "b", "a/1"], "y\n").expect(0);
    assert_eq!(listed(), "a/2\n");
    typing(&["rm", "--prefix", "a/"], "yes\n").expect(0);
    assert_eq!(listed(), "");
    put(&["a", "b"]);
    let shown = typing(&["rm", "--yes", "a"], "").expect(0).text();
    assert!(!shown.contains("[y/N]"), "{shown}");
    // Without a terminal, what was named is deleted.
    lab.run(["rm", "b"]).expect(0);
    assert_eq!(listed(), "");
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let lab = Lab::with_servers(1);
    lab.file("file", 8_000_000);
    lab.run(["put", "file", "--replicas", "1"]).expect(0);
    lab.run(["raw", "create", "k", "--length", "1"]).expect(0);
    for arguments in [
        &["get", "file", "-", "-q"][..],
        &["get", "file", "/dev/stdout", "-q"],
        &["ls"],
        &["ls", "--json"],
        &["nodes"],
        &["stat", "file"],
        &["raw", "gather", "k", "--length", "1", "-q"],
        &["serve", "--print-config", "--name", "a"],
    ] {
        let ran = run_unread(lab.puddle(arguments)).expect(0);
        assert_eq!(ran.stderr, "", "{arguments:?}");
    }
}

#[test]
fn who_writes_keeps_the_exit_code_when_nobody_reads_the_report() {
    let mut lab = Lab::with_servers(2);
    lab.file("file", 100);
    run_unread(lab.puddle(["put", "file", "--json"])).expect(0);
    run_unread(lab.puddle(["put", "file", "--json", "--no-clobber"])).expect(2);
    run_unread(lab.puddle(["get", "file", "copy", "--json"])).expect(0);
    let create = ["raw", "create", "k", "--length", "1", "--json", "--server", "s1"];
    run_unread(lab.puddle(create)).expect(0);
    run_unread(lab.puddle(create)).expect(2).says("EXISTS");
    run_unread(lab.puddle(["raw", "delete", "none", "--json"])).expect(1).says("NOT_FOUND");
    // The same holds for a disk that is full.
    let mut command = lab.puddle(["put", "file", "--json"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let stderr = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(stderr.status.code(), Some(0), "{stderr:?}");
    assert!(String::from_utf8_lossy(&stderr.stderr).contains("cannot write to stdout"));

    lab.servers[1].0.signal(Signal::KILL);
    lab.servers[1].0.wait();
    run_unread(lab.puddle(["put", "file", "--json"])).expect(3).says("in 1 of 2 copies");
    run_unread(lab.puddle(["rm", "file", "--json"])).expect(3).says("1 of 2 owners");
}

#[test]
fn a_put_with_too_few_servers_up_says_so() {
    let mut lab = Lab::with_servers(2);
    lab.servers[1].0.signal(Signal::KILL);
    lab.servers[1].0.wait();
    lab.file("file", 100);
    let put = lab.run(["put", "file", "--json"]).expect(3).says("in 1 of 2 copies");
    assert_eq!((&put.json()[0]["copies"], &put.json()[0]["wanted"]), (&1.into(), &2.into()));
    lab.run(["put", "file", "--write", "one"]).expect(0);
    assert_eq!(lab.run(["get", "file", "-"]).expect(0).stdout, fs::read(lab.path("file")).unwrap());
}

#[test]
fn metadata_comes_back_and_what_cannot_be_kept_is_refused_before_anything_is_done() {
    let lab = Lab::with_servers(2);
    for (name, bytes) in [("empty", 0), ("inline", 100), ("striped", 5_000_000)] {
        let file = fs::read(lab.file(name, bytes)).unwrap();
        let word = [b"raw=\xff\x01".as_slice()].concat();
        let mut put = lab.puddle(["put", name, "--meta", "type=a=b", "--meta", "empty="]);
        put.arg("--meta").arg(OsStr::from_bytes(&word));
        run(put).expect(0);
        let stat = lab.run(["stat", name, "--json"]).expect(0).json().remove(0);
        let metadata = serde_json::json!({"empty": "", "raw": "\\xff\\x01", "type": "a=b"});
        assert_eq!(stat["metadata"], metadata, "{name}");
        assert_eq!(stat["metadata_hex"], serde_json::json!({"raw": "ff01"}), "{name}");
        let text = lab.run(["stat", name]).expect(0).text();
        assert!(text.contains("meta      type=a=b\n"), "{text}");
        assert!(text.contains("meta      raw=\\xff\\x01\n"), "{text}");
        assert!(lab.run(["get", name, "-", "-q"]).expect(0).stdout == file, "{name}");
        // Another put has other metadata, here none.
        lab.run(["put", name]).expect(0);
        let stat = lab.run(["stat", name, "--json"]).expect(0).json().remove(0);
        assert_eq!(stat["metadata"], serde_json::json!({}), "{name}");
        assert_eq!(stat.get("metadata_hex"), None, "{name}");
    }
    let refused = |meta: &str, says: &str| {
        lab.run(["put", "inline", "never", "--meta", meta]).expect(2).says(says);
    };
    refused("type", "NAME=VALUE");
    refused("=x", "1 to 255 bytes");
    refused("a\nb=x", "without control characters");
    refused(&format!("{}=x", "n".repeat(256)), "1 to 255 bytes");
    refused(&format!("n={}", "v".repeat(65_528)), "the limit is 65536");
    lab.run(["put", "inline", "never", "--meta", "a=1", "--meta", "a=2"]).expect(2).says("twice");
    assert!(!lab.run(["ls"]).expect(0).text().contains("never"));
    lab.run(["put", "inline", "just", "--meta", &format!("n={}", "v".repeat(65_527))]).expect(0);
    assert_eq!(lab.run(["get", "just", "-", "-q"]).expect(0).stdout.len(), 100);
}

#[test]
fn compressed_objects_come_back_whole_and_stat_tells_what_they_take() {
    let lab = Lab::with_servers(2);
    let words: Vec<u8> =
        b"one word after the other\n".iter().copied().cycle().take(5_000_000).collect();
    fs::write(lab.path("text"), &words).unwrap();
    let noise = fs::read(lab.file("noise", 3_000_000)).unwrap();
    for codec in ["lz4", "zstd"] {
        let put =
            lab.run(["put", "text", "--compress", codec, "--json"]).expect(0).json().remove(0);
        assert_eq!((text(&put["codec"]), &put["bytes"]), (codec, &5_000_000.into()));
        assert!(put["stored_bytes"].as_u64().unwrap() < 100_000, "{put}");
        let stat = lab.run(["stat", "text", "--json"]).expect(0).json().remove(0);
        assert_eq!((&stat["codec"], &stat["stored_bytes"]), (&put["codec"], &put["stored_bytes"]));
        let shown = lab.run(["stat", "text"]).expect(0).text();
        assert!(shown.contains(&format!("bytes by codec {codec}")), "{shown}");
        assert!(lab.run(["get", "text", "-", "-q"]).expect(0).stdout == words, "{codec}");
        let range = lab.run(["get", "text", "-", "-q", "--range", "1048570:12"]).expect(0).stdout;
        assert_eq!(range, words[1_048_570..1_048_582]);
        let put =
            lab.run(["put", "noise", "--compress", codec, "--json"]).expect(0).json().remove(0);
        assert_eq!((text(&put["codec"]), &put["stored_bytes"]), ("none", &put["bytes"]));
        assert!(lab.run(["get", "noise", "-", "-q"]).expect(0).stdout == noise, "{codec}");
    }
    lab.run(["put", "text", "--compress", "gzip"]).expect(2).says("none, lz4, zstd");
}
