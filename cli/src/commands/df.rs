//! `puddle df`: how full the servers are.

use comfy_table::{CellAlignment, Table, presets};
use rampuddle_client::{Error, Node};
use rampuddle_discovery::MemberState;
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{complain, escape_text};
use crate::runtime::{block_on, check_has_servers, connect};
use crate::settings::Settings;
use crate::size::{Size, rounded};

/// Prints a row, or a line of JSON, for each server, and one for all of them.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<Exit> {
    block_on(async {
        let client = connect(settings).await?;
        check_has_servers(settings, &client)?;
        let nodes = client.nodes().await;
        if let Some(refusal) = refusal_of_all(&nodes) {
            return Err(refusal.into());
        }
        // One that is out, and has nothing any more, is no part of the sum.
        let counts =
            |node: &&Node| node.is_alive || node.state.is_some_and(MemberState::is_read_from);
        let mut rows: Vec<_> = nodes.iter().filter(counts).map(Row::of).collect();
        let silent: Vec<_> = rows.iter().filter(|row| row.room.is_none()).collect();
        let silent: Vec<_> = silent.iter().filter_map(|row| row.name.as_deref()).collect();
        let silent = silent.into_iter().map(escape_text).collect::<Vec<_>>();
        rows.push(Row::sum(&rows));
        print(settings, &rows)?;
        if silent.is_empty() {
            return Ok(Exit::Done);
        }
        complain(&format!(
            "not in the sum: no word from {}; `puddle nodes --json` says why",
            silent.join(", ")
        ));
        Ok(Exit::Failed)
    })
}

/// Why nobody says anything to this client, such as a token that is not theirs.
fn refusal_of_all(nodes: &[Node]) -> Option<Error> {
    let is_silent = nodes.iter().all(|node| node.info.is_none());
    let mut refusals = nodes.iter().filter_map(|node| node.error.as_ref());
    refusals.find(|error| is_silent && error.is_refusal()).cloned()
}

fn print(settings: &Settings, rows: &[Row]) -> anyhow::Result<()> {
    let output = settings.output;
    if output.json {
        return rows.iter().try_for_each(|row| output.json_line(row));
    }
    output.text(&table(rows))
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "POOL", "USED", "RESERVED", "FREE", "USE", "VALUES"]);
    for row in rows {
        table.add_row(row.cells());
    }
    for column in 1..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// A server, or all of them, in the fields that are documented.
#[derive(Debug, Serialize)]
struct Row {
    /// Null for the sum.
    name: Option<String>,
    servers: u64,
    unreachable: u64,
    #[serde(flatten)]
    room: Option<Room>,
    error: Option<String>,
}

/// What a server says of its pool.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Room {
    pool_bytes: u64,
    used_bytes: u64,
    superseded_bytes: u64,
    reserved_bytes: u64,
    free_bytes: u64,
    values: u64,
}

impl Row {
    fn of(node: &Node) -> Self {
        let room = node.info.as_ref().map(|info| {
            let row = info.row;
            let taken = row.used_bytes.saturating_add(row.reserved_bytes);
            Room {
                pool_bytes: row.pool_bytes,
                used_bytes: row.used_bytes,
                superseded_bytes: row.superseded_bytes,
                reserved_bytes: row.reserved_bytes,
                free_bytes: row.pool_bytes.saturating_sub(taken),
                values: row.values,
            }
        });
        Self {
            name: Some(node.name.to_string()),
            servers: 1,
            unreachable: u64::from(room.is_none()),
            room,
            error: node.error.as_ref().map(ToString::to_string),
        }
    }

    fn sum(rows: &[Self]) -> Self {
        let mut sum = Room::default();
        for room in rows.iter().filter_map(|row| row.room) {
            sum.pool_bytes = sum.pool_bytes.saturating_add(room.pool_bytes);
            sum.used_bytes = sum.used_bytes.saturating_add(room.used_bytes);
            sum.superseded_bytes = sum.superseded_bytes.saturating_add(room.superseded_bytes);
            sum.reserved_bytes = sum.reserved_bytes.saturating_add(room.reserved_bytes);
            sum.free_bytes = sum.free_bytes.saturating_add(room.free_bytes);
            sum.values = sum.values.saturating_add(room.values);
        }
        let unreachable = rows.iter().map(|row| row.unreachable).sum();
        let servers = rows.len() as u64;
        Self { name: None, servers, unreachable, room: Some(sum), error: None }
    }

    fn cells(&self) -> [String; 7] {
        let name = self.name.as_deref().map_or_else(|| "all".to_owned(), escape_text);
        let Some(room) = self.room else {
            return [name.as_str(), "-", "-", "-", "-", "-", "-"].map(str::to_owned);
        };
        let taken = room.pool_bytes - room.free_bytes;
        let use_percent = taken.saturating_mul(100).div_ceil(room.pool_bytes.max(1));
        [
            name,
            Size(room.pool_bytes).to_string(),
            rounded(room.used_bytes),
            rounded(room.reserved_bytes),
            rounded(room.free_bytes),
            format!("{use_percent}%"),
            room.values.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, room: Option<Room>) -> Row {
        let unreachable = u64::from(room.is_none());
        Row { name: Some(name.to_owned()), servers: 1, unreachable, room, error: None }
    }

    #[test]
    fn what_a_server_does_not_say_is_left_out_of_the_sum() {
        let room = |used| Room {
            pool_bytes: 1 << 20,
            used_bytes: used,
            free_bytes: (1 << 20) - used,
            values: 2,
            ..Room::default()
        };
        let rows = [row("a", Some(room(5))), row("b", None), row("c", Some(room(65_536)))];
        let sum = Row::sum(&rows);
        assert_eq!((sum.servers, sum.unreachable, sum.name.as_ref()), (3, 1, None));
        let cells = sum.cells();
        assert_eq!(cells[..2], ["all", "2MiB"]);
        assert_eq!(cells[4..], ["1.9 MiB", "4%", "4"]);
        assert_eq!(rows[1].cells()[1..], ["-"; 6]);
    }
}
