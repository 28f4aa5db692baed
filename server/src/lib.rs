//! A RamPuddle server: one process, one thread, one fixed pool of memory.
//!
//! It knows no other server, no discovery and no runtime. One loop moves bytes
//! between sockets and the pool; a connection's state machine, without I/O,
//! says which.
//!
//! ```text
//!   sockets          connection              store              pool
//!  +-------+  bytes +------------+  rows   +-------+  pages   +-------+
//!  | mio   |------->| inbox      |-------->| keys  |--------->| runs  |
//!  | loop  |<-------| outbox     |<--------| sets  |<---------| bytes |
//!  +-------+        +------------+ replies +-------+  pieces  +-------+
//!      \_____________________ payload, straight __________________/
//! ```
//!
//! Memory is added up once, at start (see [`Options::memory`]), and what cannot
//! fit is refused. Nothing is allocated for what a peer merely claims.
//!
//! ```
//! use rampuddle_server::{Options, Server};
//!
//! let server = Server::bind(Options::new("a", "example", 1 << 20)).unwrap();
//! assert_ne!(server.local_address().unwrap().port(), 0);
//! let stopper = server.stopper();
//! let thread = std::thread::spawn(move || server.run());
//! stopper.stop();
//! thread.join().unwrap().unwrap();
//! ```

#![deny(unsafe_code)]

mod connection;
mod core;
mod error;
mod event_loop;
mod listener;
mod machine;
mod options;
mod pool;
mod server;
mod session;
mod sharing;
#[cfg(any(test, feature = "simulation"))]
#[doc(hidden)]
pub mod simulation;
mod spin;
mod store;
#[cfg(test)]
mod testing;
#[expect(unsafe_code, reason = "calls of the system that no library has with types")]
mod zero_copy;

pub use core::{Token, Told, ZeroCopyCounts};
pub use error::StartError;
pub use event_loop::Stopper;
pub use options::{MemorySum, Options};
pub use server::Server;
