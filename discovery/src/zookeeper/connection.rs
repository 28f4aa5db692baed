//! One connection to a ZooKeeper server, which carries a session.
//!
//! A task owns the stream and ends with it: then whoever waits for an answer hears that
//! the connection was lost. A session outlives its connection, for as long as was agreed:
//! another connection can go on with it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout};

use super::failure::Failure;
use super::wire::{Fields, Garbled, Message, digest, number, operation};
use crate::validate::{ANSWER_BYTES_MAX, RECORD_BYTES_MAX};

/// How long a session is asked to live without a sign of life: the least that a server
/// with the usual settings gives.
const SESSION_MS: i32 = 4_000;
/// How often a sign of life is sent at the latest.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long nothing at all may come, however long the session lives: a server gives a sign
/// of life at each heartbeat.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long the answer to a request may take, from the one before it on: a connection that
/// only gives signs of life is as good as none. Less than a call may take, so that the
/// next one finds another.
const ANSWER_PATIENCE: Duration = Duration::from_secs(4);
/// The largest answer that is about one record, with what ZooKeeper says beside it.
const ABOUT_ONE_BYTES_MAX: u64 = RECORD_BYTES_MAX + 256;
/// The largest answer to a greeting.
const GREETING_BYTES_MAX: usize = 1 << 10;
/// How long a closed session may take to be over.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How many requests wait to be sent before the next has to wait.
const QUEUE: usize = 256;
/// What is known of an answer before it is read whole: its length, number, moment and
/// result.
const HEAD_BYTES: u64 = 20;

/// What a session goes over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What is needed to go on with a session.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) id: i64,
    password: Vec<u8>,
    /// It ends after so long without a sign of life.
    pub(super) life: Duration,
}

/// Its password is nobody's business.
impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Session({:#x}, {:?})", self.id, self.life)
    }
}

/// An answer of the server.
#[derive(Debug)]
pub(super) struct Answer {
    /// The place of the last write that it knows in the order of all writes; after a
    /// write, of that.
    pub(super) moment: u64,
    pub(super) body: Vec<u8>,
}

type Answered = Result<Answer, Failure>;

struct Request {
    operation: i32,
    message: Message,
    bytes_max: u64,
    answer: oneshot::Sender<Answered>,
}

/// What was asked, in the order in which the answers come.
struct Waiter {
    number: i32,
    asked: Instant,
    bytes_max: u64,
    answer: oneshot::Sender<Answered>,
}

/// Who waits for an answer.
struct Waiters(Mutex<Waiting>);

struct Waiting {
    queue: VecDeque<Waiter>,
    /// When an answer came last, or a part of one.
    answered_last: Instant,
}

impl Waiters {
    fn new() -> Self {
        Self(Mutex::new(Waiting { queue: VecDeque::new(), answered_last: Instant::now() }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, waiter: Waiter) {
        self.lock().queue.push_back(waiter);
    }

    /// Whose answer comes now.
    fn next(&self, number: i32) -> Result<Waiter, Garbled> {
        self.answered();
        let waiter = self.lock().queue.pop_front();
        waiter.filter(|waiter| waiter.number == number).ok_or(Garbled)
    }

    fn answered(&self) {
        self.lock().answered_last = Instant::now();
    }

    /// When the next answer should have come; none when nobody waits.
    fn due(&self) -> Option<Instant> {
        let waiting = self.lock();
        let next = waiting.queue.front()?;
        Some(next.asked.max(waiting.answered_last) + ANSWER_PATIENCE)
    }

    /// Fails once an answer is overdue, whatever else comes.
    async fn watch(&self) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            // What is asked from now on is not due before.
            let due = self.due().unwrap_or(now + ANSWER_PATIENCE);
            if due <= now {
                return Err(Failure::Silent(ANSWER_PATIENCE));
            }
            sleep_until(due).await;
        }
    }
}

/// Dropping it closes the session, as far as that goes without waiting.
#[derive(Debug)]
pub(super) struct Connection {
    requests: mpsc::Sender<Request>,
    events: watch::Receiver<u64>,
    pub(super) session: Session,
}

impl Connection {
    /// Greets the server: with a session to go on with, or for a new one.
    pub(super) async fn open(
        mut stream: Box<dyn Stream>,
        session: Option<&Session>,
        user_and_password: Option<&str>,
    ) -> Result<Self, Failure> {
        let session = greet(&mut *stream, session).await?;
        if let Some(user_and_password) = user_and_password {
            authenticate(&mut *stream, user_and_password).await?;
        }
        let (requests, queue) = mpsc::channel(QUEUE);
        let (seen, events) = watch::channel(0);
        tokio::spawn(serve(stream, queue, seen, session.life));
        Ok(Self { requests, events, session })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.requests.is_closed()
    }

    /// How many changes were told so far; closed with the connection.
    pub(super) fn events(&self) -> watch::Receiver<u64> {
        self.events.clone()
    }

    /// Asks for something with a short answer.
    pub(super) async fn ask(&self, operation: i32, message: Message) -> Answered {
        self.ask_for(operation, message, ABOUT_ONE_BYTES_MAX).await
    }

    /// Asks for something; an answer of more than `bytes_max` bytes is read over.
    pub(super) async fn ask_for(
        &self,
        operation: i32,
        message: Message,
        bytes_max: u64,
    ) -> Answered {
        let (answer, answered) = oneshot::channel();
        let request = Request { operation, message, bytes_max, answer };
        self.requests.send(request).await.map_err(|_| Failure::Lost)?;
        answered.await.unwrap_or(Err(Failure::Lost))
    }

    /// Ends the session and with it its nodes, and waits until it is over.
    pub(super) async fn close(self) -> Result<(), Failure> {
        self.ask(operation::CLOSE_SESSION, Message::default()).await.map(drop)
    }
}

async fn greet(stream: &mut dyn Stream, session: Option<&Session>) -> Result<Session, Failure> {
    let (id, password) = session.map_or((0, vec![0; 16]), |old| (old.id, old.password.clone()));
    // No moment that was seen is told: a server whose data was wiped would turn us away
    // for ever.
    let hello = Message::default().int(0).long(0).int(SESSION_MS).long(id).bytes(&password);
    write(stream, &hello.boolean(false).into_frame()).await?;
    let answer = read_frame(stream).await?;
    let mut fields = Fields::of(&answer);
    let (_version, life_ms, id) = (fields.int()?, fields.int()?, fields.long()?);
    let password = fields.bytes()?.to_vec();
    match u64::try_from(life_ms) {
        Ok(life_ms @ 1..) => Ok(Session { id, password, life: Duration::from_millis(life_ms) }),
        _ => Err(Failure::Expired),
    }
}

async fn authenticate(stream: &mut dyn Stream, user_and_password: &str) -> Result<(), Failure> {
    let head = Message::default().int(number::AUTH).int(operation::AUTH);
    write(stream, &head.part(&digest(user_and_password)).into_frame()).await?;
    let answer = read_frame(stream).await?;
    let mut fields = Fields::of(&answer);
    match (fields.int()?, fields.long()?, fields.int()?) {
        (number::AUTH, _, 0) => Ok(()),
        (number::AUTH, _, code) => Err(Failure::refused(code)),
        _ => Err(Garbled.into()),
    }
}

async fn write(stream: &mut dyn Stream, frame: &[u8]) -> Result<(), Failure> {
    stream.write_all(frame).await.map_err(|_| Failure::Lost)?;
    stream.flush().await.map_err(|_| Failure::Lost)
}

async fn read_frame(stream: &mut dyn Stream) -> Result<Vec<u8>, Failure> {
    let length = stream.read_i32().await.map_err(|_| Failure::Lost)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= GREETING_BYTES_MAX);
    let mut frame = vec![0; length.ok_or(Garbled)?];
    stream.read_exact(&mut frame).await.map_err(|_| Failure::Lost)?;
    Ok(frame)
}

/// Ends with the stream, or when nobody is left who could ask.
async fn serve(
    stream: Box<dyn Stream>,
    mut queue: mpsc::Receiver<Request>,
    events: watch::Sender<u64>,
    life: Duration,
) {
    let (reader, writer) = tokio::io::split(stream);
    let waiters = Waiters::new();
    // The session lives on for another third: time to find another server.
    let silence = SILENCE_MAX.min(life * 2 / 3);
    let ended = tokio::select! {
        ended = waiters.watch() => ended,
        ended = receive(reader, &waiters, &events, silence) => ended,
        ended = send(writer, &mut queue, &waiters, HEARTBEAT.min(life / 3)) => ended,
    };
    if let Err(failure) = ended {
        tracing::debug!("a connection to ZooKeeper ended: {failure}");
    }
}

async fn send(
    mut writer: impl AsyncWrite + Unpin,
    queue: &mut mpsc::Receiver<Request>,
    waiters: &Waiters,
    heartbeat: Duration,
) -> Result<(), Failure> {
    let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
    let mut numbers = (1..=i32::MAX).cycle();
    loop {
        let frame = tokio::select! {
            request = queue.recv() => match request {
                Some(request) => frame(request, numbers.next().unwrap_or(1), waiters),
                None => break,
            },
            _ = beats.tick() => {
                Message::default().int(number::PING).int(operation::PING).into_frame()
            }
        };
        writer.write_all(&frame).await.map_err(|_| Failure::Lost)?;
        if queue.is_empty() {
            writer.flush().await.map_err(|_| Failure::Lost)?;
        }
    }
    let (answer, _nobody) = oneshot::channel();
    let (operation, message) = (operation::CLOSE_SESSION, Message::default());
    let request = Request { operation, message, bytes_max: 0, answer };
    let frame = frame(request, numbers.next().unwrap_or(1), waiters);
    writer.write_all(&frame).await.map_err(|_| Failure::Lost)?;
    writer.flush().await.map_err(|_| Failure::Lost)?;
    // The server closes the stream, which ends the other side of it.
    sleep(CLOSE_PATIENCE).await;
    Ok(())
}

fn frame(request: Request, number: i32, waiters: &Waiters) -> Vec<u8> {
    let Request { operation, message, bytes_max, answer } = request;
    let waiter = Waiter { number, asked: Instant::now(), bytes_max, answer };
    waiters.add(waiter);
    Message::default().int(number).int(operation).part(&message).into_frame()
}

async fn receive(
    mut reader: impl AsyncRead + Unpin,
    waiters: &Waiters,
    events: &watch::Sender<u64>,
    silence: Duration,
) -> Result<(), Failure> {
    loop {
        let mut head = [0; HEAD_BYTES as usize];
        let read = timeout(silence, reader.read_exact(&mut head)).await;
        read.map_err(|_| Failure::Silent(silence))?.map_err(|_| Failure::Lost)?;
        let mut fields = Fields::of(&head);
        let (length, number) = (fields.int()?, fields.int()?);
        let (moment, code) = (fields.long()?.cast_unsigned(), fields.int()?);
        let bytes =
            u64::try_from(length).ok().and_then(|length| (length + 4).checked_sub(HEAD_BYTES));
        let bytes = bytes.filter(|bytes| *bytes <= ANSWER_BYTES_MAX).ok_or(Garbled)?;
        let waiter = match number {
            number::PING | number::AUTH | number::EVENT => None,
            _ => Some(waiters.next(number)?),
        };
        let bytes_max = waiter.as_ref().map_or(0, |waiter| waiter.bytes_max);
        let body = timeout(silence, read_body(&mut reader, bytes, bytes_max)).await;
        let body = body.map_err(|_| Failure::Silent(silence))?.map_err(|_| Failure::Lost)?;
        match waiter {
            None if number == number::EVENT => events.send_modify(|count| *count += 1),
            None => {}
            Some(waiter) => {
                waiters.answered();
                let answered = match body {
                    _ if code != 0 => Err(Failure::refused(code)),
                    Some(body) => Ok(Answer { moment, body }),
                    None => Err(Failure::TooLarge { bytes, bytes_max }),
                };
                // Whoever asked may have gone.
                let _ = waiter.answer.send(answered);
            }
        }
    }
}

/// The next `bytes`; none when they are more than wanted: then they are read over.
async fn read_body(
    reader: &mut (impl AsyncRead + Unpin),
    bytes: u64,
    bytes_max: u64,
) -> io::Result<Option<Vec<u8>>> {
    if bytes > bytes_max {
        let mut rest = reader.take(bytes);
        let skipped = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        let is_whole = skipped == bytes;
        return if is_whole { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
    }
    let mut body = vec![0; bytes as usize];
    reader.read_exact(&mut body).await?;
    Ok(Some(body))
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// How exact a clock is that jumps.
    const AT_ONCE: Duration = Duration::from_millis(10);
    /// The lives of sessions, in milliseconds: with usual settings, and with the longest.
    const LIVES_MS: [i32; 2] = [4_000, 40_000];

    async fn read_request(stream: &mut DuplexStream) -> Option<(i32, i32)> {
        let length = stream.read_i32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut frame).await.ok()?;
        let mut fields = Fields::of(&frame);
        Some((fields.int().unwrap(), fields.int().unwrap()))
    }

    /// Gives a session.
    async fn let_in(stream: &mut DuplexStream, life_ms: i32) {
        read_request(stream).await.unwrap();
        let hello = Message::default().int(0).int(life_ms).long(7).bytes(&[0; 16]);
        stream.write_all(&hello.into_frame()).await.unwrap();
    }

    /// Gives a session, answers signs of life, and the first `answers` of all else.
    async fn half_dead(mut stream: DuplexStream, mut answers: usize) {
        let_in(&mut stream, LIVES_MS[0]).await;
        while let Some((number, operation)) = read_request(&mut stream).await {
            if operation != operation::PING {
                if answers == 0 {
                    continue;
                }
                answers -= 1;
            }
            let answer = Message::default().int(number).long(1).int(0).into_frame();
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }

    async fn connected(answers: usize) -> Connection {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(half_dead(theirs, answers));
        Connection::open(Box::new(ours), None, None).await.unwrap()
    }

    // It was kept for ever, and everything that was asked over it failed.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_only_gives_signs_of_life_is_given_up() {
        for answers in [0, 2] {
            let connection = connected(answers).await;
            for _ in 0..answers {
                connection.ask(operation::SYNC, Message::default()).await.unwrap();
            }
            let began = Instant::now();
            let asked = connection.ask(operation::SYNC, Message::default()).await;
            assert!(matches!(asked, Err(Failure::Lost)), "{asked:?}");
            let took = began.elapsed();
            assert!((ANSWER_PATIENCE..=ANSWER_PATIENCE + AT_ONCE).contains(&took), "{took:?}");
            assert!(!connection.is_open());
        }
    }

    // With a session of 40 s it was kept for 27 s.
    #[tokio::test(start_paused = true)]
    async fn a_connection_over_which_nothing_comes_is_given_up_however_long_its_session_lives() {
        for life_ms in LIVES_MS {
            let (ours, mut theirs) = tokio::io::duplex(1 << 16);
            tokio::spawn(async move {
                let_in(&mut theirs, life_ms).await;
                while read_request(&mut theirs).await.is_some() {}
            });
            let connection = Connection::open(Box::new(ours), None, None).await.unwrap();
            let began = Instant::now();
            let asked = connection.ask(operation::SYNC, Message::default()).await;
            assert!(matches!(asked, Err(Failure::Lost)), "{asked:?}");
            assert!(began.elapsed() <= SILENCE_MAX + AT_ONCE, "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_over_which_nothing_is_asked_stays() {
        let connection = connected(1).await;
        sleep(Duration::from_secs(60)).await;
        connection.ask(operation::SYNC, Message::default()).await.unwrap();
        assert!(connection.is_open());
    }
}
