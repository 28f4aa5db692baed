//! A ZooKeeper of one server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::certificates::Certificates;
use super::daemon::{command_of, shared};
use super::local::{LocalService, is_local_service};

const SCRIPT: &str = "zookeeper.sh";

/// How a ZooKeeper is started.
#[derive(Debug, Clone)]
pub struct ZooKeeperOptions {
    /// Its tick: sessions end at a multiple of it, and live at least two of it.
    pub tick: Duration,
    /// Memory for what it keeps, in MiB, if not what the tests have it start with.
    pub heap_mib: Option<u64>,
    /// With these it listens with TLS as well, and wants certificates of its clients.
    pub certificates: Option<Arc<Certificates>>,
}

impl Default for ZooKeeperOptions {
    /// As most are.
    fn default() -> Self {
        Self { tick: Duration::from_secs(2), heap_mib: None, certificates: None }
    }
}

/// A running server.
#[derive(Debug)]
pub struct ZooKeeper {
    service: LocalService,
}

is_local_service!(ZooKeeper);

static SHARED: Mutex<Weak<ZooKeeper>> = Mutex::new(Weak::new());

impl ZooKeeper {
    /// The server that all tests of a process share; it is neither killed nor wiped.
    /// None where ZooKeeper cannot be had.
    pub fn shared() -> Option<Arc<Self>> {
        shared(&SHARED, || Self::start(&ZooKeeperOptions::default()))
    }

    /// Starts a server, and returns when it answers. None where ZooKeeper cannot be had.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn start(options: &ZooKeeperOptions) -> Option<Self> {
        let mut command = command_of(SCRIPT, &[])?;
        if let Some(heap_mib) = options.heap_mib {
            let heap = command.iter_mut().find(|word| word.starts_with("-Xmx"));
            *heap.expect("the script says how much memory") = format!("-Xmx{heap_mib}m");
        }
        let answers = |address| ask_version(address).is_some();
        let mut service = LocalService::new("ZooKeeper", command, answers);
        // Nodes may be larger than usual: what reads them is tested with such.
        service.set("JDK_JAVA_OPTIONS", "-Djute.maxbuffer=8388608");
        let mut settings = format!(
            "tickTime={}\nclientPort={}\nclientPortAddress=127.0.0.1\ndataDir={}\n\
             admin.enableServer=false\n4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n",
            options.tick.as_millis(),
            service.address().port(),
            service.folder().join("data").display(),
        );
        if let Some(certificates) = &options.certificates {
            settings += &tls_settings(&mut service, certificates);
        }
        let file = service.write("zoo.cfg", settings);
        service.say([file.display().to_string()]);
        service.start_again();
        let version = ask_version(service.address()).expect("it just answered");
        service.is_of_version(version);
        Some(Self { service })
    }
}

fn ask_version(address: SocketAddr) -> Option<String> {
    let limit = Some(Duration::from_secs(1));
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(limit).ok()?;
    stream.write_all(b"srvr").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let version = text.strip_prefix("Zookeeper version: ")?.split(['-', ',']).next()?;
    Some(version.to_owned())
}

/// Only netty takes TLS.
fn tls_settings(service: &mut LocalService, certificates: &Certificates) -> String {
    let read = |path: PathBuf| fs::read_to_string(path).expect("it was just made");
    let (certificate, key) = certificates.server();
    let pair = service.write("server.pem", read(certificate) + &read(key));
    let port = service.listens_with_tls();
    let mut settings = format!(
        "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
         serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
         ssl.clientAuth=need\n"
    );
    for (setting, path) in [("keyStore", pair), ("trustStore", certificates.authority())] {
        let path = path.display();
        settings += &format!("ssl.{setting}.location={path}\nssl.{setting}.type=PEM\n");
    }
    settings
}
