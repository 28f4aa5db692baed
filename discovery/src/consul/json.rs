//! What Consul is sent, and what it answers.

use serde::{Deserialize, Serialize};

use crate::remote::base64::Base64;

/// A key and what lies under it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Pair {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: Base64,
    pub(super) modify_index: u64,
    /// Who holds the key.
    #[serde(default)]
    pub(super) session: Option<String>,
}

impl Pair {
    pub(super) fn is_held(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.is_empty())
    }
}

/// One instance of a service whose checks pass.
#[derive(Debug, Deserialize)]
pub(super) struct Passing {
    #[serde(rename = "Service")]
    pub(super) service: Instance,
}

/// What an instance says about itself.
#[derive(Debug, Deserialize)]
pub(super) struct Instance {
    #[serde(rename = "Meta", default)]
    pub(super) meta: Option<Meta>,
}

/// Whose instance it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) cluster: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) incarnation: String,
}

/// A service as it is registered with the agent.
#[derive(Debug, Serialize)]
pub(super) struct Registration {
    #[serde(rename = "ID")]
    pub(super) id: String,
    #[serde(rename = "Name")]
    pub(super) name: String,
    #[serde(rename = "Tags")]
    pub(super) tags: Vec<String>,
    #[serde(rename = "Address")]
    pub(super) address: String,
    #[serde(rename = "Port")]
    pub(super) port: u16,
    #[serde(rename = "Meta")]
    pub(super) meta: Meta,
    #[serde(rename = "Check")]
    pub(super) check: Check,
}

/// A check that passes as long as somebody says so.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    #[serde(rename = "TTL")]
    pub(super) ttl: String,
    #[serde(rename = "DeregisterCriticalServiceAfter")]
    pub(super) deregister_after: &'static str,
    #[serde(rename = "Status")]
    pub(super) status: &'static str,
}

/// A step of a transaction.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Step {
    pub(super) verb: &'static str,
    pub(super) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<Base64>,
    pub(super) index: u64,
}

#[derive(Serialize)]
pub(super) struct Operation<'a> {
    #[serde(rename = "KV")]
    pub(super) step: &'a Step,
}

#[derive(Deserialize)]
pub(super) struct Done {
    #[serde(rename = "Results")]
    pub(super) results: Vec<StepResult>,
}

#[derive(Deserialize)]
pub(super) struct NotDone {
    #[serde(rename = "Errors")]
    pub(super) errors: Vec<StepError>,
}

#[derive(Deserialize)]
pub(super) struct StepError {
    #[serde(rename = "What", default)]
    pub(super) what: String,
}

#[derive(Deserialize)]
pub(super) struct StepResult {
    #[serde(rename = "KV")]
    pub(super) pair: Option<Written>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Written {
    pub(super) modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NewSession<'a> {
    pub(super) name: &'a str,
    /// A name is free at once: it is taken by compare-and-set anyway.
    pub(super) lock_delay: &'static str,
    /// What it holds is removed with it.
    pub(super) behavior: &'static str,
    pub(super) node_checks: [&'static str; 1],
    pub(super) service_checks: [ServiceCheck<'a>; 1],
}

#[derive(Serialize)]
pub(super) struct ServiceCheck<'a> {
    #[serde(rename = "ID")]
    pub(super) id: &'a str,
}

#[derive(Deserialize)]
pub(super) struct SessionId {
    #[serde(rename = "ID")]
    pub(super) id: String,
}
