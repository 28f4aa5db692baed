//! Whole-system tests: real `puddle serve` processes, spoken to over TCP and
//! over the unix socket, byte for byte. `cargo build --package puddle` first.

#![forbid(unsafe_code)]

mod bad_input;
mod clocks;
mod clusters;
mod commands;
mod compressed;
mod conditions;
mod create;
mod deadlines;
mod delete;
mod descriptors;
mod endurance;
mod faults;
mod fullness;
mod handshake;
mod hostile;
mod lengths;
mod looking;
mod memory;
mod objects;
mod pinned;
mod registry;
mod reserve;
mod same_host;
mod same_host_ranges;
mod same_host_raw;
mod scatter_gather;
mod sets;
mod slow_readers;
mod slow_servers;
mod stopping;
mod strategies;
mod trees;
mod ttl;
mod verification;
mod zero_copy;

/// Runs each test over TCP and over the unix socket, as two tests.
macro_rules! over_both {
    ($($name:ident)*) => {$(
        mod $name {
            use rampuddle_harness::Transport;

            #[test]
            fn over_tcp() {
                super::$name(Transport::Tcp);
            }

            #[test]
            fn over_a_unix_socket() {
                super::$name(Transport::Unix);
            }
        }
    )*};
}
use over_both;

/// Asserts what an outcome says.
macro_rules! assert_status {
    ($outcome:expr, $status:ident) => {{
        let outcome = $outcome;
        assert_eq!(outcome.status(), rampuddle_protocol::Status::$status, "{outcome:?}");
        outcome
    }};
}
use assert_status;
