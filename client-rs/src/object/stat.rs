//! Looking at objects without reading them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use rampuddle_protocol::{Status, Version};

use super::copies::wanted_of;
use super::format::{stripe_key, stripe_version};
use super::head::{Part, check_name, find, read_ranks};
use super::report::{CopyPlace, CopyState, Located, ObjectStat};
use crate::client::Client;
use crate::error::Error;
use crate::placement::Slot;
use crate::raw::{RawClient, Target};

/// A copy that is asked for.
struct Wanted {
    stripe: Option<u64>,
    is_owner: bool,
    key: Bytes,
    version: Version,
}

impl Client {
    /// What is known of an object. `None` = Absent.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn stat(&self, name: &[u8]) -> Result<Option<ObjectStat>, Error> {
        let found = find(self.core(), &check_name(name)?, Part::Tag).await?;
        Ok(found.map(|head| head.stat()))
    }

    /// An object and where its copies lie: asks every server that may have one
    /// about the head and about every stripe.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn locate(&self, name: &[u8]) -> Result<Option<Located>, Error> {
        let key = check_name(name)?;
        let Some(head) = find(self.core(), &key, Part::Tag).await? else { return Ok(None) };
        let view = self.view();
        let mut by_server: BTreeMap<Arc<str>, Vec<Wanted>> = BTreeMap::new();
        let mut want = |stripe: Option<u64>, key: Bytes, version: Version| {
            let ranks = read_ranks(&view, Slot::of(&key, 0));
            let owners = wanted_of(head.tag.replicas, ranks.len());
            for (rank, server) in ranks.into_iter().enumerate() {
                let wanted = Wanted { stripe, is_owner: rank < owners, key: key.clone(), version };
                by_server.entry(server).or_default().push(wanted);
            }
        };
        want(None, key.clone(), head.tag.version);
        let upload = head.tag.upload;
        for stripe in 0..head.tag.stripes() {
            want(Some(stripe), stripe_key(upload, stripe), stripe_version(upload));
        }
        let raw = &RawClient::for_objects(Arc::clone(self.core()));
        let each = by_server.into_iter().map(|(server, wanted)| places(raw, server, wanted));
        let mut copies: Vec<CopyPlace> = join_all(each).await.into_iter().flatten().collect();
        // A stand-in that has nothing is nothing to tell of.
        copies.retain(|copy| copy.is_owner || copy.state == CopyState::Whole);
        copies.sort_by(|one, other| {
            let key = |copy: &CopyPlace| (copy.stripe, !copy.is_owner, copy.server.clone());
            key(one).cmp(&key(other))
        });
        Ok(Some(Located { stat: head.stat(), copies }))
    }
}

async fn places(raw: &RawClient, server: Arc<str>, wanted: Vec<Wanted>) -> Vec<CopyPlace> {
    let keys = wanted.iter().map(|wanted| wanted.key.clone()).collect();
    let answers = raw.stat(&Target::Server(Arc::clone(&server)), keys).await;
    let place = |(wanted, answer): (Wanted, Result<crate::raw::StatAnswer, Error>)| {
        let state = match answer {
            Err(_) => CopyState::Unreachable,
            Ok(answer) if answer.status == Status::NotFound => CopyState::Missing,
            Ok(answer) if answer.row.version == wanted.version => CopyState::Whole,
            Ok(_) => CopyState::Other,
        };
        let (stripe, is_owner) = (wanted.stripe, wanted.is_owner);
        CopyPlace { stripe, server: server.to_string(), is_owner, state }
    };
    wanted.into_iter().zip(answers).map(place).collect()
}
