//! What the written lists of servers (`static:`, `file:`) have in common:
//! nobody needs to announce itself, but who does so must be in the list.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;

use crate::backend::{Announcement, Withdraw};
use crate::error::DiscoveryError;
use crate::model::{Living, Snapshot};
use crate::validate;

/// The entry of a list stays when its server stops.
#[derive(Debug)]
struct Listed;

impl Withdraw for Listed {
    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoveryError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Lets a server announce itself if the list has its name and its address.
pub(crate) fn announce(
    list: &Snapshot,
    living: &Living,
    backend: &str,
) -> Result<Announcement, DiscoveryError> {
    validate::living(living)?;
    let Some(listed) = list.alive(&living.name) else {
        return Err(DiscoveryError::UnknownMember {
            name: living.name.clone(),
            backend: backend.to_owned(),
        });
    };
    if is_same_address(listed, living) {
        return Ok(Announcement::new(Listed));
    }
    Err(DiscoveryError::AddressMismatch {
        name: living.name.clone(),
        listed: listed.address(),
        announced: living.address(),
    })
}

/// A listed host name is believed to be the server's; only its port is
/// compared.
fn is_same_address(listed: &Living, announced: &Living) -> bool {
    match (&listed.tcp, &announced.tcp) {
        (Some(listed), Some(announced)) => is_same_tcp(listed, announced),
        (None, _) => listed.unix_socket == announced.unix_socket,
        (Some(_), None) => false,
    }
}

fn is_same_tcp(listed: &str, announced: &str) -> bool {
    match (listed.parse::<SocketAddr>(), announced.parse::<SocketAddr>()) {
        (Ok(listed), Ok(announced)) => listed == announced,
        (Ok(_), Err(_)) => false,
        (Err(_), _) => listed == announced || has_same_port(listed, announced),
    }
}

fn has_same_port(listed: &str, announced: &str) -> bool {
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    port(listed) == port(announced)
}

/// The host for a unix socket that somebody wrote into a list: such a list is
/// for the machine that it is read on.
pub(crate) fn host_of(unix_socket: Option<&std::path::PathBuf>) -> String {
    unix_socket.map(|_| crate::host_id()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn a_listed_address_must_match_and_a_listed_host_name_only_its_port() {
        let same = |listed: &str, announced: &str| {
            let at = |address: &str| Living::at("a", address, Id([1; 16]));
            is_same_address(&at(listed), &at(announced))
        };
        assert!(same("10.0.0.1:7", "10.0.0.1:7"));
        assert!(same("[::1]:7", "[0:0::1]:7"));
        assert!(same("node:7", "10.0.0.1:7"));
        assert!(!same("10.0.0.1:7", "10.0.0.2:7"));
        assert!(!same("10.0.0.1:7", "node:7"));
        assert!(!same("node:7", "node:8"));
    }
}
