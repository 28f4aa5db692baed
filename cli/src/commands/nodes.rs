//! `puddle nodes`: all servers, what is written of them and what they say.

use comfy_table::{CellAlignment, Table, presets};
use rampuddle_client::{Node, View};
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{complain, escape_text};
use crate::runtime::{block_on, connect, no_servers};
use crate::settings::Settings;
use crate::size::{Size, rounded};

/// Prints one row, or one line of JSON, per server.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<Exit> {
    block_on(async {
        let client = connect(settings).await?;
        let view = client.view();
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
    nodes
        .iter()
        .filter_map(|node| node.error.as_deref())
        .for_each(|why| complain(&escape_text(why)));
    Ok(())
}

fn table(nodes: &[JsonNode]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "NAME",
        "ADDRESS",
        "STATE",
        "ALIVE",
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
    for column in [5, 7, 8, 9] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// A server, in the fields that are documented.
#[derive(Debug, Serialize)]
struct JsonNode {
    name: String,
    address: Option<String>,
    /// Null when it lives but is no member.
    state: Option<String>,
    alive: bool,
    incarnation: Option<String>,
    weight: Option<f64>,
    zone: String,
    pool_bytes: Option<u64>,
    used_bytes: Option<u64>,
    values: Option<u64>,
    /// Why it does not answer, or refuses this client.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl JsonNode {
    fn new(node: &Node, view: &View) -> Self {
        let row = node.info.as_ref().map(|info| &info.row);
        let zone = view.member(&node.name).map(|member| member.zone.to_string());
        Self {
            name: node.name.to_string(),
            address: node.address.clone(),
            state: node.state.map(|state| state.to_string()),
            alive: node.is_alive,
            incarnation: node.incarnation.map(|incarnation| incarnation.to_string()),
            weight: node.weight,
            zone: zone.unwrap_or_default(),
            pool_bytes: row.map(|row| row.pool_bytes),
            used_bytes: row.map(|row| row.used_bytes),
            values: row.map(|row| row.values),
            error: node.error.as_ref().map(ToString::to_string),
        }
    }

    fn cells(&self) -> [String; 10] {
        let none = || "-".to_owned();
        let text = |text: &Option<String>| text.as_deref().map_or_else(none, escape_text);
        let short = self.incarnation.as_ref().map(|id| id[..8.min(id.len())].to_owned());
        [
            escape_text(&self.name),
            text(&self.address),
            text(&self.state),
            if self.alive { "yes" } else { "no" }.to_owned(),
            short.unwrap_or_else(none),
            self.weight.map_or_else(none, |weight| format!("{weight:.3}")),
            if self.zone.is_empty() { none() } else { escape_text(&self.zone) },
            self.pool_bytes.map_or_else(none, |bytes| Size(bytes).to_string()),
            self.used_bytes.map_or_else(none, rounded),
            self.values.map_or_else(none, |values| values.to_string()),
        ]
    }
}
