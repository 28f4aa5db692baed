//! One server that says nothing, though it was connected to: others are asked.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::doors::{Doors, Frame, bytes, holding, open, until_used, used_bytes};
use futures_util::future::BoxFuture;
use rampuddle_client::{Client, GetOptions, PutOptions};
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

const MIB: usize = 1 << 20;
/// How long the client would wait for a server that moves no byte.
const CLIENT_PATIENCE: Duration = Duration::from_secs(90);

async fn patient(doors: &Doors) -> Client {
    let mut options = doors.options();
    options.patience = CLIENT_PATIENCE;
    Client::connect(options).await.unwrap()
}

#[tokio::test]
async fn an_object_with_two_copies_is_read_at_once_beside_a_silent_server_and_nothing_stays_held() {
    let doors = Doors::start(3, 256 << 20).await;
    for silent in 0..3 {
        let client = patient(&doors).await;
        let content = bytes(12 * MIB, silent as u64);
        client.put(b"o", content.clone(), &PutOptions::default()).await.unwrap();
        client.put(b"small", content[..5_000].to_vec(), &PutOptions::default()).await.unwrap();
        let mut room = vec![0; 12 * MIB];
        let mut read = async |name: &[u8], content: &[u8]| {
            let room = &mut room[..content.len()];
            room.fill(0);
            let report = client.get_into(name, room, &GetOptions::default()).await.unwrap();
            assert!(report.is_some() && room == content);
        };
        // So that there are connections to all.
        read(b"o", &content).await;
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        doors.set(holding(move |frame| frame.server == silent, &came, &may_go));
        let began = Instant::now();
        for _ in 0..4 {
            read(b"o", &content).await;
            read(b"small", &content[..5_000]).await;
        }
        assert!(came.available_permits() > 0, "server {silent} was not asked at all");
        assert!(began.elapsed() < CLIENT_PATIENCE / 3, "{:?}", began.elapsed());
        may_go.close();
        doors.set(open());
    }
    // Holds that came late were let go of, too: what is replaced gives way.
    let other = doors.client().await;
    other.put(b"o", "new", &PutOptions::default()).await.unwrap();
    until_used(&other, 4 * 65_536).await;
}

#[tokio::test]
async fn an_object_with_two_copies_is_streamed_at_once_beside_a_silent_server() {
    let doors = Doors::start(3, 256 << 20).await;
    let folder = tempfile::TempDir::new().unwrap();
    let (path, options) = (folder.path().join("file"), GetOptions::default());
    let content = bytes(24 * MIB + 5, 1);
    for silent in 0..3 {
        let client = patient(&doors).await;
        client.put(b"o", content.clone(), &PutOptions::default()).await.unwrap();
        let mut first = Vec::new();
        client.get_to(b"o", &mut first, None, &options).await.unwrap().unwrap();
        let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let asks = |frame: &Frame| frame.asks_for_a_stripe();
        doors.set(holding(move |frame| frame.server == silent && asks(frame), &came, &may_go));
        let began = Instant::now();
        for _ in 0..2 {
            let mut stream = Vec::new();
            let report = client.get_to(b"o", &mut stream, None, &options).await.unwrap().unwrap();
            assert!(stream == content);
            let silent = format!("s{silent}");
            assert!(report.served.iter().all(|(server, bytes)| *server != silent || *bytes == 0));
            let report = client.get_to_file(b"o", &path, None, &options).await.unwrap().unwrap();
            assert_eq!(report.bytes, content.len() as u64);
            assert!(std::fs::read(&path).unwrap() == content);
            let (range, mut stream) = (5 * MIB + 7..17 * MIB, Vec::new());
            let asked = Some(range.start as u64..range.end as u64);
            client.get_to(b"o", &mut stream, asked, &options).await.unwrap().unwrap();
            assert!(stream == content[range]);
        }
        assert!(came.available_permits() > 0, "server {silent} was not asked at all");
        assert!(began.elapsed() < CLIENT_PATIENCE / 3, "{:?}", began.elapsed());
        may_go.close();
        doors.set(open());
    }
}

/// Takes what comes, and nothing more until it is let.
struct Closed {
    /// Told when there is something to take.
    offered: Arc<Notify>,
    taken: Arc<AtomicU64>,
    may_go: Arc<Semaphore>,
    waits: Option<BoxFuture<'static, ()>>,
}

impl AsyncWrite for Closed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.offered.notify_one();
        let may_go = Arc::clone(&self.may_go);
        let wait = async move { may_go.acquire().await.map_or((), SemaphorePermit::forget) };
        let waits = self.waits.get_or_insert_with(|| Box::pin(wait));
        ready!(waits.as_mut().poll(context));
        self.waits = None;
        self.taken.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn nothing_is_asked_twice_for_a_writer_that_has_enough_to_do() {
    let doors = Doors::start(3, 256 << 20).await;
    let client = patient(&doors).await;
    let content = bytes(24 * MIB, 1);
    client.put(b"o", content.clone(), &PutOptions::default()).await.unwrap();
    // The first piece, which the writer waits for until it is in, passes however often
    // it is asked for. Of the others six pass, so that there is something to compare
    // with; all that follow stand at the door.
    let asked = Arc::new(AtomicU64::new(0));
    let (came, may_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let counted = Arc::clone(&asked);
    let is_late = move |frame: &Frame| {
        let is_other = frame.asks_for_a_stripe() && !frame.asks_for_the_first_bytes();
        is_other && counted.fetch_add(1, Ordering::SeqCst) >= 6
    };
    doors.set(holding(is_late, &came, &may_go));
    let (taken, may_write) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let (offered, may_take) = (Arc::new(Notify::new()), Arc::clone(&may_write));
    let writer = Closed {
        offered: Arc::clone(&offered),
        taken: Arc::clone(&taken),
        may_go: may_take,
        waits: None,
    };
    let reader = client.clone();
    let stream = tokio::spawn(async move {
        let mut writer = writer;
        reader.get_to(b"o", &mut writer, None, &GetOptions::default()).await
    });
    came.acquire().await.unwrap().forget();
    offered.notified().await;
    // The writer has taken nothing yet: however long the others take, it waits for none.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        used_bytes(&client).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 7, "as many as are read at once, but for the first");
    may_write.close();
    may_go.close();
    assert_eq!(stream.await.unwrap().unwrap().unwrap().bytes, content.len() as u64);
    assert_eq!(taken.load(Ordering::SeqCst), content.len() as u64);
}
