//! All servers of a cluster by name, as the view has them.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Error;
use crate::placement::Placing;
use crate::server::{Access, Server};
use crate::view::View;

/// The servers that the client may speak to: members and whoever is alive.
#[derive(Debug)]
pub(crate) struct Servers {
    access: Arc<Access>,
    by_name: RwLock<HashMap<Arc<str>, Arc<Server>>>,
}

impl Servers {
    /// No server yet.
    pub(crate) fn new(access: Arc<Access>) -> Self {
        Self { access, by_name: RwLock::default() }
    }

    /// What all connections share.
    pub(crate) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// The server of that name. One that is a member but not alive is there too;
    /// it is tried where it was last seen.
    ///
    /// # Errors
    /// When it is neither a member nor alive.
    pub(crate) fn server(&self, name: &str) -> Result<Arc<Server>, Error> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let found = by_name.get(name).cloned();
        found.ok_or_else(|| Error::NotAMember { name: name.to_owned() })
    }

    /// Some servers that are not known to fail, those that were spoken to first.
    pub(crate) fn answering(&self, most: usize) -> Vec<Arc<Server>> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let fine = by_name.values().filter(|server| !server.is_suspect());
        let mut fine: Vec<Arc<Server>> = fine.cloned().collect();
        drop(by_name);
        fine.sort_by_key(|server| server.is_stranger());
        fine.truncate(most);
        fine
    }

    /// Follows a new view: new servers appear, addresses change, servers that
    /// are neither members nor alive are dropped.
    pub(crate) fn update(&self, view: &View) {
        self.access.place_by(Placing::of(view.settings()));
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.retain(|name, _| {
            let stays = view.member(name).is_some() || view.living(name).is_some();
            if !stays {
                self.access.clocks.forget(name);
            }
            stays
        });
        let living = view.all_living().map(|(name, _)| name);
        for name in view.members().iter().map(|member| &member.name).chain(living) {
            let server = by_name.entry(Arc::clone(name)).or_insert_with(|| {
                Arc::new(Server::new(Arc::clone(name), Arc::clone(&self.access)))
            });
            match view.living(name) {
                Some(living) => server.update(living),
                None => server.vanished(),
            }
        }
    }
}
