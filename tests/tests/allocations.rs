//! The server's hot path takes nothing from the heap: counted on the loop that is
//! shipped, over real sockets.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rampuddle_harness::{Door, RawClient, fresh_version};
use rampuddle_protocol::{CreateRow, GatherRow, RowFlags, SetId, Status};
use rampuddle_server::{Options, Server};

/// The system's allocator, which counts what counted threads take from it.
struct Counting;

static TAKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    // A thread that ends has no such cell any more.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        TAKEN.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is the system's allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
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

/// A server on a thread that is counted.
struct Counted {
    door: Door,
    stopper: rampuddle_server::Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Counted {
    fn start() -> Self {
        let server = Server::bind(Options::new("counted", "test", 64 << 20)).unwrap();
        let door = Door::tcp(server.local_address().unwrap(), "test".to_owned());
        let stopper = server.stopper();
        let thread = thread::spawn(move || {
            IS_COUNTED.set(true);
            server.run().unwrap();
        });
        Self { door, stopper, thread: Some(thread) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stopper.stop();
        self.thread.take().map(thread::JoinHandle::join).unwrap().unwrap();
    }
}

/// Does `step` often enough to have everything as large as it becomes, then counts
/// what more of it takes.
fn taken(name: &str, mut step: impl FnMut(u64)) -> u64 {
    (0..ROUNDS).for_each(&mut step);
    let before = TAKEN.load(Ordering::Relaxed);
    (ROUNDS..2 * ROUNDS).for_each(step);
    let taken = TAKEN.load(Ordering::Relaxed) - before;
    println!("counts of {name}: {taken} allocations in {ROUNDS} operations");
    taken
}

#[test]
fn what_is_asked_often_takes_nothing_from_the_heap() {
    let server = Counted::start();
    let mut client = RawClient::connect(&server.door);
    let bytes = vec![5; 64 << 10];
    let small = CreateRow { length: 64 << 10, set: SET, ..CreateRow::default() };
    let replacing = || CreateRow { version: fresh_version(), flags: RowFlags::REPLACE, ..small };
    assert_eq!(client.create_row(replacing(), b"k", b"tag", &bytes).0.status(), Status::Ok);
    let whole = GatherRow { length: 64 << 10, flags: RowFlags::TAG, ..GatherRow::default() };
    let cases = [
        taken("Gather", |_| {
            let (outcome, found) = client.gather_row(whole, b"k");
            assert_eq!((outcome.status(), found.len()), (Status::Ok, bytes.len()));
        }),
        taken("Gather of nothing", |_| {
            assert_eq!(client.gather_row(whole, b"none").0.status(), Status::NotFound);
        }),
        taken("Create in the place of another", |_| {
            let outcome = client.create_row(replacing(), b"k", b"tag", &bytes).0;
            assert_eq!(outcome.status(), Status::Ok);
        }),
        taken("Create and Drop", |_| {
            let row = replacing();
            assert_eq!(client.create_row(row, b"new", b"", &bytes).0.status(), Status::Ok);
            assert_eq!(client.drop_version(b"new", row.version).status(), Status::Ok);
        }),
        taken("Scatter", |round| {
            let outcome = client.scatter(b"k", round % 1_000, b"some bytes");
            assert_eq!(outcome.status(), Status::Ok);
        }),
        taken("Stat", |_| assert_eq!(client.stat(b"k").status(), Status::Ok)),
        taken("Touch", |_| assert_eq!(client.touch(SET, 0).status(), Status::Ok)),
    ];
    assert_eq!(cases, [0; 7]);
    // Once for each striped object that is read: the session's list of what it holds.
    let held = taken("Hold and Release", |_| {
        assert_eq!(client.hold(SET).detail, 1);
        assert_eq!(client.release(SET).detail, 1);
    });
    assert!(held <= ROUNDS, "{held}");
    // The counter counts: a connection has memory of its own.
    let before = TAKEN.load(Ordering::Relaxed);
    RawClient::connect(&server.door).ping();
    assert!(TAKEN.load(Ordering::Relaxed) > before);
}
