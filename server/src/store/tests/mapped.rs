//! What readers map stays as it is, against copies made when it was mapped.

use rampuddle_protocol::{MapRow, MappedRow};

use super::*;
use crate::store::mapped::{MapPlace, MappingIndex};

const KEYS: u64 = 10;

/// What one Map was told, and the bytes that were there then.
struct View {
    mapping: MappingIndex,
    hold: u64,
    runs: Vec<(u64, Vec<u8>)>,
}

fn sealed(step: u64, set: SetId) -> CreateRow {
    let flags = RowFlags::REPLACE | RowFlags::SEALED;
    CreateRow { set, flags, ..row(step, 1) }
}

/// Everything that an answer to Map would say, in as many parts as asked for.
fn describe(store: &Store, mut place: MapPlace) -> Vec<MappedRow> {
    std::iter::from_fn(|| store.next_run(&mut place).map(|run| run.row)).collect()
}

fn view(
    store: &mut Store,
    mapping: MappingIndex,
    row: &MapRow,
    key: &[u8],
) -> Result<View, Status> {
    let place = store.map(mapping, row, key, NOW).map_err(|row| row.status())?;
    let rows = describe(store, place);
    let runs = rows.iter().map(|row| {
        let bytes = store.pool.bytes(row.offset..row.offset + row.bytes);
        (row.offset, bytes.to_vec())
    });
    Ok(View { mapping, hold: row.hold, runs: runs.collect() })
}

#[test]
fn an_answer_may_be_cut_at_every_run_and_goes_on_by_its_cursor() {
    let mut store = store(64);
    // Pages of another key in between, so that values have many runs.
    for page in 0..40_u64 {
        create(&mut store, &row(page, 1), &[b'x', page as u8], b"x");
    }
    for page in (0..40_u64).step_by(2) {
        store.delete(
            &DeleteRow { version: version(100), ..Default::default() },
            &[b'x', page as u8],
            NOW,
        );
    }
    let set = SetId([1; 16]);
    let bytes: Vec<u8> = (0..5 * PAGE_BYTES).map(|at| (at / 97) as u8).collect();
    // The end of the pool first, so that the runs are single pages.
    create(&mut store, &row(200, 24 * PAGE_BYTES), b"rest", b"");
    for key in [b"a", b"b"] {
        create(&mut store, &sealed(201, set), key, &bytes);
    }
    let ask = MapRow { hold: 1, flags: RowFlags::SET, ..MapRow::default() };
    let place = store.map(0, &ask, b"a", NOW).expect("two values, within a quarter");
    let all = describe(&store, place);
    assert_eq!(all.len(), 10, "{all:?}");
    let of_first: Vec<u8> = all[..5]
        .iter()
        .flat_map(|row| store.pool.bytes(row.offset..row.offset + row.bytes).to_vec())
        .collect();
    assert!(of_first == bytes);
    let mut ahead = place;
    for done in 0..all.len() {
        let row = MapRow { hold: 1, cursor: Store::cursor_of(&ahead), ..MapRow::default() };
        let again = store.map(0, &row, b"", NOW).expect("a cursor that was given");
        let rest: Vec<u64> = describe(&store, again).iter().map(|row| row.offset).collect();
        let wanted: Vec<u64> = all[done..].iter().map(|row| row.offset).collect();
        assert_eq!(rest, wanted);
        store.next_run(&mut ahead);
    }
    assert_eq!(store.unmap(0, 1), Some(2));
    store.check_invariants();
}

#[test]
fn mapped_bytes_stay_whatever_becomes_of_their_values() {
    let mut random = Seeded::from_environment();
    let (mut mapped, mut refused, mut ended) = (0, 0, 0);
    for _ in 0..30 {
        let mut store = store(96);
        let (mut views, mut step, mut number): (Vec<View>, _, _) = (Vec::new(), 0, 0);
        for _ in 0..400 {
            let key = [b'k', random.below(KEYS) as u8];
            let set = SetId([random.below(4) as u8; 16]);
            let mapping = random.below(3) as MappingIndex;
            (step, number) = (step + 1, number + 1);
            match random.below(10) {
                0..3 => {
                    let bytes = vec![step as u8; 1 + random.below(3 * PAGE_BYTES) as usize];
                    create(&mut store, &sealed(step, set), &key, &bytes);
                }
                3 => {
                    let row = DeleteRow { version: version(step), ..DeleteRow::default() };
                    store.delete(&row, &key, NOW);
                }
                4 => {
                    let version = store.stat(&key, NOW).0.version;
                    store.drop_version(&DropRow { version, ..DropRow::default() }, &key, NOW);
                }
                5 => drop(store.hold(random.below(2) as u32, set)),
                6 => store.release_all(random.below(2) as u32),
                7 | 8 => {
                    let by_set = random.below(3) == 0;
                    let flags = [RowFlags::NONE, RowFlags::SET][random.below(2) as usize];
                    let row = match by_set {
                        true => MapRow { hold: number, set, ..MapRow::default() },
                        false => MapRow { hold: number, flags, ..MapRow::default() },
                    };
                    match view(&mut store, mapping, &row, if by_set { b"" } else { &key }) {
                        Ok(view) => views.push(view),
                        Err(Status::Busy) => refused += 1,
                        Err(_) => {}
                    }
                    mapped += 1;
                }
                _ if random.below(4) == 0 => {
                    store.end_mapping(mapping);
                    while store.end_mappings() {}
                    assert!(store.is_unmapped(mapping));
                    views.retain(|view| view.mapping != mapping);
                    ended += 1;
                }
                _ if !views.is_empty() => {
                    let view = views.swap_remove(random.below(views.len() as u64) as usize);
                    assert!(store.unmap(view.mapping, view.hold).is_some());
                    assert!(store.unmap(view.mapping, view.hold).is_none());
                }
                _ => {}
            }
            for (offset, bytes) in views.iter().flat_map(|view| &view.runs) {
                let found = store.pool.bytes(*offset..*offset + bytes.len() as u64);
                assert!(found == bytes, "step {step}: bytes at {offset} have changed");
            }
        }
        store.check_invariants();
        for view in views.drain(..) {
            store.unmap(view.mapping, view.hold);
        }
        (0..2).for_each(|session| store.release_all(session));
        for key in 0..KEYS {
            let version = store.stat(&[b'k', key as u8], NOW).0.version;
            store.drop_version(&DropRow { version, ..Default::default() }, &[b'k', key as u8], NOW);
        }
        assert_eq!((store.used_bytes(), store.mapped_pages()), (0, 0));
        store.check_invariants();
    }
    assert!(mapped > 1_000 && refused > 20 && ended > 100, "{mapped}, {refused}, {ended}");
}

#[test]
fn many_holds_of_a_mapping_that_is_gone_end_in_several_turns() {
    let mut store = store(64);
    create(&mut store, &sealed(1, SetId::NONE), b"k", b"bytes");
    let holds = 40_000;
    for hold in 1..=holds {
        let row = MapRow { hold, ..MapRow::default() };
        assert!(store.map(7, &row, b"k", NOW).is_ok());
    }
    store.end_mapping(7);
    let mut turns = 1;
    while store.sweep(NOW) {
        turns += 1;
        assert!(!store.is_unmapped(7));
    }
    assert!(turns > 1 && store.is_unmapped(7), "{turns} turns");
    store.check_invariants();
}

#[test]
fn holds_come_and_go_without_end_in_the_same_memory() {
    let mut store = store(64);
    create(&mut store, &sealed(1, SetId::NONE), b"k", b"bytes");
    let capacity = store.mapped.capacities();
    for hold in 1..=400_000 {
        let row = MapRow { hold, ..MapRow::default() };
        assert!(store.map((hold % 5) as u32, &row, b"k", NOW).is_ok());
        if hold > 1_000 {
            let before = hold - 1_000;
            assert_eq!(store.unmap((before % 5) as u32, before), Some(1));
        }
    }
    assert_eq!(store.mapped.capacities(), capacity);
    store.check_invariants();
}

#[test]
fn holds_and_the_values_of_all_holds_are_bounded_in_number() {
    let mut store = store(64);
    let set = SetId([3; 16]);
    for key in 0..8_u8 {
        create(&mut store, &sealed(1, set), &[key], b"bytes");
    }
    let mut taken = 0;
    let refusal = (1..).find_map(|hold| {
        let row = MapRow { hold, set, ..MapRow::default() };
        taken += 1;
        store.map(0, &row, b"", NOW).err()
    });
    let refusal = refusal.expect("an end");
    assert_eq!((refusal.status(), taken), (Status::Busy, 262_144 / 8 + 1));
    assert!(refusal.detail > 0);
    assert_eq!(store.unmap(0, 5), Some(8));
    assert!(store.map(0, &MapRow { hold: 5, set, ..MapRow::default() }, b"", NOW).is_ok());
    store.check_invariants();
}
