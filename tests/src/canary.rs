//! A small request that must always be answered soon.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io::Read as _, io::Write as _, os::unix::net::UnixStream};

use rampuddle_protocol::Status;
use rustix::process::Pid;

use crate::pattern::Pattern;
use crate::raw::{Door, RawClient};

/// How soon a small request must be answered, whatever others do.
pub const CANARY_BOUND: Duration = Duration::from_millis(100);

const KEY: &[u8] = b"canary";
const BYTES: u64 = 256;

/// A client of its own that gathers a small value again and again, and remembers
/// the longest time to an answer.
///
/// Time for which the server was ready to run and the system gave it no processor is
/// none of its doing, and is not counted. Beside it two threads of this process pass a
/// byte to and fro over a socket: what these take without any server is the machine's
/// own doing, too, and is granted on top of the bound.
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
        let process = door.process();
        let denied = move || process.map_or(Duration::ZERO, denied);
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
            || Duration::ZERO,
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
        let (longest, granted) = (self.server.longest(), self.machine.longest());
        let answers = self.server.answers();
        println!("canary: {answers} answers, longest {longest:?}, the machine alone {granted:?}");
        assert!(
            longest <= bound + granted,
            "the canary waited {longest:?}; the bound is {bound:?}, and {granted:?} for the machine"
        );
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
    longest: Duration,
    answers: u64,
}

impl Watch {
    /// `denied` says what so far is not counted.
    fn start(
        denied: impl Fn() -> Duration + Send + 'static,
        mut one: impl FnMut() + Send + 'static,
    ) -> Self {
        let state = State { longest: Duration::ZERO, answers: 0 };
        let state = Arc::new(Mutex::new(state));
        let ends = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (state, ends) = (Arc::clone(&state), Arc::clone(&ends));
            move || {
                while !ends.load(Ordering::Relaxed) {
                    let (denied_before, began) = (denied(), Instant::now());
                    one();
                    let took =
                        began.elapsed().saturating_sub(denied().saturating_sub(denied_before));
                    let mut state = lock(&state);
                    state.longest = state.longest.max(took);
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
        (state.longest, state.answers) = (Duration::ZERO, 0);
    }

    fn longest(&self) -> Duration {
        lock(&self.state).longest
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

/// For how long the threads of a process were ready to run, and did not.
fn denied(process: Pid) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()));
    let of_thread = |folder: PathBuf| {
        let times = fs::read_to_string(folder.join("schedstat")).ok()?;
        times.split(' ').nth(1)?.parse::<u64>().ok()
    };
    let folders = threads.into_iter().flatten().flatten().map(|thread| thread.path());
    Duration::from_nanos(folders.filter_map(of_thread).sum())
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
