//! How long it takes from the call to bytes that can be read, on the server's machine:
//! where they lie, and copied. Starts a `puddle serve`: build that first, with
//! `--release`, and name it in `PUDDLE_BINARY`.

use std::hint::black_box;

use rampuddle_client::{Client, GetOptions, PutOptions, RangeOf};
use rampuddle_harness::{Cluster, ClusterOptions};
use tokio::runtime::{Builder, Runtime};

use crate::memory::read_all;
use crate::sample::{Effort, nanoseconds, timed};

const MIB: usize = 1 << 20;

/// Prints a table: microseconds for each get of an object, by its length.
pub(crate) fn run(effort: Effort) {
    let lengths: &[usize] = match effort {
        Effort::Full => &[64 << 10, MIB, 16 * MIB, 256 * MIB],
        Effort::Tiny => &[64 << 10, 5 * MIB],
    };
    let pool_mib = if effort == Effort::Full { 1_536 } else { 64 };
    let cluster =
        Cluster::with(&ClusterOptions { servers: 1, pool_mib, ..ClusterOptions::default() });
    // The thread that asks waits for the answer itself.
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mapping = runtime.block_on(Client::connect(cluster.client_options()));
    let mapping = mapping.expect("the server runs");
    let mut options = cluster.client_options();
    options.map = false;
    let copying = runtime.block_on(Client::connect(options)).expect("the server runs");
    println!("| object | a view | and read | slices | copied | sent | sent and read |");
    println!("|---|---|---|---|---|---|---|");
    for length in lengths {
        let mut options = PutOptions::default();
        options.replicas = Some(1);
        let put = mapping.put(b"o", vec![7; *length], &options);
        runtime.block_on(put).expect("the object is written");
        row(&runtime, &mapping, &copying, *length, effort);
    }
    println!();
    println!("| ranges, of 64 MiB | sent | copied from where they lie |");
    println!("|---|---|---|");
    let length = if effort == Effort::Full { 64 * MIB } else { 5 * MIB };
    let mut options = PutOptions::default();
    options.replicas = Some(1);
    let put = runtime.block_on(mapping.put(b"o", vec![7; length], &options));
    put.expect("the object is written");
    for (count, bytes) in [(1, 4 << 10), (1, 64 << 10), (1, MIB), (16, 4 << 10), (16, MIB)] {
        let step = length / count;
        let range = |index: usize| (index * step) as u64..(index * step + bytes) as u64;
        let asked: Vec<_> = (0..count).map(|index| RangeOf::new("o", range(index))).collect();
        let each = |client: &Client| {
            let get = || {
                let found = runtime.block_on(client.get_ranges(&asked, &GetOptions::default()));
                assert!(found.iter().all(Result::is_ok), "they are read");
            };
            let calls = effort.calls(1_600 / count);
            let run = || (timed(|| (0..calls).for_each(|_| get())), calls);
            nanoseconds(effort.runs(), run) / 1_000.0
        };
        let (sent, copied) = (each(&copying), each(&mapping));
        println!("| {count} of {} KiB | {sent:.0} us | {copied:.0} us |", bytes >> 10);
    }
}

fn row(runtime: &Runtime, mapping: &Client, copying: &Client, length: usize, effort: Effort) {
    let options = &GetOptions::default();
    let get = |client: &Client| {
        let value = runtime.block_on(client.get(b"o", options)).expect("it is read");
        value.expect("it is there")
    };
    let view = get(mapping);
    assert!(view.is_mapped() && !get(copying).is_mapped(), "both ways are measured");
    let slices = view.slices().count();
    let fast = effort.calls(1_000);
    let slow = effort.calls((1_000 * MIB / length).clamp(3, 1_000));
    let each = |calls: usize, work: &mut dyn FnMut()| {
        let run = || (timed(|| (0..calls).for_each(|_| work())), calls);
        nanoseconds(effort.runs(), run) / 1_000.0
    };
    let mut buffer = vec![0; length];
    let mut into = |client: &Client| {
        let work = client.get_into(b"o", &mut buffer, options);
        assert!(runtime.block_on(work).expect("it is read").is_some());
    };
    println!(
        "| {} KiB | {:.0} us | {:.0} us | {slices} | {:.0} us | {:.0} us | {:.0} us |",
        length >> 10,
        each(fast, &mut || drop(black_box(get(mapping)))),
        each(slow, &mut || read_all(get(mapping).slices())),
        each(slow, &mut || into(mapping)),
        each(slow, &mut || into(copying)),
        each(slow, &mut || read_all(get(copying).slices())),
    );
}
