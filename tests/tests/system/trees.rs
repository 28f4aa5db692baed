//! `put -r` and `get -r`, interrupted again and again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rampuddle_harness::{ClusterOptions, Counts, Machine, Pattern, Transport};
use rustix::process::Signal;
use serde_json::Value;

use crate::commands::{Desk, send};

const JOBS: u64 = 4;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// How long an interrupted command may go on, also beside a server that pauses.
const END_BOUND: Duration = Duration::from_secs(4);

fn is_soak() -> bool {
    std::env::var_os("PUDDLE_SOAK").is_some_and(|value| value == "1")
}

/// Length of a file: most are short, some have stripes.
fn length_of(number: u64) -> u64 {
    match number % 100 {
        49 => 5 * MIB + number,
        20 | 70 => MIB,
        10 | 30 | 60 | 80 => 200 * KIB + number,
        0 => 0,
        _ => 1 + number * 37 % (4 * KIB),
    }
}

fn stripes_of(length: u64) -> u64 {
    if length > MIB { length.div_ceil(4 * MIB) } else { 0 }
}

fn name_of(number: u64) -> String {
    format!("part-{}/{}/file {number}", number % 7, number % 3)
}

/// Writes the files; returns the rows of Create that they take with two copies,
/// and their bytes.
fn make_tree(root: &Path, files: u64) -> (u64, u64) {
    let (mut rows, mut bytes) = (0, 0);
    for number in 0..files {
        let (path, length) = (root.join(name_of(number)), length_of(number));
        fs::create_dir_all(path.parent().expect("in a folder")).expect("room");
        fs::write(path, Pattern(number).bytes(0, length)).expect("room");
        rows += 2 * (1 + stripes_of(length));
        bytes += length;
    }
    (rows, bytes)
}

/// A command whose lines of JSON are read while it goes on.
struct Reading {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    done: Vec<Value>,
}

impl Reading {
    fn start(desk: &Desk, arguments: &[&str]) -> Self {
        let mut command = desk.command(&[], arguments);
        let mut child = command.env("PUDDLE_REPLICAS", "2").spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines, done: Vec::new() }
    }

    fn read_line(&mut self) -> bool {
        let mut line = String::new();
        // A line that a SIGKILL cut is none.
        let is_line = self.lines.read_line(&mut line).expect("text") > 0 && line.ends_with('\n');
        if is_line {
            self.done.push(serde_json::from_str(&line).expect("JSON"));
        }
        is_line
    }

    /// Reads on until so many files more were moved.
    fn until_moved(&mut self, action: &str, count: usize) {
        while names(&self.done, action).len() < count {
            assert!(self.read_line(), "it ended before {count} files: {:?}", self.done.last());
        }
    }

    /// Reads to the end.
    fn end(mut self) -> (ExitStatus, Vec<Value>, String) {
        while self.read_line() {}
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        (self.child.wait().expect("a child"), self.done, said)
    }
}

/// The names of the files of which this is said.
fn names(lines: &[Value], action: &str) -> Vec<String> {
    let of_action = lines.iter().filter(|line| line["action"] == action);
    of_action.map(|line| line["name"].as_str().expect("text").to_owned()).collect()
}

/// Lets a command move so many files, and ends it while others are in flight: a
/// server pauses, so that it cannot be faster.
fn interrupt(
    desk: &mut Desk,
    mut command: Reading,
    action: &str,
    count: usize,
    signal: Signal,
) -> Vec<Value> {
    command.until_moved(action, count);
    desk.cluster.server(1).pause();
    let machine = Machine::watched();
    let began = machine.now();
    send(&command.child, signal);
    let (status, lines, said) = command.end();
    let took = began.elapsed();
    desk.cluster.server(1).resume();
    machine.assert_within("it went on", began, took, END_BOUND);
    let code = if signal == Signal::KILL { None } else { Some(3) };
    assert_eq!(status.code(), code, "{signal:?}: {said}");
    if signal == Signal::INT {
        assert!(said.contains("interrupted: what is done stays"), "{said}");
        let summary = lines.last().expect("a summary");
        assert_eq!((&summary["event"], &summary["interrupted"]), (&"summary".into(), &true.into()));
    }
    lines
}

/// What all servers say of themselves, added up: rows of Create, bytes received.
fn counted(desk: &Desk) -> (u64, u64) {
    let each = desk.cluster.servers().iter().map(|server| server.client(Transport::Unix).info());
    each.fold((0, 0), |sum, info| (sum.0 + info.create_rows, sum.1 + info.received_bytes))
}

fn assert_same_trees(root: &Path, copy: &Path, files: u64) {
    for number in 0..files {
        let (one, other) = (root.join(name_of(number)), copy.join(name_of(number)));
        assert!(fs::read(&one).unwrap() == fs::read(&other).unwrap(), "{}", other.display());
    }
}

/// Every file below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().expect("the folder is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files_in(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn soak_a_tree_interrupted_three_times_is_resumed_and_nothing_whole_is_sent_twice() {
    let files: u64 = if is_soak() { 10_000 } else { 600 };
    let pool_mib = if is_soak() { 1_300 } else { 256 };
    let mut desk = Desk::with(&ClusterOptions { pool_mib, ..ClusterOptions::default() });
    let root = desk.path("tree");
    let (rows, bytes) = make_tree(&root, files);
    let put = ["put", "-r", "tree", "p", "--json", "--jobs", "4"];
    let part = files as usize / 5;
    let (rows_before, bytes_before) = counted(&desk);

    let mut sent = Vec::new();
    for signal in [Signal::INT, Signal::INT, Signal::KILL] {
        let command = Reading::start(&desk, &put);
        let lines = interrupt(&mut desk, command, "sent", part, signal);
        sent.extend(names(&lines, "sent"));
    }
    let (status, lines, said) = Reading::start(&desk, &put).end();
    assert!(status.success(), "{said}");
    let summary = lines.last().expect("a summary");
    assert_eq!((&summary["files"], &summary["failed"]), (&files.into(), &0.into()));
    let same = names(&lines, "same").len();
    assert!(same >= 3 * part, "{same}");
    sent.extend(names(&lines, "sent"));

    // Nothing whole is sent twice: by what was said, and by what the servers saw.
    let distinct: BTreeSet<&String> = sent.iter().collect();
    assert_eq!(distinct.len(), sent.len(), "a file was sent twice");
    let (rows_after, bytes_after) = counted(&desk);
    let (rows_seen, bytes_seen) = (rows_after - rows_before, bytes_after - bytes_before);
    let in_flight = 3 * JOBS;
    let (rows_most, bytes_most) = (rows + in_flight * 2 * 3, 2 * bytes + in_flight * 2 * 6 * MIB);
    // For each file a few requests, its name among them, to each server.
    let overhead = 4 * files * 3 * KIB;
    assert!((rows..=rows_most).contains(&rows_seen), "{rows_seen} of {rows} to {rows_most} rows");
    assert!(
        (2 * bytes..=bytes_most + overhead).contains(&bytes_seen),
        "{bytes_seen} bytes of {bytes} in two copies"
    );

    let mut verify = desk.command(&[], &["verify", "p/", "--json"]);
    let verified = verify.output().expect("the binary runs");
    assert!(verified.status.success(), "{verified:?}");
    assert_eq!(
        String::from_utf8_lossy(&verified.stdout).matches("\"whole\",\"r").count(),
        files as usize
    );

    // The way back, interrupted too: what has its name is whole.
    let get = ["get", "-r", "p", "back", "--json"];
    let command = Reading::start(&desk, &get);
    interrupt(&mut desk, command, "received", part, Signal::INT);
    let back = desk.path("back");
    for file in files_in(&back) {
        let name = file.strip_prefix(&back).unwrap();
        assert!(fs::read(&file).unwrap() == fs::read(root.join(name)).unwrap(), "{name:?}");
    }
    let (status, lines, said) = Reading::start(&desk, &get).end();
    assert!(status.success(), "{said}");
    assert!(names(&lines, "same").len() >= part);
    assert_same_trees(&root, &back, files);
    assert_eq!(files_in(&back).len() as u64, files);
    let (_, lines, _) = Reading::start(&desk, &get).end();
    assert_eq!(names(&lines, "same").len() as u64, files, "nothing is read twice");

    let mut counts = Counts::new("an interrupted tree");
    counts.add("files", files);
    counts.add("bytes", bytes);
    counts.add("interruptions", 4);
    counts.add("sent", sent.len() as u64);
    counts.add("rows of Create", rows_seen);
    counts.add("rows that one run takes", rows);
}
