//! A writer that compares what it is given with a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use tokio::io::AsyncWrite;

use crate::exit::BeforeAnythingExt as _;

/// How much is compared in one go.
const PIECE_BYTES: usize = 1 << 20;

/// Takes bytes only when they are those of the file at the same place.
#[derive(Debug)]
pub(super) struct Comparing {
    file: File,
    at: u64,
    expected: Vec<u8>,
}

impl Comparing {
    /// Compares with this file from its begin.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path);
        let file = file.with_context(|| format!("cannot read {}", path.display()));
        Ok(Self { file: file.before_anything()?, at: 0, expected: vec![0; PIECE_BYTES] })
    }

    /// How many bytes were the same.
    pub(super) fn compared_bytes(&self) -> u64 {
        self.at
    }

    fn compare(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE_BYTES);
        let expected = &mut self.expected[..length];
        self.file.read_exact_at(expected, self.at)?;
        if expected != &bytes[..length] {
            let differs = expected.iter().zip(bytes).position(|(one, other)| one != other);
            let place = self.at + differs.unwrap_or(0) as u64;
            return Err(io::Error::other(format!("the byte at {place} is wrong")));
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl AsyncWrite for Comparing {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.get_mut().compare(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_or_one_too_many_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"abcdef").unwrap();
        let mut comparing = Comparing::open(&path).unwrap();
        assert_eq!(comparing.compare(b"abc").unwrap(), 3);
        let error = comparing.compare(b"dXf").unwrap_err();
        assert_eq!(error.to_string(), "the byte at 4 is wrong");
        assert_eq!(comparing.compare(b"def").unwrap(), 3);
        assert!(comparing.compare(b"g").is_err());
        assert_eq!(comparing.compared_bytes(), 6);
    }
}
