//! Users, passwords and TLS.

use std::fs;

use rampuddle_discovery::{DiscoveryError, Member, Revision, Settings};
use rampuddle_harness::{Certificates, ZooKeeperOptions};

use super::*;
use crate::support::Announcer;

/// ZooKeeper's code for whom a node is not open.
const NO_AUTH: i32 = -102;

#[tokio::test]
async fn what_a_user_writes_is_for_that_user_only() {
    let Some(server) = ZooKeeper::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    fs::write(&password, "open:sesame\n").unwrap();
    let (address, path) = (server.address(), fresh_path());
    let url = format!("zk://{address}/{path}?user=keeper&password-file={}", password.display());
    let backend = open(&url, "lab").unwrap();
    backend.create_settings(&Settings::new("lab", 1)).await.unwrap();
    let revision = backend.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    backend.write_member(&Member::ready("a", 2.0), revision).await.unwrap();
    let announcement = backend.announce(&server_a(1)).await.unwrap();
    let found = snapshot(&*backend).await;
    assert_eq!((found.members.len(), found.living.len()), (1, 1));

    let mut others = ZooKeeperClient::connect(address);
    for node in ["settings", "members", "members/a", "living/a"] {
        assert_eq!(others.code_of_get(&format!("/{path}/lab/{node}")), NO_AUTH, "{node}");
    }
    for other in
        [format!("zk://{address}/{path}"), format!("zk://keeper:open%3Awrong@{address}/{path}")]
    {
        let backend = open(&other, "lab").unwrap();
        let refused = backend.snapshot().await.unwrap_err();
        assert!(matches!(refused, DiscoveryError::NotAllowed { .. }), "{refused:?}");
        let written = backend.write_member(&Member::ready("a", 9.0), Revision(1)).await;
        let told = format!("{refused:?} {} {written:?} {backend:?}", refused.explained());
        assert!(written.is_err() && !told.contains("sesame") && !told.contains("wrong"), "{told}");
        assert!(told.contains("check the token, or the user and the password"), "{told}");
    }
    // Another cluster, of another user, lies below the same path.
    let neighbour = open(&format!("zk://neighbour:other@{address}/{path}"), "lab-2").unwrap();
    neighbour.create_settings(&Settings::new("lab-2", 1)).await.unwrap();
    neighbour.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    assert_eq!(others.code_of_get(&format!("/{path}/lab-2/settings")), NO_AUTH);
    // In the URL it is the same user.
    let same = open(&format!("zk://keeper:open%3Asesame@{address}/{path}"), "lab").unwrap();
    assert_eq!(snapshot(&*same).await, found);
    announcement.withdraw().await.unwrap();
}

#[tokio::test]
async fn with_tls_only_those_get_through_who_trust_each_other() {
    let Some(certificates) = Certificates::make().map(Arc::new) else { return };
    let with = Some(Arc::clone(&certificates));
    let options = ZooKeeperOptions { certificates: with, ..ZooKeeperOptions::default() };
    let Some(server) = ZooKeeper::start(&options) else { return };
    let place = format!("zk://{}/{}", server.tls_address(), fresh_path());
    let (certificate, key) = certificates.client();
    let trust = format!("ca={}", certificates.authority().display());
    let identity = format!("cert={}&key={}", certificate.display(), key.display());
    let url = format!("{place}?{trust}&{identity}");
    let backend = open(&url, "lab").unwrap();
    let announcement = backend.announce(&server_a(1)).await.unwrap();
    let mut watch = Watch::start(open(&url, "lab").unwrap(), PATIENCE).await.unwrap();
    assert_eq!(watch.current().living, [server_a(1)]);
    announcement.withdraw().await.unwrap();
    let seen = until_view("it is withdrawn", &mut watch, |view| view.living.is_empty()).await;
    println!("TLS: ZooKeeper {}, a withdrawal is seen after {seen:?}", server.version());

    // The system's authorities, which a variable can name.
    let of_system = format!("{place}?tls=on&{identity}");
    let authority = certificates.authority().display().to_string();
    let process = Announcer::start(&of_system, &[("SSL_CERT_FILE", &authority)]);
    until_view("it is announced", &mut watch, |view| view.alive("a").is_some()).await;
    drop(process);

    let others = Certificates::make().unwrap();
    let other_trust = format!("ca={}", others.authority().display());
    let (certificate, key) = others.client();
    let other_identity = format!("cert={}&key={}", certificate.display(), key.display());
    for (options, why) in [
        (format!("{trust}&{identity}&server-name=service.test"), None),
        (format!("{trust}&{identity}&server-name=other.test"), Some("not valid for name")),
        (format!("{other_trust}&{identity}"), Some("certificate")),
        (format!("{trust}&{other_identity}"), Some("")),
        (trust, Some("")),
        ("tls=off".to_owned(), Some("")),
    ] {
        let found = open(&format!("{place}?{options}"), "lab").unwrap().snapshot().await;
        match (found, why) {
            (Ok(_), None) => {}
            (Err(refused), Some(why)) => {
                let told = refused.explained();
                assert!(matches!(refused, DiscoveryError::Unreachable { .. }), "{refused:?}");
                assert!(told.contains(why), "{options}: {told}");
            }
            (found, _) => panic!("{options}: {found:?}"),
        }
    }
}
