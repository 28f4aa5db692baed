//! What etcd's JSON gateway is sent, and what it answers: numbers as texts, bytes in
//! base64, whatever is nothing left out.

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny};
use serde::{Deserialize as DeriveDeserialize, Serialize};

use crate::remote::base64::Base64;

/// A number, which is a text in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(pub(super) i64);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(DeriveDeserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Number(i64),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => text.parse().map(Self).map_err(D::Error::custom),
        }
    }
}

/// What every answer begins with: without it, it is not etcd's.
#[derive(Debug, DeriveDeserialize)]
pub(super) struct Header {
    #[serde(deserialize_with = "counted")]
    pub(super) revision: Number,
}

/// etcd counts from 1.
fn counted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
    let number = Number::deserialize(deserializer)?;
    if number.0 > 0 { Ok(number) } else { Err(D::Error::custom("a revision is at least 1")) }
}

/// That of a message of a watch, which may lack a revision.
#[derive(Debug, DeriveDeserialize)]
pub(super) struct WatchHeader {
    #[serde(default)]
    pub(super) revision: Number,
}

/// A key and what lies under it.
#[derive(Debug, DeriveDeserialize)]
pub(super) struct Pair {
    pub(super) key: Base64,
    #[serde(default)]
    pub(super) value: Base64,
    pub(super) mod_revision: Number,
    /// The lease that it ends with; 0 for none.
    #[serde(default)]
    pub(super) lease: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct Range {
    pub(super) key: Base64,
    /// The first key behind the last one; one key is meant where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range_end: Option<Base64>,
    /// Keys that were written before are counted, and not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_mod_revision: Option<Number>,
    /// Without values.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) keys_only: bool,
}

impl Range {
    /// One key.
    pub(super) fn one(key: &str) -> Self {
        Self { key: Base64::of(key), range_end: None, min_mod_revision: None, keys_only: false }
    }
}

#[derive(Debug, DeriveDeserialize)]
pub(super) struct Found {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<Pair>,
    /// Of those in the range, whatever is shown of them.
    #[serde(default)]
    pub(super) count: Number,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Put {
    pub(super) key: Base64,
    pub(super) value: Base64,
    pub(super) lease: Number,
}

/// A condition of a transaction.
#[derive(Debug, Serialize)]
pub(super) struct Compare {
    pub(super) key: Base64,
    pub(super) target: &'static str,
    /// With the target `MOD`; 0 of a key that is not there.
    pub(super) mod_revision: Number,
}

/// A step of a transaction.
#[derive(Debug, Serialize)]
pub(super) enum Step {
    #[serde(rename = "request_put")]
    Put(Put),
    #[serde(rename = "request_delete_range")]
    Remove(Range),
    #[serde(rename = "request_range")]
    Read(Range),
}

#[derive(Debug, Serialize)]
pub(super) struct Transaction {
    pub(super) compare: [Compare; 1],
    pub(super) success: [Step; 1],
    pub(super) failure: [Step; 1],
}

#[derive(Debug, DeriveDeserialize)]
pub(super) struct Done {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    responses: Vec<StepDone>,
}

#[derive(Debug, DeriveDeserialize)]
struct StepDone {
    response_range: Option<RangeDone>,
}

#[derive(Debug, DeriveDeserialize)]
struct RangeDone {
    #[serde(default)]
    kvs: Vec<Pair>,
}

impl Done {
    /// What the transaction found where its condition did not hold.
    pub(super) fn found(self) -> Option<Pair> {
        let ranges = self.responses.into_iter().filter_map(|step| step.response_range);
        ranges.flat_map(|range| range.kvs).next()
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Grant {
    #[serde(rename = "TTL")]
    pub(super) ttl: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct LeaseId {
    #[serde(rename = "ID")]
    pub(super) id: Number,
}

#[derive(Debug, DeriveDeserialize)]
pub(super) struct Granted {
    #[serde(rename = "ID")]
    pub(super) id: Number,
}

/// An answer of a call that could have many.
#[derive(Debug, DeriveDeserialize)]
pub(super) struct Streamed<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<Failure>,
}

#[derive(Debug, DeriveDeserialize)]
pub(super) struct Kept {
    /// Nothing, when there is no such lease.
    #[serde(rename = "TTL", default)]
    pub(super) ttl: Number,
}

/// What etcd says beside a failure.
#[derive(Debug, Default, DeriveDeserialize)]
pub(super) struct Failure {
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Watch {
    pub(super) create_request: WatchFrom,
}

#[derive(Debug, Serialize)]
pub(super) struct WatchFrom {
    pub(super) key: Base64,
    pub(super) range_end: Base64,
    pub(super) start_revision: Number,
}

/// One message of a watch.
#[derive(Debug, DeriveDeserialize)]
pub(super) struct Watched {
    pub(super) header: WatchHeader,
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) compact_revision: Number,
    #[serde(default)]
    pub(super) cancel_reason: String,
    #[serde(default)]
    pub(super) events: Vec<IgnoredAny>,
}

#[derive(Serialize)]
pub(super) struct Login<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

#[derive(DeriveDeserialize)]
pub(super) struct LoggedIn {
    pub(super) token: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_texts_and_what_is_left_out_is_nothing() {
        let text = r#"{"header":{"revision":"7"},"kvs":[{"key":"YQ==","mod_revision":"5"}]}"#;
        let found: Found = serde_json::from_str(text).unwrap();
        assert_eq!(found.header.revision, Number(7));
        assert_eq!((found.kvs[0].mod_revision, found.kvs[0].lease), (Number(5), Number(0)));
        assert!(found.kvs[0].value.0.is_empty());
        for bad in [
            "{}",
            "[]",
            "[{}]",
            r#"{"header":{}}"#,
            r#"{"header":{"revision":"x"}}"#,
            r#"{"header":{"revision":1.5}}"#,
        ] {
            assert!(serde_json::from_str::<Found>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Number(-1)).unwrap(), "\"-1\"");
    }
}
