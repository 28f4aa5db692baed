//! Hello and Proof, as the server sees them.

use rampuddle_protocol::limits::{
    HELLO_FRAME_BYTES, OUTSTANDING_BYTES_MAX, OUTSTANDING_REQUESTS_MAX, PAYLOAD_BYTES_MAX,
    ROWS_MAX, TABLE_BYTES_MAX,
};
use rampuddle_protocol::{
    ClientHello, Header, Nonce, Opcode, Proof, ProofAnswer, ProofInput, Role, ServerHello,
    SessionId, Status, prove, verify,
};

use crate::core::Core;
use crate::store::SessionIndex;

/// What a proof will be computed over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Greeting {
    client_nonce: Nonce,
    server_nonce: Nonce,
    session: SessionId,
}

/// How the handshake goes on.
#[derive(Debug)]
pub(super) enum Step {
    /// Send the frame; a proof must follow.
    Prove(Greeting, Vec<u8>),
    /// Send the frame; the connection is open.
    Open(SessionIndex, Role, Vec<u8>),
    /// Send the frame, then close.
    Refuse(Vec<u8>),
    /// Close without a word.
    Close,
}

/// Whether a header can be that of a handshake frame.
pub(super) fn is_handshake(header: &Header, opcode: Opcode) -> bool {
    header.opcode == opcode as u8
        && header.flags.0 == 0
        && header.head_bytes() == HELLO_FRAME_BYTES
        && header.payload_bytes == 0
}

/// Answers a client hello.
pub(super) fn greet(core: &mut Core, header: &Header, table: &[u8]) -> Step {
    let Ok((hello, cluster, server)) = ClientHello::parse(header, table) else {
        return Step::Close;
    };
    if hello.session.is_none() {
        return Step::Close;
    }
    let server_nonce = core.draw_nonce();
    let identity = &core.identity;
    let speaks = (hello.version_min..=hello.version_max).contains(&Header::VERSION);
    let is_meant = server.is_empty() || server == identity.name.as_bytes();
    let status = if !speaks {
        Status::Unsupported
    } else if cluster != identity.cluster.as_bytes() || !is_meant {
        Status::Mismatch
    } else {
        Status::Ok
    };
    let proof_wanted = !identity.tokens.is_empty();
    let answer = ServerHello {
        version: Header::VERSION,
        proof_wanted: proof_wanted.into(),
        name_bytes: 0,
        rows_max: ROWS_MAX,
        nonce: server_nonce,
        store_id: identity.store_id,
        incarnation: identity.incarnation,
        clock_unix_ms: core.now.unix_ms,
        mark_age_ms: u64::MAX,
        table_bytes_max: TABLE_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX as u32,
        outstanding_requests_max: OUTSTANDING_REQUESTS_MAX,
        outstanding_bytes_max: OUTSTANDING_BYTES_MAX as u32,
    };
    let frame = |status: Status| {
        let mut frame = Vec::with_capacity(HELLO_FRAME_BYTES);
        answer.frame(status, &identity.name, &mut frame);
        frame
    };
    if status != Status::Ok {
        return Step::Refuse(frame(status));
    }
    if proof_wanted {
        let greeting = Greeting { client_nonce: hello.nonce, server_nonce, session: hello.session };
        return Step::Prove(greeting, frame(Status::Ok));
    }
    match core.sessions.join(hello.session, &mut core.store) {
        Some(session) => Step::Open(session, Role::Admin, frame(Status::Ok)),
        None => Step::Refuse(frame(Status::Busy)),
    }
}

/// Checks a proof, and answers it with the server's own.
pub(super) fn check_proof(
    core: &mut Core,
    greeting: &Greeting,
    header: &Header,
    table: &[u8],
) -> Step {
    let Ok(proof) = Proof::parse(header, table) else { return Step::Close };
    let refuse = |status| {
        let mut frame = Vec::with_capacity(HELLO_FRAME_BYTES);
        ProofAnswer::default().frame(status, &mut frame);
        Step::Refuse(frame)
    };
    let identity = &core.identity;
    let token = identity.tokens.iter().find(|token| token.key_id == proof.key_id);
    let (Some(token), Some(role)) = (token, Role::from_number(proof.role)) else {
        return refuse(Status::Denied);
    };
    let input = ProofInput {
        client_nonce: greeting.client_nonce,
        server_nonce: greeting.server_nonce,
        session: greeting.session,
        incarnation: identity.incarnation,
        role,
        cluster: &identity.cluster,
    };
    if role > token.role || !verify(&token.secret, &input, true, &proof.mac) {
        return refuse(Status::Denied);
    }
    let mac = prove(&token.secret, &input, false);
    match core.sessions.join(greeting.session, &mut core.store) {
        Some(session) => {
            let mut frame = Vec::with_capacity(HELLO_FRAME_BYTES);
            let answer = ProofAnswer { role: role as u8, mac, ..ProofAnswer::default() };
            answer.frame(Status::Ok, &mut frame);
            Step::Open(session, role, frame)
        }
        None => refuse(Status::Busy),
    }
}
