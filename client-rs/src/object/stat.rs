//! Looking at objects without reading them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{Status, Version};

use super::format::{Tag, stripe_key, stripe_version};
use super::head::{Head, Part, check_name, find};
use super::observed::observed;
use super::operation::Operation;
use super::ranks::Places;
use super::report::{CopyPlace, CopyState, Located, ObjectStat};
use crate::client::Client;
use crate::error::Error;
use crate::metrics::OperationKind;
use crate::raw::{RawClient, StatAnswer, Target};
use crate::work::Work;

/// Stripes that are asked for at once.
const STRIPES_AT_ONCE: usize = 512;

/// A copy that is asked for.
struct Wanted {
    stripe: Option<u64>,
    is_owner: bool,
    key: Bytes,
    version: Version,
}

impl Client {
    /// What is known of an object. `None` = Absent. One round trip, and another
    /// one for an object with metadata.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn stat(&self, name: &[u8]) -> Result<Option<ObjectStat>, Error> {
        observed(self.core(), OperationKind::Stat, name, self.stat_object(name)).await
    }

    fn stat_object<'a>(&'a self, name: &'a [u8]) -> Work<'a, Result<Option<ObjectStat>, Error>> {
        Box::pin(async move {
            let operation = Operation::begin(self.core());
            let found = find(&operation, &check_name(name)?, Part::Described).await?;
            Ok(found.map(|head| head.stat()))
        })
    }

    /// An object and where its copies lie: asks every server that may have one
    /// about the head and about every stripe. Costs some 100 bytes of memory for
    /// each copy, so about 50 MiB for a TiB in stripes of 4 MiB.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn locate(&self, name: &[u8]) -> Result<Option<Located>, Error> {
        observed(self.core(), OperationKind::Locate, name, self.locate_object(name)).await
    }

    fn locate_object<'a>(&'a self, name: &'a [u8]) -> Work<'a, Result<Option<Located>, Error>> {
        Box::pin(async move {
            let operation = &Operation::begin(self.core());
            let key = check_name(name)?;
            let Some(head) = find(operation, &key, Part::Described).await? else { return Ok(None) };
            let mut copies = Vec::new();
            for values in values_of(&head) {
                copies.extend(places(operation, &head, values).await);
            }
            Ok(Some(Located { stat: head.stat(), copies }))
        })
    }
}

/// Whether there are as many copies of the head and of every stripe as the object
/// wants, and none of them ends before it. One that gives no answer is none.
pub(super) async fn has_all_copies(operation: &Operation, head: &Head) -> bool {
    let (life, now_ms) = (head.life(), operation.clocks().now_ms());
    let stays = |copy: &&CopyPlace| {
        copy.state == CopyState::Whole && life.is_covered_by(copy.lease_ms, now_ms)
    };
    for values in values_of(head) {
        let wanted = copies_wanted(operation, head);
        let of_values = values.len();
        let copies = places(operation, head, values).await;
        let of_value = copies.chunk_by(|one, other| one.stripe == other.stripe);
        let whole = of_value.filter(|copies| copies.iter().filter(stays).count() >= wanted);
        if whole.count() < of_values {
            return false;
        }
    }
    true
}

/// How many copies of each value the object wants, as far as there are members.
pub(super) fn copies_wanted(operation: &Operation, head: &Head) -> usize {
    let view = operation.views.current();
    Places::of_copies(&view, &head.key, head.tag.replicas).owners(head.tag.replicas).len()
}

/// The stripes of an object, so many at a time.
pub(super) fn stripes_of(head: &Head) -> impl Iterator<Item = Vec<ValueOf>> + use<> {
    let of_stripes = |mut values: Vec<ValueOf>| {
        values.retain(|(stripe, ..)| stripe.is_some());
        values
    };
    values_of(head).map(of_stripes)
}

/// A value of an object: its stripe (none = the head), its key, its version.
pub(super) type ValueOf = (Option<u64>, Bytes, Version);

/// The values of an object, so many at a time: the head, then the stripes.
fn values_of(head: &Head) -> impl Iterator<Item = Vec<ValueOf>> + use<> {
    let Tag { upload, version, .. } = head.tag;
    let stripe = move |stripe| (Some(stripe), stripe_key(upload, stripe), stripe_version(upload));
    let stripes = (0..head.tag.stripes()).map(stripe);
    let mut values = std::iter::once((None, head.key.clone(), version)).chain(stripes);
    std::iter::from_fn(move || {
        let some: Vec<_> = values.by_ref().take(STRIPES_AT_ONCE).collect();
        (!some.is_empty()).then_some(some)
    })
}

/// Where the copies of some values lie, in the order of the values.
pub(super) async fn places(
    operation: &Operation,
    head: &Head,
    values: Vec<ValueOf>,
) -> Vec<CopyPlace> {
    let (view, replicas) = (operation.views.current(), head.tag.replicas);
    let mut by_server: BTreeMap<Arc<str>, Vec<Wanted>> = BTreeMap::new();
    for (stripe, key, version) in values {
        let places = Places::of_copies(&view, &key, replicas);
        let owners = places.owners(replicas).len();
        for (rank, server) in places.all().iter().enumerate() {
            let wanted = Wanted { stripe, is_owner: rank < owners, key: key.clone(), version };
            by_server.entry(Arc::clone(server)).or_default().push(wanted);
        }
    }
    let raw = &operation.raw();
    let each = by_server.into_iter().map(|(server, wanted)| places_on(raw, server, wanted));
    let mut copies: Vec<CopyPlace> = join_all(each).await.into_iter().flatten().collect();
    // A stand-in that has nothing is nothing to tell of.
    copies.retain(|copy| {
        copy.is_owner || matches!(copy.state, CopyState::Whole | CopyState::Unreachable)
    });
    copies.sort_by(|one, other| {
        let of_value = |copy: &CopyPlace| (copy.stripe, !copy.is_owner);
        of_value(one).cmp(&of_value(other)).then_with(|| one.server.cmp(&other.server))
    });
    copies
}

async fn places_on(raw: &RawClient, server: Arc<str>, wanted: Vec<Wanted>) -> Vec<CopyPlace> {
    let keys = wanted.iter().map(|wanted| wanted.key.clone()).collect();
    let answers = raw.stat(&Target::Server(Arc::clone(&server)), keys).await;
    let place = |(wanted, answer): (Wanted, Result<StatAnswer, Error>)| {
        let lease_ms = answer.as_ref().map_or(0, |answer| answer.row.lease_ms);
        let state = match answer {
            Err(_) => CopyState::Unreachable,
            Ok(answer) if answer.status == Status::NotFound => CopyState::Missing,
            Ok(answer) if !answer.status.is_success() => CopyState::Unreachable,
            Ok(answer) if answer.row.version == wanted.version => CopyState::Whole,
            Ok(_) => CopyState::Other,
        };
        let (stripe, is_owner) = (wanted.stripe, wanted.is_owner);
        CopyPlace { stripe, server: server.to_string(), is_owner, state, lease_ms }
    };
    wanted.into_iter().zip(answers).map(place).collect()
}
