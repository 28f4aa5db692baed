//! Watching who is a member, and who is alive: the client follows discovery, and
//! a program can follow the client.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rampuddle_client::{Client, Options, View};
use support::{Cluster, Done};

/// What is said of each member: its written state, and whether it is seen alive.
fn members(view: &View) -> BTreeMap<String, String> {
    let told = |member: &rampuddle_client::ViewMember| {
        let alive = if view.living(&member.name).is_some() { "alive" } else { "not seen" };
        (member.name.to_string(), format!("{}, {alive}", member.state))
    };
    view.members().iter().map(told).collect()
}

fn tell_changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    for (name, state) in after.iter().filter(|(name, state)| before.get(*name) != Some(state)) {
        println!("{name}: {state}");
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        println!("{name}: gone");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let cluster = Cluster::start(3)?;
    if cluster.entries().is_empty() {
        // Somebody's own cluster: tell of it, and of what happens in a moment.
        let client = Client::connect(cluster.options()?).await?;
        let view = client.view();
        tell_changes(&BTreeMap::new(), &members(&view));
        let soon = tokio::time::timeout(Duration::from_secs(1), client.next_view(&view)).await;
        if let Ok(next) = soon {
            tell_changes(&members(&view), &members(&next));
        }
        return Ok(());
    }
    // Else a list of our own, which is edited while a client follows it.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("members.toml");
    write_list(&path, &cluster.entries()[..2], "ready")?;
    let client = Client::connect(Options::new(format!("file:{}", path.display()))).await?;
    let mut view = client.view();
    tell_changes(&BTreeMap::new(), &members(&view));
    for (count, state) in [(3, "ready"), (3, "draining")] {
        write_list(&path, &cluster.entries()[..count], state)?;
        let before = members(&view);
        while members(&view) == before {
            view = client.next_view(&view).await;
        }
        tell_changes(&before, &members(&view));
    }
    Ok(())
}

/// Writes the list anew, with a state for the last one, by renaming: nobody sees
/// a half of it.
fn write_list(path: &Path, entries: &[(String, String)], last: &str) -> std::io::Result<()> {
    let mut text = String::new();
    for (index, (name, address)) in entries.iter().enumerate() {
        let state = if index + 1 == entries.len() { last } else { "ready" };
        text += &format!(
            "[[member]]\nname = \"{name}\"\naddress = \"{address}\"\nstate = \"{state}\"\n"
        );
    }
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}
