//! What it costs that a client counts and tells what it does.

use std::hint::black_box;

use rampuddle_client::{Client, OperationKind, Options};
use tokio::runtime::Builder;

use crate::sample::{Effort, nanoseconds, timed};

/// Prints a table: time for each.
pub(crate) fn run(effort: Effort) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = runtime.block_on(Client::connect(Options::new("static:a=127.0.0.1:1")));
    let client = client.expect("a list needs no server");
    println!("| what | each |");
    println!("|---|---|");
    let calls = effort.calls(200_000);
    let operation = nanoseconds(effort.runs(), || {
        // Refused before anything is done: all that is left is what observes it.
        let refuse = async {
            for _ in 0..calls {
                let refused = black_box(client.stat(black_box(b""))).await;
                assert!(refused.is_err(), "no object has this name");
            }
        };
        (timed(|| runtime.block_on(refuse)), calls)
    });
    println!("| an operation that does nothing, counted, nobody listening | {operation:.0} ns |");
    let calls = effort.calls(2_000);
    let snapshot = nanoseconds(effort.runs(), || {
        let took = timed(|| {
            for _ in 0..calls {
                let counted = client.metrics().of(OperationKind::Stat).total();
                assert!(black_box(counted) > 0, "they were counted");
            }
        });
        (took, calls)
    });
    println!("| a snapshot | {snapshot:.0} ns |");
}
