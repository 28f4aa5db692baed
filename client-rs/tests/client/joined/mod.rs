//! The real client and the connections and stores of real servers, joined in
//! memory: no socket, no thread, no clock.
//!
//! ```text
//!  writers --> Client ==> links, cut anywhere ==> SimulatedServer, three of them
//!     |                        ^
//!     models               one task: moves a piece, then perhaps has time jump
//! ```
//!
//! Streams are cut at random bytes, links break, servers fall silent or lose their
//! memory, and between any two pieces the clock may jump, by a millisecond or by
//! half an hour. What is read must be what was written, and in the end nothing
//! may be left, neither with the client nor with the servers. The seed is printed;
//! `SEED=` has the same run again.

mod draws;
mod link;
mod name;
mod objects;
mod raw;
mod world;

use std::time::{Duration, Instant};

use rampuddle_client::Client;
use tokio::runtime::{Builder, Handle};
use tokio::time::{advance, sleep};

use self::draws::{Draws, seed};
use self::objects::{Tally, Writer, connect};
use self::raw::Keys;
use self::world::{Done, FAIR, ROUGH, Shared, Weather};

/// Clients that live beside each other.
const CLIENTS: u64 = 3;
/// The longest thing that a server remembers: a head whose writer died, a delete.
const DAYS: Duration = Duration::from_secs(49 * 3_600);
/// How long calls that are under way, and holds, take to end.
const SETTLED: Duration = Duration::from_secs(120);

/// A run, and what came of it.
struct Run {
    done: Done,
    tally: Tally,
    /// Copies of stripes that were left to nobody.
    orphans: u64,
}

/// Joins clients to three servers in one thread, and lets each write and read
/// objects, and values, so many times.
fn run(seed: u64, weather: Weather, steps: u64) -> Run {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    let began = Instant::now();
    let run = runtime.expect("a runtime without threads").block_on(live(seed, weather, steps));
    let took = began.elapsed();
    let per_second = run.done.steps as f64 / took.as_secs_f64();
    println!("{:?}\n{}", run.done, run.tally);
    println!("orphans {}; {took:?}, {per_second:.0} steps each second", run.orphans);
    run
}

async fn live(seed: u64, weather: Weather, steps: u64) -> Run {
    let draws = Draws::new(seed);
    let world = Shared::start(3, 1_024, draws.draw());
    // Nobody's but the one that moves the world.
    let tasks_before = Handle::current().metrics().num_alive_tasks();
    world.lock().weather = weather;
    let mut lives = Vec::new();
    for number in 0..CLIENTS {
        let deadline = [None, Some(20), Some(90)][number as usize].map(Duration::from_secs);
        let client = connect(&world, draws.draw(), deadline).await;
        let keys = Keys::new(&world, client.raw(), draws.draw(), number);
        let writer = Writer::new(&world, client, draws.draw(), number);
        lives.push(tokio::spawn(one_life(writer, keys, steps, draws.draw())));
    }
    let (mut writers, mut tally) = (Vec::new(), Tally::default());
    for life in lives {
        writers.push(life.await.expect("it is content"));
    }
    world.lock().weather = Weather::default();
    sleep(SETTLED).await;
    for (writer, keys) in &mut writers {
        writer.finish().await;
        keys.finish().await;
    }
    let orphans = assert_only_orphans_are_left(&world, writers[0].0.client()).await;
    for (writer, keys) in writers {
        let (client, of_objects) = writer.into_parts();
        tally.join(&of_objects);
        tally.join(&keys.tally);
        assert_eq!(client.metrics().checksum_failures, 0, "no link flips bits");
    }
    sleep(SETTLED).await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, tasks_before, "the clients have left tasks behind");
    world.lock().assert_nothing_leaks();
    let done = world.lock().done;
    Run { done, tally, orphans }
}

/// So many operations on objects, and as many on values.
async fn one_life(mut writer: Writer, mut keys: Keys, steps: u64, seed: u64) -> (Writer, Keys) {
    let draws = Draws::new(seed);
    for _ in 0..2 * steps {
        match draws.happens(1, 2) {
            true => writer.step().await,
            false => keys.step().await,
        }
    }
    (writer, keys)
}

/// With every object deleted and every lease over, all that servers have is what
/// they could not be told to let go of: stripes that [`Client::orphans`] finds.
/// Returns how many.
async fn assert_only_orphans_are_left(world: &Shared, client: &Client) -> u64 {
    for _ in 0..DAYS.as_secs() / 600 {
        advance(Duration::from_secs(600)).await;
    }
    sleep(SETTLED).await;
    let orphans = client.orphans().await.expect("all servers answer");
    assert!(orphans.unreachable.is_empty() && orphans.leased_copies == 0, "{orphans:?}");
    let infos = world.lock().infos();
    let values: u64 = infos.iter().map(|info| info.values).sum();
    let (reserved, holds) = infos.iter().fold((0, 0), |(reserved, holds), info| {
        (reserved + info.reserved_bytes + info.superseded_bytes, holds + info.holds)
    });
    assert_eq!((values, reserved, holds), (orphans.copies, 0, 0), "{infos:?}");
    orphans.copies
}

#[test]
fn cut_anywhere_and_under_a_clock_that_jumps_every_operation_is_answered_and_right() {
    let run = run(seed(), FAIR, 250);
    assert!(run.tally.of("puts") > 100 && run.tally.of("reads") > 300, "{}", run.tally);
    assert!(run.done.hops > 100 && run.done.skips > 10, "{:?}", run.done);
    assert_eq!(run.orphans, 0, "every server was told everything");
}

#[test]
fn what_is_read_was_written_and_what_was_acked_is_there_whatever_befalls_links_and_clock() {
    let run = run(seed(), ROUGH, 400);
    let Done { cuts, silences, skips, leaps, .. } = run.done;
    assert!(cuts > 20 && silences > 5 && skips > 50 && leaps > 10, "{:?}", run.done);
    assert!(run.tally.of("puts") > 100 && run.tally.of("reads") > 200, "{}", run.tally);
    assert!(run.tally.of("puts in doubt") + run.tally.of("puts given up") > 0, "{}", run.tally);
}

#[test]
fn a_server_that_loses_its_memory_again_and_again_loses_nothing_that_another_has() {
    let run = run(seed(), Weather { kill: 40, ..ROUGH }, 300);
    assert!(run.done.kills > 5, "{:?}", run.done);
    assert!(run.tally.of("puts") > 50 && run.tally.of("reads") > 100, "{}", run.tally);
}

#[test]
fn the_same_seed_is_the_same_run() {
    let (seed, weather) = (seed(), Weather { kill: 40, ..ROUGH });
    let (one, other) = (run(seed, weather, 60), run(seed, weather, 60));
    assert!(one.tally.all() > 0);
    assert_eq!((one.done, one.tally), (other.done, other.tally));
    assert_ne!(one.done.digest, run(seed ^ 1, weather, 60).done.digest);
}
