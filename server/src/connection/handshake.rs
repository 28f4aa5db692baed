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
    let is_ours = cluster == identity.cluster.as_bytes();
    let told = if is_ours { identity.told.fingerprint() } else { 0 };
    let agrees = hello.settings == 0 || told == 0 || hello.settings == told;
    let status = if !speaks {
        Status::Unsupported
    } else if !is_ours || !is_meant || !agrees {
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
        settings: told,
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
    match core.sessions.join(hello.session) {
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
    match core.sessions.join(greeting.session) {
        Some(session) => {
            let mut frame = Vec::with_capacity(HELLO_FRAME_BYTES);
            let answer = ProofAnswer { role: role as u8, mac, ..ProofAnswer::default() };
            answer.frame(Status::Ok, &mut frame);
            Step::Open(session, role, frame)
        }
        None => refuse(Status::Busy),
    }
}

#[cfg(test)]
mod tests {
    use rampuddle_protocol::limits::PAGE_BYTES;
    use rampuddle_protocol::{Incarnation, StoreId};

    use super::*;
    use crate::core::{Identity, Told};
    use crate::pool::Pool;
    use crate::session::Sessions;
    use crate::store::{Now, Store};

    fn core(told: Told) -> Core {
        let identity = Identity {
            name: "a".into(),
            cluster: "lab".into(),
            incarnation: Incarnation([1; 16]),
            store_id: StoreId([2; 16]),
            tokens: Vec::new(),
            told,
        };
        let store = Store::new(Pool::new(PAGE_BYTES, false).unwrap());
        Core::new(identity, store, Sessions::new(64), Now { monotonic_ms: 0, unix_ms: 1 })
    }

    /// Status and `settings` of the answer to a hello.
    fn answer(core: &mut Core, cluster: &str, settings: u64) -> (Status, u64) {
        let row = ClientHello {
            version_min: 1,
            version_max: 1,
            nonce: Nonce([5; 16]),
            session: SessionId([6; 16]),
            settings,
            ..ClientHello::default()
        };
        let mut hello = Vec::new();
        row.frame(cluster, "a", &mut hello);
        let header = Header::parse(&hello).unwrap();
        let frame = match greet(core, &header, header.table(&hello)) {
            Step::Open(_, _, frame) | Step::Refuse(frame) => frame,
            other => panic!("{other:?}"),
        };
        let header = Header::parse(&frame).unwrap();
        let (row, _) = ServerHello::parse(&header, header.table(&frame)).unwrap();
        (Status::from_number(header.status).unwrap(), row.settings)
    }

    #[test]
    fn who_places_by_other_settings_than_the_server_was_told_is_refused() {
        let told = Told::default();
        let core = &mut core(told.clone());
        assert_eq!(answer(core, "lab", 7), (Status::Ok, 0), "nobody told the server yet");
        told.settings(9);
        assert_eq!(answer(core, "lab", 7), (Status::Mismatch, 9));
        assert_eq!(answer(core, "lab", 9), (Status::Ok, 9));
        assert_eq!(answer(core, "lab", 0), (Status::Ok, 9), "it places nothing");
        told.settings(7);
        assert_eq!(answer(core, "lab", 7), (Status::Ok, 7));
        assert_eq!(answer(core, "other", 7), (Status::Mismatch, 0), "not for strangers");
    }
}
