//! Where the records of a cluster lie in a service, and from them to a snapshot.
//!
//! ```text
//! PREFIX/CLUSTER/settings
//! PREFIX/CLUSTER/members/NAME
//! PREFIX/CLUSTER/living/NAME
//! ```

use std::fmt::Display;

use crate::assemble::Assembly;
use crate::error::DiscoveryError;
use crate::model::{Recorded, Revision, Settings, Snapshot};
use crate::records;
use crate::text::shown;
use crate::validate;

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    cluster: String,
    root: String,
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// The settings.
    Settings,
    /// The member of that name.
    Member(&'a str),
    /// The living server of that name.
    Living(&'a str),
    /// Nothing by itself: a folder, as some programs make them.
    Folder,
    /// Something that has no meaning.
    Unknown,
}

impl Layout {
    pub(crate) fn new(prefix: &str, cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), root: format!("{prefix}/{cluster}/") }
    }

    /// The name of the cluster.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// What all keys begin with; ends with a slash.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    pub(crate) fn settings(&self) -> String {
        format!("{}settings", self.root)
    }

    pub(crate) fn member(&self, name: &str) -> String {
        format!("{}members/{name}", self.root)
    }

    pub(crate) fn living(&self, name: &str) -> String {
        format!("{}living/{name}", self.root)
    }

    /// What `key` holds.
    pub(crate) fn place<'a>(&self, key: &'a str) -> Place<'a> {
        let named = |name: &'a str, place: fn(&'a str) -> Place<'a>| match name {
            "" => Place::Folder,
            name if validate::name(name).is_ok() => place(name),
            _ => Place::Unknown,
        };
        let Some(rest) = key.strip_prefix(&self.root) else { return Place::Unknown };
        match rest.split_once('/') {
            None if rest == "settings" => Place::Settings,
            None if rest.is_empty() => Place::Folder,
            Some(("members", name)) => named(name, Place::Member),
            Some(("living", name)) => named(name, Place::Living),
            _ => Place::Unknown,
        }
    }
}

/// A snapshot in the making, from what lies under the keys of a cluster.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    layout: &'a Layout,
    assembly: Assembly,
    settings: Option<Settings>,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(layout: &'a Layout) -> Self {
        Self { layout, assembly: Assembly::default(), settings: None }
    }

    /// Takes what lies under a key. `is_held` says whether the service itself removes
    /// the entry of a living server when that dies. What makes no sense costs a
    /// complaint; fails when the settings make none.
    pub(crate) fn take(
        &mut self,
        key: &str,
        bytes: &[u8],
        revision: Revision,
        is_held: bool,
    ) -> Result<(), DiscoveryError> {
        match self.layout.place(key) {
            Place::Settings => {
                self.settings = Some(records::settings(key, self.layout.cluster(), bytes)?);
            }
            Place::Member(name) => {
                let value = records::member(key, name, bytes);
                let found = value.map(|value| Recorded { value, revision });
                records::take_member(&mut self.assembly, name, found)?;
            }
            Place::Living(name) if is_held => {
                let found = records::living(key, name, bytes);
                records::take_living(&mut self.assembly, name, found)?;
            }
            Place::Living(name) => self.assembly.complain(format_args!(
                "server \"{name}\" ignored: {key} is not held by anybody; remove it"
            )),
            Place::Folder => {}
            Place::Unknown => self.assembly.complain(format_args!(
                "{} ignored: expected settings, members/NAME or living/NAME",
                shown(key)
            )),
        }
        Ok(())
    }

    /// Takes a record that could not even be read: only that costs a complaint.
    #[cfg(feature = "zookeeper")]
    pub(crate) fn refuse(
        &mut self,
        key: &str,
        error: DiscoveryError,
    ) -> Result<(), DiscoveryError> {
        match self.layout.place(key) {
            Place::Member(name) => records::take_member(&mut self.assembly, name, Err(error)),
            Place::Living(name) => records::take_living(&mut self.assembly, name, Err(error)),
            _ => Err(error),
        }
    }

    /// Notes anything else that is wrong.
    pub(crate) fn complain(&mut self, complaint: impl Display) {
        self.assembly.complain(complaint);
    }

    pub(crate) fn finish(self) -> Snapshot {
        self.assembly.finish(self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_again() {
        let layout = Layout::new("x/y", "lab");
        assert_eq!(layout.place(&layout.settings()), Place::Settings);
        assert_eq!(layout.place(&layout.member("a")), Place::Member("a"));
        assert_eq!(layout.place(&layout.living("a")), Place::Living("a"));
        for folder in ["x/y/lab/", "x/y/lab/members/", "x/y/lab/living/"] {
            assert_eq!(layout.place(folder), Place::Folder, "{folder}");
        }
        for other in ["x/y/lab", "x/y/lab2/settings", "x/y/lab/members/a/b", "x/y/lab/members/.a"] {
            assert_eq!(layout.place(other), Place::Unknown, "{other}");
        }
        assert_eq!(layout.place("x/y/lab/members"), Place::Unknown);
    }

    #[test]
    fn strange_keys_cost_a_complaint_each() {
        let layout = Layout::new("x", "lab");
        let mut listing = Listing::new(&layout);
        for key in ["x/lab/members/a/b", "x/lab/\u{1b}[2J", "x/lab/living/a"] {
            listing.take(key, b"{}", Revision(1), false).unwrap();
        }
        let found = listing.finish();
        assert_eq!(found.complaints.len(), 3, "{:?}", found.complaints);
        assert!(found.complaints.iter().all(|said| !said.contains('\u{1b}')));
        assert!(found.is_empty() && found.living.is_empty());
    }
}
