//! Fuzz targets of RamPuddle: functions over bytes that panic when a rule is
//! broken, and generators of bytes that get far in them.
//!
//! | target | what it feeds |
//! |---|---|
//! | `decoder` | the decoder of frames, compared with a second one |
//! | `session` | connections of a server, cut anywhere, under a clock that jumps |
//! | `client` | the client's reading of answers |
//! | `head` | the tag and the block table of an object |
//!
//! The driver (`main.rs`) runs them from a seed; `guided/` lets libFuzzer change
//! the inputs by what code they reach. `docs/testing.md` has the commands.

#![forbid(unsafe_code)]

mod answers;
mod client;
mod corpus;
mod counts;
mod decoder;
mod head;
mod layout;
mod mutate;
mod random;
mod requests;
mod run;
mod session;
mod target;

pub use counts::Counts;
pub use random::Random;
pub use run::{Finding, Run, keep_panics, run};
pub use target::{NAMES, Target, target};
