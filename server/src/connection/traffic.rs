//! The bytes of a connection: where those that come go to, and which leave next.

use std::io::{self, IoSlice, IoSliceMut};

use super::outbox::Segment;
use super::{Connection, Receiving, Way};
use crate::core::Core;
use crate::pool::PoolRange;

/// Stretches of memory that one receive or send call is given.
pub(super) const SLICES_MAX: usize = 16;
/// What values hold where nothing was ever given.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl Connection {
    /// Gives `read` the memory that the next bytes go to, at most about
    /// `budget` bytes of it outside its own inbox, and takes in what it read. Returns what
    /// `read` returned, and whether it filled all it was given.
    pub(crate) fn receive_with(
        &mut self,
        core: &mut Core,
        budget: u64,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<(usize, bool)> {
        let (direct, ranges) = self.pool_targets(core, budget);
        let mut slices: [IoSliceMut<'_>; SLICES_MAX] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        core.store.pool.each_mut(&ranges.list[..ranges.count], |bytes| {
            slices[count] = IoSliceMut::new(bytes);
            count += 1;
        });
        // Behind the targets in the pool comes the connection's own memory,
        // unless more of the row will go to the pool.
        let own = match &mut self.receiving {
            Receiving::LargeHead { header, buffer, filled, .. } => {
                let room = (header.head_bytes() - *filled).min(budget as usize);
                &mut buffer.head_mut()[*filled..*filled + room]
            }
            Receiving::Payload(transfer) if direct > 0 && direct < transfer.target_left() => {
                &mut []
            }
            _ => {
                let room = self.inbox.room();
                self.inbox.bytes_mut(room)
            }
        };
        let given = direct as usize + own.len();
        if !own.is_empty() {
            slices[count] = IoSliceMut::new(own);
            count += 1;
        }
        let received = read(&mut slices[..count])?;
        self.handle_received(received, direct, core);
        Ok((received, received == given))
    }

    fn pool_targets(&self, core: &Core, budget: u64) -> (u64, Ranges) {
        let mut ranges = Ranges::default();
        let mut direct = 0;
        if let Receiving::Payload(transfer) = &self.receiving {
            transfer.targets(&core.store, |range| {
                let length = (range.end - range.start).min(budget - direct);
                ranges.list[ranges.count] = range.start..range.start + length;
                ranges.count += 1;
                direct += length;
                direct < budget && ranges.count < ranges.list.len()
            });
        }
        (direct, ranges)
    }

    fn handle_received(&mut self, received: usize, direct: u64, core: &mut Core) {
        let now_ms = core.now.monotonic_ms;
        core.counters.received_bytes += received as u64;
        if received > 0 {
            (self.active_ms, self.received_ms) = (now_ms, now_ms);
            self.received_bytes += received as u64;
            self.incoming.moved(received, now_ms);
        }
        let of_pool = direct.min(received as u64);
        let own = received - of_pool as usize;
        match &mut self.receiving {
            Receiving::LargeHead { filled, .. } => *filled += own,
            Receiving::Payload(transfer) => {
                transfer.landed(of_pool, core);
                self.inbox.received(own);
            }
            Receiving::Head | Receiving::Drain(_) => self.inbox.received(own),
        }
        self.process(core);
    }

    /// Gives `write` what is to be sent, at most `budget` bytes, and notes what it
    /// wrote. Returns that, and whether it was all it was given. A descriptor goes
    /// with the first byte. What `write` cannot lend, it is given again to copy.
    pub(crate) fn send_with(
        &mut self,
        core: &mut Core,
        budget: u64,
        mut write: impl FnMut(&[IoSlice<'_>], Way<'_>) -> io::Result<usize>,
    ) -> io::Result<(usize, bool)> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut given, mut way) = (0, 0, Way::Copied);
        self.outbox.poll(&core.store, budget, |segment| {
            if let Segment::Descriptor(descriptor) = segment {
                // What goes before it goes by another call.
                if count == 0 {
                    way = Way::Passing(descriptor);
                }
                return count == 0;
            }
            let (is_lent, lends) = (matches!(segment, Segment::Lent(_)), matches!(way, Way::Lent));
            if count == 0 && is_lent {
                way = Way::Lent;
            } else if is_lent != lends {
                // What is copied and what is lent go by calls of their own.
                way = if lends { Way::Lent } else { Way::CopiedMore };
                return false;
            }
            let mut push = |bytes| {
                slices[count] = IoSlice::new(bytes);
                (count, given) = (count + 1, given + bytes.len());
                count < SLICES_MAX
            };
            match segment {
                Segment::Head(bytes) => push(bytes),
                Segment::Descriptor(_) => unreachable!("seen above"),
                Segment::Pool(range) | Segment::Lent(range) => push(core.store.pool.bytes(range)),
                Segment::Zeros(mut bytes) => {
                    while bytes > 0 {
                        let now = bytes.min(ZEROS.len());
                        bytes -= now;
                        if !push(&ZEROS[..now]) {
                            return false;
                        }
                    }
                    true
                }
            }
        });
        let mut is_refused = false;
        let written = loop {
            match write(&slices[..count], way) {
                Err(error) if matches!(way, Way::Lent) && !is_not_ready(&error) => {
                    (way, is_refused) = (Way::Copied, true);
                }
                written => break written,
            }
        };
        let is_lent = matches!(way, Way::Lent);
        if is_refused {
            self.handle_refused(core);
        }
        let sent = written?;
        if is_lent {
            core.zero_copy.sends.add();
        }
        let now_ms = core.now.monotonic_ms;
        core.counters.sent_bytes += sent as u64;
        self.active_ms = now_ms;
        self.sent_bytes += sent as u64;
        self.outgoing.moved(sent, now_ms);
        self.outbox.sent(sent, is_lent, &mut core.store, &mut core.buffers);
        self.handle_woken(core);
        Ok((sent, sent == given))
    }

    /// The system did not take what it was to be lent.
    #[cold]
    fn handle_refused(&mut self, core: &Core) {
        core.zero_copy.refused.add();
        if let Some(lent) = &mut self.outbox.lent {
            lent.refused();
        }
    }
}

/// Whether a call may succeed as it is when it is made again.
fn is_not_ready(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Stretches of the pool for one receive call.
#[derive(Default)]
struct Ranges {
    list: [PoolRange; SLICES_MAX - 1],
    count: usize,
}
