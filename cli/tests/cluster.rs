//! `puddle up` and `puddle demo`: clusters that leave nothing behind.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Lab, Running, behind, children_of, left_in, puddle, run, runs, text, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// In a folder for temporary files of its own, to see what is left in it.
fn in_folder(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = puddle(arguments);
    command.env("TMPDIR", folder).env("XDG_RUNTIME_DIR", folder);
    command
}

fn up(folder: &Path) -> (Running, Value, Vec<String>) {
    up_behind(&["env"], folder)
}

fn up_behind(words: &[&str], folder: &Path) -> (Running, Value, Vec<String>) {
    let command = in_folder(folder, &["up", "--json", "--pool", "16MiB"]);
    let mut up = Running::start(behind(words, &command));
    let ready = up.line();
    assert_eq!((&ready["event"], ready["servers"].as_array().unwrap().len()), (&"ready".into(), 3));
    let children = children_of(up.id());
    assert_eq!(children.len(), 3);
    (up, ready, children)
}

fn nodes_alive(folder: &Path, ready: &Value) -> usize {
    let nodes =
        run(in_folder(folder, &["nodes", "--json", "--discovery", text(&ready["discovery"])]));
    nodes.expect(0).json().iter().filter(|node| node["alive"] == true).count()
}

#[test]
fn up_cleans_up_after_a_signal() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let folder = tempfile::tempdir().unwrap();
        // Also where these tests themselves run under `nohup`.
        let (mut up, ready, children) = up_behind(&["env", "--default-signal"], folder.path());
        assert_eq!(nodes_alive(folder.path(), &ready), 3);
        up.signal(signal);
        assert_eq!(up.wait().code(), Some(0));
        assert!(!children.iter().any(|child| runs(child)));
        assert!(left_in(folder.path()).is_empty(), "{:?}", left_in(folder.path()));
    }
}

#[test]
fn up_outlives_its_terminal_under_nohup() {
    let folder = tempfile::tempdir().unwrap();
    let (mut up, ready, _) = up_behind(&["nohup"], folder.path());
    up.signal(Signal::HUP);
    assert_eq!(nodes_alive(folder.path(), &ready), 3);
    up.signal(Signal::KILL);
    assert_eq!(up.wait().code(), None, "it did not end by itself");
}

#[test]
fn the_servers_of_up_die_with_it_even_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut up, _, children) = up(folder.path());
    up.signal(Signal::KILL);
    up.wait();
    until("the servers end", || !children.iter().any(|child| runs(child)));
}

#[test]
fn up_reports_a_server_that_dies_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut up, ready, children) = up(folder.path());
    kill_process(Pid::from_raw(children[1].parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    let died = up.line();
    assert_eq!(died["event"], "died");
    assert!(text(&died["name"]).starts_with("server-"));
    assert_eq!(nodes_alive(folder.path(), &ready), 2);
    for child in [&children[0], &children[2]] {
        kill_process(Pid::from_raw(child.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    assert_eq!(up.wait().code(), Some(3));
    assert!(left_in(folder.path()).is_empty());
    assert!(up.stderr().contains("no server is left"));
}

#[test]
fn up_tells_how_to_use_it_and_works_with_another_discovery_and_cluster() {
    let lab = Lab::new();
    let discovery = lab.discovery();
    let mut command = puddle(["up", "--json", "-n", "1", "--pool", "16MiB", "--cluster", "lab"]);
    command.args(["--discovery", &discovery]).env("TMPDIR", lab.folder.path());
    let mut up = Running::start(command);
    assert_eq!(text(&up.line()["discovery"]), discovery);
    lab.run(["nodes", "--cluster", "lab", "--json"]).expect(0);
    // Its name is taken now: a second one does not start, and leaves the first.
    let mut second = puddle(["up", "-n", "1", "--pool", "16MiB", "--cluster", "lab"]);
    second.args(["--discovery", &discovery]).env("TMPDIR", lab.folder.path());
    run(second).expect(2).says("did not start").says("is taken by a living server");
    up.signal(Signal::INT);
    assert_eq!(up.wait().code(), Some(0));
    assert_eq!(left_in(lab.folder.path()), ["members"]);
}

/// Anybody may list arguments; the environment only who started them may see.
#[test]
fn the_servers_of_up_are_told_secrets_where_nobody_else_sees_them() {
    let folder = tempfile::tempdir().unwrap();
    // A registry that never answers, so that the servers go on asking.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("consul://sesame@{}/x", silent.local_addr().unwrap());
    let mut command = in_folder(folder.path(), &["up", "-n", "1", "--pool", "16MiB"]);
    command.env("PUDDLE_DISCOVERY", &url).env("PUDDLE_DISCOVERY_PASSWORD", "sesame");
    command.env("PUDDLE_REPLICAS", "7");
    let mut up = Running::start(command);
    let of_server = |file: &str| {
        let children = children_of(up.id());
        let path = format!("/proc/{}/{file}", children.first()?);
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.split('\0').map(str::to_owned).collect::<Vec<_>>())
    };
    let is_server = |arguments: Vec<String>| arguments.iter().any(|word| word == "serve");
    until("a server starts", || of_server("cmdline").is_some_and(is_server));
    let arguments = of_server("cmdline").unwrap();
    assert!(!arguments.iter().any(|word| word.contains("sesame")), "{arguments:?}");
    let variables = of_server("environ").unwrap();
    assert!(variables.contains(&format!("PUDDLE_DISCOVERY={url}")), "{variables:?}");
    assert!(variables.contains(&"PUDDLE_DISCOVERY_PASSWORD=sesame".to_owned()), "{variables:?}");
    assert!(!variables.iter().any(|one| one.starts_with("PUDDLE_REPLICAS")), "{variables:?}");
    up.signal(Signal::INT);
    up.wait();
    assert!(!up.stderr().contains("sesame"), "{}", up.stderr());
}

#[test]
fn up_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    run(in_folder(folder.path(), &["up", "--pool", "20TiB"]))
        .expect(2)
        .says("make the pool smaller");
    assert!(left_in(folder.path()).is_empty());
}

#[test]
fn the_demo_tells_its_story_and_leaves_nothing() {
    let lab = Lab::new();
    let folder = tempfile::tempdir().unwrap();
    let file = lab.file("file", 20_000_001);
    let steps =
        run(in_folder(folder.path(), &["demo", "--json", file.to_str().unwrap()])).expect(0);
    let steps = steps.json();
    let words: Vec<_> = steps.iter().map(|step| text(&step["step"])).collect();
    let story = ["start", "put", "get", "get", "get", "get", "get-all", "kill", "get-after-kill"];
    assert_eq!(words, story);
    let served = |step: &Value| {
        let served = step["served"].as_array().unwrap().iter();
        served.map(|served| served["bytes"].as_u64().unwrap()).sum::<u64>()
    };
    for step in steps.iter().filter(|step| text(&step["step"]).starts_with("get")) {
        let readers = if step["step"] == "get-all" { 4 } else { 1 };
        assert_eq!(step["bytes"], readers * 20_000_001_u64);
        assert!(served(step) >= readers * 20_000_001, "{step}");
    }
    let killed = text(&steps[7]["what"]).trim_start_matches("kill -9 ");
    let last = steps[8]["served"].as_array().unwrap();
    assert!(last.iter().all(|served| served["server"] != *killed), "{last:?}");
    assert!(left_in(folder.path()).is_empty());
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    let lab = Lab::new();
    let file = lab.file("file", 30_000_000);
    // After each step in turn, so that every part of the story is cut once.
    for steps in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["demo", "--json", file.to_str().unwrap()];
        let mut demo = Running::start(in_folder(folder.path(), &arguments));
        if steps == 0 {
            until("servers start", || !children_of(demo.id()).is_empty());
        }
        for _ in 0..steps {
            demo.line();
        }
        let children = children_of(demo.id());
        demo.signal(Signal::INT);
        assert_eq!(demo.wait().code(), Some(3), "after {steps} steps");
        assert!(!children.iter().any(|child| runs(child)), "after {steps} steps");
        assert!(left_in(folder.path()).is_empty(), "after {steps} steps");
    }
}

#[test]
fn the_demo_refuses_what_cannot_work() {
    run(puddle(["demo", "/nonexistent"])).expect(2).says("No such file");
    run(puddle(["demo", "/"])).expect(2).says("is not a regular file");
    let lab = Lab::new();
    let file = lab.file("file", 10);
    run(puddle(["demo", "--replicas", "1", file.to_str().unwrap()])).expect(2).says("--replicas 2");
    let huge = lab.path("huge");
    std::fs::File::create(&huge).unwrap().set_len(1 << 42).unwrap();
    run(puddle(["demo", huge.to_str().unwrap()])).expect(2).says("choose a smaller file");
}
