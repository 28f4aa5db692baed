//! Recorded frames: `protocol/testdata/*.hex`.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Every recorded frame, in the order of the names.
///
/// # Panics
/// When they cannot be read: the corpus is part of the repository.
pub fn recorded() -> &'static [Vec<u8>] {
    static RECORDED: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/testdata");
        let files = fs::read_dir(&folder).expect("the folder of recorded frames is there");
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort();
        let frames: Vec<_> = paths.iter().map(|path| frame(path)).collect();
        assert!(frames.len() > 20, "{} recorded frames", frames.len());
        frames
    })
}

fn frame(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).expect("a recorded frame");
    let lines = text.lines().filter_map(|line| line.split('#').next());
    let digits = lines.flat_map(str::split_whitespace);
    digits.map(|two| u8::from_str_radix(two, 16).expect("two digits of hex")).collect()
}
