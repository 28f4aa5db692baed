//! Who has a name, and what others wrote beside.

use rampuddle_discovery::{DiscoveryError, Member, Revision, Settings};

use super::*;

fn json(living: &Living) -> Vec<u8> {
    serde_json::to_vec(living).unwrap()
}

/// The entry of a server whose session is not over yet, though it may be dead.
fn leave(others: &mut ZooKeeperClient, place: &Place, living: &Living) {
    others.put(&place.living(), &json(living), true);
}

#[tokio::test]
async fn what_a_dead_server_left_has_the_name_until_it_is_freed_and_only_that() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let backend = place.open();
    let mut others = ZooKeeperClient::connect(server.address());
    leave(&mut others, &place, &server_a(1));

    let taken = backend.announce(&server_a(2)).await.unwrap_err();
    let DiscoveryError::NameTaken { address, incarnation, .. } = &taken else {
        panic!("{taken:?}");
    };
    assert_eq!((address.as_str(), *incarnation), ("127.0.0.1:7000", Some(Id([1; 16]))));
    // Not that one, nor one that is not there.
    backend.free_name(&server_a(2)).await.unwrap();
    backend.free_name(&Living { name: "b".to_owned(), ..server_a(1) }).await.unwrap();
    assert_eq!(snapshot(&*backend).await.living, [server_a(1)]);

    backend.free_name(&server_a(1)).await.unwrap();
    assert!(snapshot(&*backend).await.living.is_empty());
    let announcement = backend.announce(&server_a(2)).await.unwrap();
    assert_eq!(snapshot(&*backend).await.living, [server_a(2)]);
    announcement.withdraw().await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_session_of_the_same_server_left_is_replaced() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let announcement = place.open().announce(&server_a(1)).await.unwrap();
    let mut others = ZooKeeperClient::connect(server.address());
    let ours = place.owner(&mut others);
    others.delete(&place.living());
    leave(&mut others, &place, &server_a(1));
    let replaced = until("it is replaced", || place.owner(&mut others) == ours).await;
    println!("an earlier one's leftover: replaced after {replaced:?}");
    announcement.withdraw().await.unwrap();
    assert_eq!(place.owner(&mut others), None);
}

#[tokio::test]
async fn a_server_whose_name_another_took_gives_up_and_leaves_the_other_alone() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let announcement = place.open().announce(&server_a(1)).await.unwrap();
    let mut others = ZooKeeperClient::connect(server.address());
    others.delete(&place.living());
    leave(&mut others, &place, &server_a(2));
    sleep(3 * HEARTBEAT).await;
    assert_eq!(snapshot(&*place.open()).await.living, [server_a(2)]);
    announcement.withdraw().await.unwrap();
    assert_eq!(snapshot(&*place.open()).await.living, [server_a(2)]);
}

#[tokio::test]
async fn an_entry_of_nobody_is_a_complaint_and_hinders_nobody() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let backend = place.open();
    let mut others = ZooKeeperClient::connect(server.address());
    others.put(&place.living(), &json(&server_a(1)), false);
    let found = snapshot(&*backend).await;
    assert!(found.living.is_empty());
    assert_eq!(found.complaints.len(), 1, "{:?}", found.complaints);
    assert!(found.complaints[0].contains("is not held by anybody"), "{:?}", found.complaints);
    let _announcement = backend.announce(&server_a(2)).await.unwrap();
    let found = snapshot(&*backend).await;
    assert_eq!((found.living, found.complaints), (vec![server_a(2)], Vec::new()));
}

#[tokio::test]
async fn an_entry_that_others_wrote_over_is_mended() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let _announcement = place.open().announce(&server_a(1)).await.unwrap();
    let mut others = ZooKeeperClient::connect(server.address());
    others.put(&place.living(), b"garbage", false);
    let right = |others: &mut ZooKeeperClient| {
        let found = others.get(&place.living());
        found.is_some_and(|(data, _)| serde_json::from_slice(&data).ok() == Some(server_a(1)))
    };
    until("it is mended", || right(&mut others)).await;
}

#[tokio::test]
async fn nodes_with_odd_names_and_of_absurd_size_cost_a_complaint_each() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let backend = place.open();
    backend.write_member(&Member::ready("a", 1.0), Revision::ABSENT).await.unwrap();
    let mut others = ZooKeeperClient::connect(server.address());
    for name in ["members/.hidden", "members/a b", "living/ä", "members/\u{202e}x"] {
        others.put(&format!("{}/{name}", place.path), b"{}", true);
    }
    others.put(&format!("{}/members/big", place.path), &vec![b' '; 4 << 20], false);
    let found = snapshot(&*backend).await;
    assert_eq!(found.complaints.len(), 5, "{:?}", found.complaints);
    assert_eq!(found.unreadable, ["big"]);
    assert_eq!(found.members.len(), 1);
    let big = found.complaints.iter().find(|said| said.contains("members/big")).unwrap();
    assert!(big.contains("more than 65536 bytes"), "{big}");
    assert!(found.complaints.iter().all(|said| !said.contains('\u{202e}')));
}

#[tokio::test]
async fn a_path_of_several_parts_is_created_when_something_is_written() {
    let Some(server) = ZooKeeper::shared() else { return };
    let path = format!("{}/of/many/parts", fresh_path());
    let backend = open(&format!("zk://{}/{path}/", server.address()), "lab").unwrap();
    let mut others = ZooKeeperClient::connect(server.address());
    assert_eq!(snapshot(&*backend).await, Snapshot::default());
    assert_eq!(others.get(&format!("/{path}")), None);
    backend.create_settings(&Settings::new("lab", 1)).await.unwrap();
    assert!(others.get(&format!("/{path}/lab/settings")).is_some());
}

/// Each write is based on the last one, also when the node was created anew between.
#[tokio::test]
async fn of_writes_removals_and_creations_at_once_none_is_based_on_what_is_gone() {
    let Some(server) = ZooKeeper::shared() else { return };
    let place = Place::fresh(&server);
    let tasks: Vec<_> = (0..6)
        .map(|number| {
            let backend = place.open();
            tokio::spawn(async move {
                let mut done = Vec::new();
                while done.len() < 25 {
                    let found = snapshot(&*backend).await.member("a").cloned();
                    let expected = found.as_ref().map_or(Revision::ABSENT, |found| found.revision);
                    let weight = found.map_or(1.0, |found| found.value.weight + 1.0);
                    let outcome = if number == 0 && expected != Revision::ABSENT {
                        backend.remove_member("a", expected).await.map(|()| None)
                    } else {
                        let member = Member::ready("a", weight);
                        backend.write_member(&member, expected).await.map(Some)
                    };
                    match outcome {
                        Ok(written) => done.push((expected, written, weight)),
                        Err(DiscoveryError::Conflict { .. }) => {}
                        Err(error) => panic!("{}", error.explained()),
                    }
                }
                done
            })
        })
        .collect();
    let mut changes = Vec::new();
    for task in tasks {
        changes.extend(task.await.unwrap());
    }
    // No revision was the base of two changes.
    let mut bases: Vec<_> =
        changes.iter().map(|change| change.0).filter(|base| *base != Revision::ABSENT).collect();
    bases.sort_unstable();
    let count = bases.len();
    bases.dedup();
    assert_eq!(bases.len(), count, "{changes:?}");
    let removed = changes.iter().filter(|change| change.1.is_none()).count();
    println!("{} changes, {removed} removals", changes.len());
    assert!(removed > 5);
}
