//! Objects over real servers, each on a thread of this process.

use std::thread::JoinHandle;

use rampuddle_client::{
    Client, Error, GetOptions, ListQuery, ObjectStat, Options, PutCondition, PutOptions, Source,
};
use rampuddle_protocol::RowFlags;
use rampuddle_server::{Options as ServerOptions, Server, Stopper};

use crate::doors::bytes;

const MIB: usize = 1 << 20;

/// Servers `s0`, `s1`, ... on threads of this process.
pub(crate) struct Cluster {
    pub(crate) url: String,
    servers: Vec<Option<(Stopper, JoinHandle<()>)>>,
}

impl Cluster {
    pub(crate) fn start(count: usize, pool_bytes: u64) -> Self {
        let mut list = Vec::new();
        let mut servers = Vec::new();
        for index in 0..count {
            let name = format!("s{index}");
            let server = Server::bind(ServerOptions::new(&name, "test", pool_bytes)).unwrap();
            list.push(format!("{name}={}", server.local_address().unwrap()));
            let stopper = server.stopper();
            servers.push(Some((stopper, std::thread::spawn(move || server.run().unwrap()))));
        }
        Self { url: format!("static:{}", list.join(",")), servers }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(&self.url);
        options.cluster = "test".into();
        options
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    pub(crate) fn stop(&mut self, index: usize) {
        if let Some((stopper, thread)) = self.servers[index].take() {
            stopper.stop();
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a server must never panic");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.servers.len()).for_each(|index| self.stop(index));
    }
}

#[tokio::test]
async fn objects_of_every_boundary_length_come_back_as_they_were() {
    let cluster = Cluster::start(3, 256 << 20);
    let client = cluster.client().await;
    let lengths = [
        0,
        1,
        65_535,
        65_536,
        65_537,
        MIB - 1,
        MIB,
        MIB + 1,
        4 * MIB - 1,
        4 * MIB,
        4 * MIB + 1,
        9 * MIB + 5,
    ];
    for (index, length) in lengths.into_iter().enumerate() {
        let object = bytes(length, index as u64 + 1);
        let name = format!("object-{length}");
        let report =
            client.put(name.as_bytes(), object.clone(), &PutOptions::default()).await.unwrap();
        assert_eq!(
            (report.bytes, report.copies, report.is_short()),
            (length as u64, 2, false),
            "{report:?}"
        );
        let value = client.get(name.as_bytes(), &GetOptions::default()).await.unwrap().unwrap();
        assert!(value.into_bytes() == object, "{length}");
        let mut buffer = vec![7; length + 1];
        let got =
            client.get_into(name.as_bytes(), &mut buffer, &GetOptions::default()).await.unwrap();
        assert_eq!(got.unwrap().version, report.version);
        assert!(buffer[..length] == object && buffer[length] == 7);
        let half = (length / 2) as u64;
        let options = GetOptions::default();
        let range = client.get_range(name.as_bytes(), half..half + 100_000, &options);
        let range = range.await.unwrap().unwrap().into_bytes();
        assert!(range == object[half as usize..length.min(half as usize + 100_000)]);
        let reader = Source::reader(std::io::Cursor::new(object.clone()));
        client.put(b"piped", reader, &PutOptions::default()).await.unwrap();
        let mut piped = Vec::new();
        client.get_to(b"piped", &mut piped, None, &GetOptions::default()).await.unwrap().unwrap();
        assert!(piped == object);
    }
    let mut listing = client.list(b"object-");
    let mut listed = 0;
    while let Some(stat) = listing.next().await {
        listed += 1;
        assert!(stat.unwrap().name.starts_with(b"object-"));
    }
    assert_eq!((listed, listing.unreachable().len()), (lengths.len(), 0));
}

#[tokio::test]
async fn with_two_replicas_any_one_server_may_go_and_reads_go_on() {
    for victim in 0..3 {
        let mut cluster = Cluster::start(3, 128 << 20);
        let client = cluster.client().await;
        let object = bytes(21 * MIB + 3, 9);
        client.put(b"o", object.clone(), &PutOptions::default()).await.unwrap();
        cluster.stop(victim);
        let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
        assert!(value.into_bytes() == object);
        // A miss with a server gone is not an absence.
        let missing = client.get(b"none", &GetOptions::default()).await;
        assert!(matches!(missing, Err(Error::Unknown { .. })), "{missing:?}");
        let report = client.put(b"later", object.clone(), &PutOptions::default()).await.unwrap();
        assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
        assert!(!report.stand_ins.is_empty());
        let value = client.get(b"later", &GetOptions::default()).await.unwrap().unwrap();
        assert!(value.into_bytes() == object);
    }
}

#[tokio::test]
async fn a_replaced_or_deleted_object_gives_its_memory_back() {
    let cluster = Cluster::start(3, 128 << 20);
    let client = cluster.client().await;
    let used = async || -> u64 {
        client.nodes().await.iter().map(|node| node.info.as_ref().unwrap().row.used_bytes).sum()
    };
    for round in 0..3 {
        client.put(b"o", bytes(10 * MIB, round + 1), &PutOptions::default()).await.unwrap();
    }
    assert_eq!(used().await, 2 * (10 * MIB as u64 + 65_536));
    assert!(client.get(b"none", &GetOptions::default()).await.unwrap().is_none());
    let deleted = client.delete(b"o").await.unwrap();
    assert!(deleted.existed && !deleted.is_short(), "{deleted:?}");
    assert_eq!(used().await, 0);
    assert!(client.get(b"o", &GetOptions::default()).await.unwrap().is_none());
    assert!(!client.delete(b"o").await.unwrap().existed);
}

#[tokio::test]
async fn an_object_that_exists_is_not_clobbered_when_the_caller_says_so() {
    let cluster = Cluster::start(3, 64 << 20);
    let client = cluster.client().await;
    let mut options = PutOptions::default();
    options.condition = PutCondition::IfAbsent;
    client.put(b"o", "first", &options).await.unwrap();
    let refused = client.put(b"o", "second", &options).await;
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
    assert_eq!(&value.into_bytes()[..], b"first");
}

#[tokio::test]
async fn an_object_that_is_to_be_kept_says_so_in_every_copy_of_every_part() {
    let cluster = Cluster::start(3, 64 << 20);
    let client = cluster.client().await;
    for (name, length) in [("small", 3_000), ("large", 9 * MIB)] {
        for keep in [true, false] {
            let mut options = PutOptions::default();
            options.keep = keep;
            let before = client.stat(name.as_bytes()).await.unwrap();
            assert!(before.is_none_or(|stat| stat.keep));
            client.put(name.as_bytes(), bytes(length, 1), &options).await.unwrap();
            let stat = client.stat(name.as_bytes()).await.unwrap().unwrap();
            assert_eq!(stat.keep, keep);
            let listed = client.list(name.as_bytes()).next().await.unwrap().unwrap();
            assert_eq!(listed.keep, keep);
            let mut values = 0;
            for server in ["s0", "s1", "s2"] {
                let query = ListQuery::default();
                for entry in client.raw().list(server, &query).await.unwrap().entries {
                    if entry.row.set == stat.upload {
                        assert_eq!(entry.row.flags.has(RowFlags::KEEP), keep, "{entry:?}");
                        values += 1;
                    }
                }
            }
            assert_eq!(values, 2 * (1 + stat.stripes));
        }
    }
}

#[tokio::test]
async fn an_object_may_be_larger_than_any_one_pool() {
    let cluster = Cluster::start(3, 64 << 20);
    let client = cluster.client().await;
    let object = bytes(72 * MIB, 5);
    let report = client.put(b"o", object.clone(), &PutOptions::default()).await.unwrap();
    assert_eq!(report.copies, 2, "{report:?}");
    let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
    assert!(value.into_bytes() == object);
}

#[tokio::test]
async fn metadata_is_told_by_stat_and_get_and_not_by_a_listing() {
    let cluster = Cluster::start(3, 128 << 20);
    let client = cluster.client().await;
    let mut options = PutOptions::default();
    options.metadata.insert("type".into(), "text/plain".into());
    options.metadata.insert("long".into(), vec![0xff; 60_000].into());
    for length in [0, 1, 65_536, MIB - 1, MIB, 6 * MIB] {
        let object = bytes(length, 3);
        client.put(b"o", object.clone(), &options).await.unwrap();
        let stat = client.stat(b"o").await.unwrap().unwrap();
        assert_eq!(stat.metadata.as_ref(), Some(&options.metadata), "{length}");
        let located = client.locate(b"o").await.unwrap().unwrap();
        assert_eq!(located.stat.metadata, stat.metadata, "{length}");
        let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
        assert_eq!(value.metadata(), &options.metadata, "{length}");
        assert!(value.into_bytes() == object, "{length}");
        let mut buffer = vec![0; length];
        let report = client.get_into(b"o", &mut buffer, &GetOptions::default()).await;
        assert_eq!(*report.unwrap().unwrap().metadata, options.metadata, "{length}");
        assert!(buffer == object, "{length}");
        let listed = client.list(b"").next().await.unwrap().unwrap();
        assert_eq!((listed.bytes, listed.metadata), (length as u64, None));
    }
    client.put(b"o", "none", &PutOptions::default()).await.unwrap();
    let stat = client.stat(b"o").await.unwrap().unwrap();
    assert_eq!(stat.metadata, Some(Default::default()));
    let bare = |object: &ObjectStat| (object.bytes, object.stripes);
    assert_eq!(bare(&stat), (4, 0));

    let long = [("n".repeat(256), "x".into())];
    for metadata in [long.into(), [("n".to_owned(), vec![0; 65_528].into())].into()] {
        let mut options = PutOptions::default();
        options.metadata = metadata;
        let refused = client.put(b"never", "x", &options).await.unwrap_err();
        let is_clear = matches!(refused, Error::BadOption { .. } | Error::TooLarge { .. });
        assert!(is_clear, "{refused:?}");
    }
    assert!(client.stat(b"never").await.unwrap().is_none());
}
