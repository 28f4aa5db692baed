//! `consul://[TOKEN@]HOST:PORT/SERVICE?dc=NAME&tag=NAME`: members in the key-value store
//! of Consul, the living as services of its agents.
//!
//! ```text
//! keys       SERVICE/CLUSTER/settings        written once
//!            SERVICE/CLUSTER/members/NAME    a member; its revision is the ModifyIndex
//!            SERVICE/CLUSTER/living/NAME     a living server; held by its session
//! sessions   one for each living server, tied to the check of its service: when that
//!            does not pass any more, Consul ends the session and removes the key
//! services   SERVICE, of the agent that the URL names, with a check that passes for
//!            three seconds after each heartbeat
//! ```
//!
//! Services of one name may be registered with many agents, so it is the key that says
//! who has a server's name. A server is alive while its key is held and its service
//! passes.
//!
//! The token of a server needs `write` on `key_prefix "SERVICE/"`, `service "SERVICE"` and
//! `session_prefix ""`, and `read` on `node_prefix ""`; that of a client `read` on the keys,
//! the service and the nodes.

mod api;
mod entry;
mod json;
mod watching;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, try_join};

use crate::backend::{Announcement, Backend};
use crate::error::DiscoveryError;
use crate::model::{Living, Member, Revision, Settings, Snapshot};
use crate::records;
use crate::remote::base64::Base64;
use crate::remote::keeper;
use crate::remote::layout::{Layout, Listing, Place};
use crate::remote::{Credential, HeldSecret, ServiceUrl, Tls};
use crate::url::UrlProblem;
use crate::validate;
use api::{Api, Transaction};
use entry::{ConsulEntry, Place as EntryPlace};
use json::{Meta, Pair, Passing, Step};
use watching::Watching;

const DEFAULT_PORT: u16 = 8500;
const OPTIONS: [&str; 8] = {
    let [tls, ca, cert, key, server_name] = Tls::OPTIONS;
    ["dc", "tag", "token-file", tls, ca, cert, key, server_name]
};
/// Where Consul's own programs look for a token.
const TOKEN_VARIABLE: &str = "CONSUL_HTTP_TOKEN";
const TOKEN_FILE_VARIABLE: &str = "CONSUL_HTTP_TOKEN_FILE";

/// `consul:`: a cluster in Consul (1.7 or later).
///
/// Reading costs two calls of the agent, whatever the number of servers. A server that
/// is killed is gone three seconds after its last heartbeat, which it gives each second.
#[derive(Debug)]
pub struct ConsulBackend {
    api: Arc<Api>,
    layout: Layout,
    service: String,
    tags: Vec<String>,
    watching: Watching,
}

impl ConsulBackend {
    /// Uses the agent that the URL names. Reads the files that it names, and asks
    /// nobody yet.
    pub fn new(url: &str, cluster: &str) -> Result<Self, DiscoveryError> {
        validate::name(cluster)?;
        let url = ServiceUrl::parse("consul", url, DEFAULT_PORT, &OPTIONS)?;
        if url.hosts.len() > 1 {
            return Err(url.bad(UrlProblem::SeveralHosts { expected: "local agent" }));
        }
        if url.path.contains('/') {
            return Err(url.bad(UrlProblem::Path));
        }
        let word = |name: &'static str| match url.options.get(name) {
            Some(value) if !value.split(',').all(|word| validate::name(word).is_ok()) => {
                Err(url.bad(UrlProblem::Option { option: name, expected: "a name" }))
            }
            value => Ok(value.map(ToOwned::to_owned)),
        };
        let (datacenter, tags) = (word("dc")?, word("tag")?);
        let tags = tags.iter().flat_map(|tags| tags.split(',')).map(ToOwned::to_owned).collect();
        let tls = Tls::from_options(&url.options, |reason| url.bad(reason))?;
        let token = token(&url)?.map(HeldSecret::new).transpose()?;
        Ok(Self {
            api: Arc::new(Api::new(&url, token, tls, datacenter)),
            layout: Layout::new(&url.path, cluster),
            service: url.path,
            tags,
            watching: Watching::default(),
        })
    }

    async fn read(&self) -> Result<Snapshot, DiscoveryError> {
        let keys = self.api.list(self.layout.root());
        let passing = self.api.passing(&self.service, self.layout.cluster());
        let ((pairs, keys), (passing, services)) = try_join(keys, passing).await?;
        if pairs.is_empty() {
            // Without the right to read, a list is empty; one key is an error.
            self.api.get(&self.layout.settings()).await?;
        }
        let found = self.assemble(&pairs, passing)?;
        self.watching.read(keys, services);
        Ok(found)
    }

    fn assemble(&self, pairs: &[Pair], passing: Vec<Passing>) -> Result<Snapshot, DiscoveryError> {
        let passing: BTreeSet<Meta> =
            passing.into_iter().filter_map(|one| one.service.meta).collect();
        let mut listing = Listing::new(&self.layout);
        let mut held = 0;
        for pair in pairs {
            let (key, value) = (&pair.key, &pair.value.0);
            if matches!(self.layout.place(key), Place::Living(_)) && pair.is_held() {
                held += 1;
                if !self.may_be_alive(pair, &passing) {
                    continue;
                }
            }
            listing.take(key, value, Revision(pair.modify_index), pair.is_held())?;
        }
        if held > 0 && passing.is_empty() {
            listing.complain(format_args!(
                "{held} servers hold their names, but no service \"{}\" is seen to pass: \
                 expected a token that may read that service and nodes",
                self.service
            ));
        }
        Ok(listing.finish())
    }

    /// A record that cannot be read is not hidden, so that somebody hears of it.
    fn may_be_alive(&self, pair: &Pair, passing: &BTreeSet<Meta>) -> bool {
        let Place::Living(name) = self.layout.place(&pair.key) else { return true };
        match records::living(&pair.key, name, &pair.value.0) {
            Ok(living) => passing.contains(&self.meta(&living)),
            Err(_) => true,
        }
    }

    fn meta(&self, living: &Living) -> Meta {
        entry::meta(self.layout.cluster(), living)
    }

    async fn settings(&self) -> Result<Option<Settings>, DiscoveryError> {
        let key = self.layout.settings();
        let found = self.api.get(&key).await?;
        let parsed =
            found.map(|pair| records::settings(&key, self.layout.cluster(), &pair.value.0));
        parsed.transpose()
    }

    async fn write_settings(&self, settings: &Settings) -> Result<Settings, DiscoveryError> {
        validate::settings(settings)?;
        records::check_cluster(self.layout.cluster(), &settings.cluster)?;
        let key = self.layout.settings();
        let value = Some(Base64(records::to_bytes(&key, settings)?));
        let step = Step { verb: "cas", key, value, index: 0 };
        match self.api.transact(&[step]).await? {
            Transaction::Done(_) => Ok(settings.clone()),
            Transaction::NotDone(said) => {
                self.settings().await?.ok_or_else(|| self.not_written(said))
            }
        }
    }

    async fn write(&self, member: &Member, expected: Revision) -> Result<Revision, DiscoveryError> {
        validate::member(member)?;
        let key = self.layout.member(&member.name);
        let value = Some(Base64(records::to_bytes(&key, member)?));
        let step = Step { verb: "cas", key, value, index: expected.0 };
        match self.api.transact(&[step]).await? {
            Transaction::Done(index) => Ok(Revision(index)),
            Transaction::NotDone(said) => Err(self.conflict(&member.name, expected, said).await?),
        }
    }

    async fn remove(&self, name: &str, expected: Revision) -> Result<(), DiscoveryError> {
        validate::name(name)?;
        if expected == Revision::ABSENT {
            return match self.revision(name).await? {
                Revision::ABSENT => Ok(()),
                found => Err(DiscoveryError::Conflict { name: name.to_owned(), expected, found }),
            };
        }
        let step = |verb| {
            let key = self.layout.member(name);
            Step { verb, key, value: None, index: expected.0 }
        };
        // Of a key that is not there, a removal alone would be done.
        match self.api.transact(&[step("check-index"), step("delete-cas")]).await? {
            Transaction::Done(_) => Ok(()),
            Transaction::NotDone(said) => Err(self.conflict(name, expected, said).await?),
        }
    }

    /// The failure of who was not the first, with what is there now.
    async fn conflict(
        &self,
        name: &str,
        expected: Revision,
        said: String,
    ) -> Result<DiscoveryError, DiscoveryError> {
        let found = self.revision(name).await?;
        if found == expected {
            return Ok(self.not_written(said));
        }
        Ok(DiscoveryError::Conflict { name: name.to_owned(), expected, found })
    }

    async fn revision(&self, name: &str) -> Result<Revision, DiscoveryError> {
        let found = self.api.get(&self.layout.member(name)).await?;
        Ok(found.map_or(Revision::ABSENT, |pair| Revision(pair.modify_index)))
    }

    fn not_written(&self, message: String) -> DiscoveryError {
        let backend = self.api.service().to_owned();
        DiscoveryError::Refused { what: "write", backend, code: 409, message }
    }

    async fn begin(&self, living: &Living) -> Result<Announcement, DiscoveryError> {
        validate::living(living)?;
        let place = EntryPlace {
            api: self.api.clone(),
            key: self.layout.living(&living.name),
            cluster: self.layout.cluster().to_owned(),
            service: self.service.clone(),
            tags: self.tags.clone(),
        };
        Ok(keeper::keep(ConsulEntry::begin(place, living).await?))
    }

    async fn free(&self, silent: &Living) -> Result<(), DiscoveryError> {
        validate::name(&silent.name)?;
        let key = self.layout.living(&silent.name);
        let Some(pair) = self.api.get(&key).await? else { return Ok(()) };
        let is_same = records::is_entry_of(&key, silent, &pair.value.0);
        match pair.session {
            Some(session) if is_same => self.api.destroy_session(&session).await,
            _ => Ok(()),
        }
    }
}

/// The token: of the URL, else of the file that it names, else of the environment.
fn token(url: &ServiceUrl) -> Result<Option<Credential>, DiscoveryError> {
    if let Some(token) = url.token()? {
        return Ok(Some(Credential::OfUrl(token)));
    }
    let file = url.options.file("token-file").map_err(|reason| url.bad(reason))?;
    let of_environment = || Credential::from_environment(TOKEN_VARIABLE);
    let file_of_environment = || Credential::file_from_environment(TOKEN_FILE_VARIABLE);
    Ok(file.map(Credential::File).or_else(of_environment).or_else(file_of_environment))
}

impl Backend for ConsulBackend {
    fn url(&self) -> String {
        self.api.service().to_owned()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        self.read().boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        let (root, tag) = (self.layout.root(), self.layout.cluster());
        self.watching.changed(&self.api, root, &self.service, tag).boxed()
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
