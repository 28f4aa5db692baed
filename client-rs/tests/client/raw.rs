//! The raw operations against small servers that behave.

use std::time::Duration;

use crate::support::{Behaviour, FakeServer};
use bytes::Bytes;
use rampuddle_client::{
    Client, CreateItem, DeleteItem, DropItem, Error, Fate, GatherItem, ListQuery, Options,
    RawClient, ScatterItem, Target, Token,
};
use rampuddle_protocol::{RowFlags, Status, Version, crc32c};

async fn client_of(servers: &[&FakeServer]) -> Client {
    Client::connect(options_of(servers)).await.unwrap()
}

fn options_of(servers: &[&FakeServer]) -> Options {
    let entries: Vec<String> = servers.iter().map(|server| server.entry()).collect();
    let mut options = Options::new(format!("static:{}", entries.join(",")));
    options.patience = Duration::from_secs(2);
    options
}

fn pattern(bytes: usize, seed: u8) -> Bytes {
    (0..bytes).map(|index| ((index / 3) ^ (index >> 9)) as u8 ^ seed).collect()
}

/// The bytes that one Gather of a range returns.
async fn range(raw: &RawClient, key: &str, offset: u64, length: u64) -> Bytes {
    let item = GatherItem::new(key.to_owned(), offset, length);
    let answer = raw.gather(&Target::Placement, vec![item]).await.remove(0).unwrap();
    assert_eq!(answer.status, Status::Ok);
    assert_eq!(answer.length, answer.bytes.len() as u64);
    answer.bytes
}

#[tokio::test]
async fn batches_of_any_size_come_back_in_order() {
    let servers =
        [FakeServer::start("a").await, FakeServer::start("b").await, FakeServer::start("c").await];
    let client = client_of(&servers.each_ref()).await;
    let raw = client.raw();
    for rows in [0, 1, 1_024, 1_025, 5_000] {
        let key = |row: usize| format!("{rows}/{row}");
        let items =
            (0..rows).map(|row| CreateItem::new(key(row), format!("value {row}"))).collect();
        let made = raw.create(&Target::Placement, items).await;
        assert_eq!(made.len(), rows);
        assert!(made.iter().all(|answer| answer.as_ref().unwrap().status == Status::Ok));

        let items = (0..rows).map(|row| GatherItem::whole(key(row))).collect::<Vec<_>>();
        let items: Vec<_> = items
            .into_iter()
            .map(|mut item| {
                item.length = 100;
                item
            })
            .collect();
        let read = raw.gather(&Target::Placement, items).await;
        assert_eq!(read.len(), rows);
        for (row, answer) in read.iter().enumerate() {
            let answer = answer.as_ref().unwrap();
            assert_eq!(answer.bytes, format!("value {row}"));
            assert_eq!(answer.version, made[row].as_ref().unwrap().sent_version);
        }

        let keys = (0..rows).map(|row| Bytes::from(key(row))).collect();
        let stats = raw.stat(&Target::Placement, keys).await;
        assert!(stats.iter().enumerate().all(|(row, stat)| stat.as_ref().unwrap().key == key(row)));

        let items = (0..rows).map(|row| DeleteItem::new(key(row))).collect();
        let deleted = raw.delete(&Target::Placement, items).await;
        assert_eq!(deleted.len(), rows);
        for (row, answer) in deleted.iter().enumerate() {
            let answer = answer.as_ref().unwrap();
            assert_eq!(answer.version, made[row].as_ref().unwrap().sent_version);
            assert!(answer.sent_version > answer.version);
        }
    }
    assert!(servers.iter().all(|server| server.keys() == 0 && server.accepted() > 0));
}

#[tokio::test]
async fn values_of_any_length_come_back_whole_and_in_ranges() {
    const MIB: usize = 1 << 20;
    let server = FakeServer::start("a").await;
    let client = client_of(&[&server]).await;
    let raw = client.raw();
    for bytes in [1, 64 << 10, 4 * MIB, 4 * MIB + 1, 20 * MIB] {
        let key = format!("value of {bytes}");
        let value = pattern(bytes, 3);
        let mut item = CreateItem::new(key.clone(), value.clone());
        item.crc32c = Some(crc32c(&value));
        item.tag = Bytes::from_static(b"tag");
        let made = raw.create(&Target::Placement, vec![item]).await.remove(0).unwrap();
        assert_eq!((made.status, made.length), (Status::Ok, bytes.max(64 << 10) as u64));

        let whole = raw.gather(&Target::Placement, vec![GatherItem::whole(key.clone())]).await;
        let whole = whole[0].as_ref().unwrap();
        assert!(whole.bytes == value && whole.tag == "tag", "{bytes}");
        assert_eq!(whole.crc32c, Some(crc32c(&value)));

        for (start, end) in
            [(0, bytes), (bytes / 3, bytes), (bytes / 2, bytes / 2 + 1), (1, bytes - bytes / 7)]
        {
            let (start, end) = (start.min(end), end);
            let part = range(&raw, &key, start as u64, (end - start) as u64).await;
            assert!(part == value[start..end], "{start}..{end} of {bytes}");
        }
        // Beyond the value's end nothing is given, and nothing is allocated.
        let length = bytes.max(64 << 10) as u64;
        assert_eq!(range(&raw, &key, length - 1, u64::MAX).await.len(), 1);
        assert!(range(&raw, &key, length, u64::MAX).await.is_empty());
    }
}

#[tokio::test]
async fn scatter_writes_pieces_longer_than_a_frame() {
    let server = FakeServer::start("a").await;
    let client = client_of(&[&server]).await;
    let raw = client.raw();
    let mut item = CreateItem::new("memory", "");
    item.length = 10 << 20;
    let made = raw.create(&Target::Placement, vec![item]).await;
    assert_eq!(made[0].as_ref().unwrap().length, 10 << 20);
    let value = pattern(9 << 20, 1);
    let items = vec![
        ScatterItem::new("memory", 77, value.clone()),
        ScatterItem::new("absent", 0, "x"),
        ScatterItem::new("memory", (10 << 20) - 2, "four"),
    ];
    let written = raw.scatter(&Target::Placement, items).await;
    let lengths = written.iter().map(|answer| answer.as_ref().unwrap().length);
    assert_eq!(lengths.collect::<Vec<_>>(), [9 << 20, 0, 2]);
    assert_eq!(written[1].as_ref().unwrap().status, Status::NotFound);
    assert!(range(&raw, "memory", 77, 9 << 20).await == value);
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let server = FakeServer::start("a").await;
    let client = client_of(&[&server]).await;
    let raw = client.raw();
    let value = |row: usize| pattern(1 << 20, row as u8);
    // Four frames of four rows each way, answered last first.
    let items = (0..16).map(|row| CreateItem::new(format!("k{row}"), value(row))).collect();
    server.behave(Behaviour { reversed: 4, ..Behaviour::default() });
    let made = raw.create(&Target::Placement, items).await;
    assert!(made.iter().all(|answer| answer.as_ref().unwrap().status == Status::Ok));
    let items = (0..16).map(|row| GatherItem::new(format!("k{row}"), 0, 1 << 20)).collect();
    let read = raw.gather(&Target::Placement, items).await;
    for (row, answer) in read.iter().enumerate() {
        assert!(answer.as_ref().unwrap().bytes == value(row), "row {row}");
    }
}

#[tokio::test]
async fn refused_rows_do_not_disturb_the_others() {
    let server = FakeServer::start("a").await;
    let client = client_of(&[&server]).await;
    let raw = client.raw();
    let mut spoilt = CreateItem::new("spoilt", "bytes");
    spoilt.crc32c = Some(1);
    let items = vec![
        CreateItem::new("one", "1"),
        CreateItem::new("", "no key"),
        CreateItem::new(vec![b'k'; 1_025], "long key"),
        CreateItem::new(&[0xF8, b'x'][..], "an object's key"),
        CreateItem::new("one", "again"),
        CreateItem::new("one", "replaced").replacing(),
        spoilt,
        CreateItem::new(vec![b'k'; 1_024], "longest key"),
    ];
    let made = raw.create(&Target::Placement, items).await;
    let status = |index: usize| made[index].as_ref().unwrap().status;
    assert_eq!(
        [0, 4, 5, 6, 7].map(status),
        [Status::Ok, Status::Exists, Status::Ok, Status::Corrupt, Status::Ok]
    );
    assert!(matches!(made[1], Err(Error::BadKey { bytes: 0 })));
    assert!(matches!(made[2], Err(Error::BadKey { bytes: 1_025 })));
    assert!(matches!(made[3], Err(Error::ReservedKey { first: 0xF8 })));
    let replaced = made[5].as_ref().unwrap();
    assert!(replaced.flags.has(RowFlags::DISPLACED));
    assert_eq!(replaced.version, made[0].as_ref().unwrap().sent_version);

    let scattered =
        raw.scatter(&Target::Placement, vec![ScatterItem::new(&[0xF9][..], 0, "x")]).await;
    assert!(matches!(scattered[0], Err(Error::ReservedKey { .. })));
    let deleted = raw.delete(&Target::Placement, vec![DeleteItem::new(&[0xFF][..])]).await;
    assert!(matches!(deleted[0], Err(Error::ReservedKey { .. })));
    let read = raw.gather(&Target::Placement, vec![GatherItem::new(&[0xF8][..], 0, 1)]).await;
    assert_eq!(read[0].as_ref().unwrap().status, Status::NotFound);
    let stat = raw.stat(&Target::Placement, vec![Bytes::from_static(&[0xF9])]).await;
    assert_eq!(stat[0].as_ref().unwrap().status, Status::NotFound);
}

#[tokio::test]
async fn drop_removes_an_exact_version_only() {
    let server = FakeServer::start("a").await;
    let client = client_of(&[&server]).await;
    let raw = client.raw();
    let target = Target::server("a");
    let made = raw.create(&target, vec![CreateItem::new("k", "v")]).await;
    let version = made[0].as_ref().unwrap().sent_version;
    let other = Version { writer: version.writer ^ 1, ..version };
    let items = [other, version, version].map(|version| DropItem::new("k", version)).to_vec();
    let dropped = raw.drop_version(&target, items).await;
    let statuses: Vec<_> = dropped.iter().map(|answer| answer.as_ref().unwrap().status).collect();
    assert_eq!(statuses, [Status::Mismatch, Status::Ok, Status::NotFound]);
}

#[tokio::test]
async fn a_listing_walks_all_keys_page_by_page() {
    let server = FakeServer::start("a").await;
    let client = client_of(&[&server]).await;
    let raw = client.raw();
    let items = (0..250).map(|row| CreateItem::new(format!("k{row:03}"), "v")).collect();
    raw.create(&Target::Placement, items).await;
    let mut query = ListQuery::prefix("k1");
    let mut keys = Vec::new();
    query.rows_max = 30;
    loop {
        let page = raw.list("a", &query).await.unwrap();
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
        let Some(next) = page.next else { break };
        query.cursor = next;
    }
    let expected: Vec<_> = (100..200).map(|row| Bytes::from(format!("k{row:03}"))).collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn nodes_tell_written_state_and_liveness_apart() {
    let (alive, dead) = (FakeServer::start("alive").await, FakeServer::start("dead").await);
    let client = client_of(&[&alive, &dead]).await;
    dead.stop().await;
    let nodes = client.nodes().await;
    let seen: Vec<_> = nodes.iter().map(|node| (&*node.name, node.is_alive)).collect();
    assert_eq!(seen, [("alive", true), ("dead", false)]);
    assert!(nodes.iter().all(|node| node.state.is_some() && node.address.is_some()));
    assert!(nodes[0].incarnation.is_some() && nodes[1].error.is_some());
    let unknown = client.raw().info("nobody").await.unwrap_err();
    assert!(matches!(unknown, Error::NotAMember { .. }), "{unknown}");
}

#[tokio::test]
async fn one_dead_server_fails_its_own_rows_only() {
    let (alive, dead) = (FakeServer::start("alive").await, FakeServer::start("dead").await);
    let client = client_of(&[&alive, &dead]).await;
    dead.stop().await;
    let items = (0..100).map(|row| CreateItem::new(format!("{row}"), "v")).collect();
    let made = client.raw().create(&Target::Placement, items).await;
    let failed: Vec<&Error> = made.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!((10..90).contains(&failed.len()), "{} of 100", failed.len());
    for error in failed {
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert_eq!(error.fate(), Fate::NotSent);
    }
}

#[tokio::test]
async fn both_sides_prove_that_they_know_the_token() {
    let secret = b"quite a long secret".to_vec();
    let behaviour = Behaviour { secret: Some(secret.clone()), ..Behaviour::default() };
    let guarded = FakeServer::with("a", behaviour).await;
    let open = FakeServer::start("a").await;
    let token = |secret: &[u8]| Token::new("lab", rampuddle_protocol::Role::Write, secret).ok();
    let info = async |server: &FakeServer, token: Option<Token>| {
        let mut options = options_of(&[server]);
        options.token = token;
        Client::connect(options).await.unwrap().raw().info("a").await
    };
    assert_eq!(info(&guarded, token(&secret)).await.unwrap().name, "a");
    let error = info(&guarded, token(b"another long secret")).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    let error = info(&guarded, None).await.unwrap_err();
    assert!(matches!(error, Error::TokenWanted { .. }), "{error}");
    let error = info(&open, token(&secret)).await.unwrap_err();
    assert!(matches!(error, Error::Unproven { .. }), "{error}");
}

#[tokio::test]
async fn calls_can_run_on_any_thread() {
    let server = FakeServer::start("a").await;
    let client = client_of(&[&server]).await;
    let raw = client.raw();
    let call = tokio::spawn(async move {
        let target = Target::Placement;
        raw.create(&target, vec![CreateItem::new("k", pattern(5 << 20, 0))]).await;
        raw.scatter(&target, vec![ScatterItem::new("k", 1, "x")]).await;
        raw.stat(&target, vec![Bytes::from_static(b"k")]).await;
        raw.list("a", &ListQuery::default()).await.unwrap();
        raw.info("a").await.unwrap();
        raw.gather(&target, vec![GatherItem::whole("k")]).await.remove(0).unwrap().length
    });
    assert_eq!(call.await.unwrap(), 5 << 20);
}
