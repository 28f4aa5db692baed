//! The map of `docs/testing.md` from bad input to tests leads somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use rampuddle_harness::Counts;

/// Where the files of a table lie, by the words of its heading.
const TABLES: [(&str, &str); 3] = [
    ("On the wire", "tests/tests/system"),
    ("On the command line", "cli/tests"),
    ("In a registry", "discovery"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What stands in backticks.
fn quoted(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2)
}

/// The texts of a file, or of all files of a folder, that a row names.
fn texts(base: &str, name: &str) -> Option<String> {
    let places = [base, "tests/tests/system", ""].map(|place| root().join(place).join(name));
    let path = places.into_iter().find(|path| path.exists())?;
    let Ok(entries) = path.read_dir() else { return fs::read_to_string(path).ok() };
    let files = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Some(files.collect())
}

#[test]
fn every_kind_of_bad_input_is_proved_by_tests_that_are_there() {
    let document = fs::read_to_string(root().join("docs/testing.md")).expect("the document");
    let section = document.split("\n## ").find(|section| section.starts_with("Bad input"));
    let section = section.expect("its chapter on bad input");
    let mut counts = Counts::new("the map of bad input");
    for (heading, base) in TABLES {
        let table = section.split("\n### ").find(|table| table.starts_with(heading));
        let rows = table.expect(heading).lines().filter(|line| line.starts_with("| ")).skip(1);
        for row in rows {
            let (_, tests) = row[2..].split_once(" | ").expect("two columns");
            let is_place = |name: &&str| name.ends_with(".rs") || name.ends_with('/');
            let (places, names): (Vec<&str>, Vec<&str>) = quoted(tests).partition(is_place);
            let found = |name: &&str| texts(base, name).unwrap_or_else(|| panic!("{name}: {row}"));
            let text: String = places.iter().map(found).collect();
            for name in names.iter().map(|name| name.trim_matches('.')) {
                assert!(text.contains(name), "{name} is in none of {places:?}");
            }
            let is_the_same = tests.starts_with("the same");
            assert!(is_the_same || !places.is_empty(), "nothing proves {row}");
            counts.one("kinds");
            counts.add("tests named", names.len() as u64);
        }
    }
    assert!(counts.of("kinds") > 40, "{counts}");
}
