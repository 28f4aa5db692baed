//! Client commands as processes, beside servers that pause: signals, full disks,
//! and files that change while they are read.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rampuddle_harness::{Cluster, ClusterOptions, Pattern, Transport, puddle_binary, until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;
/// A get that is to be interrupted may be faster.
const ATTEMPTS: usize = 20;

/// A cluster, and a folder of somebody who uses it.
pub(crate) struct Desk {
    pub(crate) cluster: Cluster,
    pub(crate) folder: TempDir,
}

impl Desk {
    pub(crate) fn with_servers(servers: usize) -> Self {
        Self::with(&ClusterOptions { servers, pool_mib: 256, ..ClusterOptions::default() })
    }

    pub(crate) fn with(options: &ClusterOptions) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self { cluster: Cluster::with(options), folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, bytes: usize) -> Vec<u8> {
        let content = Pattern(bytes as u64).bytes(0, bytes as u64);
        fs::write(self.path(name), &content).expect("room for a file");
        content
    }

    fn left(&self) -> Vec<String> {
        let entries = self.folder.path().read_dir().expect("the folder is there");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.map(|entry| name(entry.expect("an entry"))).collect();
        names.sort();
        names
    }

    /// A client command, behind the words that start it.
    pub(crate) fn command(&self, before: &[&str], arguments: &[&str]) -> Command {
        let binary = puddle_binary();
        let mut words = before.to_vec();
        words.push(binary.to_str().expect("a path in utf-8"));
        words.extend(arguments);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env("PUDDLE_DISCOVERY", self.cluster.discovery())
            .env("PUDDLE_CLUSTER", self.cluster.name())
            .env("PUDDLE_REPLICAS", "1")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(&[], arguments).output().expect("the binary runs")
    }

    /// Runs a command that ends well.
    pub(crate) fn done(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the command runs");
}

fn end_of(mut child: Child) -> (ExitStatus, String) {
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    (child.wait().expect("a child"), said)
}

/// What a get has written so far.
fn part_bytes(folder: &Path) -> u64 {
    let entries = folder.read_dir().expect("the folder is there").flatten();
    let parts =
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".copy.part"));
    parts.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// How far a process has read a file that it has open.
fn bytes_read(child: &Child, path: &Path) -> Option<u64> {
    let folder = PathBuf::from(format!("/proc/{}", child.id()));
    let open = folder.join("fd").read_dir().ok()?.flatten();
    let ours = open.filter(|entry| fs::read_link(entry.path()).is_ok_and(|file| file == path));
    let position = |entry: fs::DirEntry| {
        let info = fs::read_to_string(folder.join("fdinfo").join(entry.file_name())).ok()?;
        info.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse::<u64>().ok()
    };
    ours.filter_map(position).max()
}

/// Sends the signal when a part of the file is there; false when the get was
/// faster.
fn get_is_interrupted(desk: &Desk, signal: Signal) -> bool {
    fs::write(desk.path("copy"), "old").expect("room");
    let mut get = desk.command(&[], &["get", "file", "copy"]).spawn().expect("the binary runs");
    let mut is_over = false;
    until("a part of the file", PATIENCE, || {
        is_over = get.try_wait().expect("a child").is_some();
        is_over || part_bytes(desk.folder.path()) > 0
    });
    if is_over {
        assert!(end_of(get).0.success());
        return false;
    }
    send(&get, signal);
    let (status, said) = end_of(get);
    assert_eq!(desk.left(), ["copy", "file"], "{signal:?}: {said}");
    if status.success() {
        return false;
    }
    assert_eq!(status.code(), Some(3), "{signal:?}: {said}");
    assert!(said.contains("interrupted; copy is as it was"), "{said}");
    assert_eq!(fs::read(desk.path("copy")).expect("it is there"), b"old");
    true
}

#[test]
fn a_get_that_is_interrupted_leaves_the_old_file_and_nothing_else() {
    let desk = Desk::with_servers(1);
    desk.file("file", 200 * MIB);
    desk.done(&["put", "file"]);
    for signal in [Signal::INT, Signal::TERM] {
        let is_interrupted = (0..ATTEMPTS).any(|_| get_is_interrupted(&desk, signal));
        assert!(is_interrupted, "{ATTEMPTS} gets were faster than {signal:?}");
    }
}

#[test]
fn a_get_for_which_there_is_no_room_leaves_the_old_file_and_nothing_else() {
    let desk = Desk::with_servers(1);
    desk.file("file", 20 * MIB);
    desk.done(&["put", "file"]);
    fs::write(desk.path("copy"), "old").expect("room");
    // A limit that gives an error and no signal is like a disk that is full.
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 10000; exec \"$@\"", "sh"];
    let mut get = desk.command(&limited, &["get", "file", "copy"]);
    let output = get.output().expect("the shell runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("cannot write copy, which is as it was: File too large"), "{said}");
    assert_eq!(desk.left(), ["copy", "file"]);
    assert_eq!(fs::read(desk.path("copy")).expect("it is there"), b"old");
    desk.done(&["get", "file", "copy"]);
    assert!(fs::read(desk.path("copy")).unwrap() == fs::read(desk.path("file")).unwrap());
}

/// Begins to put a file, changes it when a part of it was read, and waits for
/// the end.
fn put_while(desk: &mut Desk, change: impl Fn(&Path)) -> (ExitStatus, String) {
    let file = desk.path("file");
    desk.cluster.server(0).pause();
    let put = desk.command(&[], &["put", "file", "object"]).spawn().expect("the binary runs");
    until("a part that was read", PATIENCE, || bytes_read(&put, &file).is_some_and(|at| at > 0));
    change(&file);
    desk.cluster.server(0).resume();
    end_of(put)
}

#[test]
fn a_file_that_grows_or_shrinks_or_changes_while_it_is_put_is_stored_not_at_all() {
    let mut desk = Desk::with_servers(1);
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("grows", |path| {
            let file = File::options().append(true).open(path).expect("our own file");
            (&file).write_all(&[7; 5_000]).expect("room");
        }),
        ("shrinks", |path| {
            let file = File::options().write(true).open(path).expect("our own file");
            file.set_len(MIB as u64).expect("our own file");
        }),
        ("changes", |path| {
            let file = File::options().write(true).open(path).expect("our own file");
            file.write_all_at(b"other", 30 * MIB as u64).expect("room");
        }),
    ];
    for (what, change) in changes {
        desk.file("file", 40 * MIB);
        let (status, said) = put_while(&mut desk, change);
        assert_eq!(status.code(), Some(3), "{what}: {said}");
        let told = "nothing was stored: cannot read file: the file changed while it was read";
        assert!(said.contains(told), "{what}: {said}");
        assert_eq!(desk.run(&["stat", "object"]).status.code(), Some(1), "{what}");
    }
}

#[test]
fn a_file_that_loses_its_name_while_it_is_put_is_stored_whole() {
    let mut desk = Desk::with_servers(1);
    let content = desk.file("file", 40 * MIB);
    let (status, said) = put_while(&mut desk, |path| fs::remove_file(path).expect("our own file"));
    assert!(status.success(), "{said}");
    desk.done(&["get", "object", "copy"]);
    assert!(fs::read(desk.path("copy")).expect("it is there") == content);
}

#[test]
fn a_name_that_others_can_see_never_steers_their_terminal() {
    let desk = Desk::with_servers(1);
    desk.file("file", 10);
    let name = "a\u{1b}[2Jb\nc\u{202e}d";
    desk.done(&["put", "file", name]);
    for arguments in [
        &["ls"][..],
        &["ls", "-l"],
        &["stat", name],
        &["get", name, "copy"],
        &["put", "file", name],
        &["put", "file", name, "--no-clobber"],
        &["get", "file\u{1b}[2J"],
        &["get", name, "\u{1b}[2J/x"],
        &["rm", name],
        &["rm", name],
    ] {
        let output = desk.run(arguments);
        for bytes in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(bytes);
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {text:?}");
            assert!(text.lines().count() <= 20, "{arguments:?}: {text:?}");
        }
    }
}

#[test]
fn commands_that_read_have_let_go_of_what_they_held_when_they_end() {
    let desk = Desk::with_servers(3);
    desk.file("large", 9 * MIB);
    let held = || {
        let servers = desk.cluster.servers().iter();
        servers.map(|server| server.client(Transport::Tcp).info().holds).sum::<u64>()
    };
    let done = |arguments: &[&str]| {
        let output = desk.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(held(), 0, "{arguments:?}");
    };
    done(&["put", "large", "d/large"]);
    for _ in 0..5 {
        done(&["get", "d/large", "-"]);
        done(&["get", "d/large", "copy"]);
        done(&["get", "-r", "d", "copies"]);
        fs::remove_dir_all(desk.path("copies")).expect("it was made just now");
        done(&["verify", "d/"]);
    }
}
