//! A cluster in this process whose every server stands behind a door: frames of
//! clients pass one by one, and a test may look at each, keep it waiting, or cut
//! its connection.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use rampuddle_client::{Client, Options, Slot};
use rampuddle_protocol::{CreateRow, GatherRow, Header, Opcode, Table, TouchRow};
use rampuddle_server::{Options as ServerOptions, Server, Stopper};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long a test waits for something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// First byte of the key of an object's head.
const HEAD: u8 = 0xF8;
/// First byte of the key of a stripe.
const STRIPE: u8 = 0xF9;
/// Where the stripe's number begins in its key, behind that byte and the upload.
const STRIPE_NUMBER_AT: usize = 17;

/// A frame at the door of a server.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// The server's number.
    pub(crate) server: usize,
    pub(crate) opcode: Opcode,
    header: Header,
    table: Vec<u8>,
}

impl Frame {
    /// Whether it makes an object visible.
    pub(crate) fn writes_a_head(&self) -> bool {
        let starts = |key: &[u8]| key.first() == Some(&HEAD);
        self.opcode == Opcode::Create
            && self.creates().iter().next().is_some_and(|(_, key, _)| starts(key))
    }

    /// Whether it does so only in the place of a version.
    pub(crate) fn writes_a_head_on_condition(&self) -> bool {
        self.writes_a_head() && self.creates().iter().any(|(row, ..)| !row.if_version.is_none())
    }

    /// Length of its payload.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.header.payload_bytes
    }

    /// Whether it writes a stripe.
    pub(crate) fn writes_a_stripe(&self) -> bool {
        let starts = |key: &[u8]| key.first() == Some(&STRIPE);
        self.opcode == Opcode::Create
            && self.creates().iter().next().is_some_and(|(_, key, _)| starts(key))
    }

    /// Whether it makes stripes permanent.
    pub(crate) fn makes_permanent(&self) -> bool {
        self.touches(|row| row.lease_ms == 0)
    }

    /// Whether it is a Touch with such a row.
    pub(crate) fn touches(&self, which: impl Fn(&TouchRow) -> bool) -> bool {
        self.opcode == Opcode::Touch
            && Table::<TouchRow>::parse(&self.header, &self.table)
                .unwrap()
                .iter()
                .any(|(row, ..)| which(&row))
    }

    /// Whether it reads a stripe.
    pub(crate) fn asks_for_a_stripe(&self) -> bool {
        self.rows_that_read(STRIPE) > 0
    }

    /// Whether it reads other stripes than the first of an object.
    pub(crate) fn asks_for_a_later_stripe(&self) -> bool {
        let is_later = |key: &[u8]| key.iter().skip(STRIPE_NUMBER_AT).any(|byte| *byte != 0);
        self.asks_for_a_stripe() && self.gathers().iter().any(|(_, key, _)| is_later(key))
    }

    /// Whether it reads the first bytes of an object's stripes.
    pub(crate) fn asks_for_the_first_bytes(&self) -> bool {
        let is_first = |row: &GatherRow| row.offset == 0;
        self.asks_for_a_stripe()
            && !self.asks_for_a_later_stripe()
            && self.gathers().iter().any(|(row, ..)| is_first(&row))
    }

    /// How many of its rows read heads.
    pub(crate) fn heads_asked_for(&self) -> usize {
        self.rows_that_read(HEAD)
    }

    /// How many of its rows read from stripes.
    pub(crate) fn stripes_asked_for(&self) -> usize {
        self.rows_that_read(STRIPE)
    }

    fn rows_that_read(&self, kind: u8) -> usize {
        if self.opcode != Opcode::Gather {
            return 0;
        }
        self.gathers().iter().filter(|(_, key, _)| key.first() == Some(&kind)).count()
    }

    fn gathers(&self) -> Table<'_, GatherRow> {
        Table::parse(&self.header, &self.table).expect("the client sends sound frames")
    }

    fn creates(&self) -> Table<'_, CreateRow> {
        Table::parse(&self.header, &self.table).expect("the client sends sound frames")
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// Its connection is closed, the frame never arrives.
    Cut,
    /// It arrives; its connection is closed in place of the answer.
    Unanswered,
}

/// Decides on each frame, in its own time.
pub(crate) type Rule = Arc<dyn Fn(Frame) -> BoxFuture<'static, Verdict> + Send + Sync>;

/// A rule that decides at once.
pub(crate) fn at_once(decide: impl Fn(&Frame) -> Verdict + Send + Sync + 'static) -> Rule {
    Arc::new(move |frame| {
        let verdict = decide(&frame);
        Box::pin(async move { verdict })
    })
}

/// Counts the frames that `which` names, and keeps them waiting until `may_go` is
/// closed.
pub(crate) fn holding(
    which: impl Fn(&Frame) -> bool + Send + Sync + 'static,
    came: &Arc<Semaphore>,
    may_go: &Arc<Semaphore>,
) -> Rule {
    let (came, may_go) = (Arc::clone(came), Arc::clone(may_go));
    Arc::new(move |frame| {
        let (came, may_go, is_held) = (Arc::clone(&came), Arc::clone(&may_go), which(&frame));
        Box::pin(async move {
            if is_held {
                came.add_permits(1);
                let _ = may_go.acquire().await;
            }
            Verdict::Pass
        })
    })
}

/// Cuts the connections of a server on the frames that `which` names.
pub(crate) fn cut(server: usize, which: impl Fn(&Frame) -> bool + Send + Sync + 'static) -> Rule {
    at_once(move |frame| match frame.server == server && which(frame) {
        true => Verdict::Cut,
        false => Verdict::Pass,
    })
}

/// Lets everything pass.
pub(crate) fn open() -> Rule {
    at_once(|_| Verdict::Pass)
}

/// Servers `s0`, `s1`, ..., each behind a door.
pub(crate) struct Doors {
    list: String,
    rule: Arc<Mutex<Rule>>,
    servers: Vec<(Stopper, JoinHandle<()>)>,
}

impl Doors {
    pub(crate) async fn start(count: usize, pool_bytes: u64) -> Self {
        let rule = Arc::new(Mutex::new(open()));
        let (mut entries, mut servers) = (Vec::new(), Vec::new());
        for index in 0..count {
            let name = format!("s{index}");
            let server = Server::bind(ServerOptions::new(&name, "test", pool_bytes)).unwrap();
            let address = server.local_address().unwrap().to_string();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            entries.push(format!("{name}={}", listener.local_addr().unwrap()));
            tokio::spawn(stand_at(index, listener, address, Arc::clone(&rule)));
            let stopper = server.stopper();
            servers.push((stopper, std::thread::spawn(move || server.run().unwrap())));
        }
        Self { list: entries.join(","), rule, servers }
    }

    /// Another rule, for frames that come from now on.
    pub(crate) fn set(&self, rule: Rule) {
        *self.rule.lock().unwrap() = rule;
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(format!("static:{}", self.list));
        options.cluster = "test".into();
        options
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.servers.iter().for_each(|(stopper, _)| stopper.stop());
        for (_, thread) in self.servers.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a server must never panic");
        }
    }
}

async fn stand_at(server: usize, listener: TcpListener, address: String, rule: Arc<Mutex<Rule>>) {
    while let Ok((client, _)) = listener.accept().await {
        let (address, rule) = (address.clone(), Arc::clone(&rule));
        tokio::spawn(async move {
            // Whatever ends one direction ends both.
            let _ = converse(server, client, &address, &rule).await;
        });
    }
}

async fn converse(
    server: usize,
    client: TcpStream,
    address: &str,
    rule: &Mutex<Rule>,
) -> io::Result<()> {
    let upstream = TcpStream::connect(address).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = upstream.into_split();
    let is_deaf = &AtomicBool::new(false);
    let requests = async {
        loop {
            let mut head = vec![0; Header::BYTES];
            from_client.read_exact(&mut head).await?;
            let header = Header::parse(&head).expect("the client sends sound frames");
            head.resize(header.head_bytes(), 0);
            from_client.read_exact(&mut head[Header::BYTES..]).await?;
            let opcode = header.operation().expect("the client sends known operations");
            let frame = Frame { server, opcode, header, table: header.table(&head).to_vec() };
            let decide = Arc::clone(&*rule.lock().unwrap());
            match decide(frame).await {
                Verdict::Pass => {}
                Verdict::Cut => return Err(io::ErrorKind::ConnectionReset.into()),
                Verdict::Unanswered => is_deaf.store(true, Ordering::SeqCst),
            }
            to_server.write_all(&head).await?;
            let mut payload = (&mut from_client).take(header.payload_bytes);
            tokio::io::copy(&mut payload, &mut to_server).await?;
        }
    };
    let answers = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = from_server.read(&mut bytes).await?;
            if count == 0 || is_deaf.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            to_client.write_all(&bytes[..count]).await?;
        }
    };
    tokio::select! {
        ended = requests => ended,
        ended = answers => ended,
    }
}

/// The key of an object's head.
pub(crate) fn head_key(name: &str) -> Vec<u8> {
    [&[HEAD], name.as_bytes()].concat()
}

/// The servers' numbers by their rank for an object's head.
pub(crate) fn ranks(client: &Client, name: &str) -> Vec<usize> {
    let slot = Slot::of(&head_key(name), 0);
    let view = client.view();
    let number = |name: &&Arc<str>| name[1..].parse().expect("servers are called s and a number");
    view.ranks(slot).iter().map(number).collect()
}

/// What all servers have in use, and under way.
pub(crate) async fn used_bytes(client: &Client) -> u64 {
    let nodes = client.nodes().await;
    let rows = nodes.iter().map(|node| node.info.as_ref().expect("all servers answer").row);
    rows.map(|row| row.used_bytes + row.reserved_bytes).sum()
}

/// Waits until so much is in use.
pub(crate) async fn until_used(client: &Client, bytes: u64) {
    let began = Instant::now();
    loop {
        let used = used_bytes(client).await;
        if used == bytes {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{used} bytes are used, not {bytes}");
    }
}

/// Bytes that no other object has.
pub(crate) fn bytes(length: usize, salt: u64) -> Vec<u8> {
    let mut state = salt.wrapping_mul(2).wrapping_add(1);
    let mut bytes = vec![0; length];
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    bytes
}
