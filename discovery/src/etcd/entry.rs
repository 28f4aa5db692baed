//! A living server in etcd: a key with a lease.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, try_join};

use super::api::Api;
use super::json::{Compare, Number, Pair, Put, Range, Step, Transaction};
use crate::error::DiscoveryError;
use crate::model::Living;
use crate::records;
use crate::remote::base64::Base64;
use crate::remote::keeper::{Beat, Entry, LEASE};

/// How often a name is tried for that turns out to be free after all.
const CLAIMS_MAX: usize = 5;

/// The entry of a server of this process.
#[derive(Debug)]
pub(super) struct EtcdEntry {
    api: Arc<Api>,
    key: String,
    living: Living,
    value: Vec<u8>,
    lease: i64,
}

impl EtcdEntry {
    /// Takes the name for a server; fails when another lives under it. What was begun
    /// ends by itself when this is dropped half way.
    pub(super) async fn begin(
        api: Arc<Api>,
        key: String,
        living: &Living,
    ) -> Result<Self, DiscoveryError> {
        let value = records::to_bytes(&key, living)?;
        let mut entry = Self { api, key, living: living.clone(), value, lease: 0 };
        match entry.take(false).await {
            Ok(()) => Ok(entry),
            Err(error) => {
                let _ = entry.end_lease().await;
                Err(error)
            }
        }
    }

    /// Takes the name by a new lease. With `is_ours` also when an earlier lease of this
    /// same incarnation has it.
    async fn take(&mut self, is_ours: bool) -> Result<(), DiscoveryError> {
        let mut found = self.api.get(&self.key).await?;
        self.check_free(found.as_ref(), is_ours)?;
        self.lease = self.api.grant(LEASE.as_secs()).await?;
        for _ in 0..CLAIMS_MAX {
            let revision = found.map_or(Number(0), |pair| pair.mod_revision);
            let done = self.api.transact(&self.write_at(revision)).await?;
            if done.succeeded {
                return Ok(());
            }
            found = done.found();
            self.check_free(found.as_ref(), is_ours)?;
        }
        Err(self.taken(None))
    }

    fn write_at(&self, mod_revision: Number) -> Transaction {
        let key = || Base64::of(self.key.as_str());
        let put = Put { key: key(), value: Base64(self.value.clone()), lease: Number(self.lease) };
        Transaction {
            compare: [Compare { key: key(), target: "MOD", mod_revision }],
            success: [Step::Put(put)],
            failure: [Step::Read(Range::one(&self.key))],
        }
    }

    /// Fails when another server has the name. A key without a lease is no server's.
    fn check_free(&self, found: Option<&Pair>, is_ours: bool) -> Result<(), DiscoveryError> {
        match found {
            Some(pair) if pair.lease.0 != 0 && !(is_ours && self.is_of_us(pair)) => {
                Err(self.taken(self.holder(pair)))
            }
            _ => Ok(()),
        }
    }

    fn holder(&self, pair: &Pair) -> Option<Living> {
        records::living(&self.key, &self.living.name, &pair.value.0).ok()
    }

    /// Whether our lease holds the key, or an earlier one of this incarnation does.
    fn is_of_us(&self, pair: &Pair) -> bool {
        let is_ours = |holder: Living| holder.incarnation == self.living.incarnation;
        pair.lease.0 == self.lease || self.holder(pair).is_some_and(is_ours)
    }

    fn taken(&self, holder: Option<Living>) -> DiscoveryError {
        DiscoveryError::NameTaken {
            name: self.living.name.clone(),
            address: holder.as_ref().map(Living::address).unwrap_or_default(),
            incarnation: holder.and_then(|holder| holder.incarnation),
        }
    }

    async fn renew(&self) -> Result<Beat, DiscoveryError> {
        let (is_kept, found) =
            try_join(self.api.keep_alive(self.lease), self.api.get(&self.key)).await?;
        Ok(match found {
            Some(pair) if pair.lease.0 == self.lease && pair.value.0 == self.value && is_kept => {
                Beat::Alive
            }
            Some(pair) if pair.lease.0 != 0 && !self.is_of_us(&pair) => Beat::Taken,
            _ => Beat::Lost,
        })
    }

    /// The old lease is ended last: the key may still be its own until then.
    async fn take_again(&mut self) -> Result<(), DiscoveryError> {
        let old = self.lease;
        self.take(true).await?;
        let _ = self.api.revoke(old).await;
        Ok(())
    }

    async fn end_lease(&self) -> Result<(), DiscoveryError> {
        match self.lease {
            0 => Ok(()),
            lease => self.api.revoke(lease).await,
        }
    }
}

impl Entry for EtcdEntry {
    fn name(&self) -> String {
        format!("\"{}\" at {}", self.living.name, self.api.service())
    }

    fn beat(&mut self) -> BoxFuture<'_, Result<Beat, DiscoveryError>> {
        self.renew().boxed()
    }

    fn claim(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.take_again().boxed()
    }

    fn release(&mut self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.end_lease().boxed()
    }
}
