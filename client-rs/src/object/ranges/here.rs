//! Blocks that lie on this machine: compared and copied from where they lie.

use futures_util::future::join_all;
use tokio::task::yield_now;

use super::super::head::Head;
use super::super::hedge::Patience;
use super::super::in_place::InPlace;
use super::super::operation::Operation;
use super::assembly::Assembly;
use super::blocks::Wanted;

/// For fewer bytes than these a server is not asked where they lie: they come as soon.
const WORTH_BYTES: u64 = 64 << 10;
/// The server says where each stripe of the object lies, which takes as long as to
/// send so many bytes.
const STRIPE_WORTH_BYTES: u64 = 2 << 10;
/// Objects that are asked for at once, and kept by servers until they are copied.
const OBJECTS_AT_ONCE: usize = 8;

/// An object, and the blocks of it that ranges need.
pub(super) struct Needed {
    pub(super) head: Head,
    pub(super) blocks: Vec<Wanted>,
}

impl Needed {
    fn is_worth_it(&self) -> bool {
        let bytes: u64 = self.blocks.iter().filter_map(Wanted::plain_bytes).sum();
        bytes >= WORTH_BYTES.max(self.head.tag.stripes() * STRIPE_WORTH_BYTES)
    }
}

/// Copies blocks of objects to the ranges that want them, as far as they lie here as
/// readers want them; the others are left with `assembly`, to be asked for.
pub(super) async fn copy(
    operation: &Operation,
    needed: Vec<Needed>,
    patience: &Patience,
    assembly: &mut Assembly<'_>,
) {
    let maps = operation.servers.access().maps;
    let (needed, sent): (Vec<_>, Vec<_>) =
        needed.into_iter().partition(|needed| maps && needed.is_worth_it());
    assembly.wanted.extend(sent.into_iter().flat_map(|needed| needed.blocks));
    let mut needed = needed.into_iter();
    while needed.len() > 0 {
        let now: Vec<_> = needed.by_ref().take(OBJECTS_AT_ONCE).collect();
        // Nothing is copied meanwhile: answers would seem to take as long as that.
        let found = join_all(now.iter().map(async |Needed { head, .. }| {
            let mut in_place = InPlace::default();
            in_place.find_more(operation, head, patience).await;
            in_place
        }));
        for (in_place, needed) in found.await.into_iter().zip(now) {
            copy_object(operation, &in_place, needed.blocks, assembly).await;
        }
    }
}

/// What the servers keep for `in_place` they let go of behind the last copy.
async fn copy_object(
    operation: &Operation,
    in_place: &InPlace,
    blocks: Vec<Wanted>,
    assembly: &mut Assembly<'_>,
) {
    let verify = assembly.options().verify;
    for wanted in blocks {
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
            assembly.wanted.push(wanted);
        }
    }
}
