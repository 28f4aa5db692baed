//! Where the binary under test is.

use std::env;
use std::path::PathBuf;

/// The `puddle` binary: `PUDDLE_BINARY`, or else the one that was built beside
/// the test that runs.
///
/// # Panics
/// When there is none; the message says how to build it.
pub fn puddle_binary() -> PathBuf {
    let found = env::var_os("PUDDLE_BINARY").map_or_else(beside_the_test, PathBuf::from);
    assert!(
        found.is_file(),
        "there is no puddle binary at {}: build it with `cargo build --package puddle` in the \
         same target directory, or say where it is with PUDDLE_BINARY",
        found.display()
    );
    found
}

/// Tests lie in `deps`, one folder below the binaries.
fn beside_the_test() -> PathBuf {
    let test = env::current_exe().expect("the system knows the path of this test");
    let profile = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
    profile.join("puddle")
}
