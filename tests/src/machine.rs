//! What the machine itself makes others wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(5);
/// By how much any sleep may be longer than asked, on the quietest machine.
const USUAL: Duration = Duration::from_millis(1);

/// A thread that only wants to be woken soon, and notes by how much it never was. A time
/// that is measured on a busy machine may be longer by that than a bound that the product
/// promises, and no more; at most twice as long as the bound.
#[derive(Debug)]
pub struct Machine {
    /// When it was woken, and how late.
    waits: Arc<Mutex<Vec<(Instant, Duration)>>>,
    is_over: Arc<AtomicBool>,
}

/// A moment from which on something is measured.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Instant);

impl Machine {
    /// Begins to look at the machine.
    pub fn watched() -> Self {
        let (waits, is_over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        thread::spawn({
            let (waits, is_over) = (Arc::clone(&waits), Arc::clone(&is_over));
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    thread::sleep(TICK);
                    let late = began.elapsed().saturating_sub(TICK);
                    if late > USUAL {
                        let mut waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
                        waits.push((Instant::now(), late));
                    }
                }
            }
        });
        Self { waits, is_over }
    }

    /// The moment from which on something is measured.
    pub fn now(&self) -> Moment {
        Moment(Instant::now())
    }

    /// How long the machine alone made others wait, at most, within any time of a length
    /// since then.
    fn most_waits(&self, then: Moment, length: Duration) -> Duration {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let since = &waits[waits.partition_point(|(at, _)| *at < then.0)..];
        let sum_from = |first: usize| -> Duration {
            let end = since[first].0 + length;
            since[first..].iter().take_while(|(at, _)| *at <= end).map(|(_, late)| *late).sum()
        };
        (0..since.len()).map(sum_from).max().unwrap_or_default()
    }

    /// Prints how long something took since then, at once or at any time, and fails when
    /// it was longer than its bound and what the machine itself can have added.
    ///
    /// # Panics
    /// When it was.
    #[track_caller]
    pub fn assert_within(&self, what: &str, then: Moment, took: Duration, bound: Duration) {
        // A machine that makes others wait longer than that shows nothing any more.
        let waits = self.most_waits(then, took).min(bound);
        println!("  {what}: {took:.2?} (bound {bound:?}, waits of the machine {waits:.2?})");
        assert!(took <= bound + waits, "{what}: {took:?}, bound {bound:?}, waits {waits:?}");
    }
}

impl Moment {
    /// The same, for the clock.
    pub fn at(self) -> Instant {
        self.0
    }

    /// How long ago it was.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
