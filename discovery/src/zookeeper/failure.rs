//! What can go wrong between this process and ZooKeeper.

use std::io;
use std::time::Duration;

use super::wire::Garbled;

/// Why ZooKeeper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody answers there.
    #[error("cannot reach {host}")]
    Unreachable { host: String, source: io::Error },
    /// The connection ended. Whether something that was asked was done is not known.
    #[error("the connection was lost")]
    Lost,
    /// No answer in time; the same is true.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The session is over, and its nodes are gone.
    #[error("the session is over")]
    Expired,
    /// It answered that it did not do it.
    #[error("it refuses: {} (error {})", words(*.0), .0.0)]
    Refused(Code),
    /// The answer was not read.
    #[error("its answer has {bytes} bytes: expected at most {bytes_max}")]
    TooLarge { bytes: u64, bytes_max: u64 },
    /// The answer makes no sense.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// What was found shows that others change the same all the time.
    #[error("others changed the same {0} times meanwhile: try again")]
    Contended(u32),
}

/// ZooKeeper's number of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) i32);

impl Code {
    pub(super) const UNIMPLEMENTED: Self = Self(-6);
    pub(super) const NO_NODE: Self = Self(-101);
    pub(super) const NO_AUTH: Self = Self(-102);
    pub(super) const BAD_VERSION: Self = Self(-103);
    pub(super) const NODE_EXISTS: Self = Self(-110);
    pub(super) const EXPIRED: Self = Self(-112);
    pub(super) const INVALID_ACCESS: Self = Self(-114);
    pub(super) const AUTH_FAILED: Self = Self(-115);
}

/// What the number means, and what to do.
pub(super) fn words(code: Code) -> &'static str {
    match code {
        Code::UNIMPLEMENTED => "it does not know the operation; ZooKeeper 3.6 or later is needed",
        Code::NO_NODE => "the node is not there",
        Code::NO_AUTH => "the node is not ours",
        Code::BAD_VERSION => "the node was changed",
        Code::NODE_EXISTS => "the node is there",
        Code::INVALID_ACCESS => "it knows no such user",
        Code::AUTH_FAILED => "it does not accept the user",
        _ => "its log says more",
    }
}

impl Failure {
    pub(super) fn refused(code: i32) -> Self {
        match Code(code) {
            Code::EXPIRED => Self::Expired,
            code => Self::Refused(code),
        }
    }

    pub(super) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Refused(found) if *found == code)
    }
}
