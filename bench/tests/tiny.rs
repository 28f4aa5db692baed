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
fn the_bench_of_the_same_host_prints_a_row_for_each_length_and_each_kind_of_ranges() {
    let (code, table) = run(&["same-host", "--tiny"]);
    assert_eq!(code, Some(0), "{table}");
    let (objects, ranges) = table.split_once("| ranges, ").expect("two tables");
    let rows: Vec<&str> = objects.lines().filter(|line| line.contains(" KiB |")).collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows.iter().all(|row| row.matches(" us |").count() == 5), "{table}");
    let rows: Vec<&str> = ranges.lines().filter(|line| line.contains(" KiB |")).collect();
    assert_eq!(rows.len(), 5, "{table}");
    assert!(rows.iter().all(|row| row.matches(" us |").count() == 2), "{table}");
}

/// Rows of all tables in `text` whose first cell is `who`.
fn rows_of<'a>(text: &'a str, who: &str) -> Vec<&'a str> {
    let begin = format!("| {who} ");
    text.lines().filter(|line| line.starts_with(&begin)).collect()
}

#[test]
fn gets_and_puts_are_compared_with_the_floor_by_every_way() {
    let filter = ["--who", "puddle,floor,copy", "--sizes", "64K,1M"];
    let (code, said) = run(&[&["compare", "--tiny"][..], &filter].concat());
    assert_eq!(code, Some(0), "{said}");
    // Two sizes: by two ways a get and a put, by one a get that reads all bytes.
    assert_eq!(rows_of(&said, "floor").len(), 2 * (2 * 2 + 1), "{said}");
    assert_eq!(rows_of(&said, "memory copy").len(), 2, "{said}");
    // By two ways five kinds of get and a put; of 64 KiB the raw Gather too. By the
    // unix socket a get that reads all bytes; of mapped memory three kinds of get.
    assert_eq!(rows_of(&said, "RamPuddle").len(), 2 * (7 + 6) + 2 * (1 + 3), "{said}");
    for row in rows_of(&said, "RamPuddle") {
        assert!(row.contains(" (") && !row.contains("failed"), "no ratio to the floor: {row}");
    }
}

#[test]
fn a_filter_lets_its_rows_through_and_the_floor_that_they_are_compared_with() {
    let filter = ["--who", "floor,puddle", "--sizes", "1000", "--ops", "get-unverified"];
    let (code, said) = run(&[&["compare", "--tiny", "--paths", "unix"][..], &filter].concat());
    assert_eq!(code, Some(0), "{said}");
    let rows: Vec<&str> = said.lines().filter(|line| line.contains("unix socket")).collect();
    assert_eq!(rows.len(), 2, "{said}");
    assert!(rows[0].contains("floor") && rows[1].contains("get, unverified"), "{said}");
    assert!(!said.contains("TCP"), "{said}");
}

#[test]
fn a_run_of_everything_writes_a_document_with_its_plots() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_string_lossy();
    let (code, said) = run(&["all", "--tiny", "--document", &path]);
    assert_eq!(code, Some(0), "{said}");
    let document = std::fs::read_to_string(folder.path().join("benchmarks.md")).expect("written");
    assert!(!document.contains("failed:"), "{document}");
    let words = ["goals", "machine", "skipped", "gets", "puts", "readers", "costs", "rounds"];
    for word in words.into_iter().chain(["links", "mix"]) {
        assert!(!document.contains(&format!("{{{word}}}")), "{word} was not filled in");
    }
    assert!(!rows_of(&document, "RamPuddle").is_empty(), "{document}");
    let plots: Vec<&str> = document.split("](benchmarks/").skip(1).collect();
    assert_eq!(plots.len(), 5, "{document}");
    for plot in plots {
        let name = plot.split(')').next().expect("a name");
        let plot = std::fs::read_to_string(folder.path().join("benchmarks").join(name));
        let plot = plot.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(plot.contains("RamPuddle") && plot.ends_with("</svg>\n"), "{name}: {plot}");
    }
}

#[test]
fn small_values_are_read_beside_large_ones_however_short_the_time() {
    let arguments = ["--places", "loopback", "--size", "1M", "--repeats", "2", "--rounds", "1"];
    let (code, said) =
        run(&[&["mix", "--streams", "2", "--seconds", "0"], &arguments[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    let rows = rows_of(&said, "loopback");
    assert!(rows.len() == 1 && !rows[0].contains("failed"), "{said}");
}

#[test]
fn memory_is_compared_with_the_disk_and_the_section_written_into_a_document() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let document = folder.path().join("performance.md");
    std::fs::write(&document, "# Before\n\n## The thesis\n\nold\n\n## After\n").expect("written");
    let path = folder.path().to_string_lossy();
    let arguments = ["thesis", "--tiny", "--folder", &path, "--document"];
    let (code, said) = run(&[&arguments[..], &[&document.to_string_lossy()]].concat());
    assert_eq!(code, Some(0), "{said}");
    let document = std::fs::read_to_string(document).expect("written");
    assert!(document.starts_with("# Before\n\n## The thesis\n\nThe project"), "{document}");
    assert!(document.ends_with("\n\n## After\n") && !document.contains("old"), "{document}");
    assert!(!document.contains('{') && !document.contains("failed"), "{document}");
    assert_eq!(rows_of(&document, "local disk").len(), 2, "figures, and what they are\n{document}");
    // By three ways; of memory that is mapped a copy and a view.
    let rows: Vec<&str> = document.lines().filter(|it| it.starts_with("| RamPuddle, ")).collect();
    assert!(rows.len() == 4 && rows.iter().all(|row| row.contains(" us")), "{document}");
}

#[test]
fn what_is_no_bench_is_told_what_there_is() {
    for arguments in [
        &[][..],
        &["placements"],
        &["placement", "--short"],
        &["compare", "--who", "nobody"],
        &["compare", "--sizes", "64X"],
    ] {
        let (code, said) = run(arguments);
        assert!(code == Some(2) && said.contains("--help"), "{said}");
    }
}
