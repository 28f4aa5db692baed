//! The examples run to their end, on a cluster of their own and on one that is
//! there already, and print what they are to print.

use std::process::Command;

use crate::objects::Cluster;

/// What each example prints.
const EXAMPLES: [(&str, &[&str]); 5] = [
    ("cache", &["9 calls, computed 3 times"]),
    (
        "tensors",
        &["4 tensors", "layer.1.weight: 3000000 bytes from ", "output: 100000 bytes from "],
    ),
    ("readers", &["6 readers read 240 MiB from "]),
    (
        "policy",
        &[
            "precious: 3 of 3 copies, 2 needed, short: false",
            "usual: 2 of 2 copies, 2 needed, short: false",
            "scratch: 2 of 2 copies, 1 needed, short: false",
        ],
    ),
    ("members", &[]),
];

/// Runs an example with these variables and no other of ours.
fn run(name: &str, variables: &[(&str, &str)]) -> String {
    // Tests lie in `deps`, beside `examples`.
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.is_file(),
        "there is no example at {}: build them with `cargo build -p rampuddle-client --examples`; \
         `cargo test` without a choice of targets does so by itself",
        path.display()
    );
    let mut command = Command::new(path);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PUDDLE_") {
            command.env_remove(variable);
        }
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    assert!(said.is_empty(), "{name}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn check(variables: &[(&str, &str)]) {
    for (name, wanted) in EXAMPLES {
        let printed = run(name, variables);
        let lines: Vec<&str> = printed.lines().collect();
        if name == "members" {
            continue;
        }
        assert_eq!(lines.len(), wanted.len(), "{name}: {printed}");
        for (line, wanted) in lines.iter().zip(wanted) {
            assert!(line.starts_with(wanted), "{name}: wanted {wanted:?} in {printed}");
        }
    }
}

#[test]
fn every_example_runs_to_its_end_on_servers_of_its_own() {
    check(&[]);
    assert_eq!(
        run("members", &[]).lines().collect::<Vec<_>>(),
        [
            "node-1: ready, alive",
            "node-2: ready, alive",
            "node-3: ready, alive",
            "node-3: draining, alive"
        ]
    );
}

#[test]
fn every_example_runs_on_a_cluster_that_the_environment_names() {
    let cluster = Cluster::start(3, 128 << 20);
    let variables = [("PUDDLE_DISCOVERY", cluster.url.as_str()), ("PUDDLE_CLUSTER", "test")];
    check(&variables);
    assert_eq!(
        run("members", &variables).lines().collect::<Vec<_>>(),
        ["s0: ready, alive", "s1: ready, alive", "s2: ready, alive"]
    );
}
