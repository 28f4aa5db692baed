//! How TCP cuts what it is given.

/// Bytes of one packet, headers aside, that a system hands to a network card at most,
/// which cuts it (generic segmentation offload): 64 KiB, less what Linux keeps for
/// headers.
const OFFLOAD_BYTES: u64 = 64 * 1024 - 321;

/// The bytes that a system sends at once over a connection whose segments hold
/// `segment_bytes` of them (TCP_MAXSEG): as many whole segments as go into one packet of
/// 64 KiB. On the loopback interface, whose segments are that long, it is one.
///
/// A write that is longer by a little sends the rest as a packet of its own, which costs
/// about as much as a full one; so who writes much writes whole bursts. Source:
/// `tcp_xmit_size_goal` of Linux.
///
/// ```
/// use rampuddle_protocol::burst_bytes;
///
/// assert_eq!(burst_bytes(65_483), 65_483);
/// assert_eq!(burst_bytes(1_448), 45 * 1_448);
/// ```
pub fn burst_bytes(segment_bytes: u32) -> u64 {
    let segment = u64::from(segment_bytes.max(1));
    (OFFLOAD_BYTES / segment).max(1) * segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_as_many_whole_segments_as_one_packet_takes_and_one_at_least() {
        for segment in 0..=u32::from(u16::MAX) {
            let (burst, segment) = (burst_bytes(segment), u64::from(segment.max(1)));
            assert!(burst.is_multiple_of(segment) && burst >= segment, "{segment}: {burst}");
            assert!(burst + segment > OFFLOAD_BYTES, "{segment}: {burst} has room for one more");
            assert!(burst <= OFFLOAD_BYTES.max(segment), "{segment}: {burst} is too long");
        }
        assert_eq!(burst_bytes(u32::MAX), u64::from(u32::MAX));
    }
}
