//! Counters of many writers: what a condition on the version promises.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rampuddle_client::{Client, Error, GetOptions, PutCondition, PutOptions};
use rampuddle_harness::{Cluster, ClusterOptions, Counts, Fault, FaultCounts, Weather};

const NAME: &[u8] = b"counter";
/// Who counts at once, and how often each.
const WRITERS: u32 = 16;
const TIMES: u32 = 25;
/// How long all of them together may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// An attempt to count: nobody else has its number.
type Attempt = u32;

/// What became of a writer's attempts, as it was told.
#[derive(Debug, Default)]
struct Told {
    succeeded: Vec<Attempt>,
    unsure: Vec<Attempt>,
    /// Refused because somebody was faster, and for other reasons.
    changed: u64,
    refused: u64,
}

/// The counter: the number of every attempt that it has counted.
async fn read(client: &Client) -> Result<(Vec<Attempt>, PutOptions), Error> {
    let value = client.get(NAME, &GetOptions::default()).await?.expect("the counter is there");
    let mut options = PutOptions::default();
    options.condition = PutCondition::IfVersion(value.report().version);
    let bytes = value.into_bytes();
    let (numbers, []) = bytes.as_chunks::<4>() else { panic!("{} bytes", bytes.len()) };
    Ok((numbers.iter().map(|number| u32::from_le_bytes(*number)).collect(), options))
}

/// Counts once more.
async fn count(client: &Client, attempt: Attempt) -> Result<(), Error> {
    let (mut counted, options) = read(client).await?;
    counted.push(attempt);
    let bytes: Vec<u8> = counted.into_iter().flat_map(u32::to_le_bytes).collect();
    client.put(NAME, bytes, &options).await.map(|_| ())
}

/// Counts until so many attempts succeeded, or may have.
async fn count_on(client: Client, writer: u32, times: u32, end: Instant) -> Told {
    let mut told = Told::default();
    for attempt in (writer << 16).. {
        if told.succeeded.len() + told.unsure.len() >= times as usize {
            break;
        }
        assert!(Instant::now() < end, "writer {writer} gets nowhere: {told:?}");
        match count(&client, attempt).await {
            Ok(()) => told.succeeded.push(attempt),
            Err(Error::Indeterminate { .. }) => told.unsure.push(attempt),
            Err(Error::Changed { .. }) => told.changed += 1,
            Err(_) => told.refused += 1,
        }
    }
    told
}

/// Lets all writers count at once.
fn count_together(cluster: &Cluster, clients: Vec<Client>, times: u32) -> Vec<Told> {
    let end = Instant::now() + PATIENCE;
    let writers = (1..).zip(clients);
    let tasks: Vec<_> = writers
        .map(|(writer, client)| cluster.runtime().spawn(count_on(client, writer, times, end)))
        .collect();
    tasks.into_iter().map(|task| cluster.runtime().block_on(task).expect("it ends")).collect()
}

fn begin(cluster: &Cluster) {
    let client = cluster.client();
    let options = PutOptions::default();
    cluster.runtime().block_on(client.put(NAME, &b""[..], &options)).unwrap();
}

/// Compares the counter with what the writers were told.
fn judge(cluster: &Cluster, told: &[Told], counts: &mut Counts) {
    let client = cluster.client();
    // Only the first owner's word on the version counts: an owner that missed
    // the last write may show an older one.
    let last =
        cluster.runtime().block_on(count_on(client.clone(), 0, 1, Instant::now() + PATIENCE));
    assert!(last.unsure.is_empty(), "nothing is lost any more");
    let began = Instant::now();
    let counted = loop {
        let (counted, _) = cluster.runtime().block_on(read(&client)).unwrap();
        if counted.last() == last.succeeded.last() {
            break counted;
        }
        assert!(began.elapsed() < PATIENCE, "the last write is not read");
    };
    let found: BTreeSet<Attempt> = counted.iter().copied().collect();
    assert_eq!(found.len(), counted.len(), "an attempt was counted twice");
    let all = |which: fn(&Told) -> &Vec<Attempt>| {
        told.iter().chain([&last]).flat_map(which).copied().collect::<BTreeSet<_>>()
    };
    let (succeeded, unsure) = (all(|told| &told.succeeded), all(|told| &told.unsure));
    let lost: Vec<_> = succeeded.difference(&found).collect();
    assert!(lost.is_empty(), "lost though they had succeeded: {lost:?}");
    let may_be = &succeeded | &unsure;
    let invented: Vec<_> = found.difference(&may_be).collect();
    assert!(invented.is_empty(), "counted though they had failed: {invented:?}");
    assert!(succeeded.len() <= counted.len() && counted.len() <= may_be.len());
    counts.add("successes", succeeded.len() as u64);
    counts.add("indeterminate", unsure.len() as u64);
    counts.add("indeterminate and counted", (counted.len() - succeeded.len()) as u64);
    counts.add("changed", told.iter().map(|told| told.changed).sum());
    counts.add("refused", told.iter().map(|told| told.refused).sum());
}

#[test]
fn a_counter_that_many_increment_ends_at_exactly_the_number_of_successes() {
    let cluster = Cluster::start(3);
    let mut counts = Counts::new("a counter of many writers");
    begin(&cluster);
    let clients = (0..WRITERS).map(|_| cluster.client()).collect();
    let told = count_together(&cluster, clients, TIMES);
    judge(&cluster, &told, &mut counts);
    assert_eq!(counts.of("successes"), u64::from(WRITERS * TIMES) + 1);
    assert_eq!((counts.of("indeterminate"), counts.of("refused")), (0, 0));
    assert!(counts.of("changed") > 0, "nobody was in another's way");
}

#[test]
fn a_counter_behind_faults_has_every_success_and_nothing_that_failed() {
    let options = ClusterOptions { is_proxied: true, ..ClusterOptions::default() };
    let cluster = Cluster::with(&options);
    let mut counts = Counts::new("a counter behind faults");
    begin(&cluster);
    let clients = (0..WRITERS).map(|_| {
        let mut options = cluster.client_options();
        options.patience = Duration::from_secs(1);
        cluster.client_with(options)
    });
    let clients = clients.collect();
    for proxy in cluster.proxies() {
        proxy.set_weather(Weather { faults: Fault::ALL.to_vec(), spacing_bytes: 16 << 10 });
    }
    let told = count_together(&cluster, clients, TIMES);
    let mut faults = FaultCounts::default();
    for proxy in cluster.proxies() {
        proxy.set_weather(Weather::default());
        faults.add(&proxy.counts());
    }
    println!("{faults}");
    judge(&cluster, &told, &mut counts);
    counts.add("faults", faults.total());
    for fault in Fault::ALL {
        assert!(faults.of(fault) > 0, "{} never happened", fault.name());
    }
}

#[test]
fn a_counter_goes_on_after_each_of_its_servers_came_back_without_memory() {
    let mut cluster = Cluster::start(3);
    let mut counts = Counts::new("a counter across restarts");
    begin(&cluster);
    let client = cluster.client();
    let mut told = Vec::new();
    for victim in 0..3 {
        cluster.kill(victim);
        cluster.restart(victim);
        cluster.until_alive(3, Duration::from_secs(5));
        let end = Instant::now() + PATIENCE;
        told.push(cluster.runtime().block_on(count_on(client.clone(), victim as u32 + 1, 10, end)));
        // A write after each makes the second copy again.
        counts.one("restarts");
    }
    judge(&cluster, &told, &mut counts);
    assert_eq!(counts.of("successes"), 31);
    let value = cluster.runtime().block_on(client.get(NAME, &GetOptions::default()));
    assert_eq!(value.unwrap().unwrap().len(), 4 * 31);
}
