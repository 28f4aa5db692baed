//! Objects that are verified, one after the other.

use std::sync::Arc;

use super::Own;
use crate::error::Error;
use crate::object::Verified;

/// The objects whose names begin with a prefix, each verified, about in the order of
/// their names. Dropped, it ends what is under way.
#[derive(Debug)]
pub struct Verification {
    verification: crate::Verification,
    own: Arc<Own>,
    is_over: bool,
}

impl Verification {
    pub(super) fn new(verification: crate::Verification, own: Arc<Own>) -> Self {
        Self { verification, own, is_over: false }
    }

    /// Servers that gave no answer so far:
    /// [`Verification::unreachable`](crate::Verification::unreachable).
    pub fn unreachable(&self) -> &[String] {
        self.verification.unreachable()
    }

    /// Whether the registry may have been wiped:
    /// [`Listing::is_of_young_registry`](crate::Listing::is_of_young_registry).
    pub fn is_of_young_registry(&self) -> bool {
        self.verification.is_of_young_registry()
    }
}

impl Iterator for Verification {
    type Item = Result<Verified, Error>;

    /// The next object. An error is the last item.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.own.wait(async { self.verification.next().await.transpose() });
        let next = next.transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
