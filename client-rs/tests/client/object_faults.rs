//! Objects while servers are slow, cut off or changed by others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::doors::{
    Doors, PATIENCE, Verdict, at_once, bytes, holding, open, ranks, until_used, used_bytes,
};
use rampuddle_client::{
    Client, Clock, Environment, Error, GetOptions, PutCondition, PutOptions, Source, SystemClock,
};
use rampuddle_protocol::Opcode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_was_deleted_or_replaced_before_its_end_is_not_short() {
    for replaced in [false, true] {
        let doors = Doors::start(3, 64 << 20).await;
        let (writer, other) = (doors.client().await, doors.client().await);
        // The object is visible; that its stripes stay is not said yet.
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        doors.set(holding(crate::doors::Frame::makes_permanent, &came, &may_go));
        let put = tokio::spawn(async move {
            writer.put(b"o", bytes(6 * MIB, 1), &PutOptions::default()).await
        });
        came.acquire().await.unwrap().forget();
        if replaced {
            other.put(b"o", "small", &PutOptions::default()).await.unwrap();
        } else {
            assert!(other.delete(b"o").await.unwrap().existed);
        }
        may_go.close();
        let report = put.await.unwrap().unwrap();
        assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
        assert_eq!(report.problems, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_listing_goes_on_when_a_connection_breaks_between_two_pages() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    for index in 0..50 {
        client.put(format!("{index:02}").as_bytes(), "x", &PutOptions::default()).await.unwrap();
    }
    // Each server cuts the first page that it is asked for.
    let cut: [AtomicBool; 3] = Default::default();
    doors.set(at_once(move |frame| {
        let is_first = || !cut[frame.server].swap(true, Ordering::SeqCst);
        if frame.opcode == Opcode::List && is_first() { Verdict::Cut } else { Verdict::Pass }
    }));
    let (mut listing, mut names) = (client.list(b""), Vec::new());
    while let Some(stat) = listing.next().await {
        names.push(String::from_utf8(stat.unwrap().name).unwrap());
    }
    assert_eq!(listing.unreachable(), Vec::<String>::new());
    assert_eq!(names, (0..50).map(|index| format!("{index:02}")).collect::<Vec<_>>());
}

/// A clock that can be set: so many milliseconds off.
#[derive(Debug, Default)]
pub(crate) struct Adjustable(AtomicI64);

impl Adjustable {
    pub(crate) fn set(&self, off_by_ms: i64) {
        self.0.store(off_by_ms, Ordering::SeqCst);
    }
}

/// A client with such a clock.
pub(crate) async fn adjustable(doors: &Doors) -> (Client, Arc<Adjustable>) {
    let clock = Arc::new(Adjustable::default());
    let mut options = doors.options();
    let Environment { random, connector, .. } = options.environment;
    options.environment = Environment::new(clock.clone(), random, connector);
    (Client::connect(options).await.unwrap(), clock)
}

impl Clock for Adjustable {
    fn unix_ms(&self) -> u64 {
        SystemClock.unix_ms().strict_add_signed(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_delete_by_a_client_whose_clock_is_behind_removes_what_is_there() {
    let doors = Doors::start(3, 64 << 20).await;
    let (behind, clock) = adjustable(&doors).await;
    let client = doors.client().await;
    for silent_owner in [false, true] {
        // It met the servers, and knows no version of the object.
        assert!(!behind.delete(b"o").await.unwrap().existed);
        clock.set(-10_000);
        // The other one knows of that delete, and draws a later version at once.
        assert!(client.stat(b"o").await.unwrap().is_none());
        if silent_owner {
            let first = ranks(&client, "o")[0];
            doors.set(at_once(move |frame| match frame.server == first && frame.writes_a_head() {
                true => Verdict::Cut,
                false => Verdict::Pass,
            }));
        }
        client.put(b"o", "there", &PutOptions::default()).await.unwrap();
        doors.set(open());
        let deleted = behind.delete(b"o").await.unwrap();
        assert!(deleted.existed, "{deleted:?}");
        let found = client.get(b"o", &GetOptions::default()).await.unwrap();
        assert!(found.is_none(), "{found:?}");
        clock.set(0);
    }
}

#[tokio::test]
async fn a_client_whose_clock_jumps_ahead_compares_it_and_writes_and_deletes_all_the_same() {
    let doors = Doors::start(3, 64 << 20).await;
    let (ahead, clock) = adjustable(&doors).await;
    ahead.put(b"o", "one", &PutOptions::default()).await.unwrap();
    clock.set(3_600_000);
    let report = ahead.put(b"o", bytes(5 * MIB, 2), &PutOptions::default()).await.unwrap();
    assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
    clock.set(3 * 3_600_000);
    assert!(ahead.delete(b"o").await.unwrap().existed);
}

/// A writer that takes all, and calls back once at the first bytes.
struct Calling<F: FnMut() + Unpin>(Option<F>);

impl<F: FnMut() + Unpin> AsyncWrite for Calling<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.take().into_iter().for_each(|mut call| call());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_off_says_what_each_server_said() {
    let doors = Arc::new(Doors::start(3, 96 << 20).await);
    let client = doors.client().await;
    client.put(b"o", bytes(64 * MIB, 1), &PutOptions::default()).await.unwrap();
    let shut = Arc::clone(&doors);
    let mut writer = Calling(Some(move || shut.set(at_once(|_| Verdict::Cut))));
    let broken = client.get_to(b"o", &mut writer, None, &GetOptions::default()).await;
    let Err(Error::Unreadable { problems, .. }) = &broken else { panic!("{broken:?}") };
    for server in ["\"s0\"", "\"s1\"", "\"s2\""] {
        assert!(problems.iter().any(|problem| problem.contains(server)), "{problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_an_object_that_was_deleted_says_what_is_missing() {
    let doors = Arc::new(Doors::start(3, 96 << 20).await);
    let (client, other) = (doors.client().await, doors.client().await);
    client.put(b"o", bytes(64 * MIB, 1), &PutOptions::default()).await.unwrap();
    // No hold arrives, so that the bytes go with the object.
    doors.set(at_once(|frame| match frame.opcode {
        Opcode::Hold => Verdict::Cut,
        _ => Verdict::Pass,
    }));
    let runtime = tokio::runtime::Handle::current();
    let delete = move || {
        let other = other.clone();
        let deleted = runtime.spawn(async move { other.delete(b"o").await.unwrap() });
        // Two threads run tasks: this one may wait for the other.
        while !deleted.is_finished() {
            std::thread::yield_now();
        }
    };
    let mut writer = Calling(Some(delete));
    let broken = client.get_to(b"o", &mut writer, None, &GetOptions::default()).await;
    let Err(Error::Unsettled { problems, .. }) = &broken else { panic!("{broken:?}") };
    assert!(problems.iter().any(|problem| problem.contains("stripe")), "{problems:?}");
}

/// A reader that always has more, and tells how much it has given.
struct Endless(Arc<AtomicU64>);

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = buffer.remaining().min(64 << 10);
        buffer.initialize_unfilled_to(length).fill(7);
        buffer.advance(length);
        self.0.fetch_add(length as u64, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_reads_so_many_bytes_ahead_and_not_so_many_stripes() {
    for (stripe, ahead) in [(1, 24), (4, 24), (16, 16), (40, 40)] {
        let doors = Doors::start(3, 96 << 20).await;
        let client = doors.client().await;
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        doors.set(holding(|frame| frame.opcode == Opcode::Create, &came, &may_go));
        let given = Arc::new(AtomicU64::new(0));
        let source = Source::reader(Endless(Arc::clone(&given)));
        let mut options = PutOptions::default();
        (options.stripe_bytes, options.replicas) = (Some(stripe * MIB as u64), Some(1));
        let writer = client.clone();
        let put = tokio::spawn(async move { writer.put(b"o", source, &options).await });
        // All stripes that fit are on their way, and whoever reads has had time.
        came.acquire_many(1).await.unwrap().forget();
        let began = Instant::now();
        while given.load(Ordering::SeqCst) < ahead * MIB as u64 {
            assert!(began.elapsed() < Duration::from_secs(20), "{stripe} MiB: too few");
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            used_bytes(&client).await;
        }
        assert_eq!(given.load(Ordering::SeqCst), ahead * MIB as u64, "stripes of {stripe} MiB");
        put.abort();
        may_go.close();
    }
}

#[tokio::test]
async fn an_object_with_a_copy_on_every_member_of_many_is_replaced_and_deleted_on_all() {
    let doors = Doors::start(8, 16 << 20).await;
    let client = doors.client().await;
    let mut on_all = PutOptions::default();
    on_all.replicas = Some(255);
    for length in [1_000, 5 * MIB] {
        let object = bytes(length, 1);
        let report = client.put(b"o", object.clone(), &on_all).await.unwrap();
        assert_eq!((report.copies, report.wanted), (8, 8), "{report:?}");
        let value = client.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
        assert!(value.into_bytes() == object);
        let located = client.locate(b"o").await.unwrap().unwrap();
        let heads = located.copies.iter().filter(|copy| copy.stripe.is_none());
        assert_eq!(heads.count(), 8);
        // Two copies of another take the place of all eight.
        client.put(b"o", "small", &PutOptions::default()).await.unwrap();
        until_used(&client, 2 * 65_536).await;
        client.put(b"o", object, &on_all).await.unwrap();
        let deleted = client.delete(b"o").await.unwrap();
        assert_eq!((deleted.existed, deleted.wanted, deleted.applied), (true, 8, 8));
        until_used(&client, 0).await;
    }
}

#[tokio::test]
async fn stripes_on_every_member_are_read_from_the_last_of_them() {
    let doors = Doors::start(8, 16 << 20).await;
    let client = doors.client().await;
    let mut on_all = PutOptions::default();
    on_all.replicas = Some(255);
    let object = bytes(4 * MIB, 1);
    client.put(b"o", object.clone(), &on_all).await.unwrap();
    let located = client.locate(b"o").await.unwrap().unwrap();
    assert_eq!(located.stat.stripes, 1);
    // The head comes from its first owner; one other server gives bytes.
    let head = ranks(&client, "o")[0];
    for last in (0..8).filter(|server| *server != head) {
        doors.set(at_once(move |frame| match frame.opcode {
            Opcode::Gather if frame.server != head && frame.server != last => Verdict::Cut,
            Opcode::Gather if frame.server == head && frame.asks_for_a_stripe() => Verdict::Cut,
            _ => Verdict::Pass,
        }));
        let mut options = doors.options();
        options.replicas = Some(1);
        let reader = Client::connect(options).await.unwrap();
        let value = reader.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
        assert!(value.into_bytes() == object);
        doors.set(open());
    }
}

#[tokio::test]
async fn an_operation_on_an_object_has_one_deadline_however_many_requests_it_takes() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    client.put(b"o", bytes(5 * MIB, 1), &PutOptions::default()).await.unwrap();
    let deadline = Duration::from_millis(800);
    let mut options = doors.options();
    options.deadline = Some(deadline);
    let hurried = Client::connect(options).await.unwrap();
    hurried.get(b"o", &GetOptions::default()).await.unwrap().unwrap();
    // From now on nobody answers; each request alone would use all of the time.
    let never = Arc::new(Semaphore::new(0));
    doors.set(holding(|_| true, &Arc::new(Semaphore::new(0)), &never));
    let (client, read, write) = (&hurried, &GetOptions::default(), &PutOptions::default());
    let mut guarded = PutOptions::default();
    guarded.condition = PutCondition::IfAbsent;
    let operations: [(&str, Operation<'_>); 6] = [
        ("get", Box::pin(async { client.get(b"o", read).await.is_err() })),
        ("put", Box::pin(async { client.put(b"p", bytes(9 * MIB, 2), write).await.is_err() })),
        ("no clobber", Box::pin(async { client.put(b"p", "x", &guarded).await.is_err() })),
        ("delete", Box::pin(async { client.delete(b"o").await.is_err() })),
        ("locate", Box::pin(async { client.locate(b"o").await.is_err() })),
        ("list", Box::pin(async { client.list(b"").next().await.unwrap().is_err() })),
    ];
    for (what, operation) in operations {
        let began = Instant::now();
        assert!(operation.await, "{what} must fail");
        let took = began.elapsed();
        assert!(took < deadline + deadline * 3 / 4, "{what} took {took:?}");
    }
}

type Operation<'o> = Pin<Box<dyn Future<Output = bool> + 'o>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_kept_too_much_reads_what_is_there_now_unless_bytes_were_handed_out() {
    let doors = Arc::new(Doors::start(1, 64 << 20).await);
    // What is held at the door takes as long as the other one's put.
    let mut options = doors.options();
    options.patience = PATIENCE;
    let (client, other) = (Client::connect(options).await.unwrap(), doors.client().await);
    for streamed in [false, true] {
        client.put(b"o", bytes(24 * MIB, 1), &PutOptions::default()).await.unwrap();
        // The object is held; before the first of its bytes leaves, it is replaced.
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        doors.set(holding(crate::doors::Frame::asks_for_a_stripe, &came, &may_go));
        let reader = client.clone();
        let read = tokio::spawn(async move {
            let (mut found, options) = (Vec::new(), GetOptions::default());
            if streamed {
                reader.get_to(b"o", &mut found, None, &options).await.unwrap();
            } else {
                found = reader.get(b"o", &options).await.unwrap().unwrap().into_bytes().to_vec();
            }
            found
        });
        came.acquire().await.unwrap().forget();
        other.put(b"o", bytes(5 * MIB, 2), &PutOptions::default()).await.unwrap();
        // A quarter is 16 MiB.
        until_used(&other, 5 * MIB as u64 + 65_536).await;
        may_go.close();
        assert!(read.await.unwrap() == bytes(5 * MIB, 2), "the old bytes are gone");
    }
    client.put(b"o", bytes(24 * MIB, 3), &PutOptions::default()).await.unwrap();
    let runtime = tokio::runtime::Handle::current();
    // From the first byte on no further one leaves until the object is replaced.
    let may_go = Arc::new(Semaphore::new(0));
    let (shut, opened) = (Arc::clone(&doors), Arc::clone(&may_go));
    let replace = move || {
        let (other, opened) = (other.clone(), Arc::clone(&opened));
        shut.set(open());
        let replaced = runtime.spawn(async move {
            other.put(b"o", bytes(5 * MIB, 2), &PutOptions::default()).await.unwrap();
            opened.close();
        });
        // Two threads run tasks: this one may wait for the other.
        while !replaced.is_finished() {
            std::thread::yield_now();
        }
    };
    doors.set(holding(
        crate::doors::Frame::asks_for_a_later_stripe,
        &Arc::new(Semaphore::new(0)),
        &may_go,
    ));
    let mut writer = Calling(Some(replace));
    let broken = client.get_to(b"o", &mut writer, None, &GetOptions::default()).await;
    let Err(Error::Unsettled { problems, .. }) = &broken else { panic!("{broken:?}") };
    assert!(problems[0].contains("gave way to writers"), "{problems:?}");
}
