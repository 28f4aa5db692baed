//! How long an object lives: for good, or to a moment that its head tells.
//!
//! Head and stripes end on the servers by their leases, all at that moment. Who
//! reads the head after it takes it as a delete of that version, so that neither
//! a server that is late nor an older copy shows what is over.

use std::time::Duration;

use rampuddle_protocol::RowFlags;
use rampuddle_protocol::limits::{CLOCK_BOUND_MS, LEASE_MS_MAX};

use crate::error::Error;

/// The shortest life that can be asked for.
pub(crate) const TTL_SECONDS_MIN: u64 = 1;
/// The longest one: ten years.
pub(crate) const TTL_SECONDS_MAX: u64 = 3_650 * 86_400;

/// So much may lie between the end of an object and that of a lease which was meant to
/// end with it: the writer's clock was compared with other servers than the reader's.
const SLACK_MS: u64 = CLOCK_BOUND_MS;

const _: () = assert!(TTL_SECONDS_MAX * 1000 < LEASE_MS_MAX);

/// Refuses a life that is too short or too long.
pub(super) fn check_ttl(ttl: Option<Duration>) -> Result<(), Error> {
    let allowed = Duration::from_secs(TTL_SECONDS_MIN)..=Duration::from_secs(TTL_SECONDS_MAX);
    match ttl.filter(|ttl| !allowed.contains(ttl)) {
        None => Ok(()),
        Some(ttl) => Err(Error::BadOption {
            option: "TTL",
            found: format!("{ttl:?}"),
            expected: "1 s to 3,650 days",
        }),
    }
}

/// To when an object lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Life {
    /// In milliseconds since 1970; `None` = for good.
    pub(super) ends_ms: Option<u64>,
}

impl Life {
    /// One that begins now.
    pub(super) fn beginning(ttl: Option<Duration>, now_ms: u64) -> Self {
        Self { ends_ms: ttl.map(|ttl| now_ms.saturating_add(ttl.as_millis() as u64)) }
    }

    /// Whether it has ended.
    pub(super) fn is_over(self, now_ms: u64) -> bool {
        self.ends_ms.is_some_and(|end| end <= now_ms)
    }

    /// A lease from now to its end; 0 = none.
    pub(super) fn lease_ms(self, now_ms: u64) -> u64 {
        let left = |end: u64| end.saturating_sub(now_ms).clamp(1, LEASE_MS_MAX);
        self.ends_ms.map_or(0, left)
    }

    /// Whether a copy with such a lease (0 = none) is there as long as the object.
    pub(super) fn is_covered_by(self, lease_ms: u64, now_ms: u64) -> bool {
        let lease_ends_ms = now_ms.saturating_add(lease_ms).saturating_add(SLACK_MS);
        lease_ms == 0 || self.ends_ms.is_some_and(|end| end <= lease_ends_ms)
    }
}

/// The lease that the values of an upload are given by a Touch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lease {
    /// So many milliseconds, where it is not longer.
    AtLeast(u64),
    /// What is left of the object's life.
    Of(Life),
}

impl Lease {
    /// Its length from now on, and the flags of the Touch.
    pub(super) fn row(self, now_ms: u64) -> (u64, RowFlags) {
        match self {
            Self::AtLeast(lease_ms) => (lease_ms, RowFlags::NONE),
            Self::Of(Life { ends_ms: None }) => (0, RowFlags::NONE),
            Self::Of(life) => (life.lease_ms(now_ms), RowFlags::EXACT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_as_long_as_asked_for_and_so_is_its_lease() {
        let now_ms = 1_767_225_600_001;
        let life = Life::beginning(Some(Duration::from_secs(90)), now_ms);
        assert_eq!(life.ends_ms, Some(now_ms + 90_000));
        assert_eq!((life.lease_ms(now_ms), life.lease_ms(now_ms + 89_999)), (90_000, 1));
        assert!(!life.is_over(now_ms + 89_999) && life.is_over(now_ms + 90_000));
        // Over, it has a lease all the same: none at all would be for good.
        assert_eq!(life.lease_ms(now_ms + 100_000), 1);
        let far = Life { ends_ms: Some(u64::MAX) };
        assert_eq!(far.lease_ms(now_ms), LEASE_MS_MAX, "as somebody else may have written it");
        let covered = |lease_ms| life.is_covered_by(lease_ms, now_ms);
        assert!(covered(90_000) && covered(89_000) && covered(1_000_000) && covered(0));
        let longer = Life::beginning(Some(Duration::from_secs(3_600)), now_ms);
        assert!(!longer.is_covered_by(90_000, now_ms) && !longer.is_covered_by(3_200_000, now_ms));
        let for_good = Life::beginning(None, now_ms);
        assert!(for_good.is_covered_by(0, now_ms) && !for_good.is_covered_by(u64::MAX, now_ms));
        assert!(!for_good.is_over(u64::MAX) && for_good.lease_ms(now_ms) == 0);
        assert_eq!(Lease::Of(for_good).row(now_ms), (0, RowFlags::NONE));
        assert_eq!(Lease::Of(life).row(now_ms), (90_000, RowFlags::EXACT));
    }

    #[test]
    fn lives_that_no_tag_can_hold_are_refused() {
        let refused = |ttl| check_ttl(Some(ttl)).is_err();
        let (shortest, longest) =
            (Duration::from_secs(TTL_SECONDS_MIN), Duration::from_secs(TTL_SECONDS_MAX));
        let step = Duration::from_nanos(1);
        assert!(!refused(shortest) && !refused(longest) && check_ttl(None).is_ok());
        assert!(refused(shortest - step) && refused(longest + step));
        assert!(refused(Duration::ZERO) && refused(Duration::MAX));
        let message = check_ttl(Some(Duration::ZERO)).unwrap_err().to_string();
        assert_eq!(message, "the option TTL is 0ns: expected 1 s to 3,650 days");
    }
}
