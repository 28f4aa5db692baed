//! What names, weights and addresses must look like, wherever they come from.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::model::{Living, Member, Settings};
use crate::text::shown;

/// The longest name of a member or cluster, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest name of a zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// The longest host name in an address, in bytes.
pub const HOST_BYTES_MAX: usize = 253;
/// The longest path of a unix socket: the kernel's `sun_path` less its end.
pub const UNIX_SOCKET_BYTES_MAX: usize = 107;
/// The greatest weight of a member.
pub const WEIGHT_MAX: f64 = 1e6;
/// The most members that discovery takes from a registry.
pub const MEMBERS_MAX: usize = 10_000;
/// The largest document that discovery reads. What a parser makes of one can take
/// seventy times as much memory.
pub const DOCUMENT_BYTES_MAX: u64 = 2 << 20;
/// The largest answer of a service that is read: all records, with what the service
/// adds to each.
pub const ANSWER_BYTES_MAX: u64 = DOCUMENT_BYTES_MAX * 8;
/// The largest record of one member or server that discovery reads.
pub const RECORD_BYTES_MAX: u64 = 64 << 10;

/// The newest form of a JSON record that this version reads. Fields that may be
/// ignored are added without a new form; a form that older versions would take
/// for something else says so by a greater number in its field `format`.
pub const RECORD_FORMAT: u64 = 1;

// As many members as there may be fit a document, with 200 bytes each.
const _: () = assert!(MEMBERS_MAX as u64 * 200 <= DOCUMENT_BYTES_MAX);

/// Something that no cluster accepts.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A name of a member or cluster.
    #[error("the name \"{}\" is not allowed: expected 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ - and no . or - at its start", shown(.name))]
    Name {
        /// The name.
        name: String,
    },
    /// A weight.
    #[error("the weight {weight:?} of \"{}\" is not allowed: expected more than 0 and at most {WEIGHT_MAX}", shown(.name))]
    Weight {
        /// The member.
        name: String,
        /// Its weight.
        weight: f64,
    },
    /// A zone.
    #[error("the zone \"{}\" is not allowed: expected at most {ZONE_BYTES_MAX} bytes that can be printed", shown(.zone))]
    Zone {
        /// The zone.
        zone: String,
    },
    /// A text that is not `host:port`.
    #[error("the address \"{}\" is not allowed: expected HOST:PORT with a port from 1 to 65535, IPv6 in brackets", shown(.address))]
    Address {
        /// The address.
        address: String,
    },
    /// An address that cannot be a server's.
    #[error("the address {ip} is {class}: expected one at which clients reach the server")]
    Unreachable {
        /// The address.
        ip: IpAddr,
        /// What is special about it.
        class: &'static str,
    },
    /// A path that cannot be a unix socket's.
    #[error("the unix socket \"{}\" is not allowed: expected an absolute path of at most {UNIX_SOCKET_BYTES_MAX} bytes in utf-8", shown(&.path.to_string_lossy()))]
    UnixSocket {
        /// The path.
        path: PathBuf,
    },
    /// A server without any address.
    #[error("\"{}\" has neither an address nor a unix socket: expected at least one", shown(.name))]
    NoAddress {
        /// The server.
        name: String,
    },
    /// Two records that should have one name have two.
    #[error("\"{}\" is recorded under the name \"{}\": expected the same name", shown(.found), shown(.expected))]
    NamesDiffer {
        /// The name that it should have.
        expected: String,
        /// The name that it has.
        found: String,
    },
    /// Settings that no placement can work with.
    #[error(
        "replicas_max {replicas_max} and {slots} slots are not allowed: expected 1 to 254, and 1 to {}",
        Settings::SLOTS
    )]
    Settings {
        /// The greatest number of copies.
        replicas_max: u8,
        /// The number of placement classes.
        slots: u32,
    },
}

/// Checks the name of a member or cluster, which is also used as a file name.
pub fn name(name: &str) -> Result<(), Invalid> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-']);
    if good {
        return Ok(());
    }
    Err(Invalid::Name { name: name.to_owned() })
}

/// Checks the settings of a cluster.
pub fn settings(settings: &Settings) -> Result<(), Invalid> {
    name(&settings.cluster)?;
    // 255 copies means "on all members".
    let good = (1..255).contains(&settings.replicas_max)
        && (1..=Settings::SLOTS).contains(&settings.slots);
    if good {
        return Ok(());
    }
    Err(Invalid::Settings { replicas_max: settings.replicas_max, slots: settings.slots })
}

/// Checks a member: its name, weight and zone.
pub fn member(member: &Member) -> Result<(), Invalid> {
    name(&member.name)?;
    weight(&member.name, member.weight)?;
    zone(&member.zone)
}

/// Checks a living server: its name and addresses.
pub fn living(living: &Living) -> Result<(), Invalid> {
    name(&living.name)?;
    if living.tcp.is_none() && living.unix_socket.is_none() {
        return Err(Invalid::NoAddress { name: living.name.clone() });
    }
    living.tcp.as_deref().map_or(Ok(()), address)?;
    living.unix_socket.as_deref().map_or(Ok(()), unix_socket)
}

/// Checks that two records of one server have one name.
pub(crate) fn same_name(expected: &str, found: &str) -> Result<(), Invalid> {
    if expected == found {
        return Ok(());
    }
    Err(Invalid::NamesDiffer { expected: expected.to_owned(), found: found.to_owned() })
}

fn weight(name: &str, weight: f64) -> Result<(), Invalid> {
    // Written so that NaN is refused.
    if weight > 0.0 && weight <= WEIGHT_MAX {
        return Ok(());
    }
    Err(Invalid::Weight { name: name.to_owned(), weight })
}

fn zone(zone: &str) -> Result<(), Invalid> {
    if zone.len() <= ZONE_BYTES_MAX && !zone.contains(char::is_control) {
        return Ok(());
    }
    Err(Invalid::Zone { zone: zone.to_owned() })
}

/// Checks `host:port`: the form, and that a literal IP address can be a
/// server's. Looks nothing up: [`resolve`](crate::resolve) does, and checks
/// what a name leads to.
pub fn address(address: &str) -> Result<(), Invalid> {
    let bad = || Invalid::Address { address: address.to_owned() };
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return if socket.port() == 0 { Err(bad()) } else { ip(socket.ip()) };
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0);
    if port.is_some() && is_host_name(host) {
        return Ok(());
    }
    Err(bad())
}

/// Whether a text has the form of a host's name.
pub(crate) fn is_host_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=HOST_BYTES_MAX).contains(&host.len())
        && host.bytes().all(allowed)
        && !host.starts_with(['.', '-'])
        && !ends_in_number(host)
}

/// Resolvers read `1`, `127.1` or `0x7f000001` as IPv4 addresses in disguise.
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.starts_with("0x") || last.starts_with("0X");
    hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Where clouds answer for a machine's secrets over IPv6, outside of link-local
/// addresses: Amazon's, then Google's.
const METADATA: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

/// Checks that an IP address can be a server's: not unspecified, link-local
/// (which clouds use for their metadata), multicast or broadcast. A registry must
/// not be able to send clients there. For addresses that a host name resolved to.
pub fn ip(ip: IpAddr) -> Result<(), Invalid> {
    let class = match ip.to_canonical() {
        IpAddr::V4(ip) if ip.octets()[0] == 0 => "unspecified",
        IpAddr::V4(ip) if ip.is_link_local() => "link-local",
        IpAddr::V4(ip) if ip.is_multicast() => "multicast",
        IpAddr::V4(ip) if ip.is_broadcast() => "broadcast",
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => "unspecified",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "link-local",
        IpAddr::V6(ip) if ip.is_multicast() => "multicast",
        IpAddr::V6(ip) if METADATA.contains(&ip) => "a cloud's metadata service",
        _ => return Ok(()),
    };
    Err(Invalid::Unreachable { ip, class })
}

fn unix_socket(path: &Path) -> Result<(), Invalid> {
    let good = |text: &str| {
        path.is_absolute() && text.len() <= UNIX_SOCKET_BYTES_MAX && !text.contains('\0')
    };
    if path.to_str().is_some_and(good) {
        return Ok(());
    }
    Err(Invalid::UnixSocket { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        for good in ["a", "node-1.rack_2", "7", &"x".repeat(64)] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a\0", "ä", "a b", "a\n", &long] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn absurd_weights_are_refused() {
        for good in [f64::MIN_POSITIVE, 0.5, 1.0, WEIGHT_MAX] {
            assert_eq!(weight("a", good), Ok(()));
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e308, 1e6 + 1.0] {
            assert!(weight("a", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_are_no_servers_are_refused() {
        for good in ["127.0.0.1:1", "[::1]:7000", "node-1:65535", "a.example.org.:7", "10.1.2.3:9"]
        {
            assert_eq!(address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":1",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a b:1",
            "::1:7000",
            "-a:1",
            "127.0.0.1:0",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "[::]:1",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[::ffff:169.254.169.254]:80",
            "[::ffff:0.0.0.0]:80",
            "255.255.255.255:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "2852039166:80",
            "0xa9fea9fe:80",
            "169.254.43518:80",
            "0:80",
            "127.1.:80",
            "user@host:1",
            "a/b:1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_are_fit_for_a_terminal() {
        let message = name("\x1b]0;title\x07").unwrap_err().to_string();
        assert!(!message.contains(['\x1b', '\x07']), "{message}");
    }
}
