//! Blocks that lie on this machine: compared and copied from where they lie.

use tokio::task::yield_now;

use super::super::head::Head;
use super::super::in_place::InPlace;
use super::super::operation::Operation;
use super::assembly::Assembly;
use super::blocks::Wanted;

/// For fewer bytes than these a server is not asked where they lie: they come as soon.
const WORTH_BYTES: u64 = 64 << 10;
/// The server says where each stripe of the object lies, which takes as long as to
/// send so many bytes.
const STRIPE_WORTH_BYTES: u64 = 2 << 10;

/// Copies blocks of one object to the ranges that want them, as far as they lie here
/// as readers want them; returns the others, which are to be asked for.
pub(super) async fn copy(
    operation: &Operation,
    head: &Head,
    wanted: Vec<Wanted>,
    assembly: &mut Assembly<'_>,
) -> Vec<Wanted> {
    let bytes: u64 = wanted.iter().filter_map(Wanted::plain_bytes).sum();
    let worth = WORTH_BYTES.max(head.tag.stripes() * STRIPE_WORTH_BYTES);
    if !operation.servers.access().maps || bytes < worth {
        return wanted;
    }
    // What is kept here is let go of behind the last copy.
    let mut in_place = InPlace::default();
    in_place.find_more(operation, head).await;
    let verify = assembly.options().verify;
    let mut left = Vec::new();
    for wanted in wanted {
        let is_copied = wanted.plain_bytes().is_some_and(|bytes| {
            let within = wanted.offset..wanted.offset + bytes;
            let Some((server, bytes)) = in_place.stored(wanted.stripe, within) else {
                return false;
            };
            let is_right = !verify || wanted.is_right(&bytes);
            if is_right {
                assembly.put(&wanted.ranges, server, wanted.begin, &bytes);
            } else {
                operation.servers.access().counters.found_damaged();
            }
            is_right
        });
        if is_copied {
            // Others may have waited for this thread meanwhile.
            yield_now().await;
        } else {
            left.push(wanted);
        }
    }
    left
}
