//! Asking a second server when the first is slow: "hedged requests" of Dean and
//! Barroso, "The tail at scale", 2013.
//!
//! Who reads a large object asks many servers at once, and is done with the last of
//! them: one slow link must not decide how long it takes. So once nothing else is left
//! to ask for, a piece that takes much longer than others is asked of another server,
//! too; whichever is there first wins, and the other connection is closed. What that
//! costs comes out of the budget of retries.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::operation::Operation;
use super::read::{Piece, Reading, Unread};
use crate::server::Server;

/// A server that gave no answer to a small request for so long is slow.
const SLOW_ANSWER: Duration = Duration::from_millis(100);
/// Nobody waits longer for what can be done without.
const LONG_ANSWER: Duration = Duration::from_millis(500);
/// A piece that has not taken so long yet is not slow.
const SLOW_PIECE_MIN: Duration = Duration::from_millis(20);
/// One that takes so many times as long as others is.
const SLOW_PIECE_TIMES: u32 = 2;

/// Which servers a piece is asked of.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// This one last.
    pub(super) avoids: Option<Arc<str>>,
    asked: Mutex<Option<Asked>>,
}

impl Course {
    /// Notes who is asked now.
    pub(super) fn asks(&self, operation: &Operation, server: &str) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Asked::now(operation, server);
    }

    fn take_asked(&self) -> Option<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The slow pieces of one read.
#[derive(Debug)]
pub(super) struct Hedging {
    /// Connections that nothing else is left for.
    spare: Semaphore,
    /// How long pieces take, in nanoseconds; 0 = none is done yet.
    usual_ns: AtomicU64,
}

impl Hedging {
    pub(super) fn new() -> Self {
        Self { spare: Semaphore::new(0), usual_ns: AtomicU64::new(0) }
    }

    /// A connection is free, and nothing else is left to ask for.
    pub(super) fn spares(&self) {
        self.spare.add_permits(1);
    }

    /// Reads a piece into `out`, from two servers if it takes long.
    pub(super) async fn piece(
        &self,
        reading: &Reading<'_>,
        piece: &Piece,
        out: &mut [u8],
    ) -> Result<(), Unread> {
        let (began, course) = (Instant::now(), Course::default());
        let buffer = {
            let mut first = pin!(reading.piece(piece, &mut *out, &course));
            tokio::select! {
                biased;
                read = &mut first => {
                    self.note(began.elapsed());
                    return read;
                }
                () = self.is_slow(began), if reading.has_choice() => {}
            }
            let operation = reading.operation;
            let memory = operation.servers.access().buffers.take(piece.bytes);
            let (Some(slow), Ok(mut buffer)) = (course.take_asked(), memory) else {
                return first.await;
            };
            if !operation.retries.try_spend() {
                return first.await;
            }
            let avoids = Some(Arc::clone(slow.server.name()));
            let course = Course { avoids, ..Course::default() };
            {
                // Seldom: those that are not slow need not have room for it.
                let mut second = Box::pin(reading.piece(piece, &mut buffer, &course));
                tokio::select! {
                    biased;
                    read = &mut first => match read {
                        Ok(()) => return Ok(()),
                        Err(_) => second.await?,
                    },
                    read = &mut second => match read {
                        Ok(()) => slow.was_outrun(),
                        Err(_) => return first.await,
                    },
                }
            }
            buffer
        };
        out.copy_from_slice(&buffer);
        Ok(())
    }

    fn note(&self, took: Duration) {
        let took = took.as_nanos() as u64;
        let before = self.usual_ns.load(Ordering::Relaxed);
        let usual = if before == 0 { took } else { before - before / 8 + took / 8 };
        self.usual_ns.store(usual, Ordering::Relaxed);
    }

    /// Waits until a connection is free for a piece, and that is slow.
    async fn is_slow(&self, began: Instant) {
        let permit = self.spare.acquire().await.expect("it is never closed");
        permit.forget();
        let usual = Duration::from_nanos(self.usual_ns.load(Ordering::Relaxed));
        sleep_until(began + SLOW_PIECE_MIN.max(usual * SLOW_PIECE_TIMES)).await;
    }
}

/// A server that was asked for something.
#[derive(Debug)]
pub(super) struct Asked {
    server: Arc<Server>,
    received_before: u64,
    since: Instant,
}

impl Asked {
    /// It is asked now. `None` = there is no such server any more.
    pub(super) fn now(operation: &Operation, server: &str) -> Option<Self> {
        let server = operation.servers.server(server).ok()?;
        Some(Self { received_before: server.received_bytes(), since: Instant::now(), server })
    }

    /// Others were asked later and have answered. A server that has sent nothing at
    /// all meanwhile is slow until it answers something, a probe if need be.
    pub(super) fn was_outrun(&self) {
        let has_answered = self.server.received_bytes() != self.received_before;
        if !has_answered && self.since.elapsed() >= SLOW_ANSWER {
            self.server.note_slow();
        }
    }
}

/// Waits for the answer of one server; when that takes long, for that of `second`
/// too, and takes it if it is good.
pub(super) async fn first_good<T, S: Future<Output = T>>(
    operation: &Operation,
    server: &str,
    first: impl Future<Output = T>,
    second: impl FnOnce() -> Option<S>,
    is_good: impl Fn(&T) -> bool,
) -> T {
    let asked = Asked::now(operation, server);
    let mut first = pin!(first);
    tokio::select! {
        biased;
        answer = &mut first => return answer,
        () = sleep(SLOW_ANSWER) => {}
    }
    let Some(second) = second().filter(|_| operation.retries.try_spend()) else {
        return first.await;
    };
    tokio::select! {
        biased;
        answer = &mut first => return answer,
        answer = second => if is_good(&answer) {
            asked.iter().for_each(Asked::was_outrun);
            return answer;
        },
    }
    first.await
}

/// Waits for the answer of one server, but not long when others do not.
pub(super) async fn not_long<T>(
    operation: &Operation,
    server: &str,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let asked = Asked::now(operation, server);
    let answer = timeout(LONG_ANSWER, answer).await.ok();
    if answer.is_none() {
        asked.iter().for_each(Asked::was_outrun);
    }
    answer
}
