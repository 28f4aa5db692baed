//! `puddle nodes`: all servers, what discovery says of them and what they say
//! themselves, and where the two do not agree.

use comfy_table::{CellAlignment, Table, presets};
use rampuddle_client::{Node, View};
use rampuddle_discovery::Id;
use rampuddle_protocol::Announced;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{complain, escape_text};
use crate::runtime::{block_on, connect, no_servers};
use crate::settings::Settings;
use crate::size::{Size, rounded};

/// Said once where the view was kept, and discovery has nothing to show.
const NOT_SEEN: &str = "discovery gives no answer, or has lost the cluster: who is listed is from \
                        the view that was kept, and whether discovery sees them is not known";

/// Prints one row, or one line of JSON, per server.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<Exit> {
    block_on(async {
        let client = connect(settings).await?;
        let view = client.view();
        if view.is_kept() {
            settings.output.remark(NOT_SEEN);
        }
        let nodes: Vec<_> =
            client.nodes().await.iter().map(|node| JsonNode::new(node, &view)).collect();
        print(settings, &nodes)?;
        Ok(Exit::Done)
    })
}

fn print(settings: &Settings, nodes: &[JsonNode]) -> anyhow::Result<()> {
    let output = settings.output;
    if nodes.is_empty() {
        output.remark(&no_servers(settings));
        return Ok(());
    }
    if output.json {
        return nodes.iter().try_for_each(|node| output.json_line(node));
    }
    output.text(&table(nodes))?;
    for node in nodes {
        node.error.iter().for_each(|why| complain(&escape_text(why)));
        for why in &node.disagreements {
            output.remark(&format!("server \"{}\": {why}", escape_text(&node.name)));
        }
    }
    Ok(())
}

fn table(nodes: &[JsonNode]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "NAME",
        "ADDRESS",
        "STATE",
        "SEEN",
        "ALIVE",
        "LATENCY",
        "INCARNATION",
        "WEIGHT",
        "ZONE",
        "POOL",
        "USED",
        "VALUES",
    ]);
    for node in nodes {
        table.add_row(node.cells());
    }
    for column in [5, 7, 9, 10, 11] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn yes_or_no(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

/// Whether discovery sees a server alive; `None` when it was not to be asked. Looks at a
/// view that is as old as the node, or older.
fn is_seen(node: &Node, view: &View) -> Option<bool> {
    (!view.is_kept()).then_some(node.seen.is_some())
}

fn latency(us: u64) -> String {
    if us < 10_000 { format!("{us} us") } else { format!("{} ms", us / 1_000) }
}

fn seen_incarnation(node: &Node) -> Option<Id> {
    node.seen.as_ref()?.incarnation
}

/// What a person should look at: a registry that is behind, a server that is not what
/// it is said to be.
fn disagreements(node: &Node, is_seen: Option<bool>) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str| found.push(what.to_owned());
    match (is_seen, node.is_alive) {
        // A list says who there is, not who is alive.
        (Some(true), false) if seen_incarnation(node).is_none() => {}
        (Some(true), false) => note("discovery sees it alive, and it gives no answer"),
        (Some(false), true) => note("it answers, and discovery does not see it alive"),
        _ => {}
    }
    let says = node.incarnation.map(|incarnation| Id(incarnation.0));
    if let (Some(seen), Some(says)) = (seen_incarnation(node), says)
        && seen != says
    {
        note(&format!("discovery sees incarnation {seen}, and {says} answers"));
    }
    if node.state.is_none() {
        note("it is no member: keys are never placed on it");
    }
    let announced = node.info.as_ref().map(|info| info.row.announced());
    if announced == Some(Announced::No) {
        note("it says that discovery fails for it, or does not show it");
    }
    found
}

/// A server, in the fields that are documented.
#[derive(Debug, Serialize)]
struct JsonNode {
    name: String,
    address: Option<String>,
    /// Null when it lives but is no member.
    state: Option<String>,
    /// Whether discovery sees it alive. Null when it could not be asked.
    seen: Option<bool>,
    /// The incarnation that discovery sees.
    seen_incarnation: Option<String>,
    /// Whether it answers.
    alive: bool,
    latency_us: Option<u64>,
    incarnation: Option<String>,
    weight: Option<f64>,
    zone: String,
    pool_bytes: Option<u64>,
    used_bytes: Option<u64>,
    values: Option<u64>,
    /// Where what discovery says and what is found are not the same.
    disagreements: Vec<String>,
    /// Why it does not answer, or refuses this client.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl JsonNode {
    fn new(node: &Node, view: &View) -> Self {
        let row = node.info.as_ref().map(|info| &info.row);
        let zone = view.member(&node.name).map(|member| member.zone.to_string());
        let seen = is_seen(node, view);
        Self {
            name: node.name.to_string(),
            address: node.address.clone(),
            state: node.state.map(|state| state.to_string()),
            seen,
            seen_incarnation: seen_incarnation(node).map(|id| id.to_string()),
            alive: node.is_alive,
            latency_us: node.latency.map(|latency| latency.as_micros() as u64),
            incarnation: node.incarnation.map(|incarnation| incarnation.to_string()),
            weight: node.weight,
            zone: zone.unwrap_or_default(),
            pool_bytes: row.map(|row| row.pool_bytes),
            used_bytes: row.map(|row| row.used_bytes),
            values: row.map(|row| row.values),
            disagreements: disagreements(node, seen),
            error: node.error.as_ref().map(ToString::to_string),
        }
    }

    fn cells(&self) -> [String; 12] {
        let none = || "-".to_owned();
        let text = |text: &Option<String>| text.as_deref().map_or_else(none, escape_text);
        let short = self.incarnation.as_ref().map(|id| id[..8.min(id.len())].to_owned());
        [
            escape_text(&self.name),
            text(&self.address),
            text(&self.state),
            self.seen.map_or_else(none, yes_or_no),
            yes_or_no(self.alive),
            self.latency_us.map_or_else(none, latency),
            short.unwrap_or_else(none),
            self.weight.map_or_else(none, |weight| format!("{weight:.3}")),
            if self.zone.is_empty() { none() } else { escape_text(&self.zone) },
            self.pool_bytes.map_or_else(none, |bytes| Size(bytes).to_string()),
            self.used_bytes.map_or_else(none, rounded),
            self.values.map_or_else(none, |values| values.to_string()),
        ]
    }
}
