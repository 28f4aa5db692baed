//! How servers and clients start and end: at their ease, beside another of the same
//! name, and while the service is down.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rampuddle_client::{Client, GetOptions, PutOptions, ViewFile};
use rampuddle_discovery::Snapshot;
use rampuddle_harness::{
    Cluster, Machine, Pattern, ServeOptions, ServerProcess, Transport, pace, puddle_binary,
    refused_start, until,
};
use rampuddle_protocol::Announced;
use tempfile::TempDir;

use crate::rig::{CLUSTER, HEARTBEAT, PATIENCE, Rig, incarnation, serve};
use crate::service::Service;
use crate::sightings::{Sightings, incarnations};

/// How soon whoever watches knows of a server that was asked to stop.
const STOP_SEEN: Duration = Duration::from_secs(1);
/// How often a server is stopped and started.
const STOPS: usize = 3;
/// How long the service is down while servers and clients start.
const DOWN: Duration = Duration::from_secs(5);
/// How long a name is watched that two servers want.
const NAME_WATCHED: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const OBJECT: &str = "object";
const OBJECT_BYTES: u64 = 3 << 20;

pub(crate) fn servers_and_clients_start_and_stop_whatever_the_service_does(service: Service) {
    let mut rig = Rig::start(service, 3);
    println!("{}:", rig.service.name());
    stops_are_seen_soon(&mut rig);
    a_name_is_for_one(&mut rig);
    a_name_stays_with_who_took_it(&mut rig);
    whatever_starts_while_the_service_is_down_works(&mut rig);
}

fn stops_are_seen_soon(rig: &mut Rig) {
    let client = rig.client();
    let sightings = Sightings::of(&client, rig.runtime.handle());
    for _ in 0..STOPS {
        assert_stop_is_seen(&rig.machine, &sightings, &mut rig.servers[2]);
        rig.restart(2);
        let wanted = incarnation(&rig.servers[2]);
        until("the client sees it again", PATIENCE, || {
            incarnations(&client.view()).get("c") == Some(&wanted)
        });
    }
}

#[track_caller]
fn assert_stop_is_seen(machine: &Machine, sightings: &Sightings, server: &mut ServerProcess) {
    let name = server.name().to_owned();
    let asked = machine.now();
    server.ask_to_stop();
    let mut seen = None;
    until("the client sees its end", PATIENCE, || {
        seen = sightings.first(asked.at(), |view| view.living(&name).is_none());
        seen.is_some()
    });
    let took = seen.expect("just seen") - asked.at();
    machine.assert_within("SIGTERM, seen by a client's watch", asked, took, STOP_SEEN);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
}

#[test]
fn a_graceful_stop_is_seen_by_who_watches_a_directory() {
    let (mut cluster, machine) = (Cluster::start(3), Machine::watched());
    let client = cluster.client();
    let sightings = Sightings::of(&client, cluster.runtime().handle());
    println!("a directory:");
    for _ in 0..STOPS {
        assert_stop_is_seen(&machine, &sightings, cluster.server(2));
        cluster.restart(2);
        let wanted = incarnation(&cluster.servers()[2]);
        until("the client sees it again", PATIENCE, || {
            incarnations(&client.view()).get("c") == Some(&wanted)
        });
    }
}

/// The second server of a name refuses to start, until the first is dead.
fn a_name_is_for_one(rig: &mut Rig) {
    let (url, address) = (rig.service.url(), rig.servers[0].address().to_string());
    let (code, said) = refused_start(&serve(&url, "a".to_owned()));
    assert_eq!(code, 2, "{said}");
    let last = said.lines().last().unwrap_or_default();
    println!("  a second server \"a\": {last}");
    assert!(last.contains("\"a\"") && last.contains(&address), "{said}");
    rig.until_said("the first one stays", rig.has_all_alive());

    let killed = rig.machine.now();
    rig.servers[0].kill();
    let second = ServerProcess::start(serve(&url, "a".to_owned()));
    assert_eq!(second.ready()["announced"], true, "{}", second.ready());
    assert_ne!(incarnation(&second), incarnation(&rig.servers[0]));
    rig.machine.assert_within("the second starts", killed, killed.elapsed(), 3 * HEARTBEAT);
    rig.servers[0] = second;
    let (granularity, _) = rig.service.granularity();
    rig.until_said("the second is alive", rig.has_all_alive());
    // Longer than the lease of the first.
    rig.assert_stay_alive(3 * HEARTBEAT + granularity);
}

/// Two servers of one name that cannot reach each other: the second finds nobody where
/// the first says that it is, and takes the name. The first leaves it there.
fn a_name_stays_with_who_took_it(rig: &mut Rig) {
    let url = rig.service.url();
    let nowhere = ["--advertise", "127.0.0.1:1"].map(ToOwned::to_owned).to_vec();
    let first = ServeOptions { arguments: nowhere, ..serve(&url, "e".to_owned()) };
    let first = ServerProcess::start(first);
    rig.until_said("the first is alive", has_alive(&first));
    let second = ServerProcess::start(serve(&url, "e".to_owned()));
    assert_eq!(second.ready()["announced"], true, "{}", second.ready());
    rig.until_said("the second is alive", has_alive(&second));
    until("the first says so itself", PATIENCE, || announced(&first) == Announced::No);
    // Longer than it took the first to take its name back.
    let (began, is_alive) = (Instant::now(), has_alive(&second));
    while began.elapsed() < NAME_WATCHED {
        let found = rig.snapshot().expect("the service is up");
        assert!(is_alive(&found), "after {:?}: {found:?}", began.elapsed());
        pace(LOOK_EVERY);
    }
    let said = first.stderr();
    let taken = said.matches("the name \"e\" is taken by a living server").count();
    println!("  a server whose name was taken says so {taken} time");
    assert_eq!((taken, announced(&first)), (1, Announced::No), "{said}");
    for mut server in [second, first] {
        server.ask_to_stop();
        assert_eq!(server.wait(PATIENCE).code(), Some(0));
    }
    rig.until_said("both are gone", rig.has_all_alive());
    rig.forget("e");
}

fn has_alive(server: &ServerProcess) -> impl Fn(&Snapshot) -> bool + use<> {
    let (name, wanted) = (server.name().to_owned(), incarnation(server));
    move |found| {
        let alive = found.alive(&name).and_then(|living| living.incarnation);
        alive.is_some_and(|alive| alive.to_string() == wanted)
    }
}

fn whatever_starts_while_the_service_is_down_works(rig: &mut Rig) {
    let folder = TempDir::new().expect("a temporary folder");
    let content = Pattern(5).bytes(0, OBJECT_BYTES);
    let mut options = rig.client_options();
    options.view_file = ViewFile::At(folder.path().join("view.json"));
    let client = rig.client_with(options.clone());
    put(rig, &client, OBJECT, &content);
    drop(client);
    // What it sees is kept where a user keeps such things.
    let seen = puddle(&rig.service.url(), folder.path(), &["stat", OBJECT]);
    assert!(seen.status.success(), "{seen:?}");

    rig.service.kill();
    a_server_starts(rig);
    a_client_starts(rig, options, &content);
    a_command_starts(rig, folder.path(), &content);
    let server = rig.servers.last().expect("it was just started");
    pace(DOWN);
    assert_eq!(announced(server), Announced::No);
    rig.service.start_again();
    let returned = rig.machine.now();
    let back = rig.alive_for_good_after(returned.at(), 5 * HEARTBEAT);
    rig.machine.assert_within("announced, and all the others", returned, back, 2 * HEARTBEAT);
    rig.until_said("it is a member", |found| found.member("d").is_some());
    until("it says so itself", PATIENCE, || announced(server) == Announced::Yes);
    let said = server.stderr();
    assert!(said.contains("the server is announced now"), "{said}");
    let (lines, warnings) =
        (said.matches("cannot announce").count(), said.matches(" WARN ").count());
    println!("  its log: \"cannot announce\" {lines} times, {warnings} warnings");
    assert!(lines == 1 && warnings <= 3, "{said}");
}

fn a_server_starts(rig: &mut Rig) {
    let began = rig.machine.now();
    let server = ServerProcess::start(serve(&rig.service.url(), "d".to_owned()));
    println!("  the service is down: a server is ready after {:.2?}", began.elapsed());
    assert_eq!(server.ready()["announced"], false, "{}", server.ready());
    assert_eq!(announced(&server), Announced::No);
    rig.servers.push(server);
}

fn announced(server: &ServerProcess) -> Announced {
    server.client(Transport::Tcp).info().announced()
}

fn a_client_starts(rig: &Rig, options: rampuddle_client::Options, content: &[u8]) {
    let began = rig.machine.now();
    let client: Client = rig.client_with(options);
    let took = began.elapsed();
    rig.machine.assert_within("a client begins", began, took, 2 * HEARTBEAT);
    let defaults = GetOptions::default();
    let get = client.get(OBJECT.as_bytes(), &defaults);
    let found = rig.runtime.block_on(get).expect("servers are asked").expect("it is there");
    assert!(found.to_vec() == content, "other bytes");
    put(rig, &client, "another", content);
}

fn put(rig: &Rig, client: &Client, name: &str, content: &[u8]) {
    let defaults = PutOptions::default();
    let put = client.put(name.as_bytes(), content.to_vec(), &defaults);
    let report = rig.runtime.block_on(put).expect("the object is written");
    assert!(!report.is_short(), "{report:?}");
}

fn a_command_starts(rig: &Rig, folder: &Path, content: &[u8]) {
    let (file, began) = (folder.join("found"), rig.machine.now());
    let path = file.to_str().expect("a path in utf-8");
    let output = puddle(&rig.service.url(), folder, &["get", OBJECT, path]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(&file).expect("it was written") == content, "other bytes");
    println!("  `puddle get` is done after {:.2?}", began.elapsed());
    // Who has seen nothing before says what is wrong.
    let stranger = TempDir::new().expect("a temporary folder");
    let output = puddle(&rig.service.url(), stranger.path(), &["get", OBJECT, path]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains(&rig.service.url()), "{said}");
}

/// Runs `puddle` as somebody whose cache is in this folder.
fn puddle(url: &str, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(puddle_binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PUDDLE_") {
            command.env_remove(name);
        }
    }
    command.args(["--cluster", CLUSTER, "--discovery", url]).args(arguments);
    command.env("XDG_CACHE_HOME", folder.join("cache")).current_dir(folder);
    command.stdin(Stdio::null()).output().expect("the binary runs")
}
