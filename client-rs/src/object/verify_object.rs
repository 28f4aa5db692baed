//! Verifying one object: its head on every server that may have it, and every
//! copy of its stripes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rampuddle_protocol::limits::PAYLOAD_BYTES_MAX;
use rampuddle_protocol::{Status, Version};
use tokio::time::sleep;

use super::format::{BLOCK_BYTES, stripe_key};
use super::head::{Head, Part, Problem, Said, ask_each};
use super::hold::Hold;
use super::operation::Operation;
use super::ranks::{Places, answers};
use super::read::gather;
use super::report::{CopyPlace, CopyState};
use super::stat::{places, stripes_of};
use super::verifier::Verifier;
use super::verify::{Shared, Verified, VerifyState};
use crate::error::Error;
use crate::server::Class;

/// A put is at its end so long after its head was drawn, or its writer is gone:
/// what is wrong with a younger object may be right in a moment.
const SETTLED_AFTER_MS: u64 = 10_000;
/// Looks at one object at most, and the pause before the second; later ones are
/// twice as long, up to the limit.
const LOOKS_MAX: u32 = 8;
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// Problems that are told of one object.
const PROBLEMS_MAX: usize = 8;
/// Stripes of one object that are looked at at once; how many are read, is for
/// all objects together.
const STRIPES_AT_ONCE: usize = 8;

/// Verifies an object. `None` = it is deleted.
pub(super) async fn verify_object(shared: &Shared, key: &Bytes) -> Option<Verified> {
    let mut pause = PAUSE_FIRST;
    for look in 1.. {
        let verified = look_at(shared, key).await?;
        if verified.state == VerifyState::Whole {
            return Some(verified);
        }
        // Only what stands still is judged.
        let now = heads(&shared.operation, key, Part::Tag).await.greatest_version();
        let is_replaced = now != verified.version;
        let is_young = verified.version.is_some_and(|version| {
            let age = shared.operation.clocks().now_ms().saturating_sub(version.unix_ms());
            age < SETTLED_AFTER_MS
        });
        if !is_replaced && !is_young {
            return Some(verified);
        }
        if look == LOOKS_MAX {
            let unsettled = Verified { state: VerifyState::Unsettled, ..verified.clone() };
            return Some(if is_replaced { unsettled } else { verified });
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    None
}

/// What every server that may have a head said of it.
struct Heads {
    places: Places,
    said: Vec<(Arc<str>, Said)>,
}

async fn heads(operation: &Operation, key: &Bytes, part: Part) -> Heads {
    let view = operation.views.current();
    let mut places = Places::of(&view, key);
    let mut said = ask_each(operation, key, places.all(), part).await;
    // An object with more copies than others may have its head elsewhere too.
    let replicas = said.iter().filter_map(|(_, said)| match said {
        Said::Has(head) => Some(head.tag.replicas),
        _ => None,
    });
    if let Some(replicas) = replicas.max() {
        places = Places::of_copies(&view, key, replicas);
        let is_new = |server: &&Arc<str>| said.iter().all(|(asked, _)| asked != *server);
        let rest: Vec<_> = places.all().iter().filter(is_new).cloned().collect();
        said.extend(ask_each(operation, key, &rest, part).await);
    }
    Heads { places, said }
}

impl Heads {
    /// The head that counts; none where a delete hides all, or none can be read.
    fn greatest(&self) -> Option<&Head> {
        let deleted = self.said.iter().filter_map(|(_, said)| match said {
            Said::HasNot(version) => Some(*version),
            _ => None,
        });
        let deleted = deleted.max().unwrap_or(Version::NONE);
        let found = self.said.iter().filter_map(|(_, said)| match said {
            Said::Has(head) => Some(&**head),
            _ => None,
        });
        found.max_by_key(|head| head.tag.version).filter(|head| head.tag.version > deleted)
    }

    fn greatest_version(&self) -> Option<Version> {
        self.greatest().map(|head| head.tag.version)
    }

    /// Whether no answer came that could be one about an object.
    fn is_gone(&self) -> bool {
        let is_silent = |said: &Said| matches!(said, Said::Nothing(_));
        self.greatest().is_none() && !self.said.iter().any(|(_, said)| is_silent(said))
    }
}

/// Looks at an object as it is now. `None` = it is deleted.
async fn look_at(shared: &Shared, key: &Bytes) -> Option<Verified> {
    let operation = &shared.operation;
    let heads = heads(operation, key, Part::All).await;
    if heads.is_gone() {
        return None;
    }
    let mut tally = Tally::default();
    let Some(head) = heads.greatest() else {
        // Somebody may know of a delete, and nobody could show an object.
        tally.note_heads(&heads, None);
        return Some(tally.verified(key, None, 1));
    };
    let wanted = heads.places.owners(head.tag.replicas).len();
    tally.note_heads(&heads, Some(head));
    shared.read(tally.read_bytes);
    if !head.tag.is_inline() {
        let hold = hold(operation, head).await;
        // What is held and stands now can be read to its end.
        tally.note_stripes(shared, head, wanted).await;
        drop(hold);
    }
    Some(tally.verified(key, Some(head), wanted))
}

async fn hold(operation: &Operation, head: &Head) -> Hold {
    let view = operation.views.current();
    let members = view.members().iter().filter(|member| member.state.is_read_from());
    let names = members.map(|member| Arc::clone(&member.name));
    let servers = names.filter(|server| answers(operation, server)).collect();
    Hold::take(operation, servers, head.tag.upload).await
}

/// What was found of an object.
#[derive(Default)]
struct Tally {
    /// Right copies of the value that has fewest.
    fewest: Option<usize>,
    read_bytes: u64,
    damaged: u64,
    missing: u64,
    unreachable: u64,
    problems: Vec<String>,
}

/// What was found at one place.
enum Found {
    Right,
    Damaged(String),
    /// A copy is wanted there, and there is none that stays.
    Missing(String),
    /// Nothing, where none is wanted.
    Nothing,
    Unreachable(String),
}

impl Tally {
    fn problem(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    /// Counts what was found of one value.
    fn note(&mut self, found: Vec<Found>, wanted: usize) {
        let right = found.iter().filter(|found| matches!(found, Found::Right)).count();
        self.fewest = Some(self.fewest.map_or(right, |fewest| fewest.min(right)));
        for found in found {
            match found {
                Found::Right | Found::Nothing => {}
                Found::Damaged(problem) => {
                    self.damaged += 1;
                    self.problem(problem);
                }
                // A stand-in has it.
                Found::Missing(_) | Found::Unreachable(_) if right >= wanted => {}
                Found::Missing(problem) => {
                    self.missing += 1;
                    self.problem(problem);
                }
                Found::Unreachable(problem) => {
                    self.unreachable += 1;
                    self.problem(problem);
                }
            }
        }
    }

    fn note_heads(&mut self, heads: &Heads, head: Option<&Head>) {
        let replicas = head.map_or(0, |head| head.tag.replicas);
        let owners = heads.places.owners(replicas);
        let version = head.map(|head| head.tag.version);
        let found = heads.said.iter().map(|(server, said)| {
            let is_owner = head.is_none() || owners.contains(server);
            found_head(server, said, version, is_owner)
        });
        let found: Vec<Found> = found.collect();
        let right = found.iter().filter(|found| matches!(found, Found::Right)).count();
        if let Some(head) = head {
            let of_head = head.tag.inline_bytes() + u64::from(head.tag.variable_bytes);
            self.read_bytes += of_head * right as u64;
        }
        self.note(found, owners.len().max(1));
    }

    async fn note_stripes(&mut self, shared: &Shared, head: &Head, wanted: usize) {
        for stripes in stripes_of(head) {
            let copies = places(&shared.operation, head, stripes).await;
            let of_stripe = copies.chunk_by(|one, other| one.stripe == other.stripe);
            let reads: Vec<_> = of_stripe.map(|copies| read_stripe(shared, head, copies)).collect();
            let mut reads = stream::iter(reads).buffer_unordered(STRIPES_AT_ONCE);
            while let Some((found, bytes)) = reads.next().await {
                self.read_bytes += bytes;
                self.note(found, wanted);
            }
        }
    }

    fn verified(self, key: &Bytes, head: Option<&Head>, wanted: usize) -> Verified {
        let copies = self.fewest.unwrap_or(0);
        let state = if self.damaged > 0 {
            VerifyState::Damaged
        } else if copies == 0 && self.unreachable == 0 {
            VerifyState::Missing
        } else if copies < wanted && self.unreachable > 0 {
            VerifyState::Unreachable
        } else if copies < wanted {
            VerifyState::TooFew
        } else {
            VerifyState::Whole
        };
        let tag = head.map(|head| head.tag);
        Verified {
            name: key[1..].to_vec(),
            state,
            is_readable: copies > 0,
            version: tag.map(|tag| tag.version),
            bytes: tag.map_or(0, |tag| tag.object_bytes),
            replicas: tag.map_or(0, |tag| tag.replicas),
            stripes: tag.map_or(0, |tag| tag.stripes()),
            wanted: wanted as u32,
            copies: copies as u32,
            read_bytes: self.read_bytes,
            damaged: self.damaged,
            missing: self.missing,
            unreachable: self.unreachable,
            problems: self.problems,
        }
    }
}

/// What a server's word on a head means, where `version` counts.
fn found_head(server: &str, said: &Said, version: Option<Version>, is_owner: bool) -> Found {
    match said {
        Said::Has(head) if Some(head.tag.version) == version => Found::Right,
        Said::Nothing(Problem::Damaged(problem)) => Found::Damaged(problem.clone()),
        _ if !is_owner => Found::Nothing,
        Said::Nothing(Problem::Failed(error)) => Found::Unreachable(error.to_string()),
        Said::Nothing(problem @ Problem::Changed) => Found::Unreachable(problem.to_string()),
        Said::Has(_) => Found::Missing(format!("server \"{server}\" has an older head")),
        Said::HasNot(_) => Found::Missing(format!("server \"{server}\" has no head")),
    }
}

/// Reads every copy of a stripe; how many bytes that were, too.
async fn read_stripe(shared: &Shared, head: &Head, copies: &[CopyPlace]) -> (Vec<Found>, u64) {
    let (mut found, mut bytes) = (Vec::with_capacity(copies.len()), 0);
    for copy in copies {
        let (one, read) = read_copy(shared, head, copy).await;
        bytes += read;
        found.push(one);
    }
    (found, bytes)
}

async fn read_copy(shared: &Shared, head: &Head, copy: &CopyPlace) -> (Found, u64) {
    let CopyPlace { server, lease_ms, .. } = copy;
    let stripe = copy.stripe.expect("only stripes are read");
    let whose = || format!("stripe {stripe} on server \"{server}\"");
    let found = match copy.state {
        CopyState::Unreachable => Found::Unreachable(format!("no answer about {}", whose())),
        CopyState::Other => Found::Damaged(format!("{} is of another version", whose())),
        // One that was replaced just now and is held says nothing of itself.
        CopyState::Whole | CopyState::Missing => {
            let permit = shared.reads.acquire().await.expect("never closed");
            let stays = head.life().is_covered_by(*lease_ms, shared.operation.clocks().now_ms());
            let read = read(shared, head, stripe, server).await;
            drop(permit);
            match read {
                Ok(Read::Right(bytes)) if stays => return (Found::Right, bytes),
                Ok(Read::Right(bytes)) => {
                    let seconds = lease_ms / 1_000;
                    let problem = format!("{} ends with its lease in {seconds} s", whose());
                    return (Found::Missing(problem), bytes);
                }
                Ok(Read::Wrong) => {
                    Found::Damaged(format!("{} does not have its checksum", whose()))
                }
                Ok(Read::Refused(Status::NotFound)) if copy.is_owner => {
                    Found::Missing(format!("server \"{server}\" has no copy of stripe {stripe}"))
                }
                Ok(Read::Refused(Status::NotFound)) => Found::Nothing,
                Ok(Read::Refused(status)) => {
                    Found::Damaged(format!("{} is refused with {status}", whose()))
                }
                Err(error) => Found::Unreachable(error.to_string()),
            }
        }
    };
    (found, 0)
}

/// What came of reading a copy.
enum Read {
    /// All blocks have their checksums; so many bytes.
    Right(u64),
    Wrong,
    Refused(Status),
}

/// Reads one server's copy of a stripe. Begun anew where the connection broke, as
/// far as the client's budget of retries goes.
async fn read(shared: &Shared, head: &Head, stripe: u64, server: &str) -> Result<Read, Error> {
    let mut attempts = shared.operation.retries.first_attempt();
    loop {
        match read_once(shared, head, stripe, server).await {
            Err(error) if error.is_transient() && shared.operation.again(&mut attempts).await => {}
            read => return read,
        }
    }
}

async fn read_once(shared: &Shared, head: &Head, stripe: u64, server: &str) -> Result<Read, Error> {
    let operation = &shared.operation;
    let per_stripe = u64::from(head.tag.stripe_bytes) / BLOCK_BYTES;
    let first = stripe * per_stripe;
    let blocks = &head.table[first as usize..(first + per_stripe).min(head.tag.blocks()) as usize];
    let length: u64 = blocks.iter().map(|block| u64::from(block.stored_bytes)).sum();
    let mut verifier = Verifier::new(head.tag.upload, stripe, 0, blocks, true);
    let key = stripe_key(head.tag.upload, stripe);
    let mut lease =
        operation.servers.server(server)?.acquire(Class::of(length), operation.deadline()).await?;
    let piece = lease.grants().payload_bytes.min(PAYLOAD_BYTES_MAX);
    let mut buffer = vec![0; length.min(piece) as usize];
    let mut offset = 0;
    while offset < length {
        let slice = &mut buffer[..(length - offset).min(piece) as usize];
        let now = slice.len() as u64;
        let refused =
            gather(&mut lease, head.tag.upload, &key, offset, slice, &mut verifier).await?;
        if let Some(status) = refused {
            lease.finish();
            return Ok(Read::Refused(status));
        }
        if verifier.is_wrong() {
            lease.finish();
            return Ok(Read::Wrong);
        }
        shared.read(now);
        offset += now;
    }
    lease.finish();
    Ok(Read::Right(length))
}
