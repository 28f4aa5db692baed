//! Writing settings and members.

use super::ZooKeeperBackend;
use super::connection::Connection;
use super::failure::Failure;
use super::nodes::{ATTEMPTS_MAX, Step, was_changed};
use super::service::node;
use super::wire::Life;
use crate::error::DiscoveryError;
use crate::model::{Member, Revision, Settings};
use crate::records;
use crate::validate;

/// What a write to a member is based on.
#[derive(Debug, Default)]
struct Found {
    revision: Revision,
    version: i32,
    /// The version of the node above; none when that is missing too.
    count: Option<i32>,
}

impl ZooKeeperBackend {
    /// Writes the settings, unless there are some.
    pub(super) async fn settle(&self, settings: &Settings) -> Result<Settings, DiscoveryError> {
        validate::settings(settings)?;
        let service = &self.service;
        let cluster = service.layout().cluster();
        records::check_cluster(cluster, &settings.cluster)?;
        let (key, access) = (service.layout().settings(), service.access());
        let data = records::to_bytes(&key, settings)?;
        let failed = |failure| service.failed("write to", failure);
        for _ in 0..ATTEMPTS_MAX {
            let connection = self.connection().await?;
            if let Some((found, _)) = self.latest(&connection, &key).await? {
                return records::settings(&key, cluster, &found);
            }
            let root = service.root();
            connection.create_path(&root, &root, access).await.map_err(failed)?;
            let create = Step::create(&node(&key), &data, access, Life::Persistent);
            match connection.all([create]).await {
                Ok(_) => return Ok(settings.clone()),
                Err(failure) if was_changed(&failure) => {}
                Err(failure) => return Err(failed(failure)),
            }
        }
        Err(failed(Failure::Contended(ATTEMPTS_MAX)))
    }

    pub(super) async fn write(
        &self,
        member: &Member,
        expected: Revision,
    ) -> Result<Revision, DiscoveryError> {
        validate::member(member)?;
        let key = self.service.layout().member(&member.name);
        let data = records::to_bytes(&key, member)?;
        let (access, path, parent) = (self.service.access(), node(&key), self.service.members());
        let written = self.change(&member.name, expected, |found| match found.count {
            Some(count) if found.revision != Revision::ABSENT => {
                vec![Step::check(&parent, count), Step::set(&path, &data, found.version)]
            }
            _ => vec![Step::count(&parent), Step::create(&path, &data, access, Life::Persistent)],
        });
        written.await.map(Revision)
    }

    pub(super) async fn remove(
        &self,
        name: &str,
        expected: Revision,
    ) -> Result<(), DiscoveryError> {
        validate::name(name)?;
        let path = node(&self.service.layout().member(name));
        let parent = self.service.members();
        let removed = self.change(name, expected, |found| match found.count {
            Some(count) if found.revision != Revision::ABSENT => {
                vec![Step::set(&parent, &[], count), Step::delete(&path, found.version)]
            }
            // What is not there is removed already.
            _ => Vec::new(),
        });
        removed.await.map(drop)
    }

    /// Does what `steps` says if the member's record is at revision `expected`. When
    /// others change the same meanwhile, nothing is done, and it is looked at anew.
    async fn change(
        &self,
        name: &str,
        expected: Revision,
        steps: impl Fn(&Found) -> Vec<Step>,
    ) -> Result<u64, DiscoveryError> {
        let service = &self.service;
        let failed = |failure| service.failed("write to", failure);
        for _ in 0..ATTEMPTS_MAX {
            let connection = self.connection().await?;
            let found = self.found(&connection, name).await?;
            if found.revision != expected {
                let (name, found) = (name.to_owned(), found.revision);
                return Err(DiscoveryError::Conflict { name, expected, found });
            }
            if found.count.is_none() {
                let (path, root, access) = (service.members(), service.root(), service.access());
                connection.create_path(&path, &root, access).await.map_err(failed)?;
            }
            match connection.all(steps(&found)).await {
                Ok(moment) => return Ok(moment),
                Err(failure) if was_changed(&failure) => {}
                Err(failure) => return Err(failed(failure)),
            }
        }
        Err(failed(Failure::Contended(ATTEMPTS_MAX)))
    }

    /// The record of a member as it is now. One that cannot be read is an error, so that
    /// it is not overwritten: it may say that the member is draining.
    async fn found(&self, connection: &Connection, name: &str) -> Result<Found, DiscoveryError> {
        let failed = |failure| self.service.failed("read", failure);
        let key = self.service.layout().member(name);
        // In this order: a node that is created anew between the two is found out.
        connection.catch_up(&node(&key)).await.map_err(failed)?;
        let parent = connection.data(&self.service.members()).await.map_err(failed)?;
        let count = parent.map(|(_, stat)| stat.version);
        let Some((data, stat)) = connection.data(&node(&key)).await.map_err(failed)? else {
            return Ok(Found { count, ..Found::default() });
        };
        records::member(&key, name, &data)?;
        Ok(Found { revision: Revision(stat.modified), version: stat.version, count })
    }

    async fn latest(
        &self,
        connection: &Connection,
        key: &str,
    ) -> Result<Option<(Vec<u8>, super::wire::Stat)>, DiscoveryError> {
        let found = async {
            connection.catch_up(&node(key)).await?;
            connection.data(&node(key)).await
        };
        match found.await {
            Err(Failure::TooLarge { .. }) => Err(super::too_large(key)),
            found => found.map_err(|failure| self.service.failed("read", failure)),
        }
    }
}
