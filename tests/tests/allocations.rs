//! What is taken from the heap: by the server's hot path nothing, counted on the loop
//! that is shipped, over real sockets; by a client that moves much, little.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use rampuddle_client::{Client, GetOptions, GetReport, PutOptions, Source};
use rampuddle_harness::{Door, Pattern, RawClient, fresh_version};
use rampuddle_protocol::{CreateRow, GatherRow, RowFlags, SetId, Status};
use rampuddle_server::{Options, Server};
use tokio::runtime::{Builder, Runtime};

/// The system's allocator, which counts what counted threads take from it.
struct Counting;

/// What some threads took.
#[derive(Default)]
struct Counter {
    allocations: AtomicU64,
    bytes: AtomicU64,
}

thread_local! {
    /// Who counts what this thread takes.
    static COUNTER: Cell<Option<&'static Counter>> = const { Cell::new(None) };
}

fn count(bytes: usize) {
    // A thread that ends has no such cell any more.
    if let Some(counter) = COUNTER.try_with(Cell::get).ok().flatten() {
        counter.allocations.fetch_add(1, Ordering::Relaxed);
        counter.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Counter {
    /// One that no other test has: tests run side by side.
    fn new() -> &'static Self {
        Box::leak(Box::default())
    }

    fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

// SAFETY: every call is the system's allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROUNDS: u64 = 2_000;
const SET: SetId = SetId([7; 16]);

/// A server on a thread of its own.
struct Running {
    address: SocketAddr,
    stopper: rampuddle_server::Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(options: Options, counter: Option<&'static Counter>) -> Self {
        let server = Server::bind(options).unwrap();
        let address = server.local_address().unwrap();
        let stopper = server.stopper();
        let thread = thread::spawn(move || {
            COUNTER.set(counter);
            server.run().unwrap();
        });
        Self { address, stopper, thread: Some(thread) }
    }

    fn door(&self) -> Door {
        Door::tcp(self.address, "test".to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        self.thread.take().map(thread::JoinHandle::join).unwrap().unwrap();
    }
}

fn server_of(pool_bytes: u64) -> Options {
    Options::new("counted", "test", pool_bytes)
}

/// Does `step` often enough to have everything as large as it becomes, then counts
/// what more of it takes.
fn taken(counter: &Counter, name: &str, mut step: impl FnMut(u64)) -> u64 {
    (0..ROUNDS).for_each(&mut step);
    let before = counter.allocations();
    (ROUNDS..2 * ROUNDS).for_each(step);
    let taken = counter.allocations() - before;
    println!("counts of {name}: {taken} allocations in {ROUNDS} operations");
    taken
}

#[test]
fn what_is_asked_often_takes_nothing_from_the_heap() {
    let counter = Counter::new();
    let server = Running::start(server_of(64 << 20), Some(counter));
    let mut client = RawClient::connect(&server.door());
    let taken = |name: &str, step: &mut dyn FnMut(u64)| taken(counter, name, step);
    let bytes = vec![5; 64 << 10];
    let small = CreateRow { length: 64 << 10, set: SET, ..CreateRow::default() };
    let replacing = || CreateRow { version: fresh_version(), flags: RowFlags::REPLACE, ..small };
    assert_eq!(client.create_row(replacing(), b"k", b"tag", &bytes).0.status(), Status::Ok);
    let whole = GatherRow { length: 64 << 10, flags: RowFlags::TAG, ..GatherRow::default() };
    let cases = [
        taken("Gather", &mut |_| {
            let (outcome, found) = client.gather_row(whole, b"k");
            assert_eq!((outcome.status(), found.len()), (Status::Ok, bytes.len()));
        }),
        taken("Gather of nothing", &mut |_| {
            assert_eq!(client.gather_row(whole, b"none").0.status(), Status::NotFound);
        }),
        taken("Create in the place of another", &mut |_| {
            let outcome = client.create_row(replacing(), b"k", b"tag", &bytes).0;
            assert_eq!(outcome.status(), Status::Ok);
        }),
        taken("Create and Drop", &mut |_| {
            let row = replacing();
            assert_eq!(client.create_row(row, b"new", b"", &bytes).0.status(), Status::Ok);
            assert_eq!(client.drop_version(b"new", row.version).status(), Status::Ok);
        }),
        taken("Scatter", &mut |round| {
            let outcome = client.scatter(b"k", round % 1_000, b"some bytes");
            assert_eq!(outcome.status(), Status::Ok);
        }),
        taken("Stat", &mut |_| assert_eq!(client.stat(b"k").status(), Status::Ok)),
        taken("Touch", &mut |_| assert_eq!(client.touch(SET, 0).status(), Status::Ok)),
    ];
    assert_eq!(cases, [0; 7]);
    // Once for each striped object that is read: the session's list of what it holds.
    let held = taken("Hold and Release", &mut |_| {
        assert_eq!(client.hold(SET).detail, 1);
        assert_eq!(client.release(SET).detail, 1);
    });
    assert!(held <= ROUNDS, "{held}");
    // The counter counts: a connection has memory of its own.
    let before = counter.allocations();
    RawClient::connect(&server.door()).ping();
    assert!(counter.allocations() > before);
}

/// A client beside a server, and what all threads of its runtime take.
struct Counted {
    counter: &'static Counter,
    runtime: Runtime,
    client: Client,
    // Behind the client, so that it ends last.
    _server: Running,
}

/// What a client that moves 64 MiB or more may take.
const LITTLE: u64 = 1 << 20;

impl Counted {
    /// Over TCP: what is asserted is what moves bytes through sockets takes.
    fn start(pool_bytes: u64) -> Self {
        let server = Running::start(server_of(pool_bytes), None);
        let door = server.address.to_string();
        Self::beside(server, &door, false)
    }

    /// On the same machine, where the server's memory is read as it lies.
    fn mapped(pool_bytes: u64, socket: &Path) -> Self {
        let options = Options { socket: Some(socket.to_owned()), ..server_of(pool_bytes) };
        let door = format!("unix:{}", socket.display());
        Self::beside(Running::start(options, None), &door, true)
    }

    fn beside(server: Running, door: &str, map: bool) -> Self {
        let counter = Counter::new();
        let counted = move || COUNTER.set(Some(counter));
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).on_thread_start(counted).enable_all();
        let runtime = runtime.build().unwrap();
        let mut options = rampuddle_client::Options::new(format!("static:counted={door}"));
        options.cluster = "test".to_owned();
        options.map = map;
        let client = runtime.block_on(Client::connect(options)).unwrap();
        Self { counter, runtime, client, _server: server }
    }

    /// Does an operation and returns what it took from the heap.
    fn taken<T>(&self, name: &str, operation: impl Future<Output = T>) -> (u64, T) {
        // This thread drives it; the others are counted from their begin.
        COUNTER.set(Some(self.counter));
        let before = self.counter.bytes();
        let done = self.runtime.block_on(operation);
        let taken = self.counter.bytes() - before;
        COUNTER.set(None);
        println!("counts of {name}: {taken} bytes from the heap");
        (taken, done)
    }

    /// Puts a source of so many bytes, and returns what that took.
    fn put(&self, name: &str, source: impl Into<Source>, bytes: u64) -> u64 {
        let mut one_copy = PutOptions::default();
        one_copy.replicas = Some(1);
        let (taken, report) = self.taken(name, self.client.put(b"o", source, &one_copy));
        assert_eq!(report.unwrap().bytes, bytes);
        taken
    }

    /// Puts so many bytes and reads them into memory that is there, which takes little.
    #[track_caller]
    fn read_into_the_callers_memory(&self, length: usize) -> GetReport {
        let content = Bytes::from(Pattern(3).bytes(0, length as u64));
        self.put("the put before", content.clone(), length as u64);
        let mut room = vec![0; length];
        let options = GetOptions::default();
        let get = self.client.get_into(b"o", &mut room, &options);
        let (taken, report) = self.taken(&format!("a get of {length} bytes"), get);
        assert!(room == content);
        assert!((1..LITTLE).contains(&taken), "{taken} bytes");
        report.unwrap().unwrap()
    }

    /// What is stored is this.
    fn assert_stored(&self, content: &[u8]) {
        let options = GetOptions::default();
        let found = self.runtime.block_on(self.client.get(b"o", &options)).unwrap().unwrap();
        assert!(found.into_bytes() == content);
    }
}

#[test]
fn reading_256_mib_into_the_callers_memory_takes_less_than_one_mib() {
    let report = Counted::start(320 << 20).read_into_the_callers_memory(256 << 20);
    assert_eq!((report.bytes, report.mapped), (256 << 20, 0));
}

#[test]
fn copying_64_mib_out_of_mapped_memory_takes_less_than_one_mib() {
    let folder = tempfile::TempDir::new().unwrap();
    let counted = Counted::mapped(320 << 20, &folder.path().join("socket"));
    // Views have a quarter of a pool.
    let report = counted.read_into_the_callers_memory(64 << 20);
    assert_eq!((report.bytes, report.mapped), (64 << 20, 64 << 20));
}

#[test]
fn putting_the_callers_own_memory_takes_less_than_one_mib() {
    const LENGTH: u64 = 128 << 20;
    /// Stands for a mapping, or whatever else a caller has.
    struct Own(Vec<u8>);
    impl AsRef<[u8]> for Own {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let counted = Counted::start(320 << 20);
    let content = Pattern(5).bytes(0, LENGTH);
    let own = Bytes::from_owner(Own(content.clone()));
    let taken = counted.put("a put of 128 MiB of memory", own, LENGTH);
    counted.assert_stored(&content);
    assert!((1..LITTLE).contains(&taken), "{taken} bytes");
}

#[test]
fn putting_a_file_once_more_takes_less_than_one_mib() {
    const LENGTH: u64 = 64 << 20;
    let counted = Counted::start(320 << 20);
    let file = tempfile::NamedTempFile::new().unwrap();
    for round in 0..2 {
        let content = Pattern(round).bytes(0, LENGTH);
        std::fs::write(file.path(), &content).unwrap();
        let taken = counted.put("a put of a file of 64 MiB", Source::file(file.path()), LENGTH);
        counted.assert_stored(&content);
        assert!(taken > 0);
        assert!(round == 0 || taken < LITTLE, "{taken} bytes");
    }
}
