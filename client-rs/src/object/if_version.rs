//! Heads that may take the place of one version only.
//!
//! The first owner decides, alone: it compares and replaces in one step. The
//! other owners are written when it has, as by any put. So of two writers who
//! read the same version one gets on, and the other has written nothing. No
//! stand-in decides in the first owner's place, and nothing is taken back: what
//! the head took the place of is gone by then.

use std::sync::Arc;

use rampuddle_protocol::{RowFlags, Version};

use super::copies::{Copies, Copy, write, write_one};
use super::format::Tag;
use super::head::{Head, Part, Problem, Said, ask, find_greatest};
use super::operation::Operation;
use super::put::Put;
use super::ranks::Candidates;
use crate::error::{Error, Fate};
use crate::raw::{CreateItem, GatherItem, Target};

/// Writes a head to its first owner if that holds `expected`, then to the others.
pub(super) async fn write_if_version(
    operation: &Operation,
    item: &CreateItem,
    expected: Version,
    candidates: &Candidates,
) -> Copies {
    let mut copies = Copies { wanted: candidates.wanted, taken: Vec::new() };
    let Some((first, others)) = candidates.ranks.split_first() else { return copies };
    let conditional = CreateItem { if_version: expected, ..item.clone() };
    let mut attempts = operation.retries.first_attempt();
    loop {
        let copy = write_one(operation, &conditional, first).await;
        let is_in_doubt = is_in_doubt(&copy);
        copies.add(candidates, 0, copy);
        // A head that is sent again does no harm: where it was taken already,
        // the owner says that it holds it.
        if !is_in_doubt || !operation.again(&mut attempts).await {
            break;
        }
    }
    if copies.stored().next().is_some() {
        let others = Candidates { ranks: others.to_vec(), wanted: candidates.wanted - 1 };
        copies.taken.extend(write(operation, item, &others).await.taken);
    }
    copies
}

fn is_in_doubt(copy: &Copy) -> bool {
    matches!(copy, Copy::Failed(error) if error.fate() == Fate::MaybeApplied)
}

impl Put {
    /// Whether the first owner may hold `wanted`, before anything is moved. One
    /// that missed it, or lost it with its memory, is given it first, because it
    /// can only compare what it has. Returns what the head will have taken the
    /// place of.
    pub(super) async fn look_for(&self, wanted: Version) -> Result<Vec<Tag>, Error> {
        if wanted.is_none() {
            return Err(Error::BadOption {
                option: "condition",
                found: format!("that the version is {wanted}, which no object has"),
                expected: "the version of an object, or that there is none",
            });
        }
        let view = self.operation.views.current();
        let candidates = self.candidates(&self.key);
        let Some(first) = candidates.ranks.first() else {
            return Err(Error::NoServers { cluster: view.settings().cluster.as_str().into() });
        };
        match ask(&self.operation, &self.key, first, Part::Tag).await {
            Said::Has(head) if head.tag.version == wanted => return Ok(vec![head.tag]),
            Said::Has(head) if head.tag.version > wanted => {
                return Err(self.changed(Some(head.tag.version)));
            }
            Said::HasNot(deleted) if deleted >= wanted => return Err(self.changed(None)),
            Said::Nothing(problem) => return Err(self.unknown(problem)),
            Said::Has(_) | Said::HasNot(_) => {}
        }
        match find_greatest(&self.operation, &self.key, Part::Tag).await? {
            Some(head) if head.tag.version == wanted => self.bring(&head, first).await,
            found => Err(self.changed(found.map(|head| head.tag.version))),
        }
    }

    /// Copies a head to the first owner. Whether that holds it then, it says
    /// itself when the new one is written.
    async fn bring(&self, head: &Head, first: &Arc<str>) -> Result<Vec<Tag>, Error> {
        let source = Target::Server(Arc::clone(&head.server));
        let mut item = GatherItem::new(self.key.clone(), 0, head.tag.head_bytes());
        (item.if_version, item.flags) = (head.tag.version, RowFlags::TAG);
        let found = self.operation.raw().gather(&source, vec![item]).await.remove(0);
        let found = found.map_err(|error| self.unknown(error.into()))?;
        if !found.status.is_success() || found.length != head.tag.head_bytes() {
            let error = Error::refused(&head.server, "a look at a head", found.status);
            return Err(self.unknown(error.into()));
        }
        let mut item = CreateItem::new(self.key.clone(), found.bytes);
        (item.tag, item.version, item.set) = (found.tag, found.version, found.set);
        (item.crc32c, item.replicas) = (found.crc32c, head.tag.replicas);
        item.lease_ms = head.life().lease_ms(self.operation.clocks().now_ms());
        item.flags = found.flags.among(RowFlags::STORED).without(RowFlags::CHECKSUM);
        item.flags |= RowFlags::REPLACE;
        let mut replaced = vec![head.tag];
        match write_one(&self.operation, &item, first).await {
            Copy::Stored { displaced, .. } => replaced.extend(displaced),
            Copy::Failed(error) => return Err(self.unknown(error.into())),
            Copy::Full(error) => {
                let problems = vec![error.to_string()];
                return Err(Error::Failed { name: self.name(), problems });
            }
            // Somebody was faster.
            Copy::Overtaken { .. } | Copy::Exists | Copy::Changed(_) => {}
        }
        Ok(replaced)
    }

    /// Whether a head that may only take one version's place is an object.
    pub(super) fn judge_conditional(&self, copies: &Copies) -> Result<(), Error> {
        if copies.stored().next().is_some() {
            return Ok(());
        }
        // Who may have taken the head and holds another one now may have had it
        // in between.
        if copies.is_in_doubt() {
            return Err(self.indeterminate(copies));
        }
        match copies.taken.last().map(|taken| &taken.copy) {
            Some(Copy::Changed(held)) => {
                Err(self.changed(Some(*held).filter(|held| !held.is_none())))
            }
            // It works, and did nothing.
            Some(Copy::Failed(error @ Error::Refused { .. })) if !error.is_refusal() => {
                Err(self.failed(copies))
            }
            Some(Copy::Failed(error)) => Err(self.unknown(error.clone().into())),
            _ => Err(self.failed(copies)),
        }
    }

    fn changed(&self, held: Option<Version>) -> Error {
        Error::Changed { name: self.name(), held }
    }

    /// The first owner gives no word.
    fn unknown(&self, problem: Problem) -> Error {
        match problem {
            Problem::Failed(error) if error.is_refusal() => error,
            problem => Error::Unknown { name: self.name(), problems: vec![problem.to_string()] },
        }
    }
}
