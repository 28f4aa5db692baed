//! Removing a head, or the stripes of an upload, from the servers that have copies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::SetId;

use super::format::{Tag, stripe_key, stripe_version};
use super::operation::Operation;
use super::ranks::{Places, answers};
use crate::raw::{DropItem, Target};
use crate::work::Work;

/// Stripes whose removal is asked for at once.
const STRIPES_AT_ONCE: u64 = 512;

/// What belongs to no object any more. Its version says exactly what is removed: a
/// server that has a later one under the same key keeps that.
#[derive(Debug, Clone)]
pub(super) enum Removal {
    Head { key: Bytes, tag: Tag },
    Stripes(Stripes),
}

/// The stripes of one upload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stripes {
    pub(super) upload: SetId,
    /// As in the tag.
    pub(super) replicas: u8,
    pub(super) number: u64,
}

impl Removal {
    /// Removes all copies, or those on the servers that `is_meant` says; returns the
    /// servers that may have some still, because they gave no answer.
    pub(super) fn run<'a>(
        &'a self,
        operation: &'a Operation,
        is_meant: &'a (dyn Fn(&str) -> bool + Sync),
    ) -> Work<'a, Vec<Arc<str>>> {
        Box::pin(async move {
            match self {
                Self::Head { key, tag } => drop_head(operation, key, tag, is_meant).await,
                Self::Stripes(stripes) => drop_stripes(operation, *stripes, is_meant).await,
            }
        })
    }
}

async fn drop_head(
    operation: &Operation,
    key: &Bytes,
    tag: &Tag,
    is_meant: &(dyn Fn(&str) -> bool + Sync),
) -> Vec<Arc<str>> {
    let places = Places::of_copies(&operation.views.current(), key, tag.replicas);
    let each = places.all().iter().filter(|server| is_meant(server)).map(|server| async move {
        let is_told = answers(operation, server) && {
            let item = DropItem::new(key.clone(), tag.version);
            let target = Target::Server(Arc::clone(server));
            operation.raw().drop_version(&target, vec![item]).await.remove(0).is_ok()
        };
        (!is_told).then(|| Arc::clone(server))
    });
    join_all(each).await.into_iter().flatten().collect()
}

async fn drop_stripes(
    operation: &Operation,
    stripes: Stripes,
    is_meant: &(dyn Fn(&str) -> bool + Sync),
) -> Vec<Arc<str>> {
    let Stripes { upload, replicas, number } = stripes;
    let raw = &operation.raw();
    let mut silent = BTreeSet::new();
    let mut begin = 0;
    while begin < number {
        let end = number.min(begin + STRIPES_AT_ONCE);
        let view = operation.views.current();
        let mut by_server = BTreeMap::<Arc<str>, Vec<DropItem>>::new();
        for stripe in begin..end {
            let key: Bytes = stripe_key(upload, stripe);
            let places = Places::of_copies(&view, &key, replicas);
            for server in places.all().iter().filter(|server| is_meant(server)) {
                if !answers(operation, server) {
                    silent.insert(Arc::clone(server));
                } else if !silent.contains(server) {
                    let item = DropItem::new(key.clone(), stripe_version(upload));
                    by_server.entry(Arc::clone(server)).or_default().push(item);
                }
            }
        }
        let each = by_server.into_iter().map(|(server, items)| async move {
            let answers = raw.drop_version(&Target::Server(Arc::clone(&server)), items).await;
            answers.iter().any(Result::is_err).then_some(server)
        });
        silent.extend(join_all(each).await.into_iter().flatten());
        begin = end;
    }
    silent.into_iter().collect()
}
