//! What all connections of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rampuddle_protocol::{Announced, Incarnation, InfoRow, Nonce, Role, StoreId};

use crate::connection::{Buffers, Done, Lent};
use crate::session::Sessions;
use crate::sharing::Sharing;
use crate::store::{Now, Store};

/// A token that clients may show: its id, secret and the highest role it gives.
#[derive(Clone)]
pub struct Token {
    /// Named by the client; padded with zeros.
    pub key_id: [u8; 16],
    /// Known to both sides, never sent.
    pub secret: Vec<u8>,
    /// The highest role that it gives.
    pub role: Role,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key_id = String::from_utf8_lossy(&self.key_id);
        write!(
            formatter,
            "Token({}, {:?})",
            key_id.trim_end_matches('\0').escape_debug(),
            self.role
        )
    }
}

/// What the server is told from outside while it runs: the fingerprint of its
/// cluster's settings, and whether discovery has it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Facts>);

#[derive(Debug, Default)]
struct Facts {
    fingerprint: AtomicU64,
    announced: AtomicU8,
}

impl Told {
    /// Takes the fingerprint that connections which begin from now on must have,
    /// or none: `rampuddle_protocol::PlacementSettings::fingerprint`.
    pub fn settings(&self, fingerprint: u64) {
        self.0.fingerprint.store(fingerprint, Ordering::Relaxed);
    }

    /// Takes what Info answers from now on.
    pub fn announced(&self, announced: Announced) {
        self.0.announced.store(announced as u8, Ordering::Relaxed);
    }

    /// The latest fingerprint, 0 = none yet.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.0.fingerprint.load(Ordering::Relaxed)
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What came of sending values from where they lie, since the start: see
/// [`Options::zero_copy_from`](crate::Options::zero_copy_from). Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ZeroCopyCounts(pub(crate) Arc<ZeroCopy>);

/// The counts themselves.
#[derive(Debug, Default)]
pub(crate) struct ZeroCopy {
    pub(crate) sends: Count,
    pub(crate) done: Count,
    pub(crate) copied: Count,
    pub(crate) refused: Count,
}

impl ZeroCopyCounts {
    /// Calls that the system took without a copy, or meant to.
    pub fn sends(&self) -> u64 {
        self.0.sends.get()
    }

    /// Times that it said it was done with some of them.
    pub fn done(&self) -> u64 {
        self.0.done.get()
    }

    /// Those of them when it had copied after all: no device took the bytes from
    /// where they lie.
    pub fn copied(&self) -> u64 {
        self.0.copied.get()
    }

    /// Calls that it refused; their bytes were copied.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }
}

/// Who the server is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) store_id: StoreId,
    pub(crate) tokens: Vec<Token>,
    pub(crate) told: Told,
}

/// What the loop and the connections count, for Info.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) connections: u64,
    pub(crate) create_rows: u64,
    pub(crate) scatter_rows: u64,
    pub(crate) gather_rows: u64,
    pub(crate) delete_rows: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) framing_errors: u64,
    pub(crate) stalled_connections: u64,
    pub(crate) refused_connections: u64,
    pub(crate) turn_us_max: u64,
}

/// Store, sessions, shared buffers and the turn's time.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) sessions: Sessions,
    pub(crate) sharing: Sharing,
    pub(crate) buffers: Buffers,
    pub(crate) counters: Counters,
    pub(crate) zero_copy: Arc<ZeroCopy>,
    pub(crate) now: Now,
    started_ms: u64,
}

impl Core {
    /// Nothing stored, nobody connected.
    pub(crate) fn new(identity: Identity, store: Store, sessions: Sessions, now: Now) -> Self {
        Self {
            identity,
            store,
            sessions,
            sharing: Sharing::off(),
            buffers: Buffers::new(),
            counters: Counters::default(),
            zero_copy: Arc::default(),
            now,
            started_ms: now.monotonic_ms,
        }
    }

    /// The same memory after a kill and a start: nothing stored, nobody connected.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn restarted(self, incarnation: Incarnation, sessions: Sessions) -> Self {
        Self {
            identity: Identity { incarnation, ..self.identity },
            store: Store::new(self.store.pool.emptied()),
            sessions,
            sharing: Sharing::off(),
            buffers: self.buffers,
            counters: Counters::default(),
            zero_copy: Arc::default(),
            now: self.now,
            started_ms: self.now.monotonic_ms,
        }
    }

    /// A nonce that nobody can foresee.
    pub(crate) fn draw_nonce(&mut self) -> Nonce {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).expect("the system gave randomness at the start, too");
        Nonce(nonce)
    }

    /// Takes what the system says of bytes that it was lent, and counts it.
    pub(crate) fn handle_done(&mut self, lent: &mut Lent, done: Done) {
        if lent.handle_done(done, &mut self.store) {
            self.zero_copy.done.add();
            if done.was_copied {
                self.zero_copy.copied.add();
            }
        }
    }

    /// Ends what time alone ends, but for leases: see [`Store::sweep`].
    pub(crate) fn handle_time(&mut self) {
        self.sharing.forget_the_gone(&mut self.store);
        self.sessions.expire(&mut self.store, self.now);
        self.store.expire_reservations(self.now);
    }

    /// What Info answers.
    pub(crate) fn info(&self) -> InfoRow {
        let (store, counters) = (&self.store, &self.counters);
        InfoRow {
            name_bytes: 0,
            announced: self.identity.told.0.announced.load(Ordering::Relaxed),
            mappings: self.sharing.len() as u16,
            mapped_pages: store.mapped_pages(),
            incarnation: self.identity.incarnation,
            store_id: self.identity.store_id,
            clock_unix_ms: self.now.unix_ms,
            uptime_ms: self.now.monotonic_ms - self.started_ms,
            pool_bytes: store.total_bytes(),
            used_bytes: store.used_bytes(),
            reserved_bytes: store.reserved_bytes(),
            superseded_bytes: store.superseded_bytes(),
            values: store.values(),
            tombstones: store.tombstone_count(),
            entries_max: store.entries_max(),
            connections: counters.connections,
            sessions: self.sessions.len() as u64,
            holds: store.holds(),
            reservations: store.reservation_count(),
            create_rows: counters.create_rows,
            scatter_rows: counters.scatter_rows,
            gather_rows: counters.gather_rows,
            delete_rows: counters.delete_rows,
            received_bytes: counters.received_bytes,
            sent_bytes: counters.sent_bytes,
            no_space_rows: store.counters.no_space_rows,
            leases_ended: store.counters.leases_ended,
            holds_broken: store.counters.holds_broken,
            tombstones_discarded: store.counters.tombstones_discarded,
            framing_errors: counters.framing_errors,
            stalled_connections: counters.stalled_connections,
            refused_connections: counters.refused_connections,
            turn_us_max: counters.turn_us_max,
        }
    }
}
