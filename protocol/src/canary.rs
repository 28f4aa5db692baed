//! Bugs planted on purpose, by which the fuzzers in `fuzz/` are themselves
//! tested: a fuzzer that does not find them proves nothing.
//!
//! Without the feature `canary-bug` no bug is in the code: [`is_planted`] is a
//! constant. With it, each is asleep until `plant` wakes it. Builds without
//! debug assertions, which is what people run, refuse the feature.

#[cfg(all(feature = "canary-bug", not(debug_assertions)))]
compile_error!(
    "the feature `canary-bug` plants bugs for the fuzzers in `fuzz/`; it is for builds with \
     debug assertions only: build without it"
);

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Canary {
    /// The rows' shares of a payload are added up with wrap-around.
    WrappingShares = 1,
    /// A server forgets that it took the last byte of a row's value, when what
    /// it received ends exactly there, behind a row that came with it.
    SplitAtRow = 2,
}

#[cfg(feature = "canary-bug")]
mod planted {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Canary;

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Wakes a bug, for the whole process and for good.
    pub fn plant(canary: Canary) {
        PLANTED.store(canary as u8, Ordering::Relaxed);
    }

    /// Whether the bug is awake.
    #[inline]
    pub fn is_planted(canary: Canary) -> bool {
        PLANTED.load(Ordering::Relaxed) == canary as u8
    }
}
#[cfg(feature = "canary-bug")]
pub use planted::{is_planted, plant};

/// Whether the bug is awake: never, in this build.
#[cfg(not(feature = "canary-bug"))]
#[inline]
pub const fn is_planted(_: Canary) -> bool {
    false
}
