//! Proof that both sides know a token: HMAC-SHA256 over both nonces.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{Incarnation, Nonce, Role, SessionId};

/// What a proof is computed over. Both nonces are fresh, so an overheard proof
/// is of no use; the incarnation binds it to this server's run.
#[derive(Debug, Clone, Copy)]
pub struct ProofInput<'a> {
    /// Drawn by the client.
    pub client_nonce: Nonce,
    /// Drawn by the server.
    pub server_nonce: Nonce,
    /// The session that the connection joins.
    pub session: SessionId,
    /// The server's incarnation.
    pub incarnation: Incarnation,
    /// The role asked for.
    pub role: Role,
    /// The cluster's name.
    pub cluster: &'a str,
}

/// The proof of the client (`from_client`) or of the server.
pub fn prove(secret: &[u8], input: &ProofInput<'_>, from_client: bool) -> [u8; 32] {
    mac(secret, input, from_client).finalize().into_bytes().into()
}

/// Whether `proof` is right, compared in constant time.
pub fn verify(secret: &[u8], input: &ProofInput<'_>, from_client: bool, proof: &[u8; 32]) -> bool {
    mac(secret, input, from_client).verify_slice(proof).is_ok()
}

fn mac(secret: &[u8], input: &ProofInput<'_>, from_client: bool) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(b"rampuddle proof 1 ");
    mac.update(if from_client { b"client" } else { b"server" });
    mac.update(&input.client_nonce.0);
    mac.update(&input.server_nonce.0);
    mac.update(&input.session.0);
    mac.update(&input.incarnation.0);
    mac.update(&[input.role as u8]);
    mac.update(input.cluster.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_side_its_nonces_and_its_role_only() {
        let input = ProofInput {
            client_nonce: Nonce([1; 16]),
            server_nonce: Nonce([2; 16]),
            session: SessionId([3; 16]),
            incarnation: Incarnation([4; 16]),
            role: Role::Read,
            cluster: "c",
        };
        let proof = prove(b"secret", &input, true);
        assert!(verify(b"secret", &input, true, &proof));
        assert!(!verify(b"secret", &input, false, &proof));
        assert!(!verify(b"Secret", &input, true, &proof));
        assert!(!verify(b"secret", &ProofInput { role: Role::Admin, ..input }, true, &proof));
        let other = ProofInput { server_nonce: Nonce([9; 16]), ..input };
        assert!(!verify(b"secret", &other, true, &proof));
    }
}
