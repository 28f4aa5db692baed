//! Listings and verifications that are given up in between, or meet silence.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::doors::{Doors, Frame, cut, holding, open, ranks};
use rampuddle_client::{PutOptions, VerifyOptions, VerifyState};
use rampuddle_protocol::Opcode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

#[tokio::test]
async fn a_listing_whose_next_was_given_up_goes_on_where_it_was() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    let names: BTreeSet<_> = (0..40).map(|number| format!("{number:02}")).collect();
    for name in &names {
        client.put(name.as_bytes(), "x", &PutOptions::default()).await.unwrap();
    }
    let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    doors.set(holding(|frame: &Frame| frame.opcode == Opcode::List, &came, &may_go));
    let mut listing = client.list(b"");
    let given_up = async {
        tokio::select! {
            next = listing.next() => panic!("{next:?}"),
            all = came.acquire_many(3) => all.unwrap().forget(),
        }
    };
    timeout(Duration::from_secs(60), given_up).await.expect("all three are asked");
    may_go.close();
    doors.set(open());
    let mut found = BTreeSet::new();
    while let Some(stat) = listing.next().await {
        found.insert(String::from_utf8(stat.unwrap().name).unwrap());
    }
    assert_eq!(listing.unreachable(), Vec::<String>::new());
    assert_eq!(found, names);
}

#[tokio::test]
async fn an_object_whose_only_server_gives_no_answer_is_unreachable_and_not_missing() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    let mut options = PutOptions::default();
    options.replicas = Some(1);
    client.put(b"o", "x", &options).await.unwrap();
    // It is listed, and then nobody hears of it.
    doors.set(cut(ranks(&client, "o")[0], |frame| frame.heads_asked_for() > 0));
    let mut verification = client.verify(b"", &VerifyOptions::default());
    let verified = verification.next().await.unwrap().unwrap();
    assert_eq!(verified.state, VerifyState::Unreachable, "{verified:?}");
    assert!(verified.unreachable > 0 && !verified.problems.is_empty(), "{verified:?}");
    assert!(verification.next().await.is_none());
}
