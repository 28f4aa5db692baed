//! Recorded frames: `testdata/*.hex`, hex digits with comments from `#` to the
//! end of the line.

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the recorded frames.
pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// Every recorded frame, by name.
pub(crate) fn recorded() -> Vec<(String, Vec<u8>)> {
    let folder = fs::read_dir(testdata()).expect("the folder of recorded frames is there");
    let mut frames: Vec<(String, Vec<u8>)> = folder
        .map(|entry| entry.expect("the folder can be read").path())
        .map(|path| {
            assert_eq!(path.extension().and_then(|it| it.to_str()), Some("hex"), "{path:?}");
            let name = path.file_stem().and_then(|it| it.to_str()).expect("names are text");
            (name.to_string(), bytes(&fs::read_to_string(&path).expect("a recorded frame")))
        })
        .collect();
    frames.sort();
    frames
}

fn bytes(text: &str) -> Vec<u8> {
    let digits = text.lines().filter_map(|line| line.split('#').next());
    let pairs = digits.flat_map(str::split_whitespace);
    pairs
        .map(|pair| {
            assert_eq!(pair.len(), 2, "a byte has two digits: {pair:?}");
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair:?} is not hex"))
        })
        .collect()
}
