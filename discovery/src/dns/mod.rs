//! `srv:` and `dns:`, lists that a name server gives. Programs cannot write to them.

mod listed_names;
mod name_servers;
mod resolver;
mod srv;

pub use listed_names::DnsBackend;
pub use srv::SrvBackend;
