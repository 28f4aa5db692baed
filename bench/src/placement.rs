//! What it costs to find the owners of a key, through the library's public door.

use std::hint::black_box;
use std::sync::Arc;

use rampuddle_client::{Client, Options, Slot, View};
use tokio::runtime::{Builder, Runtime};

use crate::sample::{Effort, nanoseconds, timed};

const MEMBERS: [usize; 4] = [3, 16, 100, 1_000];
const STRATEGIES: [&str; 3] = ["rendezvous", "ring", "clone"];
/// Owners asked for: two copies and a stand-in.
const OWNERS: usize = 3;
const SLOTS: usize = 1 << 16;

/// Prints the table of `docs/performance.md`.
pub(crate) fn run(effort: Effort) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    println!("| what | {} |", MEMBERS.map(|members| format!("{members} members")).join(" | "));
    println!("|---|{}", "---|".repeat(MEMBERS.len()));
    let pointer = pointers(effort);
    row("key to slot (SHA-512)", MEMBERS.map(|_| pointer));
    for strategy in STRATEGIES {
        let ranked = MEMBERS.map(|members| ranked(&runtime, effort, strategy, members));
        row(&format!("{strategy}: first 3 of a slot, computed"), ranked);
    }
    for strategy in STRATEGIES {
        let kept = MEMBERS.map(|members| kept(&runtime, effort, strategy, members));
        row(&format!("{strategy}: first 3 of a slot, kept"), kept);
    }
    for strategy in STRATEGIES {
        let all = MEMBERS.map(|members| all(&runtime, effort, strategy, members));
        row(&format!("{strategy}: all ranks of a slot"), all);
    }
}

fn row(what: &str, nanoseconds: [f64; MEMBERS.len()]) {
    let cells = nanoseconds.map(|nanoseconds| format!("{nanoseconds:.0} ns"));
    println!("| {what} | {} |", cells.join(" | "));
}

/// A view of a cluster of so many members. No server need be there: nobody is
/// spoken to.
fn view(runtime: &Runtime, strategy: &str, members: usize) -> Arc<View> {
    let entry = |number: usize| format!("node-{number}=127.0.0.1:{}", 10_000 + number);
    let entries: Vec<String> = (0..members).map(entry).collect();
    let url = format!("static:{}?strategy={strategy}", entries.join(","));
    let client = runtime.block_on(Client::connect(Options::new(url)));
    let view = client.expect("a list needs no server").view();
    assert_eq!(view.placed_members(), members);
    view
}

/// Slots in an order in which no cache helps.
fn scattered(count: usize) -> impl Iterator<Item = Slot> {
    (0..count).map(|number| Slot((number * 40_503 % SLOTS) as u16))
}

/// Names of the length that files have.
fn pointers(effort: Effort) -> f64 {
    let keys: Vec<Vec<u8>> = (0..effort.calls(100_000))
        .map(|number| format!("\u{f8}models/llama/model-{number:05}.safetensors").into_bytes())
        .collect();
    nanoseconds(effort.runs(), || {
        let took = timed(|| {
            for key in &keys {
                black_box(Slot::of(black_box(key), 0));
            }
        });
        (took, keys.len())
    })
}

/// The first look at each slot of a new view, which computes and keeps its ranks.
fn ranked(runtime: &Runtime, effort: Effort, strategy: &str, members: usize) -> f64 {
    let slots = effort.calls(SLOTS * 3 / members.max(3));
    nanoseconds(effort.runs(), || {
        let view = view(runtime, strategy, members);
        (look(&view, slots), slots)
    })
}

/// Every later look at a slot.
fn kept(runtime: &Runtime, effort: Effort, strategy: &str, members: usize) -> f64 {
    let view = view(runtime, strategy, members);
    let slots = effort.calls(SLOTS);
    look(&view, slots);
    nanoseconds(effort.runs(), || (look(&view, slots), slots))
}

fn look(view: &View, slots: usize) -> std::time::Duration {
    timed(|| {
        for slot in scattered(slots) {
            for owner in view.owners(slot, OWNERS) {
                black_box(owner);
            }
        }
    })
}

/// All members of a slot in their order, as repair and `clone` want them.
fn all(runtime: &Runtime, effort: Effort, strategy: &str, members: usize) -> f64 {
    let view = view(runtime, strategy, members);
    let slots = effort.calls(SLOTS * 3 / members.max(3));
    nanoseconds(effort.runs(), || {
        let took = timed(|| {
            for slot in scattered(slots) {
                black_box(view.ranks(slot));
            }
        });
        (took, slots)
    })
}
