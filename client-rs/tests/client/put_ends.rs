//! How puts end when servers come and go, and when whoever asked for them is gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::doors::{
    Doors, Frame, PATIENCE, Verdict, at_once, bytes, cut, head_key, holding, open, ranks,
    until_used, used_bytes,
};
use rampuddle_client::{
    Client, Clock, CreateItem, Error, GetOptions, PutCondition, PutOptions, Source, SystemClock,
    Target,
};
use rampuddle_protocol::{Opcode, Status, Version};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Semaphore;

const MIB: usize = 1 << 20;

async fn get(client: &Client) -> Result<Option<Vec<u8>>, Error> {
    let value = client.get(b"o", &GetOptions::default()).await?;
    Ok(value.map(|value| value.into_bytes().to_vec()))
}

/// Whether a server has a head of the object.
async fn has_head(client: &Client, server: usize) -> bool {
    let target = Target::server(format!("s{server}"));
    let stat = client.raw().stat(&target, vec![head_key("o").into()]).await.remove(0);
    stat.unwrap().status == Status::Ok
}

/// An object whose only copies are gone but for that on a stand-in which missed its
/// delete. Returns the two owners.
async fn deleted_but_on_a_stand_in(doors: &Doors) -> (usize, usize) {
    let client = doors.client().await;
    let [first, second, third] = ranks(&client, "o")[..] else { panic!("three servers") };
    doors.set(cut(second, |_| true));
    let report = doors.client().await.put(b"o", "old", &PutOptions::default()).await.unwrap();
    assert_eq!(report.stand_ins, [format!("s{third}")]);
    doors.set(cut(third, |_| true));
    assert!(doors.client().await.delete(b"o").await.unwrap().existed);
    doors.set(open());
    assert_eq!(get(&doors.client().await).await.unwrap(), None, "the delete hides the old one");
    (first, second)
}

fn no_clobber() -> PutOptions {
    let mut options = PutOptions::default();
    options.condition = PutCondition::IfAbsent;
    options
}

#[tokio::test]
async fn a_deleted_name_is_free_though_a_stand_in_missed_the_delete() {
    let doors = Doors::start(3, 64 << 20).await;
    deleted_but_on_a_stand_in(&doors).await;
    let client = doors.client().await;
    client.put(b"o", "new", &no_clobber()).await.unwrap();
    assert_eq!(get(&client).await.unwrap().as_deref(), Some(&b"new"[..]));
}

#[tokio::test]
async fn what_a_refused_put_takes_back_does_not_bring_a_deleted_object_back() {
    let doors = Doors::start(3, 64 << 20).await;
    let (_, second) = deleted_but_on_a_stand_in(&doors).await;
    // The first owner takes the head; the second gives no word on it.
    doors.set(cut(second, Frame::writes_a_head));
    let refused = doors.client().await.put(b"o", "new", &no_clobber()).await;
    assert!(
        matches!(refused, Err(Error::Unknown { .. } | Error::Indeterminate { .. })),
        "{refused:?}"
    );
    // The second is silent: the first one must remember the delete by itself.
    doors.set(cut(second, |_| true));
    let found = get(&doors.client().await).await;
    assert!(matches!(found, Err(Error::Unknown { .. })), "{found:?}");
    doors.set(open());
    assert_eq!(get(&doors.client().await).await.unwrap(), None);
}

#[tokio::test]
async fn an_empty_range_of_any_object_is_no_bytes() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    let options = GetOptions::default();
    for length in [0, 5_u64, 5 << 20] {
        client.put(b"o", bytes(length as usize, 1), &PutOptions::default()).await.unwrap();
        #[expect(clippy::reversed_empty_ranges, reason = "callers may")]
        for range in [5..5, 7..3, length..length + 9, length + 1..length + 9, u64::MAX..u64::MAX] {
            let value = client.get_range(b"o", range, &options).await.unwrap().unwrap();
            assert_eq!((value.len(), value.report().object_bytes), (0, length));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_replaced_goes_only_when_the_new_object_stays() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    client.put(b"o", bytes(6 * MIB, 1), &PutOptions::default()).await.unwrap();
    let (dropped, came) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let may_go = Arc::new(Semaphore::new(0));
    doors.set({
        let (dropped, came, may_go) = (dropped.clone(), came.clone(), may_go.clone());
        Arc::new(move |frame| {
            dropped.fetch_add(usize::from(frame.opcode == Opcode::Drop), Ordering::SeqCst);
            let (came, may_go, is_held) = (came.clone(), may_go.clone(), frame.makes_permanent());
            Box::pin(async move {
                if is_held {
                    came.add_permits(1);
                    let _ = may_go.acquire().await;
                }
                Verdict::Pass
            })
        })
    });
    let put =
        tokio::spawn(
            async move { client.put(b"o", bytes(6 * MIB, 2), &PutOptions::default()).await },
        );
    came.acquire().await.unwrap().forget();
    assert_eq!(dropped.load(Ordering::SeqCst), 0, "the new stripes still have a lease");
    may_go.close();
    let report = put.await.unwrap().unwrap();
    assert_eq!((report.copies, report.problems.len()), (2, 0), "{report:?}");
    assert!(dropped.load(Ordering::SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_given_up_when_its_head_is_written_is_finished_all_the_same() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    let other = doors.client().await;
    other.put(b"o", bytes(6 * MIB, 1), &PutOptions::default()).await.unwrap();
    for is_held in [Frame::writes_a_head, Frame::makes_permanent] {
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        doors.set(holding(is_held, &came, &may_go));
        let put = tokio::spawn({
            let client = client.clone();
            async move { client.put(b"o", bytes(5 * MIB, 2), &PutOptions::default()).await }
        });
        came.acquire().await.unwrap().forget();
        put.abort();
        assert!(put.await.unwrap_err().is_cancelled());
        may_go.close();
        // Two copies of the head and of two stripes; nothing of what was replaced.
        let page = 65_536;
        until_used(&other, 2 * (page + 5 * MIB as u64)).await;
        let began = Instant::now();
        while has_leases(&other).await {
            assert!(began.elapsed() < PATIENCE, "the stripes still have a lease");
        }
        assert!(get(&other).await.unwrap() == Some(bytes(5 * MIB, 2)));
        other.put(b"o", bytes(6 * MIB, 1), &PutOptions::default()).await.unwrap();
    }
}

/// Whether a stripe of the object has a lease on any server.
async fn has_leases(client: &Client) -> bool {
    let located = client.locate(b"o").await.unwrap().unwrap();
    for copy in &located.copies {
        let Some(stripe) = copy.stripe else { continue };
        let key = [&[0xF9][..], &located.stat.upload.0, &stripe.to_be_bytes()].concat();
        let target = Target::server(copy.server.clone());
        let stat = client.raw().stat(&target, vec![key.into()]).await.remove(0).unwrap();
        if stat.row.lease_ms > 0 {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_put_that_lost_a_copy_of_its_head_alone_is_short() {
    let doors = Doors::start(3, 64 << 20).await;
    let (mut of_the_head_alone, mut salt) = (0, 0);
    // That server has a copy of the stripe two times of three.
    while of_the_head_alone == 0 {
        salt += 1;
        assert!(salt < 100, "that server had a stripe each time");
        let first = ranks(&doors.client().await, "o")[0];
        doors.set(cut(first, Frame::makes_permanent));
        let client = doors.client().await;
        let report = client.put(b"o", bytes(2 * MIB, salt), &PutOptions::default()).await.unwrap();
        assert!(report.is_short(), "{report:?}");
        doors.set(open());
        let located = doors.client().await.locate(b"o").await.unwrap().unwrap();
        let first = format!("s{first}");
        let has_stripe =
            |copy: &rampuddle_client::CopyPlace| copy.stripe.is_some() && copy.server == first;
        of_the_head_alone += usize::from(!located.copies.iter().any(has_stripe));
    }
}

#[tokio::test]
async fn an_owner_that_may_serve_what_was_replaced_is_named() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    client.put(b"o", "old", &PutOptions::default()).await.unwrap();
    let second = ranks(&client, "o")[1];
    doors.set(cut(second, |_| true));
    let mut one = PutOptions::default();
    one.replicas = Some(1);
    let report = doors.client().await.put(b"o", "new", &one).await.unwrap();
    let names = |problem: &String| problem.contains(&format!("\"s{second}\""));
    assert!(report.problems.iter().any(names), "{report:?}");
    doors.set(open());
    let report = doors.client().await.put(b"o", "newer", &one).await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_stand_in_forgets_what_was_replaced() {
    for length in [1_000, 3 * MIB] {
        let doors = Doors::start(3, 64 << 20).await;
        let client = doors.client().await;
        let [first, second, third] = ranks(&client, "o")[..] else { panic!("three servers") };
        doors.set(cut(second, |_| true));
        let cut_off = doors.client().await;
        cut_off.put(b"o", bytes(length, 1), &PutOptions::default()).await.unwrap();
        doors.set(open());
        let client = doors.client().await;
        assert!(has_head(&client, third).await);
        client.put(b"o", "new", &PutOptions::default()).await.unwrap();
        let heads = [first, second, third].map(|server| has_head(&client, server));
        assert_eq!(futures_util::future::join_all(heads).await, [true, true, false]);
        assert_eq!(used_bytes(&client).await, 2 * 65_536);
    }
}

/// A source that gives so many bytes, waits, and then fails.
struct Failing {
    left: usize,
    may_fail: Arc<Semaphore>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl AsyncRead for Failing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left > 0 {
            let length = buffer.remaining().min(self.left);
            buffer.initialize_unfilled_to(length).fill(7);
            buffer.advance(length);
            self.left -= length;
            return Poll::Ready(Ok(()));
        }
        let may_fail = Arc::clone(&self.may_fail);
        let waiting = self.waiting.get_or_insert_with(|| {
            Box::pin(async move {
                let _ = may_fail.acquire().await;
            })
        });
        waiting.as_mut().poll(context).map(|()| Err(io::Error::other("the source is broken")))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stripe_that_arrives_behind_the_removal_of_its_set_is_removed_too() {
    let doors = Doors::start(1, 64 << 20).await;
    let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    doors.set(holding(|frame| frame.opcode == Opcode::Create, &came, &may_go));
    let (client, may_fail) = (doors.client().await, Arc::new(Semaphore::new(0)));
    let put = tokio::spawn({
        let (client, may_fail) = (client.clone(), may_fail.clone());
        async move {
            let mut options = PutOptions::default();
            (options.replicas, options.stripe_bytes) = (Some(1), Some(MIB as u64));
            let source = Failing { left: MIB, may_fail, waiting: None };
            client.put(b"o", Source::reader(source), &options).await
        }
    });
    // The stripe is on its way when the source fails.
    came.acquire().await.unwrap().forget();
    may_fail.close();
    assert!(matches!(put.await.unwrap(), Err(Error::Local { .. })));
    may_go.close();
    let began = Instant::now();
    while used_bytes(&client).await == 0 {
        assert!(began.elapsed() < PATIENCE, "the stripe never arrived");
    }
    until_used(&client, 0).await;
}

#[tokio::test]
async fn objects_replaced_while_an_owner_is_away_leave_nothing_behind() {
    let doors = Doors::start(3, 128 << 20).await;
    let client = doors.client().await;
    client.put(b"o", bytes(3 * MIB, 0), &PutOptions::default()).await.unwrap();
    let away = ranks(&client, "o")[0];
    doors.set(cut(away, |_| true));
    let cut_off = doors.client().await;
    for salt in 1..5 {
        let report = cut_off.put(b"o", bytes(3 * MIB, salt), &PutOptions::default()).await.unwrap();
        assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
        assert!(get(&cut_off).await.unwrap() == Some(bytes(3 * MIB, salt)));
    }
    doors.set(open());
    let client = doors.client().await;
    // The owner that was away has the first object still, or a part of it.
    for _ in 0..8 {
        let found = get(&client).await.unwrap();
        assert!([0, 4].into_iter().any(|salt| found == Some(bytes(3 * MIB, salt))));
    }
    client.put(b"o", "small", &PutOptions::default()).await.unwrap();
    until_used(&client, 2 * 65_536).await;
}

#[tokio::test]
async fn what_is_replaced_goes_though_a_stripe_of_the_new_object_has_one_copy_only() {
    let doors = Doors::start(2, 64 << 20).await;
    let client = doors.client().await;
    client.put(b"o", bytes(6 * MIB, 1), &PutOptions::default()).await.unwrap();
    doors.set(at_once(|frame| {
        match frame.server == 1 && frame.payload_bytes() / MIB as u64 == 2 {
            true => Verdict::Cut,
            false => Verdict::Pass,
        }
    }));
    let report = doors.client().await.put(b"o", bytes(6 * MIB, 2), &PutOptions::default()).await;
    let report = report.unwrap();
    assert_eq!((report.copies, report.is_short()), (1, true), "{report:?}");
    doors.set(open());
    // Both heads are new: nobody would find the old stripes any more.
    assert!(get(&client).await.unwrap() == Some(bytes(6 * MIB, 2)));
    until_used(&client, 2 * 65_536 + (2 * 4 + 2) * MIB as u64).await;
}

#[tokio::test]
async fn a_server_that_gives_no_answer_to_a_removal_is_told_again() {
    let doors = Doors::start(2, 64 << 20).await;
    let client = doors.client().await;
    client.put(b"o", bytes(6 * MIB, 1), &PutOptions::default()).await.unwrap();
    doors.set(cut(1, |frame| frame.opcode == Opcode::Drop));
    let report = client.put(b"o", bytes(6 * MIB, 2), &PutOptions::default()).await.unwrap();
    assert_eq!((report.copies, report.is_short()), (2, false), "{report:?}");
    let new = 2 * 65_536 + 2 * 6 * MIB as u64;
    assert_eq!(used_bytes(&doors.client().await).await, new + 6 * MIB as u64);
    doors.set(open());
    until_used(&doors.client().await, new).await;
}

#[tokio::test]
async fn a_striped_put_is_later_than_one_that_had_its_version_from_a_clock_ahead() {
    let doors = Doors::start(3, 64 << 20).await;
    let ahead = doors.client().await;
    let [_, second, third] = ranks(&ahead, "o")[..] else { panic!("three servers") };
    let now = SystemClock.unix_ms();
    let mut far = CreateItem::new(&b"far"[..], &b"value"[..]);
    far.version = Version::from_unix_ms(now + 60_000, 0);
    ahead.raw().create(&Target::server("s0"), vec![far]).await.remove(0).unwrap();
    // One owner does not have it, so that not all of them refuse what is older.
    doors.set(cut(second, |_| true));
    let report = ahead.put(b"o", bytes(5 * MIB, 1), &PutOptions::default()).await.unwrap();
    assert!(report.stand_ins.contains(&format!("s{third}")), "{report:?}");
    assert!(report.version.unix_ms() >= now + 60_000, "its clock is not ahead");
    doors.set(open());
    let client = doors.client().await;
    let later = client.put(b"o", bytes(5 * MIB, 2), &PutOptions::default()).await.unwrap();
    assert_eq!((later.copies, later.is_short()), (2, false), "{later:?}");
    assert!(later.version > report.version, "{} after {}", later.version, report.version);
    let client = doors.client().await;
    for _ in 0..8 {
        assert!(get(&client).await.unwrap() == Some(bytes(5 * MIB, 2)));
    }
    until_used(&client, (3 + 2 * 80) * 65_536).await;
}

#[tokio::test]
async fn a_stand_in_that_gives_no_answer_to_the_removal_of_its_head_is_told_again() {
    let doors = Doors::start(3, 64 << 20).await;
    let client = doors.client().await;
    let [_, second, third] = ranks(&client, "o")[..] else { panic!("three servers") };
    doors.set(cut(second, |_| true));
    let report = doors.client().await.put(b"o", "old", &PutOptions::default()).await.unwrap();
    assert_eq!(report.stand_ins, [format!("s{third}")]);
    doors.set(cut(third, |frame| frame.opcode == Opcode::Drop));
    // Who has seen the old one writes a later one, whatever the clocks.
    assert_eq!(get(&client).await.unwrap().as_deref(), Some(&b"old"[..]));
    let report = client.put(b"o", "new", &PutOptions::default()).await.unwrap();
    assert_eq!((report.copies, report.stand_ins.len()), (2, 0), "{report:?}");
    let other = doors.client().await;
    assert!(has_head(&other, third).await, "the stand-in was told after all");
    doors.set(open());
    until_used(&other, 2 * 65_536).await;
    assert!(!has_head(&other, third).await);
}
