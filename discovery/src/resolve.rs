//! From an address to the sockets behind it.

use std::io;
use std::net::SocketAddr;

use crate::validate;

/// Looks a server's `host:port` up. Only what [`validate::ip`] lets through
/// comes back, so that a name leads to no place that a literal address may not
/// name.
///
/// # Errors
/// When the name is not known, or leads to no address that can be a server's.
pub async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    usable(address, tokio::net::lookup_host(address).await?)
}

fn usable(address: &str, found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut usable = Vec::new();
    let mut refused = None;
    for socket in found {
        match validate::ip(socket.ip()) {
            Ok(()) => usable.push(socket),
            Err(invalid) => refused = Some(invalid),
        }
    }
    match refused {
        _ if !usable.is_empty() => Ok(usable),
        Some(invalid) => Err(io::Error::new(io::ErrorKind::InvalidInput, invalid)),
        None => {
            let message = format!("no address is known for {address}");
            Err(io::Error::new(io::ErrorKind::NotFound, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(found: &[&str]) -> io::Result<Vec<SocketAddr>> {
        usable("name:7", found.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn a_name_that_leads_where_no_server_can_be_is_refused_as_a_literal_is() {
        for bad in ["0.0.0.0:7", "[::]:7", "169.254.169.254:7", "[fe80::1]:7", "224.0.0.1:7"] {
            let refused = of(&[bad]).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert!(
                refused.to_string().contains("expected one at which clients reach"),
                "{refused}"
            );
            assert_eq!(of(&[bad, "10.0.0.1:7"]).unwrap(), ["10.0.0.1:7".parse().unwrap()]);
        }
        assert_eq!(of(&[]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn what_is_looked_up_is_checked() {
        assert!(resolve("127.0.0.1:7").await.unwrap().iter().all(|found| found.ip().is_loopback()));
        assert!(resolve("0.0.0.0:7").await.is_err());
    }
}
