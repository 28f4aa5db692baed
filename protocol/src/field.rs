//! Fixed-length fields, and the macro that lays structs out on the wire.

/// A field of fixed length in little-endian byte order.
pub trait Field: Sized {
    /// Bytes on the wire.
    const BYTES: usize;
    /// Writes the field to the first [`Field::BYTES`] of `out`.
    fn put(&self, out: &mut [u8]);
    /// Reads the field from the first [`Field::BYTES`] of `bytes`.
    fn take(bytes: &[u8]) -> Self;
}

macro_rules! integer_field {
    ($($integer:ty),*) => {$(
        impl Field for $integer {
            const BYTES: usize = size_of::<$integer>();
            #[inline]
            fn put(&self, out: &mut [u8]) {
                out[..Self::BYTES].copy_from_slice(&self.to_le_bytes());
            }
            #[inline]
            fn take(bytes: &[u8]) -> Self {
                let mut array = [0; size_of::<$integer>()];
                array.copy_from_slice(&bytes[..Self::BYTES]);
                Self::from_le_bytes(array)
            }
        }
    )*};
}
integer_field!(u8, u16, u32, u64);

impl<const N: usize> Field for [u8; N] {
    const BYTES: usize = N;
    #[inline]
    fn put(&self, out: &mut [u8]) {
        out[..N].copy_from_slice(self);
    }
    #[inline]
    fn take(bytes: &[u8]) -> Self {
        let mut array = [0; N];
        array.copy_from_slice(&bytes[..N]);
        array
    }
}

/// Where a field of a message lies: name, offset and length in bytes.
pub type Layout = &'static [(&'static str, usize, usize)];

/// Declares a struct whose fields lie on the wire in the order written, without
/// padding, and gives it `BYTES`, `LAYOUT`, `encode` and `decode`.
macro_rules! wire_layout {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $( $(#[$field_attribute:meta])* $field:ident : $kind:ty, )*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name {
            $( $(#[$field_attribute])* pub $field: $kind, )*
        }

        impl $name {
            /// Length on the wire, in bytes.
            pub const BYTES: usize = 0 $( + <$kind as $crate::Field>::BYTES )*;

            /// Name, offset and length of each field, in order.
            pub const LAYOUT: $crate::Layout = &{
                let mut layout = [$( (stringify!($field), 0, <$kind as $crate::Field>::BYTES) ),*];
                let mut index = 1;
                while index < layout.len() {
                    layout[index].1 = layout[index - 1].1 + layout[index - 1].2;
                    index += 1;
                }
                layout
            };

            /// Writes the fields to the first [`Self::BYTES`] of `out`.
            ///
            /// # Panics
            /// When `out` is shorter.
            #[inline]
            pub fn encode(&self, out: &mut [u8]) {
                let mut rest = &mut out[..Self::BYTES];
                $(
                    let (field, tail) = rest.split_at_mut(<$kind as $crate::Field>::BYTES);
                    $crate::Field::put(&self.$field, field);
                    rest = tail;
                )*
                let _ = rest;
            }

            /// Reads the fields from the first [`Self::BYTES`] of `bytes`; what
            /// follows belongs to a later version and is skipped.
            ///
            /// # Panics
            /// When `bytes` is shorter.
            #[inline]
            pub fn decode(bytes: &[u8]) -> Self {
                let rest = &bytes[..Self::BYTES];
                $(
                    let ($field, rest) = rest.split_at(<$kind as $crate::Field>::BYTES);
                    let $field = <$kind as $crate::Field>::take($field);
                )*
                let _ = rest;
                Self { $( $field, )* }
            }
        }
    };
}
pub(crate) use wire_layout;
