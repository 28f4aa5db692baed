//! What the system is asked about bytes that it was lent (MSG_ZEROCOPY). Everything it
//! says goes through [`parse`], which takes any bytes.

use std::io::{self, IoSlice};
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::{c_int, c_void};
use rustix::net::{SendAncillaryBuffer, SendFlags, connect_unspec, sendmsg};

use crate::connection::Done;

/// In a report of the system: it is about bytes that it was lent.
const ORIGIN_ZERO_COPY: u8 = 5;
/// It copied them after all.
const CODE_COPIED: u8 = 1;
/// Length, level and type in front of a message about a socket.
const MESSAGE_HEAD: usize = size_of::<libc::cmsghdr>();
/// Bytes of a report.
const REPORT: usize = size_of::<libc::sock_extended_err>();
/// Room for a report and for the address that it may have, twice.
const ROOM_BYTES: usize = 256;
/// Reports on other things that are passed over in one call.
const REPORTS_MAX: usize = 64;

/// Lets the socket be lent bytes. False: the system does not.
pub(crate) fn enable(socket: BorrowedFd<'_>) -> bool {
    let on: c_int = 1;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads the
    // one number, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ZEROCOPY,
            (&raw const on).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    result == 0
}

/// Lends the bytes to the system; what it takes it may read until it says that it is
/// done.
///
/// # Errors
/// As for any write, and when it takes no more of them in this way.
pub(crate) fn lend(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::from_bits_retain(libc::MSG_ZEROCOPY as _) | SendFlags::NOSIGNAL;
    Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?)
}

/// The next report on bytes that were lent; `None` when there is none now.
pub(crate) fn next_done(socket: BorrowedFd<'_>) -> Option<Done> {
    for _ in 0..REPORTS_MAX {
        let mut room = Room([0; ROOM_BYTES]);
        let bytes = receive_report(socket, &mut room).ok()?;
        // One about something else is not the last.
        if let Some(done) = parse(&room.0[..bytes.min(ROOM_BYTES)]) {
            return Some(done);
        }
    }
    None
}

/// Messages about a socket, where the system wants them.
#[repr(C, align(8))]
struct Room([u8; ROOM_BYTES]);

fn receive_report(socket: BorrowedFd<'_>, room: &mut Room) -> io::Result<usize> {
    // SAFETY: a structure of integers and pointers, for which zeros are a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_control = (&raw mut room.0).cast::<c_void>();
    message.msg_controllen = ROOM_BYTES as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open as long as it is borrowed; the kernel writes to the
    // structure, and at most its ROOM_BYTES to `room`, and both outlive the call.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(message.msg_controllen as usize) }
}

/// Bytes that were sent and that the peer has not taken yet.
pub(crate) fn untaken(socket: BorrowedFd<'_>) -> u64 {
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes the
    // one number, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Makes the system forget what it has not sent yet, and the peer know. The socket
/// stays open, so that it can say when it is done with what it was lent.
pub(crate) fn abort(socket: BorrowedFd<'_>) {
    // Refused, the system goes on until it gives up by itself: what is lent is kept.
    let _ = connect_unspec(socket);
}

/// What a report says, if it is one on bytes that were lent.
fn parse(mut messages: &[u8]) -> Option<Done> {
    while messages.len() >= MESSAGE_HEAD {
        let (head, _) = messages.split_at(MESSAGE_HEAD);
        let length = usize::from_ne_bytes(head[..size_of::<usize>()].try_into().ok()?);
        let kind = [number(head, MESSAGE_HEAD - 8)?, number(head, MESSAGE_HEAD - 4)?];
        let body = messages.get(MESSAGE_HEAD..length)?;
        if is_error(kind)
            && let Some(done) = parse_report(body)
        {
            return Some(done);
        }
        messages = messages.get(length.checked_next_multiple_of(size_of::<usize>())?..)?;
    }
    None
}

fn is_error(kind: [u32; 2]) -> bool {
    let v4 = [libc::SOL_IP as u32, libc::IP_RECVERR as u32];
    let v6 = [libc::SOL_IPV6 as u32, libc::IPV6_RECVERR as u32];
    kind == v4 || kind == v6
}

/// `sock_extended_err`: number, origin, type, code, padding, first and last.
fn parse_report(report: &[u8]) -> Option<Done> {
    let report = report.get(..REPORT)?;
    let (origin, code) = (report[4], report[6]);
    let is_it = origin == ORIGIN_ZERO_COPY && number(report, 0)? == 0;
    let (first, last) = (number(report, 8)?, number(report, 12)?);
    is_it.then_some(Done { first, last, was_copied: code & CODE_COPIED != 0 })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::testing::Seeded;

    /// A message of the system, as it lies in memory.
    fn message(kind: [i32; 2], origin: u8, code: u8, range: [u32; 2]) -> Vec<u8> {
        let address = [0; 16];
        let length = MESSAGE_HEAD + REPORT + address.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.resize(MESSAGE_HEAD - 8, 0);
        kind.iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        bytes.extend([0, 0, 0, 0, origin, 0, code, 0]);
        range.iter().for_each(|number| bytes.extend(number.to_ne_bytes()));
        bytes.extend(address);
        bytes
    }

    #[test]
    fn reports_of_both_families_are_understood_and_all_others_passed_over() {
        let v4 = [libc::SOL_IP, libc::IP_RECVERR];
        let v6 = [libc::SOL_IPV6, libc::IPV6_RECVERR];
        let done = |was_copied| Some(Done { first: u32::MAX, last: 3, was_copied });
        for kind in [v4, v6] {
            assert_eq!(parse(&message(kind, 5, 0, [u32::MAX, 3])), done(false));
            assert_eq!(parse(&message(kind, 5, 1, [u32::MAX, 3])), done(true));
            assert_eq!(parse(&message(kind, 4, 1, [u32::MAX, 3])), None, "a time stamp");
            let behind = [message([1, 29], 5, 0, [7, 7]), message(kind, 5, 0, [u32::MAX, 3])];
            assert_eq!(parse(&behind.concat()), done(false));
        }
        assert_eq!(parse(&message([libc::SOL_IP, 2], 5, 0, [0, 0])), None);
    }

    #[test]
    fn no_bytes_that_the_system_could_give_are_believed_or_harm() {
        let mut random = Seeded::from_environment();
        let whole = message([libc::SOL_IP, libc::IP_RECVERR], 5, 0, [1, 2]);
        let mut believed = 0;
        for _ in 0..100_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            believed += u32::from(parse(&bytes).is_some());
        }
        assert!(believed < 50_000);
        assert_eq!(parse(&[0xFF; 256]), None);
    }

    /// A socket that can be lent bytes, and its peer.
    fn pair(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        socket.set_nonblocking(true).unwrap();
        assert!(enable(socket.as_fd()));
        (socket, peer)
    }

    #[test]
    fn a_socket_that_was_aborted_says_that_all_it_was_lent_is_done() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (socket, peer) = pair(address);
            let bytes = vec![7; 256 << 10];
            let mut sends = 0;
            while lend(socket.as_fd(), &[IoSlice::new(&bytes)]).is_ok() {
                sends += 1;
            }
            assert!(sends > 1, "{sends} sends");
            assert!(untaken(socket.as_fd()) > 0, "the peer has not taken all of it");
            let mut done = Vec::new();
            done.extend(std::iter::from_fn(|| next_done(socket.as_fd())));
            let before: u32 = done.iter().map(|one: &Done| one.last - one.first + 1).sum();
            assert!(before < sends, "{before} of {sends} are done before");
            abort(socket.as_fd());
            done.extend(std::iter::from_fn(|| next_done(socket.as_fd())));
            let after: u32 = done.iter().map(|one| one.last - one.first + 1).sum();
            assert_eq!(after, sends, "{done:?}");
            drop(peer);
        }
    }
}
