//! How a cluster gets its strategy of placement, and what it changes.

mod common;

use common::{Lab, Running, puddle, run, text};
use rustix::process::Signal;
use serde_json::Value;

/// The strategy that the cluster's record has.
fn recorded(lab: &Lab) -> String {
    let path = lab.path("members").join("default").join("settings.json");
    let settings: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    text(&settings["strategy"]).to_owned()
}

#[test]
fn the_first_server_writes_the_strategy_and_a_later_one_that_disagrees_is_told() {
    let mut lab = Lab::new();
    lab.serve("s1", &["--strategy", "ring"]);
    assert_eq!(recorded(&lab), "ring");
    let (server, _) = lab.serve("s2", &["--strategy", "clone"]);
    server.signal(Signal::TERM);
    server.wait();
    let told = lab.servers[1].0.stderr();
    assert!(told.contains("the cluster exists with strategy ring"), "{told}");
    assert_eq!(recorded(&lab), "ring");
    let file = lab.file("file", 3_000_000);
    lab.run(["put", file.to_str().unwrap(), "o", "--replicas", "1"]).expect(0);
    lab.run(["get", "o", "copy"]).expect(0);
    assert!(std::fs::read(lab.path("copy")).unwrap() == std::fs::read(file).unwrap());
}

#[test]
fn a_strategy_comes_from_a_flag_the_environment_or_the_config_file() {
    let lab = Lab::new();
    let config = lab.path("puddle.toml");
    std::fs::write(&config, "[serve]\nstrategy = \"clone\"\n").unwrap();
    let printed = |more: &[&str], environment: &[(&str, &str)]| {
        let mut command = puddle(["serve", "--print-config", "--name", "a", "--config"]);
        command.arg(&config).args(more).envs(environment.iter().copied());
        let config: toml::Table = run(command).expect(0).text().parse().unwrap();
        config["serve"]["strategy"].as_str().unwrap().to_owned()
    };
    assert_eq!(printed(&[], &[]), "clone");
    assert_eq!(printed(&[], &[("PUDDLE_STRATEGY", "ring")]), "ring");
    assert_eq!(printed(&["--strategy=rendezvous"], &[("PUDDLE_STRATEGY", "ring")]), "rendezvous");
    for arguments in [["serve", "--strategy", "rings"], ["up", "--strategy", "rings"]] {
        run(puddle(arguments)).expect(2).says("rendezvous, ring, clone");
    }
    std::fs::write(&config, "[serve]\nstrategy = \"rings\"\n").unwrap();
    let mut command = puddle(["serve", "--print-config", "--config"]);
    command.arg(&config);
    run(command).expect(2).says("line 2").says("unknown variant `rings`");
}

#[test]
fn a_cloned_cluster_on_this_machine_keeps_every_object_on_every_server() {
    let lab = Lab::new();
    let discovery = lab.discovery();
    let mut up = puddle(["up", "-n", "3", "--pool", "16MiB", "--json", "--discovery", &discovery]);
    up.env("PUDDLE_STRATEGY", "clone").env("TMPDIR", lab.folder.path());
    let mut up = Running::start(up);
    assert_eq!(text(&up.line()["event"]), "ready");
    assert_eq!(recorded(&lab), "clone");
    let file = lab.file("file", 2_000_000);
    let file = file.to_str().unwrap();
    lab.run(["put", file, "o", "--replicas", "2"]).expect(2).says("every member has a copy");
    let put = lab.run(["put", file, "o", "--json"]).expect(0).json();
    assert_eq!((&put[0]["copies"], &put[0]["replicas"]), (&3.into(), &255.into()));
    let stat = lab.run(["stat", "o", "--json"]).expect(0).json();
    let copies = stat[0]["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 6, "head and stripe on each");
    assert!(copies.iter().all(|copy| copy["state"] == "whole" && copy["owner"] == true));
    let rm = lab.run(["rm", "o", "--json"]).expect(0).json();
    assert_eq!((&rm[0]["wanted"], &rm[0]["applied"]), (&3.into(), &3.into()));
    up.signal(Signal::TERM);
    assert_eq!(up.wait().code(), Some(0));
}

#[test]
fn a_second_cluster_on_the_same_place_is_told_that_the_strategy_stays() {
    let mut lab = Lab::new();
    lab.serve("s1", &[]);
    let discovery = lab.discovery();
    let arguments = ["up", "-n", "1", "--pool", "1MiB", "--discovery", &discovery];
    let mut up = puddle(arguments);
    up.args(["--strategy", "ring", "--json"]).env("TMPDIR", lab.folder.path());
    let mut up = Running::start(up);
    assert_eq!(text(&up.line()["event"]), "ready");
    up.signal(Signal::TERM);
    up.wait();
    let told = up.stderr();
    assert!(told.contains("the cluster exists with strategy rendezvous: it stays"), "{told}");
}

#[test]
fn a_list_on_the_command_line_has_a_strategy_that_all_must_be_given() {
    let mut lab = Lab::new();
    lab.serve("s1", &[]);
    lab.serve("s2", &[]);
    // Servers of a list, told of the same strategy as their clients.
    let list = lab.static_list();
    let ports: Vec<String> =
        lab.servers.iter().map(|(_, ready)| text(&ready["address"]).to_owned()).collect();
    for (server, _) in &mut lab.servers {
        server.signal(Signal::TERM);
        server.wait();
    }
    lab.servers.clear();
    let cloned = format!("{list}?strategy=clone");
    for (name, port) in ["s1", "s2"].into_iter().zip(&ports) {
        lab.serve(name, &["--discovery", &cloned, "--listen", port]);
    }
    let file = lab.file("file", 100_000);
    let with = |discovery: &str, arguments: &[&str]| {
        let mut command = lab.puddle(arguments);
        command.env("PUDDLE_DISCOVERY", discovery);
        run(command)
    };
    let file = file.to_str().unwrap();
    let put = with(&cloned, &["put", file, "o", "--json"]).expect(0).json();
    assert_eq!(put[0]["copies"], 2);
    // Who places keys by other settings is refused by the servers themselves.
    with(&list, &["get", "o", "-"]).expect(2).says("strategy rendezvous");
    with(&format!("{list}?strategy=rings"), &["ls"]).expect(2).says("rendezvous, ring, clone");
}
