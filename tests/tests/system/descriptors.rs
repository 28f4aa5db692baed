//! Running out of descriptors neither spins nor kills.

use std::time::Duration;

use rampuddle_harness::{
    RawClient, RawConnection, ServeOptions, ServerProcess, Transport, pace, until,
};

use crate::{assert_status, over_both};

over_both! {
    running_out_of_descriptors_neither_spins_nor_kills
    no_more_connections_are_taken_than_there_are_descriptors
    connections_over_the_number_allowed_are_closed_at_once
}

const WINDOW: Duration = Duration::from_secs(2);

fn running_out_of_descriptors_neither_spins_nor_kills(transport: Transport) {
    let mut server = ServerProcess::with_pool_mib(4);
    // After its start, so that it does not know.
    server.limit_descriptors(64);
    let door = server.door(transport);
    let mut early = RawClient::connect(&door);
    assert_status!(early.create(b"key", 4, b"kept"), Ok);
    // What the server cannot accept waits in the kernel, or is closed.
    let many: Vec<RawConnection> = (0..200).filter_map(|_| door.try_connect().ok()).collect();
    assert!(many.len() > 100, "{} connections were made", many.len());
    until("the descriptors to run out", Duration::from_secs(10), || {
        early.ping();
        server.open_descriptors() >= 63
    });
    let before = server.processor_time();
    pace(WINDOW);
    let used = server.processor_time().saturating_sub(before);
    assert!(used < Duration::from_millis(300), "{used:?} of processor time in {WINDOW:?}");
    assert!(!server.has_exited());
    assert_eq!(&early.gather(b"key", 0, 4).1, b"kept");
    drop(many);
    // Once some have ended, new ones work.
    let mut late = None;
    until("a new connection to work", Duration::from_secs(10), || {
        late = RawClient::try_connect(&door);
        late.is_some()
    });
    assert_eq!(&late.expect("just made").gather(b"key", 0, 4).1, b"kept");
    assert_eq!(&early.gather(b"key", 0, 4).1, b"kept");
}

fn no_more_connections_are_taken_than_there_are_descriptors(transport: Transport) {
    let server = ServerProcess::start(ServeOptions {
        shell: Some("ulimit -n 64".to_owned()),
        ..ServeOptions::with_pool_mib(4)
    });
    let door = server.door(transport);
    let mut clients: Vec<RawClient> = (0..32).map(|_| RawClient::connect(&door)).collect();
    assert!(door.connect().receive_to_end(Duration::from_secs(5)).is_empty());
    clients.iter_mut().for_each(RawClient::ping);
    assert_eq!(clients[0].info().refused_connections, 1);
}

fn connections_over_the_number_allowed_are_closed_at_once(transport: Transport) {
    let server = ServerProcess::start(ServeOptions {
        arguments: vec!["--connections".to_owned(), "8".to_owned()],
        ..ServeOptions::with_pool_mib(4)
    });
    let door = server.door(transport);
    let mut clients: Vec<RawClient> = (0..8).map(|_| RawClient::connect(&door)).collect();
    for _ in 0..20 {
        let refused = door.connect().receive_to_end(Duration::from_secs(5));
        assert!(refused.is_empty());
    }
    clients.iter_mut().for_each(RawClient::ping);
    assert!(clients[0].info().refused_connections >= 20);
    clients.pop();
    until("room for another", Duration::from_secs(10), || RawClient::try_connect(&door).is_some());
}
