//! The clocks of a client: the one that versions come from, corrected by the
//! servers'.

use std::sync::{Arc, Mutex, PoisonError};

use rampuddle_protocol::Version;

use crate::environment::Environment;
use crate::error::Error;
use crate::offsets::{Offsets, Verdict};
use crate::version_clock::VersionClock;

/// Draws versions, and learns from handshakes and answers.
#[derive(Debug)]
pub(crate) struct Clocks {
    versions: VersionClock,
    offsets: Mutex<Offsets>,
}

impl Clocks {
    /// Clocks that know no server yet.
    pub(crate) fn new(environment: &Environment) -> Self {
        Self { versions: VersionClock::new(environment), offsets: Mutex::default() }
    }

    /// A new version, greater than all before.
    pub(crate) fn draw(&self) -> Version {
        self.versions.draw()
    }

    /// Takes note of a version that a server returned.
    pub(crate) fn observe(&self, version: Version) {
        self.versions.observe(version);
    }

    /// The corrected time in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.versions.now_ms()
    }

    /// How far ahead of a server's clock a version lies, in milliseconds;
    /// `None` when the server was not met.
    pub(crate) fn ahead_of(&self, server: &str, version: Version) -> Option<i64> {
        let offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let server_ms = self.versions.local_ms().saturating_add_signed(offsets.of(server)?);
        Some((version.unix_ms() as i64).saturating_sub(server_ms as i64))
    }

    /// For versions that a server refused because they lie too far ahead of its
    /// clock, after the clocks were compared again: those drawn from now on may
    /// be less than those drawn before, as far as no server has shown one.
    pub(crate) fn rewind(&self) {
        self.versions.rewind();
    }

    /// Takes the clock offset that a handshake or a later comparison showed.
    ///
    /// # Errors
    /// When the server's clock is more than 5 min off the other servers'.
    pub(crate) fn greeted(&self, server: &Arc<str>, offset_ms: i64) -> Result<(), Error> {
        let mut offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = offsets.record(server, offset_ms);
        self.versions.set_offset_ms(offsets.median_ms());
        if offsets.is_news(server, verdict) {
            tell(server, offset_ms, verdict);
        }
        match verdict {
            Verdict::Fine | Verdict::Doubtful => Ok(()),
            Verdict::Refuse { off_by_ms } => {
                Err(Error::ClockOff { server: Arc::clone(server), off_by_ms })
            }
        }
    }

    /// Forgets a server that is no member any more.
    pub(crate) fn forget(&self, server: &str) {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner).forget(server);
    }
}

fn tell(server: &Arc<str>, offset_ms: i64, verdict: Verdict) {
    match verdict {
        Verdict::Fine => tracing::info!(%server, "the server's clock is right now"),
        Verdict::Doubtful => {
            tracing::warn!(%server, offset_ms, "the clocks of this machine and of the server differ");
        }
        Verdict::Refuse { off_by_ms } => {
            tracing::error!(%server, off_by_ms, "the server's clock is wrong: it is not used");
        }
    }
}
