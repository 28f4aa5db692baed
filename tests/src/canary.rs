//! A small request that must always be answered soon.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io::Read as _, io::Write as _, os::unix::net::UnixStream};

use rampuddle_protocol::Status;

use crate::pattern::Pattern;
use crate::raw::{Door, RawClient};

/// How soon a small request must be answered, whatever others do.
pub const CANARY_BOUND: Duration = Duration::from_millis(100);

const KEY: &[u8] = b"canary";
const BYTES: u64 = 256;

/// A client of its own that gathers a small value again and again, and remembers
/// the longest time to an answer.
///
/// Beside it two threads of this process pass a byte to and fro over a socket: what
/// these take without any server is the machine's own doing, and is granted on top of
/// the bound. On a busy machine a thread that has much to do waits longer for a
/// processor than these; so the bound holds, too, for what is left of each wait without
/// the time for which the server's loop, or the canary itself, was ready to run and the
/// system did not let it.
#[derive(Debug)]
pub struct Canary {
    server: Watch,
    machine: Watch,
}

impl Canary {
    /// Creates the canary's value and begins to gather it.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub fn start(door: &Door) -> Self {
        let mut client = RawClient::connect(door);
        let bytes = Pattern(1).bytes(0, BYTES);
        let outcome = client.create(KEY, 0, &bytes);
        assert!(matches!(outcome.status(), Status::Ok | Status::Exists), "{outcome:?}");
        // The loop runs on the first thread of its process.
        let server_loop = door.process().map(|process| {
            let number = process.as_raw_nonzero();
            PathBuf::from(format!("/proc/{number}/task/{number}"))
        });
        let denied = move || {
            let of_server = server_loop.as_deref().map(denied);
            of_server.map(|of_server| of_server + denied(Path::new("/proc/thread-self")))
        };
        let server = Watch::start(denied, move || {
            let (outcome, found) = client.gather(KEY, 0, BYTES);
            assert!(outcome.status() == Status::Ok && found == bytes, "canary: {outcome:?}");
        });
        let (mut near, mut far) = UnixStream::pair().expect("a pair of sockets");
        thread::spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).and_then(|()| far.write_all(&byte)).is_ok() {}
        });
        let machine = Watch::start(
            || None,
            move || {
                let mut byte = [7];
                near.write_all(&byte).and_then(|()| near.read_exact(&mut byte)).expect("an echo");
            },
        );
        Self { server, machine }
    }

    /// Does `hostile`, and fails when the canary waited for longer than `bound`
    /// meanwhile, or got no answer at all. Returns what `hostile` returned.
    ///
    /// # Panics
    /// When the canary waited too long.
    #[track_caller]
    pub fn assert_within<T>(&self, bound: Duration, hostile: impl FnOnce() -> T) -> T {
        self.server.reset();
        self.machine.reset();
        let result = hostile();
        self.server.wait_for_answers(3);
        let Waits { longest, let_run } = self.server.waits();
        let (granted, answers) = (self.machine.waits().longest, self.server.answers());
        let waits = format!(
            "longest {longest:?}, the machine alone {granted:?}; where it was let run {let_run:?}"
        );
        println!("canary: {answers} answers, {waits}");
        let is_within = longest <= bound + granted || let_run.is_some_and(|it| it <= bound);
        assert!(is_within, "the canary waited too long: {waits}; the bound is {bound:?}");
        result
    }
}

/// A thread that does something again and again, and how long it took at most.
#[derive(Debug)]
struct Watch {
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    waits: Waits,
    answers: u64,
}

/// The longest times to an answer.
#[derive(Debug, Default, Clone, Copy)]
struct Waits {
    longest: Duration,
    /// Without what the system did not let the threads run, when that is known.
    let_run: Option<Duration>,
}

impl Waits {
    fn note(&mut self, took: Duration, let_run: Option<Duration>) {
        self.longest = self.longest.max(took);
        // `None` is less than any.
        self.let_run = self.let_run.max(let_run);
    }
}

impl Watch {
    /// `denied` says for how long so far the threads were not let run.
    fn start(
        denied: impl Fn() -> Option<Duration> + Send + 'static,
        mut one: impl FnMut() + Send + 'static,
    ) -> Self {
        let state = State { waits: Waits::default(), answers: 0 };
        let state = Arc::new(Mutex::new(state));
        let ends = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (state, ends) = (Arc::clone(&state), Arc::clone(&ends));
            move || {
                while !ends.load(Ordering::Relaxed) {
                    let (denied_before, began) = (denied(), Instant::now());
                    one();
                    let took = began.elapsed();
                    let not_let =
                        denied().zip(denied_before).map(|(now, before)| now.saturating_sub(before));
                    let mut state = lock(&state);
                    state.waits.note(took, not_let.map(|not_let| took.saturating_sub(not_let)));
                    state.answers += 1;
                    drop(state);
                    // A canary that never rests would be the load itself.
                    thread::park_timeout(Duration::from_millis(2));
                }
            }
        });
        Self { state, ends, thread: Some(thread) }
    }

    fn reset(&self) {
        let mut state = lock(&self.state);
        (state.waits, state.answers) = (Waits::default(), 0);
    }

    fn waits(&self) -> Waits {
        lock(&self.state).waits
    }

    fn answers(&self) -> u64 {
        lock(&self.state).answers
    }

    fn wait_for_answers(&self, answers: u64) {
        crate::until("answers to the canary", Duration::from_secs(10), || {
            let thread = self.thread.as_ref().expect("taken by drop only");
            assert!(!thread.is_finished(), "the canary died");
            self.answers() >= answers
        });
    }
}

/// For how long a thread was ready to run, and did not.
fn denied(thread: &Path) -> Duration {
    let times = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    Duration::from_nanos(times.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0))
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
