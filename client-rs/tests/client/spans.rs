//! A span for each operation, for whoever listens.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use rampuddle_client::{CompareOptions, GetOptions, PutOptions, VerifyOptions};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::objects::Cluster;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines that ended a span of this client, and empties the log.
    fn closed(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        let lines = text.lines().filter(|line| line.contains(": close"));
        lines.map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn each_operation_is_a_span_with_its_name_its_bytes_and_how_it_ended() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("rampuddle_client=debug")
        .with_span_events(FmtSpan::CLOSE)
        .with_ansi(false)
        .without_time()
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .finish();
    // With a single subscriber tracing asks only the thread that comes to a span first
    // whether anybody wants it, and that may be another test's.
    let _another = tracing::Dispatch::new(tracing_subscriber::registry());
    // For this thread, on which the whole test runs.
    let _guard = tracing::subscriber::set_default(subscriber);
    let cluster = Cluster::start(2, 64 << 20);
    let client = cluster.client().await;
    let (get, put) = (GetOptions::default(), PutOptions::default());
    let name = b"o\x1b\xff";
    client.put(name, vec![1; 3_000], &put).await.unwrap();
    client.get(name, &get).await.unwrap().unwrap();
    client.get_range(name, 5..10, &get).await.unwrap().unwrap();
    client.stat(name).await.unwrap().unwrap();
    client.locate(name).await.unwrap().unwrap();
    let mut listing = client.list(b"o");
    while let Some(stat) = listing.next().await {
        stat.unwrap();
    }
    drop(listing);
    client.compare(name, vec![1; 3_000], &CompareOptions::default()).await.unwrap();
    let mut verification = client.verify(b"o", &VerifyOptions::default());
    while let Some(verified) = verification.next().await {
        verified.unwrap();
    }
    drop(verification);
    client.orphans().await.unwrap();
    client.delete(name).await.unwrap();
    client.get(name, &get).await.unwrap();
    client.put(b"", "x", &put).await.unwrap_err();
    let lines = log.closed();
    let wanted = [
        "put{name=o\\x1b\\xff bytes=3000 outcome=done}",
        "get{name=o\\x1b\\xff bytes=3000 outcome=done}",
        "get_range{name=o\\x1b\\xff bytes=5 outcome=done}",
        "stat{name=o\\x1b\\xff outcome=done}",
        "locate{name=o\\x1b\\xff outcome=done}",
        "list{name=o outcome=done}",
        "compare{name=o\\x1b\\xff outcome=done}",
        "verify{name=o outcome=done}",
        "orphans{name= outcome=done}",
        "delete{name=o\\x1b\\xff outcome=done}",
        "get{name=o\\x1b\\xff outcome=absent}",
        "put{name= outcome=failed}",
    ];
    assert_eq!(lines.len(), wanted.len(), "{lines:#?}");
    for (line, wanted) in lines.iter().zip(wanted) {
        assert!(line.contains(wanted), "wanted {wanted}: {line}");
        assert!(line.contains("DEBUG") && !line.contains('\x1b'), "{line}");
    }
}
