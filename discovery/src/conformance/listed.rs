//! Sentences for written lists of servers.

use super::{Sentence, Service, node, snapshot};
use crate::error::DiscoveryError;
use crate::id::Id;
use crate::model::{Living, Member, Revision, Settings};

pub(super) const SENTENCES: &[Sentence] = &[
    Sentence {
        text: "the listed members are there, in order, and said to be alive",
        check: |service| Box::pin(members_are_there(service)),
    },
    Sentence {
        text: "two back end objects show the same",
        check: |service| Box::pin(objects_agree(service)),
    },
    Sentence {
        text: "the settings are those of the list, whoever wants to create others",
        check: |service| Box::pin(settings_stay(service)),
    },
    Sentence {
        text: "nothing can be written, and the list stays as it is",
        check: |service| Box::pin(nothing_is_written(service)),
    },
    Sentence {
        text: "a listed server may announce itself and withdraw, and stays listed",
        check: |service| Box::pin(a_listed_server_announces(service)),
    },
    Sentence {
        text: "a server that is not listed is refused",
        check: |service| Box::pin(an_unlisted_server_is_refused(service)),
    },
    Sentence {
        text: "a listed server at another address is refused",
        check: |service| Box::pin(another_address_is_refused(service)),
    },
];

async fn members_are_there(service: Service) {
    let found = snapshot(&*service.backend()).await;
    assert!(found.members.len() >= 2, "{found:?}");
    assert!(found.members.is_sorted_by_key(|recorded| &recorded.value.name), "{found:?}");
    assert!(found.living.is_sorted_by_key(|living| &living.name), "{found:?}");
    for recorded in &found.members {
        let living = found.alive(&recorded.value.name);
        assert_eq!(living.expect("a listed server is alive").incarnation, None);
    }
}

async fn objects_agree(service: Service) {
    let (one, other) = (service.backend(), service.backend());
    assert_eq!(snapshot(&*one).await, snapshot(&*other).await);
}

async fn settings_stay(service: Service) {
    let backend = service.backend();
    let mut others = Settings::new("lab", 77);
    others.replicas_max = 7;
    let settings = backend.create_settings(&others).await;
    let settings = settings.expect("a list has settings");
    assert_eq!(settings.cluster, "lab");
    assert_ne!(settings, others);
    assert_eq!(snapshot(&*backend).await.settings, Some(settings));
}

async fn nothing_is_written(service: Service) {
    let backend = service.backend();
    let before = snapshot(&*backend).await;
    let member = Member::ready("newcomer", 1.0);
    let written = backend.write_member(&member, Revision::ABSENT).await;
    assert!(matches!(written, Err(DiscoveryError::ReadOnly { .. })), "{written:?}");
    let first = &before.members[0];
    let removed = backend.remove_member(&first.value.name, first.revision).await;
    assert!(matches!(removed, Err(DiscoveryError::ReadOnly { .. })), "{removed:?}");
    assert_eq!(snapshot(&*backend).await, before);
}

async fn a_listed_server_announces(service: Service) {
    let backend = service.backend();
    let before = snapshot(&*backend).await;
    let living = Living { incarnation: Some(Id([1; 16])), ..before.living[0].clone() };
    let announcement = backend.announce(&living).await;
    let announcement = announcement.expect("a listed server may announce itself");
    announcement.withdraw().await.expect("a list is always there");
    assert_eq!(snapshot(&*backend).await, before);
}

async fn an_unlisted_server_is_refused(service: Service) {
    let announced = service.backend().announce(&node("newcomer", 7, 1)).await;
    assert!(matches!(announced, Err(DiscoveryError::UnknownMember { .. })), "{announced:?}");
}

async fn another_address_is_refused(service: Service) {
    let backend = service.backend();
    let name = snapshot(&*backend).await.living[0].name.clone();
    let mut elsewhere = node(&name, 7, 1);
    elsewhere.tcp = Some("192.0.2.77:7".to_owned());
    let announced = backend.announce(&elsewhere).await;
    assert!(matches!(announced, Err(DiscoveryError::AddressMismatch { .. })), "{announced:?}");
}
