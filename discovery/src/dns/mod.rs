//! `srv:` and `dns:`, lists that a name server gives. Programs cannot write to them.

mod listed_names;
mod resolver;
mod srv;

pub use listed_names::DnsBackend;
pub use srv::SrvBackend;
