//! Clients that write and read all the time, and know every byte.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rampuddle_client::{Client, Error, GetOptions, PutOptions, PutReport};
use rampuddle_harness::{Pattern, Seeded};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What writers of small objects and of striped ones do.
const SMALL: Writing = Writing {
    bytes_max: 32 << 10,
    ttl: Duration::from_secs(10),
    remembered: Duration::from_secs(5),
    pause: Duration::from_millis(50),
};
const STRIPED: Writing = Writing {
    bytes_max: 2 << 20,
    ttl: Duration::from_secs(8),
    remembered: Duration::from_secs(4),
    pause: Duration::from_millis(800),
};
/// Lengths of the objects that stay, and are read by those who only read.
const STAYING: [u64; 8] = [1, 100, 4 << 10, 100 << 10, 1 << 20, (1 << 20) + 1, 3 << 20, 6 << 20];
/// Who only reads: between two of its gets.
const READER_PAUSE: Duration = Duration::from_millis(15);
const STRIPE_BYTES: u64 = 1 << 20;
const READERS: u64 = 3;
/// How long whoever writes may take for a whole turn.
const TURN_PATIENCE: Duration = Duration::from_secs(60);

/// How one writes. Each object has a name of its own, so that no older one can be read in
/// its place, and goes by itself.
#[derive(Debug, Clone, Copy)]
struct Writing {
    bytes_max: u64,
    ttl: Duration,
    /// How old the objects are that are read back.
    remembered: Duration,
    pause: Duration,
}

/// What was done, in all or since a moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Done {
    pub(crate) gets: Kind,
    pub(crate) puts: Kind,
    /// The longest time in which no operation was completed.
    pub(crate) gap: Duration,
    pub(crate) failures: Vec<String>,
}

/// Operations of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kind {
    pub(crate) count: u64,
    pub(crate) longest: Duration,
}

#[derive(Debug)]
struct Books {
    run: Done,
    window: Done,
    last_done: Instant,
    window_began: Instant,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    books: Mutex<Books>,
    staying: Vec<(Vec<u8>, Bytes)>,
    /// Counts losses of memory: of what was put before the last one nothing is asked.
    epoch: AtomicU64,
    /// Whole turns of each writer.
    turns: Vec<AtomicU64>,
    is_over: AtomicBool,
}

/// Tasks that put and get, until they are told to end.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    runtime: Handle,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Puts the objects that stay, and begins.
    pub(crate) fn start(client: Client, runtime: &Handle) -> Self {
        let seed = Seeded::from_environment("load").draw();
        let staying = STAYING.iter().enumerate().map(|(number, length)| {
            let bytes = Pattern(seed ^ number as u64).bytes(0, *length);
            (format!("staying/{number}").into_bytes(), Bytes::from(bytes))
        });
        let now = Instant::now();
        let books = Books {
            run: Done::default(),
            window: Done::default(),
            last_done: now,
            window_began: now,
        };
        let writers = [SMALL, SMALL, STRIPED];
        let shared = Arc::new(Shared {
            client,
            books: Mutex::new(books),
            staying: staying.collect(),
            epoch: AtomicU64::new(0),
            turns: writers.iter().map(|_| AtomicU64::new(0)).collect(),
            is_over: AtomicBool::new(false),
        });
        runtime.block_on(shared.put_staying());
        let mut tasks = Vec::new();
        for (number, writing) in writers.into_iter().enumerate() {
            let random = Seeded::new(seed.wrapping_add(number as u64 + 1));
            tasks.push(runtime.spawn(write(Arc::clone(&shared), number, writing, random)));
        }
        for number in 0..READERS {
            let random = Seeded::new(seed.wrapping_sub(number + 1));
            tasks.push(runtime.spawn(read(Arc::clone(&shared), random)));
        }
        Self { shared, runtime: runtime.clone(), tasks }
    }

    /// Begins to count anew, for [`Load::since_mark`].
    pub(crate) fn mark(&self) {
        let mut books = self.shared.books();
        books.window = Done::default();
        books.window_began = Instant::now();
    }

    /// What was done since the mark.
    pub(crate) fn since_mark(&self) -> Done {
        let books = self.shared.books();
        let mut window = books.window.clone();
        window.gap = window.gap.max(books.last_done.max(books.window_began).elapsed());
        window
    }

    /// After a server lost its memory: makes all copies anew, and asks for nothing that
    /// has fewer.
    pub(crate) fn make_copies_anew(&self) {
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
        self.runtime.block_on(self.shared.put_staying());
        let turns = || self.shared.turns.iter().map(|turns| turns.load(Ordering::Relaxed));
        let before: Vec<u64> = turns().collect();
        rampuddle_harness::until("each writer has done a turn", TURN_PATIENCE, || {
            turns().zip(&before).all(|(now, before)| now >= before + 2)
        });
    }

    /// Ends, and says what was done in all.
    pub(crate) fn end(mut self) -> Done {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            self.runtime.block_on(task).expect("no task of the load panics");
        }
        self.shared.books().run.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn put_staying(&self) {
        for (name, bytes) in &self.staying {
            self.put(name, bytes, None).await;
        }
    }

    /// Whether it was acked.
    async fn put(&self, name: &[u8], bytes: &Bytes, ttl: Option<Duration>) -> bool {
        let mut options = PutOptions::default();
        (options.ttl, options.stripe_bytes) = (ttl, Some(STRIPE_BYTES));
        let put = self.client.put(name, bytes.clone(), &options);
        let (outcome, took) = timed(put).await;
        let wrong = wrong_with_put(&outcome);
        self.note(name, "put", took, wrong.as_deref());
        wrong.is_none()
    }

    async fn get(&self, name: &[u8], wanted: &Bytes) {
        let options = GetOptions::default();
        let (outcome, took) = timed(self.client.get(name, &options)).await;
        let wrong = match outcome {
            Ok(Some(value)) if value.slices().flatten().eq(wanted.iter()) => None,
            Ok(Some(value)) => Some(format!("other bytes: {value:?}, of {}", wanted.len())),
            Ok(None) => Some("it is not there".to_owned()),
            Err(error) => Some(told(&error)),
        };
        self.note(name, "get", took, wrong.as_deref());
    }

    fn note(&self, name: &[u8], what: &str, took: Duration, wrong: Option<&str>) {
        let now = Instant::now();
        let mut books = self.books();
        let gap = now - books.last_done;
        let gap_in_window = now - books.last_done.max(books.window_began);
        books.last_done = now;
        for (done, gap) in [(0, gap), (1, gap_in_window)] {
            let done = if done == 0 { &mut books.run } else { &mut books.window };
            let kind = if what == "get" { &mut done.gets } else { &mut done.puts };
            (kind.count, kind.longest) = (kind.count + 1, kind.longest.max(took));
            done.gap = done.gap.max(gap);
            if let Some(wrong) = wrong {
                let name = name.escape_ascii();
                done.failures.push(format!("{what} of {name} after {took:?}: {wrong}"));
            }
        }
    }
}

/// A put that made fewer copies than were wanted is a failure too.
fn wrong_with_put(outcome: &Result<PutReport, Error>) -> Option<String> {
    match outcome {
        Ok(report) if report.is_short() || report.copies < report.wanted || report.wanted < 2 => {
            Some(format!("not all copies: {report:?}"))
        }
        Ok(_) => None,
        Err(error) => Some(told(error)),
    }
}

fn told(error: &Error) -> String {
    format!("{error}: {error:?}")
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    (work.await, began.elapsed())
}

/// Puts one object after the other; reads each back, and an earlier one.
async fn write(shared: Arc<Shared>, number: usize, writing: Writing, mut random: Seeded) {
    let mut put: VecDeque<(Vec<u8>, Bytes, Instant, u64)> = VecDeque::new();
    let mut count = 0_u64;
    while !shared.is_over() {
        let (began, epoch) = (Instant::now(), shared.epoch());
        count += 1;
        let name = format!("writer {number}/{count}").into_bytes();
        let length = 1 + random.below(writing.bytes_max);
        let bytes = Bytes::from(Pattern(random.draw()).bytes(0, length));
        if shared.put(&name, &bytes, Some(writing.ttl)).await {
            shared.get(&name, &bytes).await;
            put.push_back((name, bytes, began, epoch));
        }
        let is_asked = |(_, _, put, epoch): &(Vec<u8>, Bytes, Instant, u64)| {
            put.elapsed() < writing.remembered && *epoch == shared.epoch()
        };
        put.retain(is_asked);
        if !put.is_empty() {
            let (name, bytes, ..) = &put[random.below(put.len() as u64) as usize];
            shared.get(name, bytes).await;
        }
        shared.turns[number].fetch_add(1, Ordering::Relaxed);
        sleep(writing.pause).await;
    }
}

/// Gets objects that stay.
async fn read(shared: Arc<Shared>, mut random: Seeded) {
    while !shared.is_over() {
        let at = random.below(shared.staying.len() as u64) as usize;
        let (name, bytes) = &shared.staying[at];
        shared.get(name, bytes).await;
        sleep(READER_PAUSE).await;
    }
}

impl Done {
    pub(crate) fn operations(&self) -> u64 {
        self.gets.count + self.puts.count
    }

    /// Fails when an operation did, or nothing was done.
    #[track_caller]
    pub(crate) fn assert_all_went_well(&self, during: &str) {
        let few = self.failures.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
        let failed = self.failures.len();
        assert!(failed == 0, "{during}: {failed} of {} failed:\n{few}", self.operations());
        assert!(self.gets.count > 0 && self.puts.count > 0, "{during}: nothing was done");
    }
}

impl fmt::Display for Done {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (gets, puts) = (self.gets, self.puts);
        write!(
            formatter,
            "{} operations, {} failures, longest get {:.0?} of {}, longest put {:.0?} of {}, \
             longest time without any done {:.0?}",
            self.operations(),
            self.failures.len(),
            gets.longest,
            gets.count,
            puts.longest,
            puts.count,
            self.gap
        )
    }
}
