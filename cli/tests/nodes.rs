//! `puddle nodes`: what discovery says beside what servers say, and members that end.

mod common;

use common::{Lab, run, run_on_terminal, until};
use rustix::process::Signal;
use serde_json::Value;

fn nodes(lab: &Lab) -> Vec<Value> {
    lab.run(["nodes", "--json"]).expect(0).json()
}

fn names(lab: &Lab) -> Vec<String> {
    nodes(lab).iter().map(|node| common::text(&node["name"]).to_owned()).collect()
}

#[test]
fn a_server_that_discovery_sees_and_that_answers_agrees_with_it() {
    let lab = Lab::with_servers(1);
    let node = &nodes(&lab)[0];
    assert_eq!((&node["seen"], &node["alive"]), (&true.into(), &true.into()));
    assert_eq!(node["seen_incarnation"], node["incarnation"]);
    assert!(node["latency_us"].as_u64().is_some_and(|us| us < 2_000_000), "{node}");
    assert_eq!(node["disagreements"], Value::Array(Vec::new()));
    let shown = lab.run(["nodes"]).expect(0);
    assert!(shown.text().contains("LATENCY") && shown.stderr.is_empty(), "{shown:?}");
}

#[test]
fn a_server_that_is_stopped_while_discovery_sees_it_is_said_to_disagree() {
    let lab = Lab::with_servers(2);
    lab.servers[0].0.signal(Signal::STOP);
    let node = &nodes(&lab)[0];
    lab.servers[0].0.signal(Signal::CONT);
    assert_eq!((&node["seen"], &node["alive"]), (&true.into(), &false.into()), "{node}");
    let said = "discovery sees it alive, and it gives no answer";
    assert_eq!(node["disagreements"], serde_json::json!([said]));
    assert_eq!(node["latency_us"], Value::Null);
}

/// The kept view says where servers were, and nobody says that they are seen.
#[test]
fn whom_discovery_sees_is_not_known_while_it_gives_no_answer() {
    let mut lab = Lab::with_servers(2);
    let view = lab.path("view.json");
    let view_file = ["--view-file", view.to_str().unwrap()];
    lab.run([&["nodes"][..], &view_file].concat()).expect(0);
    // The same cluster, in a registry that is not there.
    let gone = "consul://127.0.0.1:1/rampuddle";
    let kept = std::fs::read_to_string(&view).unwrap().replace(&lab.discovery(), gone);
    std::fs::write(&view, kept).unwrap();
    lab.servers[1].0.signal(Signal::KILL);
    lab.servers[1].0.wait();

    let nodes = |more: &[&str]| {
        let mut command = lab.puddle([&["nodes"][..], &view_file, more].concat());
        command.env("PUDDLE_DISCOVERY", gone);
        run(command).expect(0)
    };
    let ran = nodes(&["--json"]).says("from the view that was kept");
    assert_eq!(ran.stderr.matches("from the view that was kept").count(), 1, "{ran:?}");
    for (node, is_alive) in ran.json().iter().zip([true, false]) {
        assert_eq!((&node["seen"], &node["seen_incarnation"]), (&Value::Null, &Value::Null));
        assert_eq!(node["alive"], is_alive, "{node}");
        let said = node["disagreements"].to_string();
        assert!(!said.contains("see it alive") && !said.contains("sees it alive"), "{said}");
    }
    let shown = nodes(&[]).text();
    let rows = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row[0] == "s1").expect("s1 is listed");
    assert_eq!(row[3..5], ["-", "yes"], "{shown}");
}

#[test]
fn a_server_says_that_its_discovery_fails_until_it_works_again() {
    let lab = Lab::with_servers(1);
    // A file where the folder was: nobody can read or write members there.
    let folder = lab.path("members");
    until("a file lies there", || {
        // The server may write meanwhile.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::write(&folder, "no folder").is_ok()
    });
    let list = lab.static_list();
    let said = || {
        let ran = run(lab.puddle(["nodes", "--json", "--discovery", &list])).expect(0);
        ran.json()[0]["disagreements"].to_string()
    };
    until("it says so", || said().contains("it says that discovery fails for it"));
    std::fs::remove_file(&folder).unwrap();
    until("it says nothing any more", || said() == "[]");
    assert_eq!(names(&lab), ["s1"]);
}

#[test]
fn a_member_that_never_comes_back_is_forgotten_and_one_that_answers_is_not() {
    let mut lab = Lab::with_servers(3);
    lab.run(["nodes", "forget", "s1", "--yes"]).expect(2).says("answers at");
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    assert_eq!(names(&lab), ["s1", "s2", "s3"], "a dead member is a member");
    // It may only be cut off: who writes this down must be sure.
    lab.run(["nodes", "forget", "s1"]).expect(2).says("no address is known").says("--yes");
    assert_eq!(names(&lab).len(), 3);
    let ran = lab.run(["nodes", "forget", "s1", "--yes", "--json"]).expect(0);
    assert_eq!(
        ran.json(),
        [serde_json::json!({"name": "s1", "state": "ready", "weight": 0.03125})]
    );
    assert_eq!(names(&lab), ["s2", "s3"]);
    lab.run(["nodes", "forget", "s1"]).expect(1).says("there is no member \"s1\"");
    lab.run(["nodes", "forget", "../s2"]).expect(2).says("is not allowed");
    lab.run(["nodes", "forget"]).expect(2).says("<NAME>");
    // It may come back all the same, as a new member.
    lab.serve("s1", &[]);
    assert_eq!(names(&lab), ["s1", "s2", "s3"]);
}

#[test]
fn a_member_that_nobody_sees_is_asked_where_it_was_seen_last_before_it_is_forgotten() {
    let mut lab = Lab::with_servers(2);
    let (view, address) = (lab.path("view.json"), lab.servers[0].1["address"].clone());
    let view_file = ["--view-file", view.to_str().unwrap()];
    let forget = |lab: &Lab| lab.run([&["nodes", "forget", "s1"][..], &view_file].concat());
    lab.run([&["nodes"][..], &view_file].concat()).expect(0);
    // It lives; for a moment discovery does not know.
    std::fs::remove_file(lab.path("members/default/living/s1.json")).unwrap();
    forget(&lab).expect(2).says("answers at");
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    // Another server has its address now.
    lab.serve("s3", &["--listen", common::text(&address)]);
    forget(&lab).expect(0);
    assert_eq!(names(&lab), ["s2", "s3"]);
    let kept = std::fs::read_to_string(view).unwrap();
    assert!(kept.contains("\"s2\"") && !kept.contains("\"s1\""), "{kept}");
}

#[test]
fn a_record_that_cannot_be_read_is_not_said_to_be_no_member() {
    let lab = Lab::with_servers(1);
    std::fs::write(lab.path("members/default/members/s2.json"), "rubbish").unwrap();
    let ran = lab.run(["nodes", "forget", "s2"]).expect(2).says("s2.json");
    let _ = ran.says("repair or remove it in the registry itself");
}

#[test]
fn a_member_of_a_list_is_not_forgotten() {
    let mut lab = Lab::with_servers(1);
    let list = lab.static_list();
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    let forget = ["nodes", "forget", "s1", "--discovery", &list];
    run(lab.puddle(forget)).expect(2).says("change the list itself");
}

#[test]
fn forgetting_asks_once_on_a_terminal() {
    let mut lab = Lab::with_servers(1);
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    let command = lab.puddle(["nodes", "forget", "s1"]);
    let ran = run_on_terminal(&command, b"n\n").expect(2);
    assert!(ran.text().contains("What only it has is lost then. [y/N]"), "{ran:?}");
    assert!(ran.text().contains("no address is known at which to ask"), "{ran:?}");
    assert_eq!(names(&lab), ["s1"]);
    run_on_terminal(&command, b"y\n").expect(0);
    assert_eq!(names(&lab), Vec::<String>::new());
}
