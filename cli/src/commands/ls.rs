//! `puddle ls`: the objects in the order of their names.

use std::os::unix::ffi::OsStrExt as _;

use rampuddle_client::{Listing, ObjectStat};
use serde::Serialize;

use crate::arguments::LsArguments;
use crate::exit::Exit;
use crate::output::{JsonName, complain, counted, escape, escape_text};
use crate::runtime::{block_on, check_has_servers, connect};
use crate::settings::Settings;
use crate::time::utc;

/// What is said of a cluster that was founded just now, as far as anybody knows.
pub(crate) const YOUNG_REGISTRY: &str = "objects may be missing: the cluster's registry is only seconds old, or gives no answer, and \
     servers may be missing from what is known of it";

/// Prints a line per object.
pub(crate) fn run(settings: &Settings, given: &LsArguments) -> anyhow::Result<Exit> {
    let prefix = given.prefix.as_ref().map(|prefix| prefix.as_bytes()).unwrap_or_default();
    block_on(async {
        let client = connect(settings).await?;
        check_has_servers(settings, &client)?;
        let mut listing = client.list(prefix);
        while let Some(object) = listing.next().await {
            let object = object?;
            settings.output.result(&JsonObject::new(&object), || text(&object, given.long))?;
        }
        Ok(incomplete(&listing))
    })
}

/// Says what may be missing from a listing: objects of servers that gave no answer,
/// or that are missing from a young or a kept view, and objects that cannot be described.
pub(crate) fn incomplete(listing: &Listing) -> Exit {
    let mut exit = Exit::Done;
    if !listing.unreachable().is_empty() {
        let servers: Vec<_> = listing.unreachable().iter().map(|name| escape_text(name)).collect();
        complain(&format!("objects may be missing: no answer from {}", servers.join(", ")));
        exit = Exit::Failed;
    }
    if listing.is_of_young_registry() {
        complain(YOUNG_REGISTRY);
        exit = Exit::Failed;
    }
    if let Some((name, why)) = &listing.unreadable().first {
        let count = counted(listing.unreadable().count, "object");
        let (name, why) = (escape(name), escape_text(why));
        complain(&format!("{count} left out that this version cannot read: \"{name}\": {why}"));
        exit = Exit::Failed;
    }
    exit
}

fn text(object: &ObjectStat, is_long: bool) -> String {
    let name = escape(&object.name);
    if !is_long {
        return name;
    }
    let time = utc(object.version.unix_ms());
    format!("{:>14}  {:>3}  {time}  {name}", object.bytes, object.replicas)
}

#[derive(Debug, Serialize)]
struct JsonObject {
    #[serde(flatten)]
    name: JsonName,
    bytes: u64,
    version: String,
    replicas: u8,
    stripes: u64,
}

impl JsonObject {
    fn new(object: &ObjectStat) -> Self {
        Self {
            name: JsonName::new(&object.name),
            bytes: object.bytes,
            version: object.version.to_string(),
            replicas: object.replicas,
            stripes: object.stripes,
        }
    }
}
