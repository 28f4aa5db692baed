//! Sockets that notice when the other side is gone without a word: a machine that lost its
//! power, a network that swallows what it is given. The kernel's own patience is 15
//! minutes for what was sent, and for ever where nothing was.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::keeper::{HEARTBEAT, LEASE};

/// How long the next of `left` addresses of one host may take, so that none of them uses up
/// what the others need until `deadline`.
pub(crate) fn share(deadline: Instant, left: usize) -> Duration {
    let left = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
    deadline.saturating_duration_since(Instant::now()) / left
}

/// Sets a new connection up: small requests leave at once, a silent peer is asked for a
/// sign of life each heartbeat, and one that acknowledges nothing for as long as a lease
/// lasts is given up.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, HEARTBEAT)?;
    sockopt::set_tcp_keepintvl(stream, HEARTBEAT)?;
    let user_timeout_ms = u32::try_from(LEASE.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, user_timeout_ms)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_address_has_an_equal_share_of_what_the_ones_before_it_left() {
        let second = Duration::from_secs(1);
        let deadline = Instant::now() + 3 * second;
        assert_eq!(share(deadline, 3), second);
        // It said at once that nobody is there.
        assert_eq!(share(deadline, 2), second * 3 / 2);
        tokio::time::advance(2 * second).await;
        assert_eq!(share(deadline, 1), second);
        tokio::time::advance(2 * second).await;
        assert_eq!(share(deadline, 1), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_peer_that_acknowledges_nothing_is_given_up_after_a_lease() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), HEARTBEAT);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), HEARTBEAT);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 3_000);
    }
}
