//! Flags of frames and of rows.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use crate::Field;

macro_rules! flags {
    (
        $(#[$attribute:meta])*
        $name:ident: $integer:ty {
            $( $(#[$flag_attribute:meta])* $flag:ident = $value:expr, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name(pub $integer);

        impl $name {
            $( $(#[$flag_attribute])* pub const $flag: Self = Self($value); )*
            /// No flag.
            pub const NONE: Self = Self(0);
            /// Every flag that this version knows.
            pub const KNOWN: Self = Self(0 $( | $value )*);

            /// Whether all flags of `other` are set.
            #[inline]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether only flags of `allowed` are set.
            #[inline]
            pub const fn only(self, allowed: Self) -> bool {
                self.0 & !allowed.0 == 0
            }

            /// These flags and those of `other`.
            #[inline]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// These flags less those of `other`.
            #[inline]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// The flags that are also in `other`.
            #[inline]
            pub const fn among(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                *self = self.with(other);
            }
        }

        impl Field for $name {
            const BYTES: usize = <$integer as Field>::BYTES;
            #[inline]
            fn put(&self, out: &mut [u8]) {
                self.0.put(out);
            }
            #[inline]
            fn take(bytes: &[u8]) -> Self {
                Self(<$integer>::take(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut names = formatter.debug_set();
                $( if self.has(Self::$flag) { names.entry(&format_args!(stringify!($flag))); } )*
                if !self.only(Self::KNOWN) {
                    names.entry(&format_args!("{:#x}", self.0 & !Self::KNOWN.0));
                }
                names.finish()
            }
        }
    };
}

flags!(
    /// Flags of a frame.
    FrameFlags: u16 {
        /// The frame answers the request with its request id.
        ANSWER = 1 << 0,
        /// The last frame of a connection whose bytes could not be understood;
        /// the header's status says why.
        FRAMING_ERROR = 1 << 1,
    }
);

flags!(
    /// Flags of a row, one meaning each in every message.
    RowFlags: u32 {
        /// Create: never evicted. Answers: the value is kept.
        KEEP = 1 << 0,
        /// Create: a Scatter into the value is refused.
        SEALED = 1 << 1,
        /// Create: a value under the key may be replaced.
        REPLACE = 1 << 2,
        /// Create: replace the bytes of the same version if the server's own
        /// check of them fails.
        REWRITE = 1 << 3,
        /// Create: return a handle; the value is published later.
        RESERVE = 1 << 4,
        /// The row's `crc32c` is that of the value's bytes as given.
        CHECKSUM = 1 << 5,
        /// Gather: stop at the last byte ever given.
        FILLED = 1 << 6,
        /// Gather: return the tag.
        TAG = 1 << 7,
        /// List: tombstones too. Answers: this is one.
        TOMBSTONE = 1 << 8,
        /// Answers to Create, Publish, Delete: a value was displaced.
        DISPLACED = 1 << 9,
        /// Answers: deleted or replaced, readable only to holders of its set.
        HELD = 1 << 10,
        /// Touch: this lease, also where it is shorter than the one before; from
        /// then on only another such Touch changes it.
        EXACT = 1 << 11,
        /// Map: the other values of the same set, too.
        SET = 1 << 12,
        /// Create: checksum and tag stand behind the value's bytes, in a
        /// [`Trailer`](crate::Trailer).
        TRAILER = 1 << 13,
    }
);

impl RowFlags {
    /// Flags that Create stores with the value.
    pub const STORED: Self = Self(Self::KEEP.0 | Self::SEALED.0 | Self::CHECKSUM.0);
    /// Flags that a Create row may carry.
    pub const CREATE: Self = Self(
        Self::STORED.0 | Self::REPLACE.0 | Self::REWRITE.0 | Self::RESERVE.0 | Self::TRAILER.0,
    );
    /// Flags that a Gather row may carry.
    pub const GATHER: Self = Self(Self::FILLED.0 | Self::TAG.0);
    /// Flags that a List row may carry.
    pub const LIST: Self = Self::TOMBSTONE;
    /// Flags that a Publish row may carry.
    pub const PUBLISH: Self = Self::CHECKSUM;
    /// Flags that a Touch row may carry.
    pub const TOUCH: Self = Self::EXACT;
    /// Flags that a Map row may carry.
    pub const MAP: Self = Self::SET;
}
