//! Descriptors that leave with answers.

use std::os::fd::{AsFd as _, OwnedFd};

use rampuddle_protocol::{MapRow, SharedRow};

use super::*;
use crate::sharing::Sharing;

/// A connection of this machine to a server that shares its pool.
fn local() -> Joined {
    let mut joined = Joined::greeted(64);
    joined.core.sharing = Sharing::on();
    joined.connection.is_local = true;
    joined
}

fn ask<R: rampuddle_protocol::Row>(joined: &mut Joined, opcode: Opcode, id: u64, rows: &[R]) {
    let mut table = TableBuilder::request(&mut joined.wire, opcode, id);
    rows.iter().for_each(|row| table.push(row, b"", b""));
    table.finish(0);
}

/// Lets the connection send `most` bytes in one call: them, and the descriptor that
/// went along.
fn send(joined: &mut Joined, most: usize) -> (Vec<u8>, Option<OwnedFd>) {
    let (mut bytes, mut descriptor) = (Vec::new(), None);
    let sent = joined.connection.send_with(&mut joined.core, u64::MAX, |slices, way| {
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        bytes.truncate(most);
        descriptor = match way {
            Way::Passing(passed) => Some(passed.try_clone_to_owned().unwrap()),
            _ => None,
        };
        Ok(bytes.len())
    });
    assert!(sent.is_ok());
    (bytes, descriptor)
}

fn statuses(bytes: &[u8]) -> Vec<(u64, Status)> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let header = Header::parse(rest).unwrap();
        found.push((header.request_id, Status::from_number(header.status).unwrap()));
        rest = &rest[header.head_bytes()..];
    }
    found
}

#[test]
fn a_descriptor_leaves_with_the_first_byte_of_its_answer_and_nothing_else() {
    let mut joined = local();
    ask::<SharedRow>(&mut joined, Opcode::Ping, 1, &[]);
    ask::<SharedRow>(&mut joined, Opcode::Share, 2, &[]);
    ask::<SharedRow>(&mut joined, Opcode::Share, 3, &[]);
    ask::<SharedRow>(&mut joined, Opcode::Ping, 4, &[]);
    while joined.receive(usize::MAX) > 0 {}
    while joined.connection.is_paused() {
        joined.connection.handle_turn(&mut joined.core);
    }
    // What was queued before goes by a call of its own.
    let (first, none) = send(&mut joined, usize::MAX);
    assert_eq!((statuses(&first), none.is_none()), (vec![(1, Status::Ok)], true));
    // Sent in part, the descriptor is sent; the rest goes without it.
    let (begin, descriptor) = send(&mut joined, 1);
    assert!(begin.len() == 1 && descriptor.is_some());
    let (rest, none) = send(&mut joined, usize::MAX);
    assert!(none.is_none());
    let wanted = [(2, Status::Ok), (3, Status::Busy), (4, Status::Ok)];
    assert_eq!(statuses(&[begin, rest].concat()), wanted, "one descriptor at a time");
    assert!(!joined.connection.has_output());
    // It is this process's own, and alive as long as that.
    assert_eq!(joined.core.sharing.len(), 1);
    joined.core.sharing.forget_the_gone(&mut joined.core.store);
    assert_eq!(joined.core.sharing.len(), 1);
    assert!(descriptor.as_ref().is_some_and(|one| one.as_fd().try_clone_to_owned().is_ok()));
    drop(descriptor);
    joined.core.sharing.forget_the_gone(&mut joined.core.store);
    assert_eq!(joined.core.sharing.len(), 0);
}

#[test]
fn a_descriptor_that_never_left_ends_its_mapping() {
    for cancels in [true, false] {
        let mut joined = local();
        ask::<SharedRow>(&mut joined, Opcode::Share, 1, &[]);
        while joined.receive(usize::MAX) > 0 {}
        assert_eq!(joined.core.sharing.len(), 1);
        if cancels {
            ask(&mut joined, Opcode::Cancel, 2, &[CancelRow { request_id: 1 }]);
            joined.connection.handle_turn(&mut joined.core);
            while joined.receive(usize::MAX) > 0 {}
            let (bytes, descriptor) = send(&mut joined, usize::MAX);
            assert!(descriptor.is_none());
            assert_eq!(statuses(&bytes), [(1, Status::Cancelled), (2, Status::Ok)]);
        } else {
            let Joined { core, connection, .. } = &mut joined;
            let ended = std::mem::replace(connection, Connection::new(1, 0));
            assert!(ended.release(core).is_none(), "nothing is lent");
        }
        joined.core.sharing.forget_the_gone(&mut joined.core.store);
        assert_eq!(joined.core.sharing.len(), 0);
    }
}

#[test]
fn a_connection_that_passes_no_descriptors_is_refused_as_a_whole() {
    let mut joined = local();
    joined.connection.is_local = false;
    ask::<SharedRow>(&mut joined, Opcode::Share, 1, &[]);
    ask(&mut joined, Opcode::Map, 2, &[MapRow { hold: 1, ..MapRow::default() }]);
    joined.run(usize::MAX, usize::MAX);
    let wanted = [(1, Status::Unsupported), (2, Status::Unsupported)];
    assert_eq!(statuses(&joined.answers), wanted);
    assert_eq!(joined.core.sharing.len(), 0);
}
