//! Heads of many objects: one request to each server.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::limits::PAYLOAD_BYTES_MAX;
use rampuddle_protocol::{RowFlags, Status};

use super::super::head::{FIRST_BYTES, Head};
use super::super::hedge::Patience;
use super::super::operation::Operation;
use super::super::ranks::{Places, prefer};
use super::Asked;
use super::assembly::Assembly;
use super::blocks::BYTES_AT_ONCE;
use super::here::{self, Needed};
use crate::error::Error;
use crate::raw::{Answer, GatherItem, Target};

/// A head that is looked for.
struct Sought<'o> {
    object: &'o Asked,
    places: Places,
    /// The servers to ask, one after the other while they are silent.
    order: std::vec::IntoIter<Arc<str>>,
}

/// A head of which the begin is in.
struct Partial<'o> {
    object: &'o Asked,
    head: Head,
    bytes: Bytes,
}

impl Partial<'_> {
    fn missing(&self) -> u64 {
        let all = self.head.tag.inline_bytes() + u64::from(self.head.tag.variable_bytes);
        all.saturating_sub(self.bytes.len() as u64)
    }

    fn rest(&self) -> GatherItem {
        let offset = self.bytes.len() as u64;
        let mut item = GatherItem::new(self.head.key.clone(), offset, self.missing());
        item.flags = RowFlags::FILLED;
        item.if_version = self.head.tag.version;
        item
    }
}

/// Looks for the heads of these objects, and begins their ranges. An object whose
/// head is not with an owner, or makes no sense, is left.
pub(super) async fn find(
    operation: &Operation,
    objects: &[Asked],
    patience: &Patience,
    assembly: &mut Assembly<'_>,
) {
    let view = operation.views.current();
    let sought = objects.iter().map(|object| {
        let places = Places::of(&view, &object.key);
        let first = places.all().len().min(operation.replicas_in(&view).into());
        let mut order = places.all()[..first].to_vec();
        prefer(operation, &mut order);
        Sought { object, places, order: order.into_iter() }
    });
    let mut sought: Vec<_> = sought.collect();
    while !sought.is_empty() {
        let (begun, silent) = ask(operation, sought).await;
        complete(operation, begun, patience, assembly).await;
        sought = silent;
    }
}

/// Items by the server that they go to.
type ByServer<T> = BTreeMap<Arc<str>, Vec<T>>;

/// Asks the next server of each for its head: what came, and those whose server
/// was silent.
async fn ask<'o>(
    operation: &Operation,
    sought: Vec<Sought<'o>>,
) -> (Vec<Partial<'o>>, Vec<Sought<'o>>) {
    let mut by_server = ByServer::new();
    for mut sought in sought {
        if let Some(server) = sought.order.next() {
            by_server.entry(server).or_default().push(sought);
        }
    }
    let answered = join_all(by_server.into_iter().map(async |(server, sought)| {
        let length = (PAYLOAD_BYTES_MAX / sought.len() as u64).min(FIRST_BYTES);
        let item = |sought: &Sought<'_>| {
            let mut item = GatherItem::new(sought.object.key.clone(), 0, length);
            item.flags = RowFlags::FILLED | RowFlags::TAG;
            item
        };
        let answers = gather(operation, &server, sought.iter().map(item).collect()).await;
        (server, sought.into_iter().zip(answers).collect::<Vec<_>>())
    }));
    let (mut begun, mut silent) = (Vec::new(), Vec::new());
    for (server, answers) in answered.await {
        for (sought, answer) in answers {
            match answer {
                Ok(answer) => begun.extend(begin(operation, &sought, &server, &answer)),
                Err(_) => silent.push(sought),
            }
        }
    }
    (begun, silent)
}

/// The begin of a head, when there is one, and an owner gave it.
fn begin<'o>(
    operation: &Operation,
    sought: &Sought<'o>,
    server: &Arc<str>,
    answer: &Answer,
) -> Option<Partial<'o>> {
    if answer.status != Status::Ok {
        return None;
    }
    let head = Head::begin(operation, &sought.object.key, server, answer).ok()?;
    let is_owner = sought.places.owners(head.tag.replicas).contains(server);
    let bytes = answer.bytes.clone();
    is_owner.then(|| Partial { object: sought.object, head, bytes })
}

/// Reads what is missing of the heads, so much at once, and begins the ranges of
/// each object whose head is whole.
async fn complete(
    operation: &Operation,
    begun: Vec<Partial<'_>>,
    patience: &Patience,
    assembly: &mut Assembly<'_>,
) {
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    for partial in begun {
        let missing = partial.missing();
        // The table of an object of terabytes.
        if missing > BYTES_AT_ONCE {
            continue;
        }
        if batch_bytes + missing > BYTES_AT_ONCE {
            complete_batch(operation, std::mem::take(&mut batch), patience, assembly).await;
            batch_bytes = 0;
        }
        batch_bytes += missing;
        batch.push(partial);
    }
    complete_batch(operation, batch, patience, assembly).await;
}

async fn complete_batch(
    operation: &Operation,
    batch: Vec<Partial<'_>>,
    patience: &Patience,
    assembly: &mut Assembly<'_>,
) {
    let (mut whole, mut by_server) = (Vec::new(), ByServer::new());
    for partial in batch {
        if partial.missing() == 0 {
            whole.push(partial);
        } else {
            let server = Arc::clone(&partial.head.server);
            by_server.entry(server).or_default().push(partial);
        }
    }
    let read = join_all(by_server.into_iter().map(async |(server, partials)| {
        let items = partials.iter().map(Partial::rest).collect();
        let rests = gather(operation, &server, items).await;
        partials
            .into_iter()
            .zip(rests)
            .filter_map(|(partial, rest)| join(partial, rest))
            .collect::<Vec<_>>()
    }));
    whole.extend(read.await.into_iter().flatten());
    let mut needed = Vec::with_capacity(whole.len());
    for Partial { object, mut head, bytes } in whole {
        let is_filled =
            head.fill(bytes, true).is_ok() && head.unpack_inline(operation).await.is_ok();
        // What is over is left: another server may have a later one.
        if is_filled && !head.life().is_over(operation.clocks().now_ms()) {
            let blocks = assembly.begin(&object.ranges, &head);
            needed.push(Needed { head, blocks });
        }
    }
    here::copy(operation, needed, patience, assembly).await;
}

fn join<'o>(partial: Partial<'o>, rest: Result<Answer, Error>) -> Option<Partial<'o>> {
    let rest = rest.ok().filter(|rest| rest.status == Status::Ok)?;
    let bytes = [&partial.bytes[..], &rest.bytes].concat().into();
    Some(Partial { bytes, ..partial })
}

async fn gather(
    operation: &Operation,
    server: &Arc<str>,
    items: Vec<GatherItem>,
) -> Vec<Result<Answer, Error>> {
    operation.raw().gather(&Target::Server(Arc::clone(server)), items).await
}
