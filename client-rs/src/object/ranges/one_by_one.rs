//! Ranges of one object, by the road that every get takes.

use std::ops::Range;

use bytes::Bytes;

use super::super::head::Wanted;
use super::super::opened::{Opened, Stopped};
use super::super::operation::Operation;
use super::super::report::{GetOptions, Value, cut};
use crate::error::Error;

type Done = Vec<(usize, Result<Option<Value>, Error>)>;

/// Reads ranges of an object, one after the other. It is opened once, and again
/// when it was replaced or could not be read.
pub(super) async fn read(
    operation: &Operation,
    key: &Bytes,
    ranges: Vec<(usize, Range<u64>)>,
    options: &GetOptions,
) -> Done {
    let mut done = Done::new();
    let wanted = || Wanted { verify: options.verify, into: None };
    let mut opened = Opened::open(operation, key, wanted()).await;
    for (index, range) in ranges {
        if opened.is_err() && !done.is_empty() {
            opened = Opened::open(operation, key, wanted()).await;
        }
        let object = match opened {
            Ok(object) => object,
            Err(error) => {
                done.push((index, Err(error.clone())));
                opened = Err(error);
                continue;
            }
        };
        let (result, left) = read_one(object, range, options).await;
        done.push((index, result));
        opened = left;
    }
    done
}

type Found = Result<Option<Opened>, Error>;

/// Reads one range; also returns what of the object is open then.
async fn read_one(
    mut opened: Option<Opened>,
    range: Range<u64>,
    options: &GetOptions,
) -> (Result<Option<Value>, Error>, Found) {
    while let Some(object) = opened {
        let range = cut(Some(range.clone()), object.tag().object_bytes);
        match object.read(&range, options).await {
            Ok(value) => return (Ok(Some(value)), Ok(Some(object))),
            Err(Stopped::Local(error)) => return (Err(error), Ok(Some(object))),
            Err(Stopped::Unread(unread)) => match object.reopen(unread).await {
                Ok(again) => opened = again,
                Err(error) => return (Err(error.clone()), Err(error)),
            },
        }
    }
    (Ok(None), Ok(None))
}
