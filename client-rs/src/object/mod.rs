//! The object layer: immutable, versioned, checksummed objects of any length,
//! striped and replicated over servers that know nothing of it.
//!
//! An object is one *head* value, which places it, and as many *stripes* as its
//! length asks for, each placed by itself. Up to 1 MiB the bytes lie in the
//! head. The format is in `docs/object-format.md`.

mod cleanup;
mod codec;
mod compare;
mod copies;
mod delete;
mod format;
#[cfg(test)]
mod format_dumps;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod get;
mod head;
mod hedge;
mod hold;
mod if_version;
mod in_place;
mod life;
mod list;
mod no_clobber;
mod observed;
mod opened;
mod operation;
mod orphans;
mod put;
mod put_head;
mod put_stripes;
mod ranges;
mod ranks;
mod read;
mod removal;
mod report;
mod sections;
mod source;
mod stat;
mod stream;
mod untold;
mod variable;
mod verifier;
mod verify;
mod verify_object;

pub(crate) use self::cleanup::Cleanups;
pub use self::codec::Codec;
pub(crate) use self::hold::Holds;
pub use self::list::{Listing, Unreadable};
pub use self::orphans::Orphans;
pub use self::ranges::RangeOf;
pub use self::report::{
    CompareOptions, Comparison, CopyPlace, CopyState, DeleteReport, GetOptions, GetReport, Located,
    ObjectStat, Progress, PutCondition, PutOptions, PutReport, Source, Value,
};
pub use self::sections::Metadata;
pub(crate) use self::untold::Untold;
pub use self::verify::{Verification, Verified, VerifyOptions, VerifyState};
