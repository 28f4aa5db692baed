//! Sentences for services that record members and the living.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};

use super::{PATIENCE, Sentence, Service, VISIBLE_WITHIN, node, snapshot};
use crate::backend::{Announcement, Backend};
use crate::error::DiscoveryError;
use crate::id::Id;
use crate::model::{Living, Member, MemberState, Revision, Settings, Snapshot};
use crate::watch::Watch;

/// How many writers race.
const WRITERS: u8 = 8;

pub(super) const SENTENCES: &[Sentence] = &[
    Sentence {
        text: "a new cluster is empty",
        check: |service| Box::pin(a_new_cluster_is_empty(service)),
    },
    Sentence {
        text: "settings are created once, and the second creator gets the first's",
        check: |service| Box::pin(settings_are_created_once(service)),
    },
    Sentence {
        text: "of many creators of settings all get the same",
        check: |service| Box::pin(racing_creators_agree(service)),
    },
    Sentence {
        text: "a member is seen by another back end object, as it was written",
        check: |service| Box::pin(members_survive(service)),
    },
    Sentence {
        text: "a write at a wrong revision is a conflict and changes nothing",
        check: |service| Box::pin(a_wrong_revision_changes_nothing(service)),
    },
    Sentence {
        text: "of many writers at one revision exactly one wins",
        check: |service| Box::pin(one_writer_wins(service)),
    },
    Sentence {
        text: "no counted change is lost among many writers",
        check: |service| Box::pin(no_change_is_lost(service)),
    },
    Sentence {
        text: "a member is removed at its revision only, and never gets that one again",
        check: |service| Box::pin(a_removed_member_is_gone(service)),
    },
    Sentence {
        text: "a member's record does not depend on its being alive",
        check: |service| Box::pin(members_are_not_the_living(service)),
    },
    Sentence {
        text: "an announced server is seen with all it said, also by another object",
        check: |service| Box::pin(announced_servers_are_seen(service)),
    },
    Sentence {
        text: "a withdrawn server vanishes for a watcher within a second",
        check: |service| Box::pin(a_withdrawn_server_vanishes(service)),
    },
    Sentence {
        text: "a dropped announcement is withdrawn",
        check: |service| Box::pin(a_dropped_announcement_is_withdrawn(service)),
    },
    Sentence {
        text: "a name is taken while its server lives",
        check: |service| Box::pin(a_name_is_taken(service)),
    },
    Sentence {
        text: "of many servers that announce one name exactly one wins",
        check: |service| Box::pin(one_server_wins(service)),
    },
    Sentence {
        text: "after a withdrawal the name is free for a new incarnation",
        check: |service| Box::pin(a_name_is_free_again(service)),
    },
    Sentence {
        text: "two clusters of one service do not see each other",
        check: |service| Box::pin(clusters_are_apart(service)),
    },
    Sentence {
        text: "a member's write, an announcement and a withdrawal wake a waiter",
        check: |service| Box::pin(changes_wake(service)),
    },
    Sentence {
        text: "a change between a snapshot and the wait for it is not missed",
        check: |service| Box::pin(early_changes_wake(service)),
    },
    Sentence {
        text: "members and living are sorted by name",
        check: |service| Box::pin(snapshots_are_sorted(service)),
    },
    Sentence {
        text: "bad names, weights and addresses are refused and leave nothing",
        check: |service| Box::pin(bad_input_is_refused(service)),
    },
];

async fn a_new_cluster_is_empty(service: Service) {
    assert_eq!(snapshot(&*service.backend()).await, Snapshot::default());
}

async fn settings_are_created_once(service: Service) {
    let mut first = Settings::new("lab", 1_000);
    first.replicas_max = 5;
    let second = Settings::new("lab", 2_000);
    assert_eq!(create_settings(&*service.backend(), &first).await, first);
    assert_eq!(create_settings(&*service.backend(), &second).await, first);
    assert_eq!(snapshot(&*service.backend()).await.settings, Some(first));
}

async fn create_settings(backend: &dyn Backend, settings: &Settings) -> Settings {
    let created = backend.create_settings(settings).await;
    created.expect("settings can be created")
}

async fn racing_creators_agree(service: Service) {
    let creators = (0..WRITERS).map(|number| {
        let backend = service.backend();
        let settings = Settings::new("lab", u64::from(number));
        async move { create_settings(&*backend, &settings).await }
    });
    let seen = on_tasks(creators).await;
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

async fn members_survive(service: Service) {
    let member = Member {
        name: "a".to_owned(),
        weight: 0.1 + 0.2,
        zone: "rack 7/ü".to_owned(),
        state: MemberState::Draining,
    };
    let revision = write(&*service.backend(), &member, Revision::ABSENT).await;
    let found = snapshot(&*service.backend()).await;
    let recorded = found.member("a").expect("it was written");
    assert_eq!((&recorded.value, recorded.revision), (&member, revision));
    assert_ne!(revision, Revision::ABSENT);
}

async fn write(backend: &dyn Backend, member: &Member, expected: Revision) -> Revision {
    let written = backend.write_member(member, expected).await;
    written.expect("nobody else writes")
}

async fn a_wrong_revision_changes_nothing(service: Service) {
    let backend = service.backend();
    let first = write(&*backend, &Member::ready("a", 1.0), Revision::ABSENT).await;
    let second = write(&*backend, &Member::ready("a", 2.0), first).await;
    assert!(second > first);
    let before = snapshot(&*backend).await;
    for expected in [Revision::ABSENT, first, Revision(second.0 + 1)] {
        let written = backend.write_member(&Member::ready("a", 3.0), expected).await;
        assert_conflict(&written, expected, second);
        let removed = backend.remove_member("a", expected).await;
        assert_conflict(&removed, expected, second);
    }
    let written = backend.write_member(&Member::ready("b", 1.0), second).await;
    assert_conflict(&written, second, Revision::ABSENT);
    assert_eq!(snapshot(&*backend).await, before);
}

fn assert_conflict<T: std::fmt::Debug>(
    result: &Result<T, DiscoveryError>,
    wrong: Revision,
    right: Revision,
) {
    let Err(DiscoveryError::Conflict { expected, found, .. }) = result else {
        panic!("a conflict was expected, not {result:?}");
    };
    assert_eq!((*expected, *found), (wrong, right));
}

async fn one_writer_wins(service: Service) {
    let first = write(&*service.backend(), &Member::ready("a", 100.0), Revision::ABSENT).await;
    let writers = (0..WRITERS).map(|number| {
        let backend = service.backend();
        let member = Member::ready("a", f64::from(number) + 1.0);
        async move { backend.write_member(&member, first).await.map(|_| member) }
    });
    let results = on_tasks(writers).await;
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    let losers = results.iter().filter_map(|result| result.as_ref().err());
    for error in losers {
        assert!(matches!(error, DiscoveryError::Conflict { .. }), "{error:?}");
    }
    let found = snapshot(&*service.backend()).await;
    assert_eq!(found.member("a").map(|recorded| &recorded.value), Some(winners[0]));
}

async fn no_change_is_lost(service: Service) {
    write(&*service.backend(), &Member::ready("a", 1.0), Revision::ABSENT).await;
    on_tasks((0..WRITERS).map(|_| add_one(service.backend()))).await;
    let found = snapshot(&*service.backend()).await;
    let weight = found.member("a").expect("nobody removed it").value.weight;
    assert_eq!(weight, 1.0 + f64::from(WRITERS));
}

/// Adds one to the weight of a member, trying until nobody was faster.
async fn add_one(backend: Arc<dyn Backend>) {
    loop {
        let found = snapshot(&*backend).await;
        let recorded = found.member("a").expect("nobody removes it");
        let member = Member::ready("a", recorded.value.weight + 1.0);
        match backend.write_member(&member, recorded.revision).await {
            Ok(_) => return,
            Err(error) => assert!(matches!(error, DiscoveryError::Conflict { .. }), "{error:?}"),
        }
    }
}

async fn a_removed_member_is_gone(service: Service) {
    let backend = service.backend();
    let first = write(&*backend, &Member::ready("a", 1.0), Revision::ABSENT).await;
    let removed = backend.remove_member("a", first).await;
    removed.expect("the revision is right");
    assert_eq!(snapshot(&*service.backend()).await.members, []);
    let again = write(&*backend, &Member::ready("a", 1.0), Revision::ABSENT).await;
    assert_ne!(again, first);
    let late = backend.remove_member("a", first).await;
    assert_conflict(&late, first, again);
}

async fn members_are_not_the_living(service: Service) {
    let backend = service.backend();
    write(&*backend, &Member::ready("a", 1.0), Revision::ABSENT).await;
    let announcement = announce(&*backend, &node("a", 1, 1)).await;
    let alive = snapshot(&*backend).await;
    announcement.withdraw().await.expect("the service is up");
    let dead = snapshot(&*backend).await;
    assert_eq!(alive.members, dead.members);
    assert_eq!((alive.living.len(), dead.living.len()), (1, 0));
    let announcement = announce(&*backend, &node("no-member", 2, 1)).await;
    let found = snapshot(&*backend).await;
    assert!(found.alive("no-member").is_some() && found.member("no-member").is_none());
    drop(announcement);
}

async fn announce(backend: &dyn Backend, living: &Living) -> Announcement {
    let announcement = backend.announce(living).await;
    announcement.expect("nobody else lives under the name")
}

async fn announced_servers_are_seen(service: Service) {
    let backend = service.backend();
    let living = Living {
        name: "a".to_owned(),
        tcp: Some("[::1]:7000".to_owned()),
        unix_socket: Some("/run/puddle/a.sock".into()),
        host: "a-boot-id".to_owned(),
        incarnation: Some(Id([0xab; 16])),
        store_id: Some(Id([0xcd; 16])),
    };
    let announcement = announce(&*backend, &living).await;
    let seen = snapshot(&*backend).await.living;
    assert_eq!(seen, [living]);
    assert_eq!(snapshot(&*service.backend()).await.living, seen);
    drop(announcement);
}

async fn a_withdrawn_server_vanishes(service: Service) {
    let announcement = announce(&*service.backend(), &node("a", 1, 1)).await;
    let mut watch = watch(&service).await;
    assert!(watch.current().alive("a").is_some());
    announcement.withdraw().await.expect("the service is up");
    until_dead(&mut watch, "a").await;
}

async fn a_dropped_announcement_is_withdrawn(service: Service) {
    let announcement = announce(&*service.backend(), &node("a", 1, 1)).await;
    let mut watch = watch(&service).await;
    drop(announcement);
    until_dead(&mut watch, "a").await;
}

async fn watch(service: &Service) -> Watch {
    let watch = Watch::start(service.backend(), PATIENCE).await;
    watch.expect("the service is up")
}

async fn until_dead(watch: &mut Watch, name: &str) {
    let deadline = Instant::now() + VISIBLE_WITHIN;
    while watch.current().alive(name).is_some() {
        let changed = timeout_at(deadline, watch.changed()).await;
        changed.expect("a watcher sees it in time");
    }
}

async fn a_name_is_taken(service: Service) {
    let first = node("a", 1, 1);
    let announcement = announce(&*service.backend(), &first).await;
    let other = service.backend();
    for second in [node("a", 2, 2), first.clone()] {
        let Err(error) = other.announce(&second).await else {
            panic!("a second server got the name");
        };
        let DiscoveryError::NameTaken { name, address, incarnation } = error else {
            panic!("the name is taken, but the error is {error:?}");
        };
        assert_eq!((name, address), (first.name.clone(), first.address()));
        assert_eq!(incarnation, first.incarnation);
    }
    assert_eq!(snapshot(&*other).await.living, [first]);
    drop(announcement);
}

async fn one_server_wins(service: Service) {
    let servers = (1..=WRITERS).map(|number| {
        let backend = service.backend();
        let living = node("a", number.into(), number);
        async move { (backend.announce(&living).await, living) }
    });
    let results = on_tasks(servers).await;
    let winners: Vec<_> = results.iter().filter(|(result, _)| result.is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    let found = snapshot(&*service.backend()).await;
    assert_eq!(found.living, [winners[0].1.clone()]);
}

async fn a_name_is_free_again(service: Service) {
    let backend = service.backend();
    for incarnation in 1..=3 {
        let living = node("a", u16::from(incarnation), incarnation);
        let announcement = announce(&*backend, &living).await;
        assert_eq!(snapshot(&*backend).await.living, [living]);
        announcement.withdraw().await.expect("the service is up");
    }
    assert_eq!(snapshot(&*backend).await.living, []);
}

async fn clusters_are_apart(service: Service) {
    let (one, other) = (service.open("one"), service.open("other"));
    create_settings(&*one, &Settings::new("one", 1)).await;
    write(&*one, &Member::ready("a", 1.0), Revision::ABSENT).await;
    let first = announce(&*one, &node("a", 1, 1)).await;
    assert_eq!(snapshot(&*other).await, Snapshot::default());
    let second = announce(&*other, &node("a", 2, 2)).await;
    assert_eq!(snapshot(&*one).await.living, [node("a", 1, 1)]);
    drop((first, second));
}

async fn changes_wake(service: Service) {
    let (writer, watcher) = (service.backend(), service.backend());
    let before = snapshot(&*watcher).await;
    write(&*writer, &Member::ready("a", 1.0), Revision::ABSENT).await;
    let written = until_other(&*watcher, &before).await;
    let announcement = announce(&*writer, &node("a", 1, 1)).await;
    let announced = until_other(&*watcher, &written).await;
    announcement.withdraw().await.expect("the service is up");
    assert_eq!(until_other(&*watcher, &announced).await, written);
}

/// Waits for wakes until a snapshot differs.
async fn until_other(watcher: &dyn Backend, before: &Snapshot) -> Snapshot {
    let other = async {
        loop {
            watcher.changed().await.expect("the service is up");
            let now = snapshot(watcher).await;
            if now != *before {
                return now;
            }
        }
    };
    let other = timeout(VISIBLE_WITHIN, other).await;
    other.expect("a change wakes a waiter in time")
}

async fn early_changes_wake(service: Service) {
    let (writer, watcher) = (service.backend(), service.backend());
    let mut revision = Revision::ABSENT;
    for weight in 1..=20 {
        let before = snapshot(&*watcher).await;
        revision = write(&*writer, &Member::ready("a", f64::from(weight)), revision).await;
        until_other(&*watcher, &before).await;
    }
}

async fn snapshots_are_sorted(service: Service) {
    let backend = service.backend();
    let mut announcements = Vec::new();
    for (port, name) in (1..).zip(["b", "a-10", "Z", "a", "a-9", "_", "0"]) {
        write(&*backend, &Member::ready(name, 1.0), Revision::ABSENT).await;
        announcements.push(announce(&*backend, &node(name, port, 1)).await);
    }
    let found = snapshot(&*backend).await;
    assert_eq!((found.members.len(), found.living.len()), (7, 7));
    assert!(found.members.is_sorted_by_key(|recorded| &recorded.value.name));
    assert!(found.living.is_sorted_by_key(|living| &living.name));
}

async fn bad_input_is_refused(service: Service) {
    let backend = service.backend();
    for name in ["", "..", "../a", "a/b", "a b", "a\0b", "-a", &"a".repeat(65)] {
        let written = backend.write_member(&Member::ready(name, 1.0), Revision::ABSENT).await;
        assert_invalid(&written);
        assert_invalid(&backend.remove_member(name, Revision(1)).await);
        assert_invalid(&backend.announce(&node(name, 1, 1)).await);
    }
    for weight in [0.0, -1.0, f64::NAN, 1e308] {
        let written = backend.write_member(&Member::ready("a", weight), Revision::ABSENT).await;
        assert_invalid(&written);
    }
    for address in ["0.0.0.0:1", "169.254.169.254:80", "127.0.0.1:0", "nonsense"] {
        let living = Living::at("a", address, Id([1; 16]));
        assert_invalid(&backend.announce(&living).await);
    }
    assert_eq!(snapshot(&*backend).await, Snapshot::default());
}

fn assert_invalid<T: std::fmt::Debug>(result: &Result<T, DiscoveryError>) {
    let invalid = matches!(result, Err(DiscoveryError::Invalid(_)));
    assert!(invalid, "a refusal was expected, not {result:?}");
}

/// Runs futures as tasks of their own; returns what they return.
async fn on_tasks<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let results = join_all(tasks).await.into_iter();
    results.map(|result| result.expect("the task does not panic")).collect()
}
