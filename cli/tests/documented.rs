//! `docs/json.md` and what is printed.

mod common;

use std::collections::BTreeSet;

use common::{Lab, Running, run, text};
use rustix::process::Signal;
use serde_json::Value;

/// The fields that the table has for a command: what stands between backquotes
/// outside of brackets and is not said to be the value of a field.
fn documented(command: &str) -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md");
    let document = std::fs::read_to_string(path).expect("the document is there");
    let begin = format!("| `{command}` |");
    let row = document.lines().find_map(|line| line.strip_prefix(&begin)).expect(command);
    let mut fields = BTreeSet::new();
    let (mut depth, mut is_value) = (0, false);
    for (number, piece) in row.split('`').enumerate() {
        if number % 2 == 0 {
            depth += piece.matches('(').count();
            depth -= piece.matches(')').count();
            is_value = piece.trim_end().ends_with('=');
        } else if depth == 0 && !is_value {
            fields.insert(piece.to_owned());
        }
    }
    fields
}

fn assert_documented<'v>(command: &str, printed: impl IntoIterator<Item = &'v Value>) {
    let mut fields = BTreeSet::new();
    for line in printed {
        fields.extend(line.as_object().expect("an object").keys().cloned());
    }
    // Beside a name that is no UTF-8, in every command.
    fields.remove("name_hex");
    assert_eq!(fields, documented(command), "{command}");
}

#[test]
fn every_field_that_is_printed_is_documented_and_the_other_way_round() {
    let mut lab = Lab::with_servers(2);
    lab.file("file", 3_000_000);
    assert_documented("serve", [&lab.servers[0].1]);
    let printed = |arguments: &[&str]| lab.run(arguments).expect(0).json();
    assert_documented("put", &printed(&["put", "file", "--json"]));
    assert_documented("get", &printed(&["get", "file", "copy", "--json"]));
    assert_documented("ls", &printed(&["ls", "--json"]));
    assert_documented("stat", &printed(&["stat", "file", "--json"]));
    let tree = |command: &str, arguments: &[&str]| {
        let mut lines = printed(arguments);
        let summary = lines.pop().expect("a summary");
        assert_eq!(summary["event"], "summary");
        assert_documented(command, &lines);
        assert_documented(&format!("{command}, at the end"), [&summary]);
    };
    std::fs::create_dir(lab.path("tree")).unwrap();
    lab.file("tree/one", 10);
    tree("put -r", &["put", "-r", "tree", "--json"]);
    tree("get -r", &["get", "-r", "tree", "back", "--json"]);
    tree("verify", &["verify", "--json"]);
    let address = text(&lab.servers[0].1["address"]).to_owned();
    assert_documented("ping", &printed(&["ping", &address, "--json"]));
    assert_documented("df", &printed(&["df", "--json"]));
    assert_documented("rm", &printed(&["rm", "file", "--json"]));
    assert_documented("raw", &printed(&["raw", "create", "k", "--length", "1", "--json"]));
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    assert_documented("nodes", &lab.run(["nodes", "--json"]).expect(0).json());
}

#[test]
fn the_lines_of_up_and_demo_are_documented() {
    let lab = Lab::new();
    let mut command = lab.puddle(["up", "-n", "1", "--pool", "1MiB", "--json"]);
    command.env_remove("PUDDLE_DISCOVERY").env("TMPDIR", lab.folder.path());
    let mut up = Running::start(command);
    let ready = up.line();
    assert_eq!(text(&ready["event"]), "ready");
    let servers = common::children_of(up.id());
    let server = servers[0].parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(server, Signal::KILL).unwrap();
    assert_documented("up", [&ready, &up.line()]);

    let file = lab.file("file", 2_000_000);
    let mut demo = common::puddle(["demo", "--json", file.to_str().unwrap()]);
    demo.env("TMPDIR", lab.folder.path());
    assert_documented("demo", &run(demo).expect(0).json());
}
