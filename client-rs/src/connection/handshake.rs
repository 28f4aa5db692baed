//! From a socket to a connection: hello both ways, and proof of a token.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use rampuddle_protocol::limits::HELLO_FRAME_BYTES;
use rampuddle_protocol::{
    ClientHello, FrameFlags, Header, Nonce, Opcode, Proof, ProofAnswer, ProofInput, Role,
    ServerHello, SessionId, Status, prove, verify,
};

use super::{Activity, Connection, Failure, Grants, Greeting, INBOX_BYTES, Pace, Waited};
use crate::deadline::Deadline;
use crate::environment::Environment;
use crate::error::{Error, Misbehaviour};
use crate::offsets::offset_between;
use crate::placement::Placing;
use crate::token::Token;
use crate::transport::{Address, Stream};

const GREETING: &str = "shaking hands";

/// Who the client is, and whom it means to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Introduction<'a> {
    pub(crate) server: &'a Arc<str>,
    pub(crate) cluster: &'a Arc<str>,
    pub(crate) session: SessionId,
    pub(crate) token: Option<&'a Token>,
    pub(crate) environment: &'a Environment,
    pub(crate) patience: Duration,
    pub(crate) deadline: Deadline,
    /// What keys are placed by; `None` = nothing will be placed.
    pub(crate) placing: Option<&'a Placing>,
    /// Counts the bytes that move.
    pub(crate) activity: &'a Arc<Activity>,
    /// Connections that the client uses now.
    pub(crate) in_use: &'a Arc<AtomicUsize>,
}

impl Connection {
    /// Shakes hands over a fresh socket.
    ///
    /// # Errors
    /// When the server is another one, of another cluster or another version,
    /// was told other cluster settings, refuses, wants a token or does not know
    /// the client's, breaks the protocol, or does not answer in time. Nothing
    /// was applied.
    pub(crate) async fn open(
        stream: Stream,
        address: Arc<Address>,
        introduction: Introduction<'_>,
    ) -> Result<Self, Error> {
        let mut connection = Self::unopened(stream, address, &introduction);
        let clock = &introduction.environment.clock;
        let nonce = Nonce(introduction.environment.unguessable());
        let (version_min, version_max) = (Header::VERSION, Header::VERSION);
        let hello = ClientHello {
            version_min,
            version_max,
            nonce,
            session: introduction.session,
            settings: connection.greeting.settings,
            ..Default::default()
        };

        let asked_ms = clock.unix_ms();
        hello.frame(introduction.cluster, introduction.server, &mut connection.out);
        let header = connection.exchange(Opcode::Hello).await?;
        let answered_ms = clock.unix_ms();
        let answer = connection.welcome(&header, &introduction)?;
        let Some(offset_ms) = offset_between(asked_ms, answered_ms, answer.clock_unix_ms) else {
            let after = Duration::from_millis(asked_ms.abs_diff(answered_ms));
            return Err(connection.waited(Waited::Patience(after), GREETING));
        };
        connection.greeting.clock_offset_ms = offset_ms;
        connection.prove(&hello, &answer, &introduction).await?;
        connection.written = 0;
        Ok(connection)
    }

    fn unopened(stream: Stream, address: Arc<Address>, introduction: &Introduction<'_>) -> Self {
        let nothing = ServerHello::default();
        Self {
            stream,
            server: Arc::clone(introduction.server),
            address,
            greeting: Greeting {
                settings: introduction.placing.map_or(0, |placing| placing.fingerprint),
                incarnation: nothing.incarnation,
                store_id: nothing.store_id,
                mark_age_ms: u64::MAX,
                role: None,
                clock_offset_ms: 0,
                grants: Grants::default(),
            },
            patience: introduction.patience,
            deadline: introduction.deadline,
            activity: Arc::clone(introduction.activity),
            in_use: Arc::clone(introduction.in_use),
            out: Vec::with_capacity(HELLO_FRAME_BYTES),
            queued_payload: 0,
            written: 0,
            outstanding: Vec::new(),
            next_request_id: 1,
            inbox: vec![0; INBOX_BYTES].into_boxed_slice(),
            inbox_start: 0,
            inbox_end: 0,
            head: Vec::new(),
            header: Header::default(),
            payload_left: 0,
            takes_descriptor: false,
            descriptor: None,
            pace: Pace::default(),
            is_intact: true,
            failure: None,
        }
    }

    /// Sends the frame queued and receives the other side's, of exactly 256 bytes.
    async fn exchange(&mut self, opcode: Opcode) -> Result<Header, Error> {
        self.flush().await?;
        self.is_intact = false;
        self.pace = Pace::default();
        while self.buffered() < Header::BYTES {
            self.fill_inbox(GREETING).await?;
        }
        let start = &self.inbox[self.inbox_start..self.inbox_end];
        let header = Header::parse(start).map_err(|error| self.misbehaved(error))?;
        if header.head_bytes() != HELLO_FRAME_BYTES
            || header.payload_bytes != 0
            || header.opcode != opcode as u8
            || !header.flags.has(FrameFlags::ANSWER)
        {
            return Err(self.misbehaved(Misbehaviour::Handshake));
        }
        self.receive_rest_of_head(HELLO_FRAME_BYTES).await?;
        header.check(&self.head).map_err(|error| self.misbehaved(error))?;
        if self.buffered() > 0 {
            return Err(self.misbehaved(Misbehaviour::UnexpectedBytes));
        }
        self.is_intact = true;
        Ok(header)
    }

    /// Checks that the server is the one meant, and takes what it grants.
    fn welcome(
        &mut self,
        header: &Header,
        introduction: &Introduction<'_>,
    ) -> Result<ServerHello, Error> {
        let parsed = ServerHello::parse(header, header.table(&self.head));
        let (hello, name) = match parsed {
            Ok((hello, name)) => (hello, name.to_vec()),
            Err(error) => return Err(self.misbehaved(error)),
        };
        let status = Status::from_number(header.status).unwrap_or(Status::Unsupported);
        if status != Status::Ok && status != Status::Mismatch {
            self.fail(Failure::Misbehaved);
            return Err(Error::refused(introduction.server, "the handshake", status));
        }
        if let Some(mismatch) = self.mismatch(status, &hello, &name, introduction) {
            self.fail(Failure::Misbehaved);
            return Err(mismatch);
        }
        let grants = Grants::of(&hello).filter(|_| hello.version == Header::VERSION);
        self.greeting.grants = grants.ok_or_else(|| self.misbehaved(Misbehaviour::Handshake))?;
        self.greeting.incarnation = hello.incarnation;
        self.greeting.store_id = hello.store_id;
        self.greeting.mark_age_ms = hello.mark_age_ms;
        Ok(hello)
    }

    /// What is not as the client meant it, if anything is.
    fn mismatch(
        &self,
        status: Status,
        hello: &ServerHello,
        name: &[u8],
        introduction: &Introduction<'_>,
    ) -> Option<Error> {
        let server = || Arc::clone(introduction.server);
        let cluster = || Arc::clone(introduction.cluster);
        let address = || Address::clone(&self.address);
        if name != introduction.server.as_bytes() {
            let found = String::from_utf8_lossy(name).into_owned();
            let (server, cluster, address) = (server(), cluster(), address());
            return Some(Error::WrongServer { server, cluster, address, found });
        }
        let placing = introduction.placing.filter(|placing| !placing.agrees(hello.settings));
        if let Some(Placing { fingerprint, text, .. }) = placing {
            return Some(Error::OtherSettings {
                server: server(),
                read: Arc::clone(text),
                expected: *fingerprint,
                found: hello.settings,
            });
        }
        let other =
            || Error::WrongCluster { server: server(), cluster: cluster(), address: address() };
        (status == Status::Mismatch).then(other)
    }

    /// Both sides show that they know the token. A server that wants none while
    /// the client has one may be an impostor, and is refused.
    async fn prove(
        &mut self,
        hello: &ClientHello,
        answer: &ServerHello,
        introduction: &Introduction<'_>,
    ) -> Result<(), Error> {
        let server = Arc::clone(introduction.server);
        let token = match (introduction.token, answer.proof_wanted != 0) {
            (None, false) => return Ok(()),
            (None, true) => return Err(Error::TokenWanted { server }),
            (Some(_), false) => return Err(Error::Unproven { server }),
            (Some(token), true) => token,
        };
        let input = ProofInput {
            client_nonce: hello.nonce,
            server_nonce: answer.nonce,
            session: hello.session,
            incarnation: answer.incarnation,
            role: token.role(),
            cluster: introduction.cluster,
        };
        let mac = prove(token.secret(), &input, true);
        let proof = Proof {
            key_id: token.padded_key_id(),
            role: token.role() as u8,
            mac,
            ..Default::default()
        };
        proof.frame(&mut self.out);
        let header = self.exchange(Opcode::Proof).await?;
        match Status::from_number(header.status).unwrap_or(Status::Unsupported) {
            Status::Ok => {}
            Status::Denied => {
                return Err(Error::Denied { server, key_id: token.key_id().to_owned() });
            }
            status => return Err(Error::refused(&server, "the proof", status)),
        }
        let parsed = ProofAnswer::parse(&header, header.table(&self.head));
        let proved = parsed.map_err(|error| self.misbehaved(error))?;
        if !verify(token.secret(), &input, false, &proved.mac) {
            return Err(Error::Unproven { server });
        }
        self.greeting.role = Role::from_number(proved.role);
        Ok(())
    }
}
