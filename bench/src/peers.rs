//! Starts whoever is to be measured.

use anyhow::Result;

use crate::case::Who;
use crate::floor::{Copy, Floor};
use crate::mooncake::Mooncake;
use crate::puddle::Puddle;
use crate::subject::Subject;
use crate::{memcached, redis};

/// Somebody who could not be started.
#[derive(Debug, Clone)]
pub(crate) struct Skipped {
    /// Who.
    pub(crate) who: Who,
    /// Why.
    pub(crate) reason: String,
}

/// Those that run.
pub(crate) type Subjects = Vec<Box<dyn Subject>>;

/// Starts them for values of at most so many bytes. Only peers may be missing.
pub(crate) fn start(wanted: &[Who], largest: usize) -> Result<(Subjects, Vec<Skipped>)> {
    let (mut subjects, mut skipped) = (Vec::new(), Vec::new());
    for &who in wanted {
        match start_one(who, largest, &[]) {
            Ok(subject) => subjects.push(subject),
            Err(error) if who.is_ours() => {
                return Err(error.context(format!("{who} must be there")));
            }
            Err(error) => skipped.push(Skipped { who, reason: format!("{error:#}") }),
        }
    }
    for Skipped { who, reason } in &skipped {
        eprintln!("skipped: {who}: {reason}");
    }
    Ok((subjects, skipped))
}

/// Starts one; `before` goes before the command of a server that is one process.
pub(crate) fn start_one(who: Who, largest: usize, before: &[String]) -> Result<Box<dyn Subject>> {
    Ok(match who {
        Who::Floor => Box::new(Floor::start(largest)?),
        Who::Copy => Box::new(Copy),
        Who::Puddle => Box::new(Puddle::start(largest, before)?),
        Who::Memcached | Who::MemcachedThreads => Box::new(memcached::start(who, before)?),
        Who::Redis => Box::new(redis::start(before)?),
        Who::Mooncake => Box::new(Mooncake::start(largest)?),
    })
}
