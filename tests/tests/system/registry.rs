//! Registries that lose members, or say other things to some than to others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rampuddle_client::{
    Client, CreateItem, Error, GetOptions, Options, PutOptions, Target, ViewFile,
};
use rampuddle_discovery::{Living, Member, Revision, Settings, open};
use rampuddle_harness::{ServeOptions, ServerProcess, Transport, puddle_binary, until};
use rampuddle_protocol::{ClientHello, Header, Nonce, SessionId, Status};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::over_both;

over_both! {
    a_hello_with_other_settings_than_the_server_was_told_is_a_mismatch
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Lone servers, which know nothing of a list that clients find them by.
struct Listed {
    servers: Vec<ServerProcess>,
    folder: TempDir,
    runtime: Runtime,
}

impl Listed {
    fn start(names: &[&str]) -> Self {
        Self::with_tokens(names, None)
    }

    fn with_tokens(names: &[&str], tokens: Option<&str>) -> Self {
        let start = |name: &&str| {
            let (name, tokens) = ((*name).to_owned(), tokens.map(str::to_owned));
            let options = ServeOptions::with_pool_mib(32);
            ServerProcess::start(ServeOptions { name, tokens, ..options })
        };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self {
            servers: names.iter().map(start).collect(),
            folder: TempDir::new().expect("a temporary folder"),
            runtime: runtime.expect("a runtime"),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("members.toml")
    }

    fn url(&self) -> String {
        format!("file:{}", self.path().display())
    }

    /// Writes a list of some of the servers, all in one zone.
    fn list(&self, names: &[&str], zone: &str, settings: &str) {
        let mut text = format!("[settings]\n{settings}\n");
        for server in self.servers.iter().filter(|server| names.contains(&server.name())) {
            let (name, address) = (server.name(), server.address());
            text += &format!(
                "[[member]]\nname = \"{name}\"\naddress = \"{address}\"\nzone = \"{zone}\"\n"
            );
        }
        let new = self.folder.path().join("new");
        fs::write(&new, text).expect("the list is written");
        fs::rename(new, self.path()).expect("the list is replaced");
    }

    fn client(&self) -> Client {
        self.client_with(ViewFile::None)
    }

    /// A client that keeps its view in the folder.
    fn client_that_keeps(&self) -> Client {
        self.client_with(ViewFile::At(self.folder.path().join("view.json")))
    }

    fn client_with(&self, view_file: ViewFile) -> Client {
        let mut options = Options::new(self.url());
        options.cluster = "test".to_owned();
        options.view_file = view_file;
        self.runtime.block_on(Client::connect(options)).expect("the client connects")
    }

    /// Runs `puddle` as a client of the list.
    fn puddle(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(puddle_binary());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PUDDLE_") {
                command.env_remove(name);
            }
        }
        command.args(["--cluster", "test", "--discovery", &self.url()]).args(arguments);
        command.stdin(Stdio::null()).output().expect("the binary runs")
    }
}

fn members(client: &Client) -> Vec<String> {
    client.view().members().iter().map(|member| member.name.to_string()).collect()
}

/// Whether the client has read a list whose members are in this zone.
fn has_seen(client: &Client, name: &str, zone: &str) -> bool {
    client.view().member(name).is_some_and(|member| &*member.zone == zone)
}

#[test]
fn members_that_vanish_from_the_registry_stay_while_they_answer() {
    let mut listed = Listed::start(&["a", "b", "c"]);
    listed.list(&["a", "b", "c"], "first", "");
    let client = listed.client();
    let object = vec![7; 3 << 20];
    let options = PutOptions::default();
    let put = client.put(b"object", object.clone(), &options);
    let report = listed.runtime.block_on(put).expect("the object is written");
    assert!(!report.is_short());

    // Two of three at once: the list is wrong, for all that the client knows.
    listed.list(&["a"], "second", "");
    until("the new list is read", PATIENCE, || has_seen(&client, "a", "second"));
    assert_eq!(members(&client), ["a", "b", "c"]);
    let get = async |name: &[u8]| client.get(name, &GetOptions::default()).await;
    let found = listed.runtime.block_on(get(b"object")).expect("a known answer");
    assert!(found.is_some_and(|value| value.into_bytes() == object));
    let absent = listed.runtime.block_on(get(b"nothing")).expect("all three have answered");
    assert!(absent.is_none());
    let nodes = listed.runtime.block_on(client.nodes());
    assert_eq!(nodes.iter().filter(|node| node.is_alive).count(), 3);

    // One that does not answer either is gone, and nobody else with it.
    listed.servers[2].kill();
    until("the dead member is gone", PATIENCE, || members(&client) == ["a", "b"]);
    // Who was there, and is written again, is a member as before.
    listed.list(&["a", "b"], "third", "");
    until("the new list is read", PATIENCE, || has_seen(&client, "b", "third"));
    assert_eq!(members(&client), ["a", "b"]);
}

/// Members may have joined since it was kept, and have what the others have not.
#[test]
fn nothing_is_said_not_to_be_there_by_a_view_that_was_kept() {
    let listed = Listed::start(&["a", "b", "c"]);
    listed.list(&["a", "b"], "first", "");
    drop(listed.client_that_keeps());
    listed.list(&["a", "b", "c"], "second", "");
    let (newer, options) = (listed.client(), PutOptions::default());
    let names: Vec<String> = (0..16).map(|number| format!("object-{number}")).collect();
    for name in &names {
        let put = newer.put(name.as_bytes(), vec![7; 100], &options);
        assert!(!listed.runtime.block_on(put).expect("the object is written").is_short());
    }
    fs::remove_file(listed.path()).expect("the list was there");

    let client = listed.client_that_keeps();
    assert_eq!((members(&client), client.view().is_kept()), (vec!["a".into(), "b".into()], true));
    let get =
        |name: &str| listed.runtime.block_on(client.get(name.as_bytes(), &GetOptions::default()));
    for name in names.iter().map(String::as_str).chain(["nothing"]) {
        match get(name) {
            Ok(Some(value)) => assert_eq!(value.into_bytes(), vec![7; 100], "{name}"),
            Err(Error::Unknown { problems, .. }) => {
                assert!(problems[0].contains("since its view was kept"), "{problems:?}");
            }
            known => panic!("\"{name}\" is said to be {known:?}"),
        }
    }
    assert!(matches!(get("nothing"), Err(Error::Unknown { .. })));
    listed.list(&["a", "b", "c"], "third", "");
    until("the list is back", PATIENCE, || has_seen(&client, "c", "third"));
    assert!(!client.view().is_kept());
    assert!(get("nothing").expect("all have answered").is_none());
}

#[test]
fn members_that_vanished_since_a_view_was_kept_stay_while_they_answer() {
    let mut listed = Listed::start(&["a", "b", "c"]);
    listed.list(&["a", "b", "c"], "first", "");
    drop(listed.client_that_keeps());
    listed.list(&["a"], "second", "");
    listed.servers[2].kill();
    // The first one that starts does not make the others forget.
    for _ in 0..2 {
        let client = listed.client_that_keeps();
        assert_eq!(members(&client), ["a", "b", "c"]);
        assert!(has_seen(&client, "a", "second") && !client.view().is_kept());
    }
    let client = listed.client_that_keeps();
    until("the dead member is gone", PATIENCE, || members(&client) == ["a", "b"]);
}

#[test]
fn servers_that_vanish_from_among_the_living_are_still_written_to_while_they_answer() {
    let mut listed = Listed::start(&["a", "b", "c"]);
    let url = format!("dir:{}", listed.folder.path().join("discovery").display());
    let announced = listed.runtime.block_on(async {
        let backend = open(&url, "test").expect("a directory");
        backend.create_settings(&Settings::new("test", 1_000)).await.expect("settings");
        let mut announced = Vec::new();
        for server in &listed.servers {
            let (name, address) = (server.name(), server.address().to_string());
            let member = Member::ready(name, 1.0);
            backend.write_member(&member, Revision::ABSENT).await.expect("a member");
            let incarnation = server.ready()["incarnation"].as_str().expect("its incarnation");
            let living = Living::at(name, address, incarnation.parse().expect("an id"));
            announced.push(backend.announce(&living).await.expect("nobody has the name"));
        }
        announced
    });
    let mut options = Options::new(url);
    options.cluster = "test".to_owned();
    let client = listed.runtime.block_on(Client::connect(options)).expect("the client connects");
    let (mut number, defaults) = (0, PutOptions::default());
    // Placed anew each time, so that of many every server is an owner.
    let mut put = |listed: &Listed, times: usize| {
        for _ in 0..times {
            number += 1;
            let name = format!("object {number}");
            let put = client.put(name.as_bytes(), vec![7; 100], &defaults);
            let report = listed.runtime.block_on(put).expect("the object is written");
            assert!(!report.is_short(), "{report:?}");
            assert_eq!(report.stand_ins, Vec::<String>::new(), "{report:?}");
        }
    };
    put(&listed, 20);
    // Two, then the third: the registry may have lost some, or all.
    for (index, announcement) in announced.into_iter().enumerate() {
        listed.runtime.block_on(announcement.withdraw()).expect("the registry is there");
        let name = listed.servers[index].name();
        until("its end is seen", PATIENCE, || client.view().living(name).is_none());
        put(&listed, 40);
    }
    // One that gives no answer either is known to be dead, and costs nobody a time-out.
    listed.servers[0].kill();
    let begun = Instant::now();
    for number in 0..40 {
        let name = format!("later {number}");
        let put = client.put(name.as_bytes(), vec![7; 100], &defaults);
        listed.runtime.block_on(put).expect("the object is written");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn one_of_three_members_is_forgotten_when_its_server_has_stopped() {
    let mut listed = Listed::start(&["a", "b", "c"]);
    listed.list(&["a", "b", "c"], "first", "");
    let client = listed.client();
    listed.servers[1].kill();
    assert_eq!(members(&client), ["a", "b", "c"], "a dead member is a member");
    listed.list(&["a", "c"], "second", "");
    until("the member is gone", PATIENCE, || members(&client) == ["a", "c"]);
    assert!(has_seen(&client, "a", "second"));
}

#[test]
fn a_client_that_read_other_settings_is_told_so_and_can_look_all_the_same() {
    let listed = Listed::start(&["a", "b"]);
    listed.list(&["a", "b"], "", "replicas_max = 2");
    let client = listed.client();
    let create = async |target: Target| {
        let item = CreateItem::new("key", "value");
        client.raw().create(&target, vec![item]).await.remove(0)
    };
    let error = listed.runtime.block_on(create(Target::Placement)).unwrap_err();
    assert!(matches!(error, Error::OtherSettings { .. }), "{error}");
    assert!(error.to_string().contains("replicas_max 2"), "{error}");
    // Who names the server himself places nothing.
    let made = listed.runtime.block_on(create(Target::server("a"))).expect("an answer");
    assert_eq!(made.status, Status::Ok);
    let nodes = listed.runtime.block_on(client.nodes());
    assert!(nodes.len() == 2 && nodes.iter().all(|node| node.is_alive), "{nodes:?}");

    let refused = listed.puddle(&["raw", "gather", "key", "--length", "5"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("other cluster settings"), "{said}");
    let nodes = listed.puddle(&["--json", "nodes"]);
    let alive = String::from_utf8_lossy(&nodes.stdout).matches("\"alive\":true").count();
    assert_eq!((nodes.status.code(), alive), (Some(0), 2));
}

#[test]
fn a_client_that_the_servers_refuse_is_refused_before_anything_was_done() {
    const TOKENS: &str = "writer:write:correct horse battery staple\n\
        reader:read:correct horse battery staple\n";
    let listed = Listed::with_tokens(&["a", "b"], Some(TOKENS));
    listed.list(&["a", "b"], "", "");
    let file = listed.folder.path().join("source");
    let source = file.to_str().expect("a text");
    fs::write(&file, vec![7; 3 << 20]).expect("a file");
    let token = |name: &str, role: &str, secret: &str| {
        let path = listed.folder.path().join(name);
        fs::write(&path, format!("{name}:{role}:{secret}\n")).expect("a token file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode is set");
        path.to_str().expect("a text").to_owned()
    };
    let secret = "correct horse battery staple";
    let (writer, reader) = (token("writer", "write", secret), token("reader", "read", secret));
    let wrong = token("wrong", "write", "wrong horse battery staple");
    let code = |arguments: &[&str]| {
        let output = listed.puddle(arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let all: [&[&str]; 6] = [
        &["put", source, "object"],
        &["get", "object", "-"],
        &["stat", "object"],
        &["rm", "object"],
        &["ls"],
        &["raw", "gather", "key", "--length", "1"],
    ];
    for arguments in all {
        let (without, said) = code(arguments);
        assert_eq!(without, Some(2), "{arguments:?} without a token: {said}");
        let (with_wrong, said) = code(&[&["--token-file", &wrong], arguments].concat());
        assert_eq!(with_wrong, Some(2), "{arguments:?} with a wrong token: {said}");
    }
    for arguments in [all[0], all[3]] {
        let (code, said) = code(&[&["--token-file", &reader], arguments].concat());
        assert_eq!(code, Some(2), "{arguments:?} by who may only read: {said}");
    }
    let (absent, said) = code(&["--token-file", &reader, "get", "object", "-"]);
    assert!(matches!(absent, Some(1 | 3)), "nothing was put: {said}");
    let (put, said) = code(&["--token-file", &writer, "put", source, "object"]);
    assert_eq!(put, Some(0), "{said}");
    let (got, said) = code(&["--token-file", &reader, "get", "object", "-"]);
    assert_eq!(got, Some(0), "{said}");
}

fn a_hello_with_other_settings_than_the_server_was_told_is_a_mismatch(transport: Transport) {
    let server = ServerProcess::with_pool_mib(1);
    let told = rampuddle_client::settings_fingerprint(&Settings::new("test", 0));
    for (settings, wanted) in [(0, Status::Ok), (told, Status::Ok), (told + 1, Status::Mismatch)] {
        let mut connection = server.door(transport).connect();
        let row = ClientHello {
            version_min: 1,
            version_max: 1,
            nonce: Nonce([1; 16]),
            session: SessionId([2; 16]),
            settings,
            ..ClientHello::default()
        };
        let mut frame = Vec::new();
        row.frame("test", "alone", &mut frame);
        connection.send(&frame);
        let answer = connection.receive_or_end(256, PATIENCE).expect("an answer");
        let header = Header::parse(&answer).expect("a sound header");
        assert_eq!(Status::from_number(header.status), Some(wanted), "{settings}");
        let hello = rampuddle_protocol::ServerHello::parse(&header, header.table(&answer));
        assert_eq!(hello.expect("a hello").0.settings, told);
    }
}
