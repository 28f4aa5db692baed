//! A plain client that blocks: it sends exactly what it is told, and shows
//! exactly what comes back.

mod answer;
mod client;
mod connection;
mod frame;

pub use answer::Answer;
pub use client::{MappedRun, RawClient};
pub use connection::{Door, RawConnection, Stream, Transport};
pub use frame::{Frame, fresh_version};
