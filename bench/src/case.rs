//! What is measured: who, by which way, what operation, how many bytes.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

/// Who moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Who {
    /// A server and a client that do nothing else.
    Floor,
    /// One copy of memory within a process.
    Copy,
    /// This project.
    Puddle,
    /// memcached with one thread.
    Memcached,
    /// memcached with as many threads as it starts by itself.
    MemcachedThreads,
    /// Redis.
    Redis,
    /// Mooncake Store.
    Mooncake,
}

impl Who {
    /// Whether it is part of this project, and so always there.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Floor | Self::Copy | Self::Puddle)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Floor => "floor",
            Self::Copy => "memory copy",
            Self::Puddle => "RamPuddle",
            Self::Memcached => "memcached, 1 thread",
            Self::MemcachedThreads => "memcached, 4 threads",
            Self::Redis => "Redis",
            Self::Mooncake => "Mooncake Store",
        })
    }
}

/// The way between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Path {
    /// Within one process.
    Memory,
    /// TCP over the loopback interface.
    Tcp,
    /// A unix socket.
    Unix,
    /// The server's memory, mapped; asked for by a unix socket.
    Mapped,
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Memory => "memory",
            Self::Tcp => "TCP",
            Self::Unix => "unix socket",
            Self::Mapped => "mapped memory",
        })
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Operation {
    /// A read into memory that is used again and again.
    Get,
    /// The same without looking at checksums.
    GetUnverified,
    /// A read into memory of the client, which keeps it for the next read.
    GetRecycled,
    /// The same without looking at checksums.
    GetRecycledUnverified,
    /// A read into memory that nobody has used before.
    GetFresh,
    /// A read until the bytes can be looked at where they lie.
    View,
    /// A read, after which every byte is looked at: of a view where there is one,
    /// else of memory that is used again and again.
    GetAndRead,
    /// A raw Gather of one value on one connection.
    Gather,
    /// A write from memory, one copy.
    Put,
}

impl Operation {
    /// Which way bytes go: a get or a put.
    pub(crate) fn direction(self) -> Self {
        if self == Self::Put { Self::Put } else { Self::Get }
    }

    /// What the floor does that moves the same bytes the same way.
    pub(crate) fn of_floor(self) -> Self {
        match self {
            Self::Put | Self::GetAndRead => self,
            _ => Self::Get,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Get => "get",
            Self::GetUnverified => "get, unverified",
            Self::GetRecycled => "get, client's memory",
            Self::GetRecycledUnverified => "get, client's memory, unverified",
            Self::GetFresh => "get, fresh memory",
            Self::View => "get, a view",
            Self::GetAndRead => "get, every byte read",
            Self::Gather => "raw Gather",
            Self::Put => "put",
        })
    }
}

/// Bytes of a value, written as 64K or 16M.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(pub(crate) usize);

impl Size {
    /// The sizes of all tables.
    pub(crate) const ALL: [Self; 4] =
        [Self(64 << 10), Self(1 << 20), Self(16 << 20), Self(256 << 20)];
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_uppercase().trim_end_matches("IB") {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return Err(format!("{unit:?} is no unit; expected such as 64K, 16M or 1G")),
        };
        let number: usize = number.parse().map_err(|_| "expected such as 64K or 16M".to_owned())?;
        let bytes = number.checked_mul(1 << shift).filter(|bytes| (1..=1 << 30).contains(bytes));
        bytes.map(Self).ok_or_else(|| "expected 1 byte to 1G".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let unit = units.iter().find(|(shift, _)| self.0.is_multiple_of(1 << shift));
        formatter.pad(&match unit {
            Some((shift, unit)) if self.0 > 0 => format!("{} {unit}", self.0 >> shift),
            _ => format!("{} B", self.0),
        })
    }
}

/// One row of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    /// Bytes of each value.
    pub(crate) size: Size,
    /// What is done.
    pub(crate) operation: Operation,
    /// By whom.
    pub(crate) who: Who,
    /// By which way.
    pub(crate) path: Path,
}

impl Case {
    /// The row that this one is compared with.
    pub(crate) fn floor(self) -> Self {
        self.beside(Who::Floor)
    }

    /// The row of somebody else who does the same work. Nobody else's memory is
    /// mapped: there it is the way that is there without.
    pub(crate) fn beside(self, who: Who) -> Self {
        let path = if self.path == Path::Mapped { Path::Unix } else { self.path };
        Self { who, operation: self.operation.of_floor(), path, ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, operation, who, path } = self;
        write!(formatter, "{who}: {operation}, {size}, {path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_compared_with_the_socket_that_there_is_without_it() {
        let own = |operation| Case {
            size: Size::ALL[0],
            operation,
            who: Who::Puddle,
            path: Path::Mapped,
        };
        let beside = own(Operation::View).beside(Who::Memcached);
        assert_eq!((beside.path, beside.operation), (Path::Unix, Operation::Get));
        let beside = own(Operation::GetAndRead).floor();
        assert_eq!((beside.who, beside.operation), (Who::Floor, Operation::GetAndRead));
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("64K", 64 << 10, "64 KiB"),
            ("1m", 1 << 20, "1 MiB"),
            ("16 MiB", 16 << 20, "16 MiB"),
            ("1000", 1000, "1000 B"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, written), "{text}");
        }
        for text in ["", "0", "K", "64X", "2G", "-1", "99999999999999999999K"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
