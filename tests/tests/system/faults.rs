//! Objects over connections that go wrong: nothing wrong is ever read, nothing
//! waits for ever, nothing is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rampuddle_client::{Client, GetOptions, PutOptions};
use rampuddle_harness::{
    Cluster, ClusterOptions, Counts, Fault, FaultCounts, Pattern, Seeded, ServerProcess, Weather,
    until,
};
use tokio::runtime::{Builder, Runtime};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Clients at once.
const CLIENTS: u64 = 20;
/// Names that each client writes and reads; nobody else writes them.
const NAMES: u64 = 4;
/// How long an operation may take, as half of the clients are told.
const DEADLINE: Duration = Duration::from_secs(10);
/// How much later it may come back: twenty clients share the processors with three
/// servers and their proxies.
const SLACK: Duration = Duration::from_secs(2);
/// How long one may take that was told no deadline: attempts on each of two copies
/// and the search for others, each with its patience of 2 s without a byte.
const UNBOUND: Duration = Duration::from_secs(60);
/// The lease of what a put has written so far.
const UPLOAD_LEASE: Duration = Duration::from_secs(30);
/// How long a task may outlive its client: some look once more after 30 s, and find
/// that it is gone.
const LINGER: Duration = Duration::from_secs(60);

/// What happened, over all clients.
#[derive(Debug, Default)]
struct Tally {
    puts: AtomicU64,
    puts_short: AtomicU64,
    puts_unsure: AtomicU64,
    gets: AtomicU64,
    /// Older bytes than an owner would give.
    gets_of_stand_ins: AtomicU64,
    gets_failed: AtomicU64,
    longest_ms: AtomicU64,
    longest_with_deadline_ms: AtomicU64,
}

impl Tally {
    /// Notes how long an operation took.
    ///
    /// # Panics
    /// When that was longer than it may.
    fn took(&self, key: &str, took: Duration, deadline: Option<Duration>) {
        let most = deadline.map_or(UNBOUND, |deadline| deadline + SLACK);
        assert!(took < most, "{key} took {took:?}, with a deadline of {deadline:?}");
        let longest = deadline.map_or(&self.longest_ms, |_| &self.longest_with_deadline_ms);
        longest.fetch_max(took.as_millis() as u64, Ordering::Relaxed);
    }
}

/// What is left of a storm: its clients, and the runtime that only they had.
struct Aftermath {
    name: String,
    runtime: Runtime,
    clients: Vec<Client>,
}

impl Aftermath {
    /// Lets the clients go, and waits until no task is left of them.
    fn end(self) {
        let Self { name, runtime, clients } = self;
        drop(clients);
        let left = || runtime.handle().metrics().num_alive_tasks();
        let tasks = left();
        until(&format!("the clients' tasks to end: {name}"), LINGER, || left() == 0);
        println!("{name}: {tasks} tasks when the last client was dropped, {} now", left());
    }
}

/// What a name may hold: what was written since every owner had the same, and that.
#[derive(Debug, Default, Clone)]
struct Name {
    /// Salts that a read may find.
    possible: Vec<u64>,
    /// Salts that a stand-in may have still, from a put with stand-ins or in doubt:
    /// while no owner gives an answer, a read may find them until repair.
    elsewhere: Vec<u64>,
    /// Whether it is there for certain.
    is_there: bool,
    /// All salts ever written, the last one last.
    history: Vec<u64>,
}

impl Name {
    /// What bytes that should not be there are, as far as can be said.
    fn explain(&self, found: &[u8]) -> String {
        let alike = |salt: &u64| {
            let wanted = Pattern(*salt).bytes(0, length_of(*salt));
            let same = wanted.iter().zip(found).take_while(|(one, other)| one == other).count();
            (same, wanted.len())
        };
        let known: Vec<_> = self.history.iter().map(alike).collect();
        format!(
            "{} bytes; of what was ever written (same bytes, length): {known:?}; the last {} are possible",
            found.len(),
            self.possible.len()
        )
    }
}

fn length_of(salt: u64) -> u64 {
    match salt % 4 {
        0 => salt % (64 * KIB),
        1 => MIB + salt % MIB,
        2 => 5 * MIB + salt % MIB,
        _ => salt % (600 * KIB),
    }
}

/// One client: writes and reads its own names until the time is over.
async fn live(
    (client, deadline): (Client, Option<Duration>),
    prefix: String,
    until: Instant,
    mut random: Seeded,
    tally: Arc<Tally>,
) {
    let mut names = vec![Name::default(); NAMES as usize];
    while Instant::now() < until {
        let index = random.below(NAMES) as usize;
        let key = format!("{prefix}/{index}");
        let name = &mut names[index];
        let began = Instant::now();
        if random.below(3) == 0 || name.possible.is_empty() {
            let salt = random.draw() >> 1;
            let bytes = Pattern(salt).bytes(0, length_of(salt));
            let options = PutOptions::default();
            name.history.push(salt);
            match client.put(key.as_bytes(), bytes, &options).await {
                Ok(report) => {
                    // An owner that missed the write, or has a stand-in, may serve
                    // what it had before, until a repair.
                    if !report.is_short() && report.stand_ins.is_empty() {
                        name.possible.clear();
                    } else {
                        name.elsewhere.push(salt);
                    }
                    name.possible.push(salt);
                    name.is_there = true;
                    tally.puts.fetch_add(1, Ordering::Relaxed);
                    tally.puts_short.fetch_add(u64::from(report.is_short()), Ordering::Relaxed);
                }
                Err(error) => {
                    // It may have been applied, or be applied still.
                    println!("put {key}: {error}");
                    name.possible.push(salt);
                    name.elsewhere.push(salt);
                    tally.puts_unsure.fetch_add(1, Ordering::Relaxed);
                }
            }
        } else {
            match client.get(key.as_bytes(), &GetOptions::default()).await {
                Ok(Some(value)) => {
                    let found = value.into_bytes();
                    let is_right = |salt: &u64| {
                        length_of(*salt) == found.len() as u64
                            && Pattern(*salt).bytes(0, found.len() as u64) == found[..]
                    };
                    let is_latest = name.possible.iter().any(is_right);
                    let is_right = is_latest || name.elsewhere.iter().any(is_right);
                    assert!(is_right, "{key}: {}", name.explain(&found));
                    tally.gets_of_stand_ins.fetch_add(u64::from(!is_latest), Ordering::Relaxed);
                    tally.gets.fetch_add(1, Ordering::Relaxed);
                }
                Ok(None) => assert!(!name.is_there, "{key} is said to be absent"),
                Err(error) => {
                    println!("get {key}: {error}");
                    tally.gets_failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        tally.took(&key, began.elapsed(), deadline);
    }
}

/// Lets all clients live in one weather; returns what the proxies did so far, how
/// many objects were read whole, and what is left of the clients.
fn storm(
    cluster: &Cluster,
    faults: &[Fault],
    spacing_bytes: u64,
    time: Duration,
) -> (FaultCounts, u64, Aftermath) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let names: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
    let name = names.join(", ");
    let mut before = FaultCounts::default();
    cluster.proxies().iter().for_each(|proxy| before.add(&proxy.counts()));
    let tally = Arc::new(Tally::default());
    let mut random = Seeded::from_environment("storm");
    let end = Instant::now() + time;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut options = cluster.client_options();
            options.patience = Duration::from_secs(2);
            options.deadline = (number % 2 == 0).then_some(DEADLINE);
            options.upload_lease = UPLOAD_LEASE;
            let deadline = options.deadline;
            let client = runtime.block_on(Client::connect(options)).expect("it connects");
            ((client, deadline), format!("{name}/{number}"), Seeded::new(random.draw()))
        })
        .collect();
    for proxy in cluster.proxies() {
        proxy.set_weather(Weather { faults: faults.to_vec(), spacing_bytes });
    }
    let kept = clients.iter().map(|((client, _), ..)| client.clone()).collect();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|(client, prefix, random)| {
            runtime.spawn(live(client, prefix, end, random, Arc::clone(&tally)))
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).expect("the client is content");
    }
    let mut counts = FaultCounts::default();
    for proxy in cluster.proxies() {
        proxy.set_weather(Weather::default());
        counts.add(&proxy.counts());
    }
    println!("{name}: {tally:?}; {counts}");
    for fault in faults {
        assert!(counts.of(*fault) > before.of(*fault), "{} never happened", fault.name());
    }
    let moved = [&tally.puts, &tally.puts_unsure, &tally.gets, &tally.gets_failed];
    let moved = moved.map(|count| count.load(Ordering::Relaxed));
    assert!(moved[0] > 0, "{name}: no object was written");
    // In a second of the worst of them none may be read.
    assert!(moved[2] > 0 || time < Duration::from_secs(10), "{name}: no object was read");
    (counts, moved[2], Aftermath { name, runtime, clients: kept })
}

/// Deletes all objects when the weather is fair: the next storm finds empty pools.
fn delete_everything(cluster: &Cluster, watcher: &Client) {
    until("every object to be deleted", Duration::from_secs(60), || {
        cluster.runtime().block_on(async {
            let (mut listing, mut names) = (watcher.list(b""), Vec::new());
            while let Some(object) = listing.next().await {
                let Ok(object) = object else { return false };
                names.push(object.name);
            }
            for name in &names {
                let _ = watcher.delete(name).await;
            }
            names.is_empty() && listing.unreachable().is_empty()
        })
    });
}

#[test]
fn soak_storms_of_faults_leave_every_byte_right_and_nothing_behind() {
    let is_soak = std::env::var_os("PUDDLE_SOAK").is_some_and(|value| value == "1");
    let time = Duration::from_millis(if is_soak { 60_000 } else { 1_000 });
    let mut cluster = Cluster::with(&ClusterOptions {
        pool_mib: if is_soak { 1_200 } else { 300 },
        is_proxied: true,
        ..ClusterOptions::default()
    });
    let watcher = cluster.client();
    let baseline: Vec<usize> =
        cluster.servers().iter().map(ServerProcess::open_descriptors).collect();
    let (mut reads, mut aftermaths) = (0, Vec::new());
    for fault in Fault::ALL {
        let (_, more, aftermath) = storm(&cluster, &[fault], 4 * MIB, time);
        delete_everything(&cluster, &watcher);
        reads += more;
        aftermaths.push(aftermath);
    }
    // The proxies' counts go on: these are of all storms.
    let (mixed, more, aftermath) = storm(&cluster, &Fault::ALL, 2 * MIB, time);
    delete_everything(&cluster, &watcher);
    aftermaths.push(aftermath);
    assert!(reads + more > 0, "nothing was read");
    println!("counts of storms: {mixed}");
    assert!(2 * mixed.in_flight() >= mixed.total(), "{mixed}");
    for fault in Fault::ALL {
        assert!(mixed.of(fault) > 0, "{} never happened", fault.name());
    }
    // Clients that live tell servers which gave no answer what may go, again and
    // again; what nobody can tell of any more has a lease, a put's that is in doubt
    // one of a day.
    let patience = Duration::from_secs(120);
    let (mut leased, mut used) = (0, 0);
    until("only what has a lease to be left", patience, || {
        let orphans = cluster.runtime().block_on(watcher.orphans()).expect("all answer");
        println!("nobody names {orphans:?}");
        leased = orphans.leased_copies;
        orphans.copies == 0 && orphans.unreachable.is_empty()
    });
    aftermaths.into_iter().for_each(Aftermath::end);
    until("reservations and holds to end", patience, || {
        let nodes = cluster.runtime().block_on(watcher.nodes());
        let rows: Vec<_> =
            nodes.iter().filter_map(|node| node.info.as_ref()).map(|info| info.row).collect();
        used = rows.iter().map(|row| row.used_bytes).sum();
        rows.len() == 3
            && rows.iter().all(|row| row.reserved_bytes + row.superseded_bytes + row.holds == 0)
    });
    drop(watcher);
    for (index, before) in baseline.iter().enumerate() {
        until("descriptors to come back", patience, || {
            cluster.server(index).open_descriptors() <= *before
        });
    }
    let mut done = Counts::new("storms");
    done.add("objects read whole", reads + more);
    done.add("faults", mixed.total());
    done.add("faults in flight", mixed.in_flight());
    done.add("copies left with a lease", leased);
    done.add("MiB that they take", used / MIB);
}
