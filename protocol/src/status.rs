//! How a row, or a whole frame, fared.

use std::fmt;

macro_rules! statuses {
    ($( $(#[$attribute:meta])* $name:ident = $number:literal, $text:literal; )*) => {
        /// How a row fared. Row statuses are below 128; the header of a frame
        /// that was refused as a whole carries one too, those from 128 up only there.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        #[repr(u8)]
        pub enum Status {
            $( $(#[$attribute])* $name = $number, )*
        }

        impl Status {
            /// All statuses.
            pub const ALL: &[Self] = &[$( Self::$name ),*];

            /// The status with this number, if this version has it.
            #[inline]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// Its name in documents and messages.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => $text, )*
                }
            }
        }
    };
}

statuses! {
    /// Done.
    #[default]
    Ok = 0, "OK";
    /// This version is there already, which is success.
    Same = 1, "SAME";
    /// A value is there and REPLACE was not given.
    Exists = 2, "EXISTS";
    /// No value; the answer's version is that of the tombstone (0 = none).
    NotFound = 3, "NOT_FOUND";
    /// `if_version` (or Drop's version) differs; the version held is returned.
    Mismatch = 4, "MISMATCH";
    /// A greater version is held, which is returned.
    Older = 5, "OLDER";
    /// Too few free pages.
    NoSpace = 6, "NO_SPACE";
    /// Too few free index entries.
    NoIndex = 7, "NO_INDEX";
    /// Longer than a value may be, or than what is left of the answer.
    TooLarge = 8, "TOO_LARGE";
    /// Outside the value, or past the watermark, which is returned.
    BadRange = 9, "BAD_RANGE";
    /// The value may not be written into.
    Sealed = 10, "SEALED";
    /// The hold was broken to make room for writers.
    Superseded = 11, "SUPERSEDED";
    /// Not all bytes are in (Publish), or more keys follow (List).
    Incomplete = 12, "INCOMPLETE";
    /// The request's deadline, or the reservation's life, is over.
    Expired = 13, "EXPIRED";
    /// Given up by Cancel.
    Cancelled = 14, "CANCELLED";
    /// The version lies too far ahead of the server's clock.
    Clock = 15, "CLOCK";
    /// Not now; try again after the milliseconds returned.
    Busy = 16, "BUSY";
    /// The connection's role does not allow it.
    Denied = 17, "DENIED";
    /// The row breaks a rule of the protocol.
    BadRow = 18, "BAD_ROW";
    /// The bytes do not have the checksum given.
    Corrupt = 19, "CORRUPT";
    /// A disk failed.
    Io = 20, "IO";
    /// An operation or flag that this server does not have.
    Unsupported = 21, "UNSUPPORTED";

    /// Frame: does not begin with the magic number.
    BadMagic = 128, "BAD_MAGIC";
    /// Frame: a length is beyond the limits or contradicts another.
    BadLength = 129, "BAD_LENGTH";
    /// Frame: header and table do not have the checksum given.
    BadChecksum = 130, "BAD_CHECKSUM";
    /// Frame: a version of the protocol that this server does not have.
    BadVersion = 131, "BAD_VERSION";
    /// Frame: not what may come at this point of the conversation.
    OutOfOrder = 132, "OUT_OF_ORDER";
}

impl Status {
    /// Whether the row did, or had already done, what was asked.
    #[inline]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Ok | Self::Same)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_number_and_name() {
        for status in Status::ALL {
            assert_eq!(Status::from_number(*status as u8), Some(*status));
            assert_eq!(Status::ALL.iter().filter(|other| other.name() == status.name()).count(), 1);
        }
        assert_eq!(Status::from_number(255), None);
    }
}
