//! When a piece is asked for a second time, and of whom.

use futures_util::future::{join_all, select_all};

use super::*;
use crate::client::Client;
use crate::object::format::{Tag, plain_tag};
use crate::object::read::Served;
use crate::options::Options;

/// Longer than any wait that ends by itself.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(1);
const PIECE: Piece = Piece { stripe: 0, blocks: 0..1, bytes: 1 << 20 };

/// A client of servers that nobody connects to.
async fn operation() -> Operation {
    let options = Options::new("static:s0=127.0.0.1:1,s1=127.0.0.1:2");
    Operation::begin(Client::connect(options).await.unwrap().core())
}

fn reading(operation: &Operation) -> Reading<'_> {
    let tag = Tag { replicas: 2, ..plain_tag(1 << 20) };
    let served = Served::default();
    Reading { operation, tag, table: &[], verify: true, progress: None, served }
}

/// The courses of second reads: of whom they were not to ask first, and whether they pay
/// nothing in.
type Courses = Mutex<Vec<(Option<Arc<str>>, bool)>>;

fn notes(courses: &Courses, course: &Course) -> usize {
    let mut courses = courses.lock().unwrap();
    courses.push((course.avoids.clone(), course.is_failover));
    courses.len()
}

/// Reads a piece of a stream without a budget, first from `s0`, which others outrun so
/// long after it was asked, and which takes as long again and long; and whether `s1` was
/// outrun, too.
async fn read_beside(outrun: Duration, is_other_outrun: bool, courses: &Courses) -> &'static str {
    read_slowly(&Hedging::in_order(), outrun, LONG, is_other_outrun, courses).await
}

async fn read_slowly(
    hedging: &Hedging,
    outrun: Duration,
    then: Duration,
    is_other_outrun: bool,
    courses: &Courses,
) -> &'static str {
    let operation = operation().await;
    while operation.retries.try_spend() {}
    let server = |name| operation.servers.server(name).unwrap();
    let reading = reading(&operation);
    hedging.note(SHORT);
    server("s0").pass_over();
    if is_other_outrun {
        server("s1").pass_over();
    }
    sleep(SHORT).await;
    let course = hedging.course(None);
    let first = async {
        course.asks(&operation, "s0");
        sleep(outrun).await;
        server("s0").pass_over();
        sleep(then).await;
        Ok("first")
    };
    let second = |course: Course| async move {
        match notes(courses, &course) {
            1 => Err(Unread::Failed(Vec::new())),
            _ => Ok("second"),
        }
    };
    hedging.first_of(&reading, (&PIECE, 0, &course), first, second).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_of_a_server_before_it_was_outrun_is_given_up_and_read_all_the_same() {
    let courses = Courses::default();
    assert_eq!(read_beside(SHORT, false, &courses).await, "second");
    // The other failed at once, too; nothing of it pays into the budget.
    assert_eq!(courses.into_inner().unwrap(), [(Some("s0".into()), true), (None, true)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_of_a_server_that_others_had_outrun_already_is_waited_for() {
    let (courses, hedging) = (Courses::default(), Hedging::in_order());
    let half = GIVEN_UP_MIN / 2 - SHORT;
    assert_eq!(read_slowly(&hedging, half, half, false, &courses).await, "first");
    assert!(courses.into_inner().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_takes_far_too_long_is_given_up_without_a_budget_in_whatever_order() {
    for hedging in [Hedging::in_order(), Hedging::in_any_order()] {
        let courses = Courses::default();
        hedging.spares();
        let began = Instant::now();
        assert_eq!(read_slowly(&hedging, LONG, LONG, false, &courses).await, "second");
        assert_eq!(courses.into_inner().unwrap(), [(Some("s0".into()), true), (None, true)]);
        assert!(began.elapsed() < GIVEN_UP_MIN + 10 * SHORT, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_servers_were_outrun_only_what_takes_far_too_long_is_given_up() {
    let (courses, hedging) = (Courses::default(), Hedging::in_order());
    assert_eq!(read_slowly(&hedging, SHORT, GIVEN_UP_MIN / 2, true, &courses).await, "first");
    assert!(courses.lock().unwrap().is_empty());
    assert_eq!(read_beside(SHORT, true, &courses).await, "second");
}

#[tokio::test(start_paused = true)]
async fn a_question_to_a_silent_server_goes_to_the_next_one_without_a_budget_too() {
    let operation = operation().await;
    for (is_spent, soonest) in [(false, SLOW_ANSWER), (true, SLOW_ANSWER + GIVEN_UP_MIN)] {
        while is_spent && operation.retries.try_spend() {}
        let began = Instant::now();
        let first = async {
            sleep(LONG).await;
            "first"
        };
        let second = || Some(async { "second" });
        assert_eq!(first_good(&operation, "s0", first, second, |_| true).await, "second");
        let took = began.elapsed();
        assert!((soonest..soonest + 10 * SHORT).contains(&took), "{took:?}");
    }
}

/// How long the first of some pieces takes that are asked of a server that says nothing.
async fn first_beside_a_silent_server(hedging: &Hedging, pieces: u64) -> Duration {
    let operation = operation().await;
    let (reading, began, asked) = (reading(&operation), Instant::now(), &AtomicU64::new(0));
    let reads = (0..pieces).map(|number| {
        let (reading, course) = (&reading, hedging.course(None));
        async move {
            let first = async {
                course.asks(reading.operation, "s0");
                sleep(LONG).await;
                Ok(())
            };
            let second = |_| async {
                asked.fetch_add(1, Ordering::Relaxed);
                sleep(SHORT).await;
                Ok(())
            };
            hedging.first_of(reading, (&PIECE, number, &course), first, second).await.unwrap();
        }
    });
    select_all(reads.map(Box::pin)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the others are not asked for twice yet");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_piece_with_which_nothing_can_be_compared_is_slow_after_half_a_second() {
    for pieces in [1, 8] {
        for hedging in [Hedging::in_order(), Hedging::in_any_order()] {
            let took = first_beside_a_silent_server(&hedging, pieces).await;
            assert!((LONG_ANSWER..LONG_ANSWER * 2).contains(&took), "{took:?}: {hedging:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_questions_wait_no_longer_for_a_server_than_one() {
    let (operation, patience) = (&operation().await, &Patience::default());
    let ask = |server: &'static str, takes: Duration| async move {
        patience.wait(operation, &server.into(), sleep(takes)).await.is_some()
    };
    let began = Instant::now();
    // Eight at once are waited for as one.
    let nearly = LONG_ANSWER * 9 / 10;
    assert_eq!(join_all((0..8).map(|_| ask("s0", nearly))).await, [true; 8]);
    for _ in 0..100 {
        assert_eq!(join_all((0..8).map(|_| ask("s0", nearly))).await, [false; 8]);
        patience.renew();
    }
    assert!(began.elapsed() < LONG_ANSWER + 10 * SHORT, "{:?}", began.elapsed());
    // One that answers is asked all the time, and the other never again.
    for _ in 0..100 {
        for _ in 0..100 {
            assert_eq!((ask("s0", SHORT).await, ask("s1", SHORT).await), (false, true));
        }
        patience.renew();
    }
}
