//! `puddle serve` from its start to its end, and `puddle nodes`.

mod common;

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use common::{Lab, Running, left_in, puddle, run, run_with, text, until, wipe};
use rustix::process::Signal;
use serde_json::Value;

fn node(lab: &Lab, name: &str) -> Option<Value> {
    let nodes = lab.run(["nodes", "--json"]).expect(0).json();
    nodes.into_iter().find(|node| node["name"] == name)
}

/// Whether there is such a server and it answers. Before it is announced for the
/// first time there is no place to look at, either.
fn is_alive(lab: &Lab, name: &str) -> bool {
    let nodes = lab.run(["nodes", "--json"]);
    nodes.json().iter().any(|node| node["name"] == name && node["alive"] == true)
}

#[test]
fn a_server_prints_its_real_address_and_stops_with_0_when_asked() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut lab = Lab::new();
        let socket = lab.path("s.sock");
        let (server, ready) = lab.serve("a", &["--socket", socket.to_str().unwrap()]);
        assert_eq!((&ready["name"], &ready["announced"]), (&"a".into(), &true.into()));
        assert_eq!(
            (text(&ready["socket"]), &ready["pool_bytes"]),
            (socket.to_str().unwrap(), &(32 << 20).into())
        );
        assert!(!text(&ready["address"]).ends_with(":0"));
        TcpStream::connect(text(&ready["address"])).unwrap();
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        assert!(!socket.exists());
        let node = node(&lab, "a").unwrap();
        assert_eq!((&node["alive"], &node["state"]), (&false.into(), &"ready".into()));
    }
}

#[test]
fn nodes_tells_what_is_written_and_what_the_server_says() {
    let mut lab = Lab::new();
    let (_, ready) = lab.serve("a", &["--zone", "rack-1", "--weight", "2"]);
    let ready = ready.clone();
    let node = node(&lab, "a").unwrap();
    for field in ["name", "address", "incarnation", "pool_bytes"] {
        assert_eq!(node[field], ready[field], "{field}");
    }
    assert_eq!((&node["alive"], &node["state"]), (&true.into(), &"ready".into()));
    assert_eq!((&node["used_bytes"], &node["values"]), (&0.into(), &0.into()));
    assert_eq!((&node["zone"], &node["weight"]), (&"rack-1".into(), &2.0.into()));
    let table = lab.run(["nodes"]).expect(0).text();
    assert!(table.contains("ALIVE") && table.contains("rack-1") && table.contains("32MiB"));
}

#[test]
fn ping_asks_one_server_and_needs_no_discovery() {
    let mut lab = Lab::new();
    let socket = lab.path("s.sock");
    let (server, ready) = lab.serve("a", &["--socket", socket.to_str().unwrap()]);
    let address = text(&ready["address"]).to_owned();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let ping = |address: &str| run(puddle(["ping", address, "--json"]));
    let unix = format!("unix:{}", socket.display());
    for asked in [&address, &unix] {
        let pong = &ping(asked).expect(0).json()[0];
        assert_eq!((&pong["answers"], &pong["address"]), (&true.into(), &asked.as_str().into()));
        assert_eq!(pong["incarnation"], ready["incarnation"]);
    }
    // A server's own settings are enough: it is asked where it listens.
    let mut own = puddle(["ping"]);
    own.env("PUDDLE_LISTEN", format!("0.0.0.0:{port}"));
    assert!(run(own).expect(0).text().starts_with(&format!("127.0.0.1:{port} answers")));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    for asked in [&address, &unix] {
        let pong = &ping(asked).expect(3).says("no server of RamPuddle answers").json()[0];
        assert_eq!((&pong["answers"], &pong["incarnation"]), (&false.into(), &Value::Null));
    }
}

#[test]
fn ping_refuses_what_is_no_address() {
    for (address, why) in [("a", "a"), ("127.0.0.1:0", "its port itself"), ("127.1:7117", "127.1")]
    {
        run(puddle(["ping", address])).expect(2).says(why);
    }
}

#[test]
fn ping_waits_no_longer_than_a_few_seconds_for_who_says_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let pong = &run(puddle(["ping", &address, "--json"])).expect(3).json()[0];
    let seconds = pong["seconds"].as_f64().unwrap();
    assert!((1.0..10.0).contains(&seconds), "{seconds} s");
}

#[test]
fn a_cluster_without_servers_lists_no_nodes_and_cannot_be_listed() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("members")).unwrap();
    for arguments in [&["nodes"][..], &["nodes", "--json"]] {
        let ran = lab.run(arguments).expect(0).says("has no servers");
        assert_eq!(ran.text(), "");
    }
    lab.run(["ls"]).expect(3).says("has no servers").says("puddle serve");
    lab.run(["rm", "--prefix", "a", "--yes"]).expect(3).says("has no servers");
}

#[test]
fn looking_for_a_cluster_where_none_ever_was_creates_nothing() {
    let lab = Lab::new();
    for arguments in [&["nodes"][..], &["ls"], &["get", "a", "-"], &["raw", "delete", "a"]] {
        let ran = lab.run(arguments).expect(2).says("there is no folder").says("puddle serve");
        assert!(ran.stderr.contains(lab.path("members").to_str().unwrap()), "{ran:?}");
    }
    let missing = format!("file:{}", lab.path("members.toml").display());
    lab.run(["nodes", "--discovery", &missing]).expect(2).says("there is no file");

    let mut nowhere = lab.puddle(["nodes"]);
    nowhere.env_remove("PUDDLE_DISCOVERY").env("XDG_RUNTIME_DIR", lab.folder.path());
    let ran = run(nowhere).expect(2).says("no server was ever started here");
    let _ = ran.says("puddle up").says("--discovery");
    let mut printing = lab.puddle(["serve", "--print-config", "--name", "a"]);
    printing.env_remove("PUDDLE_DISCOVERY").env("XDG_RUNTIME_DIR", lab.folder.path());
    assert!(run(printing).expect(0).text().contains("/rampuddle\""));
    assert!(left_in(lab.folder.path()).is_empty(), "{:?}", left_in(lab.folder.path()));
}

#[test]
fn a_server_creates_the_usual_place_and_clients_find_it_there() {
    let lab = Lab::new();
    let usual = |arguments: &[&str]| {
        let mut command = puddle(arguments);
        command.env("XDG_RUNTIME_DIR", lab.folder.path());
        command
    };
    let serve = ["serve", "--json", "--name", "a", "--listen", "127.0.0.1:0", "--pool", "1MiB"];
    let mut server = Running::start(usual(&serve));
    assert_eq!(server.line()["announced"], true);
    assert_eq!(run(usual(&["nodes", "--json"])).expect(0).json()[0]["name"], "a");
    assert_eq!(left_in(lab.folder.path()), ["rampuddle"]);
}

#[test]
fn a_killed_server_is_not_alive_at_once() {
    let mut lab = Lab::with_servers(1);
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    let node = node(&lab, "s1").unwrap();
    assert_eq!((&node["alive"], &node["state"]), (&false.into(), &"ready".into()));
}

#[test]
fn a_name_that_a_living_server_has_is_refused() {
    let lab = Lab::with_servers(1);
    run(lab.serve_command("s1", &[])).expect(2).says("is taken by a living server");
    assert_eq!(node(&lab, "s1").unwrap()["incarnation"], lab.servers[0].1["incarnation"]);
}

#[test]
fn a_name_is_free_again_when_its_server_was_killed() {
    let mut lab = Lab::with_servers(1);
    lab.servers[0].0.signal(Signal::KILL);
    lab.servers[0].0.wait();
    let before = lab.servers.pop().unwrap().1;
    let (_, after) = lab.serve("s1", &[]);
    assert_ne!(before["incarnation"], after["incarnation"]);
    assert_eq!(node(&lab, "s1").unwrap()["alive"], true);
}

#[test]
fn a_server_is_announced_again_when_the_directory_was_wiped() {
    let lab = Lab::with_servers(1);
    wipe(&lab.path("members"));
    until("announced again", || is_alive(&lab, "s1"));
}

/// The directory is as old as the cluster, the settings that are written anew are
/// not: while servers join one after the other, nobody can say yet what is not there.
#[test]
fn nothing_is_said_not_to_be_there_while_a_wiped_directory_fills_again() {
    let lab = Lab::young_with_servers(3);
    let names: Vec<String> = (0..6).map(|number| format!("object-{number}")).collect();
    for name in &names {
        run_with(lab.puddle(["put", "-", name, "--replicas", "1"]), b"x").expect(0);
    }
    // Only now are the servers older than a registry that is young.
    until("a known answer", || lab.run(["get", "none", "-"]).code == Some(1));
    wipe(&lab.path("members"));
    let mut answers = 0;
    until("all servers are announced again", || {
        for name in &names {
            let ran = lab.run(["get", name, "-"]);
            assert!(matches!(ran.code, Some(0 | 2 | 3)), "{ran:?}");
            answers += usize::from(ran.code != Some(2));
        }
        names.iter().all(|name| lab.run(["get", name, "-"]).code == Some(0))
    });
    assert!(answers > 0);
}

/// Clients follow the list at once; servers did only when they were started again,
/// and until then refused everybody.
#[test]
fn the_settings_of_a_list_can_be_changed_while_its_servers_run() {
    let lab = Lab::new();
    let (list, socket) = (lab.path("list.toml"), lab.path("s.sock"));
    let url = format!("file:{}", list.display());
    let write = |replicas_max: u8| {
        let text = format!(
            "[settings]\nreplicas_max = {replicas_max}\n\
             [[member]]\nname = \"s1\"\nunix_socket = \"{}\"\n",
            socket.display()
        );
        std::fs::write(lab.path("new"), text).unwrap();
        std::fs::rename(lab.path("new"), &list).unwrap();
    };
    write(3);
    let arguments = ["--discovery", &url, "--socket", socket.to_str().unwrap()];
    let server = Running::start(lab.serve_command("s1", &arguments));
    until("announced", || run(puddle(["ls", "--discovery", &url])).code == Some(0));
    write(5);
    lab.file("file", 10);
    let file = lab.path("file");
    let put = ["put", file.to_str().unwrap(), "--discovery", &url];
    until("the server knows of it", || {
        let ran = run(puddle(put));
        assert!(ran.code == Some(0) || ran.stderr.contains("other cluster settings"), "{ran:?}");
        ran.code == Some(0)
    });
    drop(server);
}

#[test]
fn a_server_serves_while_discovery_cannot_be_reached_and_joins_later() {
    let lab = Lab::new();
    let blocked = lab.path("members");
    std::fs::write(&blocked, "a file where the folder should be").unwrap();
    let mut server = Running::start(lab.serve_command("a", &[]));
    let ready = server.line();
    assert_eq!((&ready["event"], &ready["announced"]), (&"ready".into(), &false.into()));
    TcpStream::connect(text(&ready["address"])).unwrap();
    std::fs::remove_file(&blocked).unwrap();
    until("announced later", || is_alive(&lab, "a"));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let stderr = server.stderr();
    assert_eq!(stderr.matches("serving all the same").count(), 1, "{stderr}");
}

#[test]
fn a_server_that_only_its_own_machine_reaches_says_so_where_others_can_find_it() {
    let advertised = ["--advertise", "10.0.0.1:7117"];
    for (discovery, more, warnings) in [
        // Nobody is there, and that place is not only this machine's.
        ("consul://0.0.0.0:1/x", &[][..], 1),
        ("consul://0.0.0.0:1/x", &advertised, 0),
        ("etcd://127.0.0.1:1,localhost:1/x", &[], 0),
        // This machine's agent, whose Consul may be that of many.
        ("consul://127.0.0.1:1/x", &[], 1),
        ("consul://127.0.0.1:1/x", &["--quiet"], 0),
        ("consul://127.0.0.1:1/x", &advertised, 0),
    ] {
        let lab = Lab::new();
        let arguments = [&["--discovery", discovery], more].concat();
        let mut server = Running::start(lab.serve_command("a", &arguments));
        assert_eq!(server.line()["announced"], false);
        server.signal(Signal::TERM);
        assert_eq!(server.wait().code(), Some(0));
        let stderr = server.stderr();
        let said = stderr.matches("where no other machine reaches it").count();
        assert_eq!(said, warnings, "{discovery} {more:?}: {stderr}");
    }
}

/// Both were announced anew again and again, each second.
#[test]
fn a_server_with_the_address_of_another_says_once_that_nobody_sees_it() {
    let mut lab = Lab::with_servers(1);
    let address = text(&lab.servers[0].1["address"]).to_owned();
    lab.serve("s2", &["--advertise", &address]);
    let list = lab.static_list();
    let disagreements = || {
        let ran = run(lab.puddle(["nodes", "--json", "--discovery", &list])).expect(0);
        ran.json().iter().map(|node| node["disagreements"].to_string()).collect::<Vec<_>>()
    };
    until("the second says that it is not shown", || {
        let said = disagreements();
        said[0] == "[]" && said[1].contains("or does not show it")
    });
    let server = &mut lab.servers[1].0;
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let stderr = server.stderr();
    let told = "does not show the server: server \"s2\" ignored: its address";
    assert_eq!(stderr.matches(told).count(), 1, "{stderr}");
    assert!(!stderr.contains("made anew"), "{stderr}");
}

#[test]
fn a_server_whose_stdout_is_closed_serves() {
    let lab = Lab::new();
    let mut server = Running::start(lab.serve_command("a", &[]));
    server.close_stdout();
    until("announced", || is_alive(&lab, "a"));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_memory_is_printed_line_by_line_unless_quiet() {
    for (flags, is_told) in [(&[][..], true), (&["--quiet"], false)] {
        let mut lab = Lab::new();
        let (server, _) = lab.serve("a", flags);
        server.signal(Signal::TERM);
        server.wait();
        let stderr = server.stderr();
        assert_eq!(stderr.contains("pool") && stderr.contains("in all"), is_told, "{stderr}");
    }
}

#[test]
fn a_server_with_tokens_takes_only_who_has_one() {
    let mut lab = Lab::new();
    let two = "r:read:0123456789abcdef0\nw:write:fedcba9876543210f\n";
    let tokens = lab.token_file("tokens", two);
    let ours = lab.token_file("ours", "w:write:fedcba9876543210f\n");
    let other = lab.token_file("other", "w:write:wrongwrongwrongwrong\n");
    lab.serve("a", &["--token-file", tokens.to_str().unwrap()]);
    let create = |token: Option<&std::path::Path>| {
        let mut command = lab.puddle(["raw", "create", "k", "--length", "1", "--replace"]);
        if let Some(path) = token {
            command.arg("--token-file").arg(path);
        }
        run(command)
    };
    create(Some(&ours)).expect(0);
    create(Some(&other)).expect(2).says("denies");
    create(None).expect(2).says("wants a token");
    // It answers, if only to refuse.
    let node = lab.run(["nodes", "--json"]).expect(0).json().remove(0);
    assert_eq!((&node["alive"], &node["incarnation"]), (&true.into(), &Value::Null));
    assert!(text(&node["error"]).contains("wants a token"), "{node}");
    let table = lab.run(["nodes"]).expect(0).says("puddle: server \"a\" wants a token");
    assert!(table.text().contains("yes"), "{table:?}");
    create(Some(&tokens)).expect(2).says("has 2 tokens");
    std::fs::set_permissions(&ours, Permissions::from_mode(0o644)).unwrap();
    create(Some(&ours)).expect(2).says("(mode 0644)").says("chmod 600");
}
