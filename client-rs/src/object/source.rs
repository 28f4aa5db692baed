//! Sources, stripe by stripe.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::report::Source;

/// Hands out a source's bytes in stretches of one length; only the last one is
/// shorter.
pub(super) enum Stripes {
    Bytes(Bytes),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
    File(PathBuf, Option<OpenFile>),
    Ended,
}

impl Stripes {
    pub(super) fn new(source: Source) -> Self {
        match source {
            Source::Bytes(bytes) => Self::Bytes(bytes),
            Source::Reader(reader) => Self::Reader(reader),
            Source::File(path) => Self::File(path, None),
        }
    }

    /// The length of the source, if it is known before it is read.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File(path, _) => {
                let found = std::fs::metadata(path).ok().filter(Metadata::is_file);
                found.map(|found| found.len())
            }
            Self::Reader(_) | Self::Ended => None,
        }
    }

    /// The next `length` bytes; fewer only at the end, none behind it.
    pub(super) async fn next(&mut self, length: usize) -> io::Result<Bytes> {
        let bytes = match self {
            Self::Bytes(bytes) => bytes.split_to(length.min(bytes.len())),
            Self::Reader(reader) => {
                let mut buffer = room(length)?;
                reader.take(length as u64).read_to_end(&mut buffer).await?;
                buffer.into()
            }
            Self::File(path, file) => {
                let (path, file) = (path.clone(), file.take());
                let read = tokio::task::spawn_blocking(move || read_file(path, file, length));
                let (opened, bytes) = read.await.map_err(io::Error::other)??;
                if let Self::File(_, file) = self {
                    *file = Some(opened);
                }
                bytes
            }
            Self::Ended => Bytes::new(),
        };
        if bytes.len() < length {
            *self = Self::Ended;
        }
        Ok(bytes)
    }
}

/// An empty buffer with room for so many bytes, or an error instead of the end
/// of the process.
fn room(length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(buffer)
}

/// A file as it was when it was opened.
pub(super) struct OpenFile {
    file: File,
    opened: Metadata,
    read: u64,
}

fn read_file(
    path: PathBuf,
    file: Option<OpenFile>,
    length: usize,
) -> io::Result<(OpenFile, Bytes)> {
    let mut open = match file {
        Some(open) => open,
        None => {
            let file = File::open(path)?;
            let opened = file.metadata()?;
            OpenFile { file, opened, read: 0 }
        }
    };
    let mut bytes = room(length)?;
    (&open.file).take(length as u64).read_to_end(&mut bytes)?;
    open.read += bytes.len() as u64;
    if bytes.len() < length {
        open.check_unchanged()?;
    }
    Ok((open, bytes.into()))
}

impl OpenFile {
    /// An object must be the bytes that a file had at one moment.
    fn check_unchanged(&self) -> io::Result<()> {
        if !self.opened.is_file() {
            return Ok(());
        }
        let now = self.file.metadata()?;
        let is_same = now.len() == self.opened.len()
            && now.modified()? == self.opened.modified()?
            && (self.read == now.len() || now.len() == 0);
        if is_same { Ok(()) } else { Err(io::Error::other("the file changed while it was read")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_kind_of_source_gives_the_same_stretches() {
        let all: Vec<u8> = (0..2_500_u32).map(|index| index as u8).collect();
        let path = std::env::temp_dir().join(format!("rampuddle-source-{}", std::process::id()));
        std::fs::write(&path, &all).unwrap();
        let sources = [
            Source::from(all.clone()),
            Source::reader(io::Cursor::new(all.clone())),
            Source::file(&path),
        ];
        for source in sources {
            let mut stripes = Stripes::new(source);
            let mut lengths = Vec::new();
            let mut read = Vec::new();
            loop {
                let bytes = stripes.next(1_000).await.unwrap();
                lengths.push(bytes.len());
                read.extend_from_slice(&bytes);
                if bytes.len() < 1_000 {
                    break;
                }
            }
            assert_eq!((lengths, read), (vec![1_000, 1_000, 500], all.clone()));
            assert!(stripes.next(1_000).await.unwrap().is_empty());
        }
        std::fs::remove_file(path).unwrap();
    }
}
