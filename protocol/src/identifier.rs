//! The 16-byte identifiers, each a type of its own so that none is taken for another.

use std::fmt;

use crate::Field;

macro_rules! identifier {
    ($( $(#[$attribute:meta])* $name:ident ),* $(,)?) => {$(
        $(#[$attribute])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// All zero: none.
            pub const NONE: Self = Self([0; 16]);

            /// Whether this is [`Self::NONE`].
            pub fn is_none(self) -> bool {
                self == Self::NONE
            }
        }

        impl Field for $name {
            const BYTES: usize = 16;
            #[inline]
            fn put(&self, out: &mut [u8]) {
                self.0.put(out);
            }
            #[inline]
            fn take(bytes: &[u8]) -> Self {
                Self(<[u8; 16]>::take(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }
    )*};
}

identifier!(
    /// Names the values of one upload, on every server that has some of them.
    SetId,
    /// Joins a client's connections to one server; unguessable, drawn by the client.
    SessionId,
    /// Drawn by a server at each start.
    Incarnation,
    /// Names a server's stored values; survives a warm restart.
    StoreId,
    /// Drawn by each side of a handshake.
    Nonce,
);
