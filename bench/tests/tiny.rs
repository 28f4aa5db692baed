//! The benches run, so that they do not rot.

use std::process::Command;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rampuddle-bench")).args(arguments).output();
    let output = output.expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[test]
fn the_bench_of_placement_prints_a_time_for_each_strategy_and_number_of_members() {
    let (code, table) = run(&["placement", "--tiny"]);
    assert_eq!(code, Some(0), "{table}");
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 2 + 1 + 3 * 3, "{table}");
    for row in &rows[2..] {
        assert_eq!(row.matches(" ns |").count(), 4, "{row}");
    }
    for strategy in ["rendezvous", "ring", "clone"] {
        assert_eq!(rows.iter().filter(|row| row.contains(strategy)).count(), 3, "{table}");
    }
}

#[test]
fn the_bench_of_metrics_prints_what_an_operation_and_a_snapshot_cost() {
    let (code, table) = run(&["metrics", "--tiny"]);
    assert_eq!(code, Some(0), "{table}");
    assert_eq!(table.lines().count(), 2 + 2, "{table}");
    assert!(table.lines().skip(2).all(|row| row.ends_with(" ns |")), "{table}");
}

#[test]
fn what_is_no_bench_is_told_what_there_is() {
    for arguments in [&[][..], &["placements"], &["placement", "--short"]] {
        let (code, said) = run(arguments);
        assert!(code == Some(2) && said.contains("placement|metrics [--tiny]"), "{said}");
    }
}
