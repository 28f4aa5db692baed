//! A client of ZooKeeper for tests: it does to nodes what other programs might. It knows
//! nothing of the client that is tested.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const CLOSE_SESSION: i32 = -11;

const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A session of a server with the usual settings lives at most so long without a sign of
/// life; none is sent here.
const SESSION_MS: i32 = 40_000;

/// A session of its own. It ends when dropped, and with it its ephemeral nodes.
#[derive(Debug)]
pub struct ZooKeeperClient {
    stream: TcpStream,
    number: i32,
}

impl ZooKeeperClient {
    /// A new session.
    ///
    /// # Panics
    /// When the server does not give one.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("ZooKeeper listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("the socket is ours");
        stream.set_nodelay(true).expect("the socket is ours");
        let mut client = Self { stream, number: 0 };
        let mut hello = Vec::new();
        hello.extend(0_i32.to_be_bytes());
        hello.extend(0_i64.to_be_bytes());
        hello.extend(SESSION_MS.to_be_bytes());
        hello.extend(0_i64.to_be_bytes());
        hello.extend(16_i32.to_be_bytes());
        hello.extend([0; 17]);
        client.send(&hello);
        let answer = client.receive();
        assert!(answer[4..8] != [0; 4], "ZooKeeper gives no session");
        client
    }

    /// Makes a node hold these bytes: a node of this session if `is_ephemeral` and it is
    /// not there, else one that stays. Nodes above it are created.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn put(&mut self, path: &str, data: &[u8], is_ephemeral: bool) {
        for (end, _) in path.match_indices('/').skip(1) {
            self.create(&path[..end], &[], false);
        }
        if !self.create(path, data, is_ephemeral) {
            let mut body = text(path);
            body.extend(bytes(data));
            body.extend((-1_i32).to_be_bytes());
            assert_eq!(self.ask(SET_DATA, &body).0, 0, "{path}");
        }
    }

    /// What a node holds, and the session that it ends with; 0 for none.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn get(&mut self, path: &str) -> Option<(Vec<u8>, i64)> {
        let mut body = text(path);
        body.push(0);
        let (code, answer) = self.ask(GET_DATA, &body);
        if code == NO_NODE {
            return None;
        }
        assert_eq!(code, 0, "{path}");
        let length = i32::from_be_bytes(answer[..4].try_into().expect("4 bytes"));
        let (data, stat) = answer[4..].split_at(usize::try_from(length).unwrap_or(0));
        let owner = stat[44..52].try_into().expect("8 bytes");
        Some((data.to_vec(), i64::from_be_bytes(owner)))
    }

    /// The code of the server's answer to a look at a node: 0 when it may be read.
    pub fn code_of_get(&mut self, path: &str) -> i32 {
        let mut body = text(path);
        body.push(0);
        self.ask(GET_DATA, &body).0
    }

    /// Removes a node, whatever it holds.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn delete(&mut self, path: &str) {
        let mut body = text(path);
        body.extend((-1_i32).to_be_bytes());
        assert_eq!(self.ask(DELETE, &body).0, 0, "{path}");
    }

    fn create(&mut self, path: &str, data: &[u8], is_ephemeral: bool) -> bool {
        let mut body = text(path);
        body.extend(bytes(data));
        body.extend(1_i32.to_be_bytes());
        body.extend(31_i32.to_be_bytes());
        body.extend(text("world"));
        body.extend(text("anyone"));
        body.extend(i32::from(is_ephemeral).to_be_bytes());
        let code = self.ask(CREATE, &body).0;
        assert!(code == 0 || code == NODE_EXISTS, "{path}: {code}");
        code == 0
    }

    fn ask(&mut self, operation: i32, body: &[u8]) -> (i32, Vec<u8>) {
        self.number += 1;
        let head = [self.number.to_be_bytes(), operation.to_be_bytes()].concat();
        self.send(&[&head, body].concat());
        let answer = self.receive();
        assert_eq!(answer[..4], self.number.to_be_bytes(), "an answer to another question");
        let code = i32::from_be_bytes(answer[12..16].try_into().expect("4 bytes"));
        (code, answer[16..].to_vec())
    }

    fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(&bytes(frame)).expect("ZooKeeper reads");
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("ZooKeeper answers");
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).expect("ZooKeeper answers");
        frame
    }
}

impl Drop for ZooKeeperClient {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ask(CLOSE_SESSION, &[]);
        }
    }
}

fn bytes(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("a short text");
    [&length.to_be_bytes(), data].concat()
}

fn text(text: &str) -> Vec<u8> {
    bytes(text.as_bytes())
}
