//! Reading and writing nodes over one connection.

use std::collections::BTreeSet;

use super::connection::Connection;
use super::failure::{Code, Failure};
use super::wire::{
    ANY_VERSION, Access, Fields, Life, Message, Stat, add_watch, create, delete, multi, operation,
    read, set_data, sync,
};
use crate::validate::{self, ANSWER_BYTES_MAX, MEMBERS_MAX};

/// How often a node that others change at the same time is looked at anew.
pub(super) const ATTEMPTS_MAX: u32 = 16;

/// The names of the nodes below one.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Those that can be of a member, at most [`MEMBERS_MAX`], the first in order.
    pub(super) good: BTreeSet<String>,
    /// The first of those that cannot.
    pub(super) odd: Vec<String>,
    /// How many beyond these are left out.
    pub(super) left_out: usize,
}

impl Names {
    /// How many odd names are kept, to be told.
    const ODD_MAX: usize = 100;

    fn take(&mut self, name: &str) {
        if validate::name(name).is_ok() {
            self.good.insert(name.to_owned());
            if self.good.len() > MEMBERS_MAX {
                self.good.pop_last();
                self.left_out += 1;
            }
        } else if self.odd.len() < Self::ODD_MAX {
            self.odd.push(crate::text::shown(name));
        } else {
            self.left_out += 1;
        }
    }
}

/// One of several operations that are done all or none.
#[derive(Debug)]
pub(super) struct Step(i32, Message);

impl Step {
    pub(super) fn create(path: &str, data: &[u8], access: Access, life: Life) -> Self {
        Self(operation::CREATE, create(path, data, access, life))
    }

    pub(super) fn set(path: &str, data: &[u8], version: i32) -> Self {
        Self(operation::SET_DATA, set_data(path, data, version))
    }

    pub(super) fn delete(path: &str, version: i32) -> Self {
        Self(operation::DELETE, delete(path, version))
    }

    /// Nothing is done unless the node has this version.
    pub(super) fn check(path: &str, version: i32) -> Self {
        Self(operation::CHECK, delete(path, version))
    }

    /// Counts one more node that was created or removed below this one. A version says
    /// which of the writes to one node was the last, but it begins anew with a node that
    /// is created anew: with this count such a node is known for another.
    pub(super) fn count(parent: &str) -> Self {
        Self::set(parent, &[], ANY_VERSION)
    }
}

impl Connection {
    /// Has the server catch up with all writes that were done before.
    pub(super) async fn catch_up(&self, path: &str) -> Result<(), Failure> {
        self.ask(operation::SYNC, sync(path)).await.map(drop)
    }

    /// Counts changes of a node and of all below it among the events from now on. The
    /// node need not be there.
    pub(super) async fn watch(&self, path: &str) -> Result<(), Failure> {
        self.ask(operation::ADD_WATCH, add_watch(path)).await.map(drop)
    }

    /// The names below a node; none when it is not there.
    pub(super) async fn names(&self, path: &str) -> Result<Names, Failure> {
        let mut names = Names::default();
        let asked = self.ask_for(operation::GET_CHILDREN, read(path), ANSWER_BYTES_MAX).await;
        if let Some(answer) = if_there(asked)? {
            Fields::of(&answer.body).each_text(|name| names.take(name))?;
        }
        Ok(names)
    }

    /// What a node holds, if it is there.
    pub(super) async fn data(&self, path: &str) -> Result<Option<(Vec<u8>, Stat)>, Failure> {
        let asked = self.ask(operation::GET_DATA, read(path)).await;
        let Some(answer) = if_there(asked)? else { return Ok(None) };
        let mut fields = Fields::of(&answer.body);
        let data = fields.bytes()?.to_vec();
        Ok(Some((data, fields.stat()?)))
    }

    /// Does all steps or none; returns their place in the order of all writes. Fails
    /// with the reason of the first step that could not be done.
    pub(super) async fn all(&self, steps: impl IntoIterator<Item = Step>) -> Result<u64, Failure> {
        let steps: Vec<_> =
            steps.into_iter().map(|Step(operation, part)| (operation, part)).collect();
        let answer = self.ask(operation::MULTI, multi(&steps)).await?;
        match Fields::of(&answer.body).first_failure()? {
            None => Ok(answer.moment),
            Some(code) => Err(Failure::refused(code)),
        }
    }

    /// Removes a node if it is there and is meant, and no other that was created in its
    /// place meanwhile.
    pub(super) async fn remove_if(
        &self,
        parent: &str,
        path: &str,
        is_meant: impl Fn(&[u8], Stat) -> bool,
    ) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS_MAX {
            self.catch_up(path).await?;
            let Some((_, of_parent)) = self.data(parent).await? else { return Ok(()) };
            let Some((data, stat)) = self.data(path).await? else { return Ok(()) };
            if !is_meant(&data, stat) {
                return Ok(());
            }
            let count = Step::set(parent, &[], of_parent.version);
            match self.all([count, Step::delete(path, stat.version)]).await {
                Err(failure) if was_changed(&failure) => {}
                done => return done.map(drop),
            }
        }
        Err(Failure::Contended(ATTEMPTS_MAX))
    }

    /// Creates a node and those above it, unless they are there. What lies above `root`,
    /// the node of a cluster, is open: other clusters, of other users, may lie there too.
    pub(super) async fn create_path(
        &self,
        path: &str,
        root: &str,
        access: Access,
    ) -> Result<(), Failure> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        for end in ends {
            let access = if end < root.len() { Access::Open } else { access };
            let part = create(&path[..end], &[], access, Life::Persistent);
            match self.ask(operation::CREATE, part).await {
                Ok(_) => {}
                Err(failure) if failure.is(Code::NODE_EXISTS) => {}
                // Who may not create it is not told that it is there.
                Err(_) if self.is_there(&path[..end]).await => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Whether a node is there; whoever may not see what it holds may know that.
    async fn is_there(&self, path: &str) -> bool {
        self.ask(operation::EXISTS, read(path)).await.is_ok()
    }
}

/// What is not there is no failure.
fn if_there<T>(asked: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match asked {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.is(Code::NO_NODE) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether others created, wrote or removed what was looked at before.
pub(super) fn was_changed(failure: &Failure) -> bool {
    let codes = [Code::BAD_VERSION, Code::NODE_EXISTS, Code::NO_NODE];
    codes.into_iter().any(|code| failure.is(code))
}
