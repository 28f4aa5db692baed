//! Asking a second server when the first is slow: "hedged requests" of Dean and
//! Barroso, "The tail at scale", 2013.
//!
//! Who reads a large object asks many servers at once, and is done with the last of
//! them: one slow link must not decide how long it takes. So a piece that takes much
//! longer than others is asked of another server, too, when its *turn* has come;
//! whichever is there first wins, and the other connection is closed. What that costs
//! comes out of the budget of retries.
//!
//! | who reads | a piece's turn comes when |
//! |---|---|
//! | into memory, in any order | nothing else is left to ask for |
//! | a stream, in order | it is the one that the writer waits for: nothing can take its place, and all others wait for it, too |
//!
//! Before the first piece is in nobody knows how long one takes: one that has taken
//! 500 ms is slow, and if they come in any order, the turn of one of them has come.
//!
//! Once the budget is spent, nothing is asked for twice. A piece whose turn has come is
//! then given up, and read elsewhere, when its server was outrun while it had this piece
//! to give, or when it takes so long that no busy network explains it: else one slow
//! link would hold up for minutes whoever spent the budget on small delays before.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::operation::Operation;
use super::ranks::answers;
use super::read::{Choice, Piece, Reading, Unread};
use crate::retry::Attempts;
use crate::server::Server;

/// A server that gave no answer to a small request for so long is slow.
const SLOW_ANSWER: Duration = Duration::from_millis(100);
/// Nobody waits longer for what can be done without.
const LONG_ANSWER: Duration = Duration::from_millis(500);
/// A piece that has not taken so long yet is not slow.
const SLOW_PIECE_MIN: Duration = Duration::from_millis(20);
/// One that takes so many times as long as others is.
const SLOW_PIECE_TIMES: u32 = 2;

/// Without a budget a piece has time for so long, and for so many times what others take.
const GIVEN_UP_MIN: Duration = Duration::from_secs(2);
const GIVEN_UP_TIMES: u32 = 16;

/// Which servers a piece is asked of.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// This one last.
    avoids: Option<Arc<str>>,
    /// Those that were outrun lately behind others: who reads in order is held up by a
    /// slow one, and who does not has use for it.
    is_in_order: bool,
    /// In the place of a read that was given up.
    is_failover: bool,
    asked: Mutex<Option<Asked>>,
}

impl Course {
    /// Puts those in front that are to be asked first.
    pub(super) fn sort(&self, operation: &Operation, servers: &mut [Arc<str>]) {
        servers.sort_by_cached_key(|name| {
            let server = operation.servers.server(name).ok().filter(|_| self.is_in_order);
            // One that may give no answer at all is worse than one that is slow.
            let is_silent =
                server.as_ref().is_some_and(|it| it.is_slow() || !answers(operation, name));
            let is_outrun = server.is_some_and(|server| server.is_passed_over());
            (self.avoids.as_ref() == Some(name), is_silent, is_outrun)
        });
    }

    /// Notes who is asked now.
    pub(super) fn asks(&self, operation: &Operation, server: &str) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Asked::now(operation, server);
    }

    /// The attempts at its requests.
    pub(super) fn first_attempt(&self, operation: &Operation) -> Attempts {
        match self.is_failover {
            true => operation.retries.failover(),
            false => operation.retries.first_attempt(),
        }
    }

    fn take_asked(&self) -> Option<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The slow pieces of one read.
#[derive(Debug)]
pub(super) struct Hedging {
    turns: Turns,
    /// How long pieces take, in nanoseconds; 0 = none is done yet.
    usual_ns: AtomicU64,
    is_known: Notify,
    /// None was done when the first was slow.
    is_late: AtomicBool,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turns {
    /// Anybody's, for each connection that nothing else is left for.
    Spare(Semaphore),
    /// That of the piece with this number, and of those before it.
    Awaited(watch::Sender<u64>),
}

impl Turns {
    async fn of(&self, number: u64) {
        match self {
            Self::Spare(connections) => {
                connections.acquire().await.expect("it is never closed").forget();
            }
            Self::Awaited(awaited) => {
                let is_there = |now: &u64| *now >= number;
                awaited.subscribe().wait_for(is_there).await.expect("its sender is here");
            }
        }
    }
}

impl Hedging {
    /// Of a read whose pieces come in any order.
    pub(super) fn in_any_order() -> Self {
        Self::new(Turns::Spare(Semaphore::new(0)))
    }

    /// Of a read whose pieces are wanted one after the other.
    pub(super) fn in_order() -> Self {
        Self::new(Turns::Awaited(watch::Sender::new(0)))
    }

    fn new(turns: Turns) -> Self {
        let (is_known, is_late) = (Notify::new(), AtomicBool::new(false));
        Self { turns, usual_ns: AtomicU64::new(0), is_known, is_late }
    }

    /// A connection is free, and nothing else is left to ask for.
    pub(super) fn spares(&self) {
        if let Turns::Spare(connections) = &self.turns {
            connections.add_permits(1);
        }
    }

    /// The writer has taken all pieces before this one, and waits.
    pub(super) fn awaits(&self, number: u64) {
        if let Turns::Awaited(awaited) = &self.turns {
            awaited.send_replace(number);
        }
    }

    /// Reads a piece into `out`, from two servers if it takes long.
    pub(super) async fn piece(
        &self,
        reading: &Reading<'_>,
        piece: &Piece,
        out: &mut [u8],
    ) -> Result<(), Unread> {
        let course = &self.course(None);
        let first = async { reading.piece(piece, &mut *out, course).await.map(|()| None) };
        let second = |course: Course| async move {
            let mut buffer = reading.memory(piece)?;
            reading.piece(piece, &mut buffer, &course).await?;
            Ok(Some(buffer))
        };
        if let Some(buffer) = self.first_of(reading, (piece, 0, course), first, second).await? {
            out.copy_from_slice(&buffer);
        }
        Ok(())
    }

    /// Reads the piece of this number into memory of its own, from two servers if it
    /// takes long.
    pub(super) async fn new_piece(
        &self,
        reading: &Reading<'_>,
        piece: &Piece,
        number: u64,
    ) -> Result<Bytes, Unread> {
        let course = &self.course(None);
        let first = reading.new_piece(piece, course);
        let second = |course| async move { reading.new_piece(piece, &course).await };
        self.first_of(reading, (piece, number, course), first, second).await
    }

    fn course(&self, avoids: Option<Arc<str>>) -> Course {
        let is_in_order = self.is_in_order();
        Course { avoids, is_in_order, is_failover: false, asked: Mutex::default() }
    }

    /// Waits for the first read of a piece, and for a second one, too, when that is slow.
    async fn first_of<T, S: Future<Output = Result<T, Unread>>>(
        &self,
        reading: &Reading<'_>,
        (piece, number, course): (&Piece, u64, &Course),
        first: impl Future<Output = Result<T, Unread>>,
        second: impl Fn(Course) -> S,
    ) -> Result<T, Unread> {
        let began = Instant::now();
        let slow = {
            let mut first = pin!(first);
            tokio::select! {
                biased;
                read = &mut first => {
                    self.note(began.elapsed());
                    return read;
                }
                () = self.is_slow(began, number), if reading.has_choice() => {}
            }
            let Some(slow) = course.take_asked() else { return first.await };
            if reading.operation.retries.try_spend() {
                // Boxed: those that are not slow need not have room for it.
                let mut second = Box::pin(second(self.course(Some(slow.name()))));
                return tokio::select! {
                    biased;
                    read = &mut first => match read {
                        Err(_) => second.await,
                        read => read,
                    },
                    read = &mut second => match read {
                        Ok(read) => {
                            slow.was_outrun();
                            slow.server.pass_over();
                            Ok(read)
                        }
                        Err(_) => first.await,
                    },
                };
            }
            let was_outrun = self.is_in_order() && slow.server.was_outrun_after(slow.since);
            if !was_outrun || !reading.has_owner_besides(piece, &slow.server, Choice::Better) {
                tokio::select! {
                    biased;
                    read = &mut first => return read,
                    () = sleep_until(began + self.far_too_long()) => {}
                }
                if !reading.has_owner_besides(piece, &slow.server, Choice::Any) {
                    return first.await;
                }
            }
            slow
        };
        // The first read is gone by now: asking elsewhere is a failover, no hedge.
        let failover = |avoids| Course { is_failover: true, ..self.course(avoids) };
        match Box::pin(second(failover(Some(slow.name())))).await {
            // Memory may be short for a moment, or the better server has failed.
            Err(Unread::Failed(_)) => Box::pin(second(failover(None))).await,
            read => {
                if read.is_ok() && began.elapsed() >= self.far_too_long() {
                    slow.was_outrun();
                    slow.server.pass_over();
                }
                read
            }
        }
    }

    /// How long a piece may take that cannot be asked for twice.
    fn far_too_long(&self) -> Duration {
        let usual = Duration::from_nanos(self.usual_ns.load(Ordering::Relaxed));
        GIVEN_UP_MIN.max(usual * GIVEN_UP_TIMES)
    }

    fn is_in_order(&self) -> bool {
        matches!(self.turns, Turns::Awaited(_))
    }

    fn note(&self, took: Duration) {
        let took = took.as_nanos() as u64;
        let before = self.usual_ns.load(Ordering::Relaxed);
        let usual = if before == 0 { took } else { before - before / 8 + took / 8 };
        self.usual_ns.store(usual, Ordering::Relaxed);
        self.is_known.notify_waiters();
    }

    /// Waits until it is a piece's turn, and it is slow: by what others take, or for
    /// whoever waits for an answer while none is in.
    async fn is_slow(&self, began: Instant, number: u64) {
        if timeout_at(began + LONG_ANSWER, self.one_is_in()).await.is_err()
            && !self.is_late.swap(true, Ordering::Relaxed)
        {
            self.spares();
        }
        self.turns.of(number).await;
        let slow_after = match self.usual_ns.load(Ordering::Relaxed) {
            0 => LONG_ANSWER,
            usual_ns => SLOW_PIECE_MIN.max(Duration::from_nanos(usual_ns) * SLOW_PIECE_TIMES),
        };
        sleep_until(began + slow_after).await;
    }

    /// Waits until it is known how long a piece takes.
    async fn one_is_in(&self) {
        let known = self.is_known.notified();
        if self.usual_ns.load(Ordering::Relaxed) == 0 {
            known.await;
        }
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

    fn name(&self) -> Arc<str> {
        Arc::clone(self.server.name())
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
    let Some(second) = second() else { return first.await };
    if !operation.retries.try_spend() {
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            () = sleep(GIVEN_UP_MIN) => {}
        }
    }
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
    not_longer(LONG_ANSWER, operation, server, answer).await
}

async fn not_longer<T>(
    patience: Duration,
    operation: &Operation,
    server: &str,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let asked = Asked::now(operation, server);
    let answer = timeout(patience, answer).await.ok();
    if answer.is_none() {
        asked.iter().for_each(Asked::was_outrun);
    }
    answer
}

/// How long each server has been waited for over many questions: for all of them
/// together no longer than for one. Questions that are asked of it at once must begin
/// together.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<BTreeMap<Arc<str>, Duration>>);

impl Patience {
    /// Waits for an answer, as long as patience with this server lasts. `None` = it came
    /// to its end, or had before.
    pub(super) async fn wait<T>(
        &self,
        operation: &Operation,
        server: &Arc<str>,
        answer: impl Future<Output = T>,
    ) -> Option<T> {
        let before = self.waited().get(server).copied().unwrap_or_default();
        let left = LONG_ANSWER.checked_sub(before).filter(|left| !left.is_zero())?;
        let began = Instant::now();
        let answer = not_longer(left, operation, server, answer).await;
        let after = before + began.elapsed();
        let mut waited = self.waited();
        let waited = waited.entry(Arc::clone(server)).or_default();
        *waited = after.max(*waited);
        answer
    }

    /// From here on all servers are waited for anew, but for those with which patience
    /// has come to its end.
    pub(super) fn renew(&self) {
        self.waited().retain(|_, waited| *waited >= LONG_ANSWER);
    }

    fn waited(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
