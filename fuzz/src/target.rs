//! What a fuzz target is.

use crate::client::ClientDecoder;
use crate::counts::Counts;
use crate::decoder::Decoder;
use crate::head::ObjectHead;
use crate::random::Random;
use crate::session::Session;

/// A function over bytes that panics when a rule is broken, and a generator of
/// bytes that are likely to get far in it.
pub trait Target {
    /// Runs one input. True when its first header was right, so that what lies
    /// behind it was looked at.
    ///
    /// # Panics
    /// When a rule is broken.
    fn run(&mut self, input: &[u8], counts: &mut Counts) -> bool;

    /// An input that is likely to get far.
    fn generate(&self, random: &mut Random) -> Vec<u8>;

    /// Inputs that a coverage-guided fuzzer begins with.
    fn seeds(&self) -> Vec<Vec<u8>>;
}

/// The targets by name.
pub const NAMES: [&str; 4] = ["decoder", "session", "client", "head"];

/// The target of this name.
pub fn target(name: &str) -> Option<Box<dyn Target>> {
    Some(match name {
        "decoder" => Box::new(Decoder::default()),
        "session" => Box::new(Session::default()),
        "client" => Box::new(ClientDecoder),
        "head" => Box::new(ObjectHead),
        _ => return None,
    })
}
