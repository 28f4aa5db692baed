//! Wall clocks that are wrong by an hour, ahead and behind, on clients and on
//! servers: real processes under libfaketime.

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rampuddle_client::{GetOptions, PutOptions};
use rampuddle_harness::{
    Cluster, ClusterOptions, Counts, Pattern, ServerProcess, Transport, WrongClock, puddle_binary,
    until,
};
use serde_json::Value;
use tempfile::TempDir;

const HOUR: i64 = 3_600;
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a server keeps what a command held that ended without a word.
const LINGER: Duration = Duration::from_secs(30);
/// Times that writers with different clocks take turns.
const ROUNDS: u64 = 6;
/// How far a version may be from the time at which it was drawn: the slowness of a
/// machine, far less than an hour.
const NEAR: Duration = Duration::from_secs(120);

/// A user of a cluster, whose clock may be wrong.
struct User<'c> {
    cluster: &'c Cluster,
    clock: Option<&'c WrongClock>,
    folder: TempDir,
}

impl<'c> User<'c> {
    fn of(cluster: &'c Cluster, clock: Option<&'c WrongClock>) -> Self {
        Self { cluster, clock, folder: TempDir::new().expect("a temporary folder") }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(puddle_binary());
        command
            .args(arguments)
            .env("PUDDLE_DISCOVERY", self.cluster.discovery())
            .env("PUDDLE_CLUSTER", self.cluster.name())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if let Some(clock) = self.clock {
            clock.apply(&mut command);
        }
        command.output().expect("the binary runs")
    }

    /// Puts the bytes of a pattern, and returns what the command says of it.
    fn put(&self, name: &str, pattern: u64, bytes: u64) -> Value {
        let content = Pattern(pattern).bytes(0, bytes);
        fs::write(self.folder.path().join("source"), content).expect("room for a file");
        let output = self.run(&["--json", "put", "source", name]);
        assert!(output.status.success(), "{output:?}");
        let mut put: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
        put["stderr"] = String::from_utf8_lossy(&output.stderr).into();
        put
    }

    #[track_caller]
    fn bytes_of(&self, name: &str) -> Vec<u8> {
        let output = self.run(&["get", name, "-"]);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {problem}", output.status);
        output.stdout
    }

    #[track_caller]
    fn reads(&self, name: &str, pattern: u64, bytes: u64) {
        let found = self.bytes_of(name);
        assert!(found == Pattern(pattern).bytes(0, bytes), "not the bytes of {pattern}");
    }

    fn exit_code(&self, arguments: &[&str]) -> Option<i32> {
        self.run(arguments).status.code()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time behind 1970")
}

/// The time in a version as `--json` prints it: its first 48 bits are milliseconds.
fn time_of(put: &Value) -> Duration {
    let version = put["version"].as_str().expect("a version");
    let time = version.split('-').next().expect("a time");
    let time = u64::from_str_radix(time, 16).expect("hexadecimal");
    Duration::from_millis(time >> 16)
}

#[track_caller]
fn assert_near_now(put: &Value) {
    let difference = time_of(put).abs_diff(now());
    assert!(difference < NEAR, "{difference:?} between the version and now: {put}");
}

/// Lengths of an object in its head, and of one in stripes.
const LENGTHS: [u64; 2] = [70_000, 9 << 20];

#[test]
fn later_writes_win_though_the_writers_clocks_are_two_hours_apart() {
    let (Some(ahead), Some(behind)) = (WrongClock::ahead_by(HOUR), WrongClock::ahead_by(-HOUR))
    else {
        return;
    };
    let cluster = Cluster::start(3);
    let (right, ahead, behind) = (
        User::of(&cluster, None),
        User::of(&cluster, Some(&ahead)),
        User::of(&cluster, Some(&behind)),
    );
    let mut counts = Counts::new("writers whose clocks are two hours apart");
    for bytes in LENGTHS {
        let mut last = String::new();
        for round in 0..ROUNDS {
            for (index, writer) in [&ahead, &behind, &right].into_iter().enumerate() {
                let pattern = round * 3 + index as u64;
                let put = writer.put("disputed", pattern, bytes);
                let version = put["version"].as_str().expect("a version").to_owned();
                assert!(version > last, "{version} behind {last}");
                last = version;
                for reader in [&right, &ahead, &behind] {
                    reader.reads("disputed", pattern, bytes);
                }
                counts.add("writes", 1);
            }
        }
        // Deletes are writes: that of a slow clock counts, and so does the put after it.
        assert_eq!(behind.exit_code(&["rm", "--yes", "disputed"]), Some(0));
        assert_eq!(ahead.exit_code(&["get", "disputed", "-"]), Some(1));
        behind.put("disputed", 99, bytes);
        right.reads("disputed", 99, bytes);
        assert_eq!(ahead.exit_code(&["rm", "--yes", "disputed"]), Some(0));
        assert_eq!(behind.exit_code(&["get", "disputed", "-"]), Some(1));
        counts.add("deletes", 2);
    }
    assert_eq!((counts.of("writes"), counts.of("deletes")), (2 * 3 * ROUNDS, 4));
}

#[test]
fn the_servers_median_corrects_a_clients_clock() {
    for seconds in [HOUR, -HOUR, 30 * 24 * HOUR] {
        let Some(clock) = WrongClock::ahead_by(seconds) else { return };
        let cluster = Cluster::start(3);
        let put = User::of(&cluster, Some(&clock)).put("object", 1, 70_000);
        assert_near_now(&put);
        User::of(&cluster, None).reads("object", 1, 70_000);
    }
}

#[test]
fn a_server_an_hour_off_the_others_is_refused_by_name_and_stood_in_for() {
    for seconds in [HOUR, -HOUR] {
        let Some(clock) = WrongClock::ahead_by(seconds) else { return };
        let shells = vec![clock.shell()];
        let cluster = Cluster::with(&ClusterOptions { shells, ..ClusterOptions::default() });
        let user = User::of(&cluster, None);
        let mut in_place_of_a = 0;
        for number in 0..8 {
            let name = format!("object-{number}");
            let put = user.put(&name, number, LENGTHS[number as usize % 2]);
            assert_near_now(&put);
            let stand_ins = put["stand_ins"].as_array().expect("a list");
            if !stand_ins.is_empty() {
                let said = format!("{} {}", put["stderr"], put["problems"]).to_lowercase();
                assert!(said.contains("clock") && said.contains("server"), "{put}");
                in_place_of_a += 1;
            }
            user.reads(&name, number, LENGTHS[number as usize % 2]);
        }
        assert!(in_place_of_a > 0, "nothing was ever placed on the server with the wrong clock");

        // Its clock is set right: it takes part again.
        clock.set_ahead_by(0);
        let user = User::of(&cluster, None);
        for number in 0..8 {
            let put = user.put(&format!("object-{number}"), number + 10, 70_000);
            assert_eq!(put["stand_ins"].as_array().map(Vec::len), Some(0), "{put}");
            user.reads(&format!("object-{number}"), number + 10, 70_000);
        }
    }
}

/// What a reader may find: the latest write, and where owners missed it, as a put
/// with stand-ins says, those before it that they may still have.
#[derive(Debug, Default)]
struct Readable(Vec<u64>);

impl Readable {
    fn written(&mut self, pattern: u64, has_stand_ins: bool) {
        if !has_stand_ins {
            self.0.clear();
        }
        self.0.push(pattern);
    }

    #[track_caller]
    fn check(&self, found: &[u8]) {
        let is_one = |pattern: &u64| *found == Pattern(*pattern).bytes(0, found.len() as u64);
        assert!(self.0.iter().any(is_one), "not the bytes of any of {:?}", self.0);
    }
}

#[test]
fn a_server_whose_clock_jumps_while_it_serves_gives_no_wrong_byte_and_costs_the_others_no_page() {
    let Some(clock) = WrongClock::ahead_by(0) else { return };
    let shells = vec![clock.shell()];
    let cluster = Cluster::with(&ClusterOptions { shells, ..ClusterOptions::default() });
    // One that is connected before every jump, and one that never is.
    let client = cluster.client();
    let user = User::of(&cluster, None);
    let mut counts = Counts::new("a clock that jumps");
    let mut pattern = 0;
    for (index, bytes) in LENGTHS.into_iter().enumerate() {
        let name = format!("object-{index}");
        let mut readable = Readable::default();
        user.put(&name, pattern, bytes);
        readable.written(pattern, false);
        // Ahead, back, behind, back: by the hour, and by more than a tombstone's life.
        for seconds in [HOUR, 0, -HOUR, 0, 30 * HOUR, 0] {
            clock.set_ahead_by(seconds);
            readable.check(&user.bytes_of(&name));
            pattern += 1;
            let content = Pattern(pattern).bytes(0, bytes);
            let options = PutOptions::default();
            let put = client.put(name.as_bytes(), content, &options);
            let report = cluster.runtime().block_on(put).expect("two servers are right");
            // A clock that jumps behind the first stripes ends their lease: the put says
            // which server lost them, and that it is short of them.
            let has_lost = report.problems.iter().any(|problem| problem.contains("lost copies"));
            assert!(report.copies >= 2 || (has_lost && report.is_short()), "{report:?}");
            readable.written(pattern, !report.stand_ins.is_empty());
            readable.check(&user.bytes_of(&name));
            pattern += 1;
            let put = user.put(&name, pattern, bytes);
            readable
                .written(pattern, put["stand_ins"].as_array().is_none_or(|all| !all.is_empty()));
            readable.check(&user.bytes_of(&name));
            let options = GetOptions::default();
            let value = cluster.runtime().block_on(client.get(name.as_bytes(), &options));
            readable.check(&value.expect("a reading").expect("an object").into_bytes());
            counts.one("jumps");
        }
        // Set right, the next write reaches all owners, and is what everybody reads.
        user.put(&name, pattern + 1, bytes);
        user.reads(&name, pattern + 1, bytes);
        pattern += 1;
        assert_eq!(user.exit_code(&["rm", "--yes", &name]), Some(0));
        assert_eq!(user.exit_code(&["get", &name, "-"]), Some(1));
    }
    // What was displaced is gone from all servers that could be told of it; the one
    // that was refused may have stripes that nobody knows of, until repair.
    until("the memory of the others comes back", LINGER + PATIENCE, || {
        let used = |server: &ServerProcess| server.client(Transport::Tcp).info().used_bytes;
        cluster.servers()[1..].iter().all(|server| used(server) == 0)
    });
    assert_eq!(counts.of("jumps"), 2 * 6);
}

/// Within what is tolerated: whoever has met this server alone takes its clock for
/// the right one.
#[test]
fn no_single_clock_that_is_ahead_ends_an_object_with_a_ttl() {
    let Some(clock) = WrongClock::ahead_by(240) else { return };
    let shells = vec![clock.shell()];
    let cluster = Cluster::with(&ClusterOptions { shells, ..ClusterOptions::default() });
    let writer = cluster.client();
    let mut options = PutOptions::default();
    options.ttl = Some(Duration::from_secs(200));
    let names: Vec<String> = (0..16).map(|number| format!("o{number}")).collect();
    for name in &names {
        let put = writer.put(name.as_bytes(), "here", &options);
        assert!(!cluster.runtime().block_on(put).unwrap().is_short());
    }
    for name in &names {
        // Each knows of no clock at first.
        let reader = cluster.client();
        let options = GetOptions::default();
        let found = cluster.runtime().block_on(reader.get(name.as_bytes(), &options));
        assert!(found.unwrap().is_some(), "{name} is said to be over");
    }
}
