//! The client whose calls block.

use std::io::{self, Read, Write};

use rampuddle_client::blocking::Client;
use rampuddle_client::{
    CompareOptions, Comparison, Error, GetOptions, PutOptions, Source, VerifyOptions, VerifyState,
};

use crate::doors::bytes;
use crate::objects::Cluster;

const MIB: usize = 1 << 20;

fn connect(cluster: &Cluster) -> Client {
    Client::connect(cluster.options()).unwrap()
}

/// Gives little at a time, is not `Send`, and may fail or panic half way.
struct Trickle<'t> {
    rest: &'t [u8],
    end: fn() -> io::Result<usize>,
    _not_send: std::rc::Rc<()>,
}

impl<'t> Trickle<'t> {
    fn new(rest: &'t [u8], end: fn() -> io::Result<usize>) -> Self {
        Self { rest, end, _not_send: std::rc::Rc::default() }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            return (self.end)();
        }
        let now = self.rest.len().min(out.len()).min(70_001);
        self.rest.read(&mut out[..now])
    }
}

/// Takes little at a time, and may fail.
struct Sip {
    taken: Vec<u8>,
    most: usize,
}

impl Write for Sip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.taken.len() >= self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let now = bytes.len().min(100_003);
        self.taken.extend_from_slice(&bytes[..now]);
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_operation_does_what_its_async_twin_does() {
    let cluster = Cluster::start(3, 128 << 20);
    let client = connect(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let (get, put) = (GetOptions::default(), PutOptions::default());
    for length in [0, 1_000, 9 * MIB + 5] {
        let object = bytes(length, 1);
        let source = folder.path().join("source");
        std::fs::write(&source, &object).unwrap();
        assert_eq!(client.put(b"memory", object.clone(), &put).unwrap().copies, 2);
        client.put_file(b"file", &source, &put).unwrap();
        let report = client.put_reader(b"reader", &mut Trickle::new(&object, || Ok(0)), &put);
        assert_eq!(report.unwrap().bytes, length as u64);
        for name in [&b"memory"[..], b"file", b"reader"] {
            let value = client.get(name, &get).unwrap().unwrap();
            assert!(value.into_bytes() == object);
            let mut buffer = vec![7; length + 3];
            let report = client.get_into(name, &mut buffer, &get).unwrap().unwrap();
            assert_eq!(report.bytes, length as u64);
            assert!(buffer[..length] == object && buffer[length..] == [7; 3]);
            let mut taken = Sip { taken: Vec::new(), most: usize::MAX };
            let report = client.get_to(name, &mut taken, None, &get).unwrap().unwrap();
            assert_eq!(report.bytes, length as u64);
            assert!(taken.taken == object);
            let copy = folder.path().join("copy");
            client.get_to_file(name, &copy, None, &get).unwrap().unwrap();
            assert!(std::fs::read(copy).unwrap() == object);
            let range = length as u64 / 3..length as u64 / 2;
            let part = &object[length / 3..length / 2];
            let value = client.get_range(name, range.clone(), &get).unwrap().unwrap();
            assert!(value.into_bytes() == part);
            let mut written = Vec::new();
            client.get_to(name, &mut written, Some(range), &get).unwrap().unwrap();
            assert!(written == part);
            assert_eq!(client.stat(name).unwrap().unwrap().bytes, length as u64);
            assert!(client.locate(name).unwrap().is_some());
        }
        assert_compares(&client, &source, &object);
        let mut verification = client.verify(b"", &VerifyOptions::default());
        let states: Vec<_> = verification.by_ref().map(|one| one.unwrap().state).collect();
        assert_eq!(states, [VerifyState::Whole; 3]);
        assert!(verification.unreachable().is_empty() && !verification.is_of_young_registry());
        assert_eq!(client.orphans().unwrap().copies, 0);
        let mut list = client.list(b"");
        let names: Vec<_> = list.by_ref().map(|stat| stat.unwrap().name).collect();
        assert_eq!(names, [b"file".to_vec(), b"memory".to_vec(), b"reader".to_vec()]);
        assert!(list.unreachable().is_empty() && list.unreadable().count == 0);
        for name in names {
            assert!(client.delete(&name).unwrap().existed);
            assert!(client.get(&name, &get).unwrap().is_none());
        }
        let none = client.get_to(b"none", &mut Vec::new(), None, &get).unwrap();
        assert!(none.is_none() && client.stat(b"none").unwrap().is_none());
    }
    assert_eq!(client.nodes().unwrap().len(), 3);
    assert!(client.metrics().bytes_read > 0 && client.view().members().len() == 3);
}

/// Compares an object with its own bytes in every way, and with others.
fn assert_compares(client: &Client, source: &std::path::Path, object: &[u8]) {
    let options = CompareOptions::default();
    let is_same = |compared| matches!(compared, Ok(Comparison::Same(_)));
    assert!(is_same(client.compare(b"memory", object.to_vec(), &options)));
    assert!(is_same(client.compare(b"memory", Source::file(source), &options)));
    let reader =
        |bytes| client.compare_reader(b"memory", &mut Trickle::new(bytes, || Ok(0)), &options);
    assert!(is_same(reader(object)));
    let other = [object, b"x"].concat();
    assert!(matches!(reader(&other), Ok(Comparison::Different(_))));
    let failing = &mut Trickle::new(&[], || Err(io::Error::other("the tape is torn")));
    let failed = client.compare_reader(b"memory", failing, &options);
    assert!(matches!(failed, Err(Error::Local { .. })), "{failed:?}");
}

#[test]
fn several_threads_share_one_client() {
    let cluster = Cluster::start(3, 128 << 20);
    let client = connect(&cluster);
    std::thread::scope(|scope| {
        for salt in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                let (name, object) = (format!("o{salt}"), bytes(3 * MIB, salt));
                let name = name.as_bytes();
                let mut reader = Trickle::new(&object, || Ok(0));
                client.put_reader(name, &mut reader, &PutOptions::default()).unwrap();
                let mut found = Vec::new();
                client.get_to(name, &mut found, None, &GetOptions::default()).unwrap().unwrap();
                assert!(found == object);
            });
        }
    });
    assert_eq!(client.list(b"o").count(), 8);
}

#[test]
fn a_reader_that_fails_or_panics_half_way_leaves_no_object() {
    let cluster = Cluster::start(3, 128 << 20);
    let client = connect(&cluster);
    let object = bytes(6 * MIB, 1);
    let options = PutOptions::default();
    for name in [&b"small"[..], b"large"] {
        let part = if name == b"small" { &object[..1_000] } else { &object };
        let mut failing = Trickle::new(part, || Err(io::Error::other("the tape is torn")));
        let error = client.put_reader(name, &mut failing, &options).unwrap_err();
        assert!(matches!(error, Error::Local { .. }), "{error:?}");
        assert!(error.to_string().contains("the tape is torn"), "{error}");
        let panicking = std::thread::scope(|scope| {
            let panics = || {
                let mut reader = Trickle::new(part, || panic!("on purpose"));
                client.put_reader(name, &mut reader, &options)
            };
            scope.spawn(panics).join()
        });
        assert!(panicking.is_err(), "the panic is the caller's");
        assert!(client.get(name, &GetOptions::default()).unwrap().is_none());
    }
}

#[test]
fn a_writer_that_fails_gives_its_own_error_and_the_client_goes_on() {
    let cluster = Cluster::start(3, 128 << 20);
    let client = connect(&cluster);
    let object = bytes(30 * MIB, 1);
    client.put(b"o", object.clone(), &PutOptions::default()).unwrap();
    let mut writer = Sip { taken: Vec::new(), most: 5 * MIB };
    let error = client.get_to(b"o", &mut writer, None, &GetOptions::default()).unwrap_err();
    let Error::Local { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(writer.taken[..] == object[..writer.taken.len()]);
    let value = client.get(b"o", &GetOptions::default()).unwrap().unwrap();
    assert!(value.into_bytes() == object);
}

#[test]
fn every_call_within_a_runtime_is_refused_and_says_what_to_do() {
    let cluster = Cluster::start(1, 16 << 20);
    let client = connect(&cluster);
    let (get, put) = (GetOptions::default(), PutOptions::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (listing, verification) = (client.list(b""), client.verify(b"", &VerifyOptions::default()));
    let compare = CompareOptions::default();
    runtime.block_on(async {
        let refused = [
            Client::connect(cluster.options()).err(),
            client.put(b"o", "x", &put).err(),
            client.put_reader(b"o", &mut io::empty(), &put).err(),
            client.get(b"o", &get).err(),
            client.get_to(b"o", &mut io::sink(), None, &get).err(),
            client.stat(b"o").err(),
            client.delete(b"o").err(),
            client.compare(b"o", "x", &compare).err(),
            client.compare_reader(b"o", &mut io::empty(), &compare).err(),
            client.orphans().err(),
            client.nodes().err(),
        ];
        for error in refused {
            let error = error.expect("it is refused");
            assert!(matches!(error, Error::WithinRuntime), "{error:?}");
            assert!(error.to_string().contains("use rampuddle_client::Client"), "{error}");
        }
        let items: Vec<_> = listing.collect();
        assert!(matches!(items[..], [Err(Error::WithinRuntime)]), "{items:?}");
        let items: Vec<_> = verification.collect();
        assert!(matches!(items[..], [Err(Error::WithinRuntime)]), "{items:?}");
        // The last handle may go anywhere.
        drop(client);
    });
}
