//! A file of bytes that no compression and no pattern makes smaller.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::Context as _;

const PIECE_BYTES: usize = 1 << 20;

/// Makes a file of pseudo-random bytes.
pub(super) async fn pseudo_random(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let cannot = || format!("cannot make the file {}", path.display());
    let file = File::create_new(path).with_context(cannot)?;
    tokio::task::spawn_blocking(move || fill(&file, bytes)).await?.with_context(cannot)
}

fn fill(mut file: &File, bytes: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut state = 0;
    let mut left = bytes;
    while left > 0 {
        for word in piece.chunks_exact_mut(8) {
            word.copy_from_slice(&next(&mut state).to_le_bytes());
        }
        let length = left.min(PIECE_BYTES as u64);
        file.write_all(&piece[..length as usize])?;
        left -= length;
    }
    Ok(())
}

/// The generator splitmix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
