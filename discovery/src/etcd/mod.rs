//! `etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX`: members as plain keys of etcd,
//! the living as keys with a lease.
//!
//! ```text
//! PREFIX/CLUSTER/settings        written once
//! PREFIX/CLUSTER/members/NAME    a member; its revision is the mod_revision
//! PREFIX/CLUSTER/living/NAME     a living server, with a lease of three seconds that it
//!                                renews each second
//! ```
//!
//! Spoken to is the JSON gateway, which every member of etcd 3.4 and later has on the
//! port of its clients. A user needs `readwrite` on all keys that begin with
//! `PREFIX/CLUSTER/`; that of a client, `read`.

mod api;
mod entry;
mod json;
mod watching;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use crate::backend::{Announcement, Backend};
use crate::error::DiscoveryError;
use crate::model::{Living, Member, Revision, Settings, Snapshot};
use crate::records;
use crate::remote::base64::Base64;
use crate::remote::keeper;
use crate::remote::layout::{Layout, Listing};
use crate::remote::{HeldSecret, ServiceUrl, Tls};
use crate::validate;
use api::{Api, Reading, User};
use entry::EtcdEntry;
use json::{Compare, Done, Number, Pair, Put, Range, Step, Transaction};
use watching::Watching;

const DEFAULT_PORT: u16 = 2379;
const OPTIONS: [&str; 7] = {
    let [tls, ca, cert, key, server_name] = Tls::OPTIONS;
    ["user", "password-file", tls, ca, cert, key, server_name]
};

/// `etcd:`: a cluster in etcd (3.4 or later).
///
/// Reading costs one call, whatever the number of servers. A server that is killed is
/// gone three seconds after its last heartbeat, and up to one more until etcd looks.
#[derive(Debug)]
pub struct EtcdBackend {
    api: Arc<Api>,
    layout: Layout,
    watching: Watching,
}

impl EtcdBackend {
    /// Uses the members that the URL names. Reads the files that it names, and asks
    /// nobody yet.
    pub fn new(url: &str, cluster: &str) -> Result<Self, DiscoveryError> {
        validate::name(cluster)?;
        let url = ServiceUrl::parse("etcd", url, DEFAULT_PORT, &OPTIONS)?;
        let tls = Tls::from_options(&url.options, |reason| url.bad(reason))?;
        let api = Arc::new(Api::new(&url, user(&url)?, tls));
        let layout = Layout::new(&url.path, cluster);
        Ok(Self { api, layout, watching: Watching::default() })
    }

    async fn read(&self) -> Result<Snapshot, DiscoveryError> {
        let (pairs, revision) = self.api.list(self.layout.root()).await?;
        let mut listing = Listing::new(&self.layout);
        for pair in &pairs {
            let key = pair.key.text();
            listing.take(&key, &pair.value.0, revision_of(pair), pair.lease.0 != 0)?;
        }
        self.watching.read(Reading { revision, keys: pairs.len() as i64 });
        Ok(listing.finish())
    }

    /// Does one step if a key is at that revision.
    async fn write_at(
        &self,
        key: &str,
        expected: Revision,
        success: Step,
    ) -> Result<Done, DiscoveryError> {
        let of_key = || Base64::of(key);
        let mod_revision = Number(i64::try_from(expected.0).unwrap_or(i64::MAX));
        let transaction = Transaction {
            compare: [Compare { key: of_key(), target: "MOD", mod_revision }],
            success: [success],
            failure: [Step::Read(Range::one(key))],
        };
        self.api.transact(&transaction).await
    }

    async fn write_settings(&self, settings: &Settings) -> Result<Settings, DiscoveryError> {
        validate::settings(settings)?;
        let cluster = self.layout.cluster();
        records::check_cluster(cluster, &settings.cluster)?;
        let key = self.layout.settings();
        let put = put(&key, records::to_bytes(&key, settings)?);
        let done = self.write_at(&key, Revision::ABSENT, put).await?;
        if done.succeeded {
            return Ok(settings.clone());
        }
        let found = done.found().map(|pair| pair.value.0).unwrap_or_default();
        records::settings(&key, cluster, &found)
    }

    async fn write(&self, member: &Member, expected: Revision) -> Result<Revision, DiscoveryError> {
        validate::member(member)?;
        let key = self.layout.member(&member.name);
        let put = put(&key, records::to_bytes(&key, member)?);
        let done = self.write_at(&key, expected, put).await?;
        if done.succeeded {
            return Ok(Revision(done.header.revision.0.unsigned_abs()));
        }
        Err(conflict(&member.name, expected, done))
    }

    async fn remove(&self, name: &str, expected: Revision) -> Result<(), DiscoveryError> {
        validate::name(name)?;
        let key = self.layout.member(name);
        let range = Range::one(&key);
        let done = self.write_at(&key, expected, Step::Remove(range)).await?;
        if done.succeeded {
            return Ok(());
        }
        Err(conflict(name, expected, done))
    }

    async fn begin(&self, living: &Living) -> Result<Announcement, DiscoveryError> {
        validate::living(living)?;
        let key = self.layout.living(&living.name);
        Ok(keeper::keep(EtcdEntry::begin(self.api.clone(), key, living).await?))
    }

    async fn free(&self, silent: &Living) -> Result<(), DiscoveryError> {
        validate::name(&silent.name)?;
        let key = self.layout.living(&silent.name);
        let Some(pair) = self.api.get(&key).await? else { return Ok(()) };
        if records::is_entry_of(&key, silent, &pair.value.0) {
            let range = Range::one(&key);
            self.write_at(&key, revision_of(&pair), Step::Remove(range)).await?;
        }
        Ok(())
    }
}

fn revision_of(pair: &Pair) -> Revision {
    Revision(pair.mod_revision.0.unsigned_abs())
}

fn put(key: &str, value: Vec<u8>) -> Step {
    Step::Put(Put { key: Base64::of(key), value: Base64(value), ..Put::default() })
}

fn conflict(name: &str, expected: Revision, done: Done) -> DiscoveryError {
    let found = done.found().as_ref().map_or(Revision::ABSENT, revision_of);
    DiscoveryError::Conflict { name: name.to_owned(), expected, found }
}

fn user(url: &ServiceUrl) -> Result<Option<User>, DiscoveryError> {
    let login = url.login()?;
    let user = |(name, password)| Ok(User { name, password: HeldSecret::new(password)? });
    login.map(user).transpose()
}

impl Backend for EtcdBackend {
    fn url(&self) -> String {
        self.api.service().to_owned()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.read().boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        self.watching.changed(&self.api, self.layout.root()).boxed()
    }

    fn create_settings<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Settings, DiscoveryError>> {
        self.write_settings(settings).boxed()
    }

    fn write_member<'a>(
        &'a self,
        member: &'a Member,
        expected: Revision,
    ) -> BoxFuture<'a, Result<Revision, DiscoveryError>> {
        self.write(member, expected).boxed()
    }

    fn remove_member<'a>(
        &'a self,
        name: &'a str,
        expected: Revision,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.remove(name, expected).boxed()
    }

    fn announce<'a>(
        &'a self,
        living: &'a Living,
    ) -> BoxFuture<'a, Result<Announcement, DiscoveryError>> {
        self.begin(living).boxed()
    }

    fn free_name<'a>(&'a self, silent: &'a Living) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.free(silent).boxed()
    }
}
