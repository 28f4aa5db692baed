//! Services that let in only whom they know.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rampuddle_discovery::{DiscoveryError, Member, Revision};
use rampuddle_harness::{
    Certificates, Consul, ConsulOptions, Etcd, EtcdOptions, FakeAnswer, FakeHttp, pace,
    puddle_binary,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::base64;
use crate::support::{Announcer, PATIENCE, backend, is_alive, server, until};

const MASTER: &str = "6a1253d2-1785-24fd-91c2-f8e78c745511";
const UNKNOWN: &str = "00000000-1111-2222-3333-444444444444";
const SERVER_RULES: &str = r#"key_prefix "tested/" { policy = "write" }
service "tested" { policy = "write" }
session_prefix "" { policy = "write" }
node_prefix "" { policy = "read" }"#;
const CLIENT_RULES: &str = r#"key_prefix "tested/" { policy = "read" }
service "tested" { policy = "read" }
node_prefix "" { policy = "read" }"#;

/// A token with those rules.
fn token(consul: &Consul, name: &str, rules: &str) -> String {
    consul.json("PUT", "/v1/acl/policy", &json!({ "Name": name, "Rules": rules }));
    let wanted = json!({ "Policies": [{ "Name": name }] });
    let made = consul.json("PUT", "/v1/acl/token", &wanted);
    made["SecretID"].as_str().expect("a token has a secret").to_owned()
}

fn check_refused(error: &DiscoveryError, secret: &str) {
    let explained = error.explained();
    assert!(matches!(error, DiscoveryError::NotAllowed { .. }), "{explained}");
    let named = ["with the token", "with a user and the password", "without a"];
    assert!(named.iter().any(|named| explained.contains(named)), "{explained}");
    assert!(explained.contains("check the token, or the user"), "{explained}");
    assert!(!explained.contains(secret) && !format!("{error:?}").contains(secret), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_consul_and_a_wrong_one_is_told_and_never_shown() {
    let options = ConsulOptions { token: Some(MASTER.to_owned()), ..ConsulOptions::default() };
    let Some(consul) = Consul::start(&options) else { return };
    let (of_server, of_client) =
        (token(&consul, "server", SERVER_RULES), token(&consul, "client", CLIENT_RULES));
    let place = format!("{}/tested", consul.address());
    let url = |token: &str| format!("consul://{token}@{place}");
    let living = server("a", 1);

    for wrong in [url(UNKNOWN), format!("consul://{place}")] {
        let wrong = backend(&wrong);
        check_refused(&wrong.snapshot().await.unwrap_err(), UNKNOWN);
        check_refused(&wrong.announce(&living).await.unwrap_err(), UNKNOWN);
        assert!(!format!("{wrong:?} {}", wrong.url()).contains(UNKNOWN));
    }

    let writer = backend(&url(&of_server));
    writer.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    let announced = writer.announce(&living).await.unwrap();
    let reader = backend(&url(&of_client));
    assert!(is_alive(&living)(&reader.snapshot().await.unwrap()));
    let refused = reader.write_member(&Member::ready("b", 1.0), Revision::ABSENT).await;
    check_refused(&refused.unwrap_err(), &of_client);
    check_refused(&reader.announce(&server("b", 2)).await.unwrap_err(), &of_client);
    for shown in [format!("{writer:?}"), writer.url(), format!("{announced:?}")] {
        assert!(!shown.contains(&of_server), "{shown}");
    }
    // Longer than its check passes by itself.
    pace(Duration::from_secs(4));
    assert!(is_alive(&living)(&reader.snapshot().await.unwrap()));
    announced.withdraw().await.unwrap();

    // From a file, which may be replaced while it is used.
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, UNKNOWN).unwrap();
    let by_file = backend(&format!("consul://{place}?token-file={}", file.path().display()));
    check_refused(&by_file.snapshot().await.unwrap_err(), UNKNOWN);
    fs::write(&file, format!("{of_server}\n")).unwrap();
    assert_eq!(by_file.snapshot().await.unwrap().members.len(), 1);

    // From the environment, as Consul's own programs take it.
    for variable in ["CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE"] {
        let value = match variable {
            "CONSUL_HTTP_TOKEN" => of_server.clone(),
            _ => file.path().display().to_string(),
        };
        let process = Announcer::start(&format!("consul://{place}"), &[(variable, &value)]);
        until("alive", PATIENCE, &*reader, is_alive(&living)).await;
        drop(process);
        until("gone", PATIENCE, &*reader, |found| found.living.is_empty()).await;
    }
}

#[test]
fn up_works_with_a_token_and_shows_it_to_nobody() {
    let options = ConsulOptions { token: Some(MASTER.to_owned()), ..ConsulOptions::default() };
    let Some(consul) = Consul::start(&options) else { return };
    let secret = token(&consul, "server", SERVER_RULES);
    let place = format!("{}/tested", consul.address());
    let folder = tempfile::tempdir().unwrap();
    let puddle = |arguments: &[&str]| {
        let mut command = Command::new(puddle_binary());
        command.args(arguments).env("PUDDLE_DISCOVERY", format!("consul://{secret}@{place}"));
        command.env("TMPDIR", folder.path()).env("PUDDLE_VIEW_FILE", "none");
        command
    };
    let up = ["up", "--json", "-n", "1", "--pool", "16MiB"];
    let mut up = puddle(&up).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let nodes = puddle(&["nodes", "--json"]).output().unwrap();
    kill_process(Pid::from_child(&up), Signal::INT).unwrap();
    assert!(up.wait().unwrap().success());
    let ready: Value = serde_json::from_str(&ready).expect(&ready);
    assert_eq!(ready["discovery"], format!("consul://...@{place}"));
    let node: Value = serde_json::from_slice(&nodes.stdout).unwrap();
    assert_eq!((&node["seen"], &node["alive"]), (&json!(true), &json!(true)), "{node}");

    let printed = puddle(&["serve", "--print-config"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains(&format!("\"consul://...@{place}\"")), "{printed}");
}

/// Users, of whom "tested" may use the keys of one place.
fn switch_users_on(etcd: &Etcd) {
    let root = json!({ "name": "root", "password": "root-sesame" });
    etcd.api("/v3/auth/user/add", &root);
    etcd.api("/v3/auth/role/add", &json!({ "name": "root" }));
    etcd.api("/v3/auth/user/grant", &json!({ "user": "root", "role": "root" }));
    etcd.api("/v3/auth/user/add", &json!({ "name": "tested", "password": "open:sesame@1" }));
    etcd.api("/v3/auth/role/add", &json!({ "name": "tested" }));
    let permission = json!({
        "permType": "READWRITE", "key": base64(b"tested/"), "range_end": base64(b"tested0"),
    });
    etcd.api("/v3/auth/role/grant", &json!({ "name": "tested", "perm": permission }));
    etcd.api("/v3/auth/user/grant", &json!({ "user": "tested", "role": "tested" }));
    etcd.api("/v3/auth/enable", &Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_opens_etcd_and_logs_in_again_when_the_token_ended() {
    let options = EtcdOptions { token_seconds: Some(2), ..EtcdOptions::default() };
    let Some(mut etcd) = Etcd::start(&options) else { return };
    switch_users_on(&etcd);
    let place = format!("{}/tested", etcd.address());
    let living = server("a", 1);
    for wrong in ["tested:no-sesame@", "nobody:no-sesame@", ""] {
        let wrong = backend(&format!("etcd://{wrong}{place}"));
        check_refused(&wrong.snapshot().await.unwrap_err(), "no-sesame");
        check_refused(&wrong.announce(&living).await.unwrap_err(), "no-sesame");
        assert!(!format!("{wrong:?} {}", wrong.url()).contains("no-sesame"));
    }
    let url = format!("etcd://tested:open%3Asesame%401@{place}");
    let elsewhere = backend(&url.replace("/tested", "/elsewhere"));
    check_refused(&elsewhere.snapshot().await.unwrap_err(), "open:sesame@1");

    let user = backend(&url);
    user.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    let announced = user.announce(&living).await.unwrap();
    for round in ["ended", "lost with its process"] {
        match round {
            // Of one that nobody uses; those of the announcement go on.
            "ended" => pace(Duration::from_secs(5)),
            _ => {
                etcd.kill();
                etcd.start_again();
            }
        }
        let back = until("back", PATIENCE, &*user, is_alive(&living)).await;
        println!("token {round}: back after {back:?}");
        let idle = backend(&url);
        assert!(idle.snapshot().await.is_ok());
        let found = user.snapshot().await.unwrap();
        let member = found.member("a").unwrap();
        user.write_member(&member.value, member.revision).await.unwrap();
        timeout(PATIENCE, idle.changed()).await.unwrap().unwrap();
    }
    announced.withdraw().await.unwrap();

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "open:sesame@1\n").unwrap();
    let options = format!("user=tested&password-file={}", file.path().display());
    assert!(backend(&format!("etcd://{place}?{options}")).snapshot().await.is_ok());
    let variables =
        [("PUDDLE_DISCOVERY_USER", "tested"), ("PUDDLE_DISCOVERY_PASSWORD", "open:sesame@1")];
    let _process = Announcer::start(&format!("etcd://{place}"), &variables);
    until("alive", PATIENCE, &*user, is_alive(&living)).await;
}

/// URLs of a service with TLS that wants certificates: good ones, and bad ones with what
/// is said of them.
async fn check_tls(scheme: &str, address: &str, certificates: &Certificates) {
    let others = Certificates::make().expect("made a moment ago");
    let authority = certificates.authority().display().to_string();
    let pair = |made: &Certificates| {
        let (certificate, key) = made.client();
        format!("cert={}&key={}", certificate.display(), key.display())
    };
    let url = |options: &str| format!("{scheme}://{address}/tested?{options}");
    let good = format!("ca={authority}&{}", pair(certificates));
    for options in [good.clone(), format!("{good}&server-name=service.test&tls=on")] {
        let backend = backend(&url(&options));
        let announced = backend.announce(&server("a", 1)).await.unwrap();
        assert!(is_alive(&server("a", 1))(&backend.snapshot().await.unwrap()));
        announced.withdraw().await.unwrap();
    }
    // The system's authorities, which a variable can name.
    let of_system = url(&format!("tls=on&{}", pair(certificates)));
    let process = Announcer::start(&of_system, &[("SSL_CERT_FILE", &authority)]);
    let watcher = backend(&url(&good));
    until("alive", PATIENCE, &*watcher, is_alive(&server("a", 1))).await;
    drop(process);
    let other_authority = others.authority().display().to_string();
    for (options, said) in [
        (good.replace(&authority, &other_authority), "invalid peer certificate"),
        (format!("{good}&server-name=elsewhere.test"), "certificate not valid for name"),
        (format!("ca={authority}"), ""),
        (format!("ca={authority}&{}", pair(&others)), ""),
        ("tls=on".to_owned(), "UnknownIssuer"),
        (String::new(), ""),
    ] {
        let refused = backend(&url(&options)).snapshot().await;
        let error = refused.expect_err(&options).explained();
        println!("{scheme}, {options}: {error}");
        assert!(error.contains(said), "{options}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consul_is_spoken_to_with_tls_and_a_certificate() {
    let Some(certificates) = Certificates::make().map(Arc::new) else { return };
    let options =
        ConsulOptions { certificates: Some(certificates.clone()), ..ConsulOptions::default() };
    let Some(consul) = Consul::start(&options) else { return };
    check_tls("consul", &consul.tls_address().to_string(), &certificates).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_spoken_to_with_tls_and_a_certificate() {
    let Some(certificates) = Certificates::make().map(Arc::new) else { return };
    let options =
        EtcdOptions { certificates: Some(certificates.clone()), ..EtcdOptions::default() };
    let Some(etcd) = Etcd::start(&options) else { return };
    check_tls("etcd", &etcd.tls_address().to_string(), &certificates).await;
}

// It waited for ten seconds, and said that it failed.
#[test]
fn a_wrong_credential_is_a_mistake_that_a_command_tells_at_once_and_never_shows() {
    let fake = FakeHttp::start(|_| {
        FakeAnswer::Answer("403 Forbidden", Vec::new(), b"Permission denied".to_vec())
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "sesame-1\n").unwrap();
    let (file, address) = (file.display().to_string(), fake.address());
    let password = "PUDDLE_DISCOVERY_PASSWORD";
    for (url, variables, named) in [
        (format!("consul://{address}"), vec![], "without a token".to_owned()),
        (format!("consul://sesame-1@{address}"), vec![], "with the token of the url".to_owned()),
        (
            format!("consul://{address}"),
            vec![("CONSUL_HTTP_TOKEN", "sesame-1")],
            "with the token of the variable CONSUL_HTTP_TOKEN".to_owned(),
        ),
        (
            format!("consul://{address}?token-file={file}"),
            vec![],
            format!("with the token in {file}"),
        ),
        (
            format!("etcd://{address}?user=me"),
            vec![(password, "sesame-1")],
            format!("with a user and the password of the variable {password}"),
        ),
    ] {
        let began = Instant::now();
        let mut command = Command::new(puddle_binary());
        command.args(["ls", "--view-file", "none", "--discovery", &url]).envs(variables);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{said}");
        assert_eq!(output.status.code(), Some(2), "{url}: {said}");
        assert!(said.contains(&named) && !said.contains("sesame-1"), "{url}: {said}");
        // Discovery is given ten seconds.
        assert!(began.elapsed() < Duration::from_secs(8), "{url}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_repeats_our_secret_does_not_bring_it_into_a_message() {
    const FAILURE: &str = "500 Internal Server Error";
    let said = "no such token or password: sesame-1 {\"message\": \"sesame-1\"}".to_owned();
    // A message is cut at 300 bytes, in the middle of the secret.
    let long = |before: usize| format!("{}sesame-1", "x".repeat(before));
    for (status, body) in [
        (FAILURE, said),
        (FAILURE, long(295)),
        (FAILURE, format!("{{\"message\": \"{}\"}}", long(283))),
        ("200 OK", "\"sesame-1\"".to_owned()),
        ("200 OK", format!("\"{}\"", long(270))),
    ] {
        let fake = FakeHttp::start(move |_| {
            let headers = vec!["X-Consul-Index: 9".to_owned()];
            FakeAnswer::Answer(status, headers, body.as_bytes().to_vec())
        });
        for url in [
            format!("consul://sesame-1@{}", fake.address()),
            format!("etcd://user:sesame-1@{}", fake.address()),
        ] {
            let backend = backend(&url);
            check_hides_sesame(&backend.snapshot().await.unwrap_err());
            check_hides_sesame(&backend.announce(&server("a", 1)).await.unwrap_err());
            let changed = timeout(Duration::from_secs(3), backend.changed()).await;
            if let Ok(Err(error)) = changed {
                check_hides_sesame(&error);
            }
        }
    }

    let fake = FakeHttp::start(|request| {
        let body = match &request.line {
            line if line.contains("/v3/auth/authenticate") => "{\"token\": \"sesame-2\"}",
            line if line.contains("/v3/watch") => "\"sesame-1 sesame-2\"\n",
            _ => "{\"header\": {\"revision\": \"7\"}}",
        };
        FakeAnswer::Answer("200 OK", Vec::new(), body.as_bytes().to_vec())
    });
    let etcd = backend(&format!("etcd://user:sesame-1@{}", fake.address()));
    etcd.snapshot().await.unwrap();
    check_hides_sesame(&etcd.changed().await.unwrap_err());
}

fn check_hides_sesame(error: &DiscoveryError) {
    let shown = format!("{error:?} {}", error.explained());
    assert!(!shown.contains("sesa"), "{shown}");
}

// Gateways say it with different statuses.
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_without_users_lets_a_user_in_whatever_the_status_says() {
    for status in ["400 Bad Request", "412 Precondition Failed"] {
        let fake = FakeHttp::start(move |request| {
            if request.line.contains("/v3/auth/authenticate") {
                let body = json!({ "message": "etcdserver: authentication is not enabled" });
                return FakeAnswer::Answer(status, Vec::new(), body.to_string().into_bytes());
            }
            let body = json!({ "header": { "revision": "7" } });
            FakeAnswer::Answer("200 OK", Vec::new(), body.to_string().into_bytes())
        });
        let backend = backend(&format!("etcd://user:sesame-1@{}", fake.address()));
        let found = backend.snapshot().await.expect(status);
        assert!(found.is_empty(), "{status}: {found:?}");
    }
}
