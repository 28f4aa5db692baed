//! Sources, stripe by stripe: memory of the caller's as it lies there, all else read
//! into memory that is used again.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::report::Source;
use crate::buffers::{Buffer, Buffers};

/// Memory that a reader of unknown length gets before it has given as much: what it
/// gives may be short, and a whole stripe of memory would be kept for it.
const FIRST_BYTES: usize = 64 << 10;

/// Hands out a source's bytes in stretches of one length; only the last one is
/// shorter.
pub(super) struct Stripes {
    origin: Origin,
    buffers: Arc<Buffers>,
}

enum Origin {
    Bytes(Bytes),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
    File(PathBuf, Option<OpenFile>),
    Ended,
}

impl Stripes {
    /// `buffers`: where memory for what is read comes from.
    pub(super) fn new(source: Source, buffers: &Arc<Buffers>) -> Self {
        let origin = match source {
            Source::Bytes(bytes) => Origin::Bytes(bytes),
            Source::Reader(reader) => Origin::Reader(reader),
            Source::File(path) => Origin::File(path, None),
        };
        Self { origin, buffers: Arc::clone(buffers) }
    }

    /// The length of the source, if it is known before it is read. A file's is asked
    /// for by a thread for blocking work: a file system far away may be slow to say.
    pub(super) async fn length(&mut self) -> Option<u64> {
        match &self.origin {
            Origin::Bytes(bytes) => Some(bytes.len() as u64),
            Origin::File(path, _) => {
                let path = path.clone();
                let found = tokio::task::spawn_blocking(move || std::fs::metadata(path)).await;
                let found = found.ok()?.ok().filter(Metadata::is_file)?;
                Some(found.len())
            }
            Origin::Reader(_) | Origin::Ended => None,
        }
    }

    /// The next `length` bytes; fewer only at the end, none behind it.
    pub(super) async fn next(&mut self, length: usize) -> io::Result<Bytes> {
        let bytes = match &mut self.origin {
            Origin::Bytes(bytes) => bytes.split_to(length.min(bytes.len())),
            Origin::Reader(reader) => read_some(reader, &self.buffers, length).await?,
            Origin::File(path, file) => {
                let (path, open) = (path.clone(), file.take());
                let buffers = Arc::clone(&self.buffers);
                let read = move || read_file(&path, open, &buffers, length);
                let read = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?;
                let (open, bytes) = read?;
                *file = Some(open);
                bytes
            }
            Origin::Ended => Bytes::new(),
        };
        if bytes.len() < length {
            self.origin = Origin::Ended;
        }
        Ok(bytes)
    }
}

/// The next `length` bytes of a reader; fewer only at its end.
async fn read_some(
    reader: &mut (impl AsyncRead + Unpin),
    buffers: &Arc<Buffers>,
    length: usize,
) -> io::Result<Bytes> {
    let mut buffer = buffers.take(length.min(FIRST_BYTES) as u64)?;
    let mut filled = fill(reader, &mut buffer).await?;
    if filled == buffer.len() && filled < length {
        let mut whole = buffers.take(length as u64)?;
        whole[..filled].copy_from_slice(&buffer);
        buffer = whole;
        filled += fill(reader, &mut buffer[filled..]).await?;
    }
    Ok(begin_of(buffer, filled))
}

/// Reads until `out` is full or there is nothing more; returns how much came.
async fn fill(reader: &mut (impl AsyncRead + Unpin), out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match reader.read(&mut out[filled..]).await? {
            0 => break,
            bytes => filled += bytes,
        }
    }
    Ok(filled)
}

fn begin_of(mut buffer: Buffer, bytes: usize) -> Bytes {
    buffer.truncate(bytes);
    buffer.into_bytes()
}

/// A file as it was when it was opened.
///
/// It is read and not mapped: when a file is cut short, a process that has it mapped is
/// killed by SIGBUS at the first byte that it looks at behind the new end. A mapping
/// would save one copy, into memory that is there already.
struct OpenFile {
    file: File,
    opened: Metadata,
    read: u64,
}

fn read_file(
    path: &Path,
    file: Option<OpenFile>,
    buffers: &Arc<Buffers>,
    length: usize,
) -> io::Result<(OpenFile, Bytes)> {
    let mut open = match file {
        Some(open) => open,
        None => OpenFile::open(path)?,
    };
    let bytes = open.next(buffers, length)?;
    Ok((open, bytes))
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let opened = file.metadata()?;
        Ok(Self { file, opened, read: 0 })
    }

    /// The next `length` bytes; fewer only at the end.
    fn next(&mut self, buffers: &Arc<Buffers>, length: usize) -> io::Result<Bytes> {
        let mut buffer = buffers.take(self.expected(length) as u64)?;
        let filled = self.fill(&mut buffer)?;
        self.read += filled as u64;
        if filled < length {
            self.check_unchanged()?;
        }
        Ok(begin_of(buffer, filled))
    }

    /// How many of the next `length` bytes there can be, of a file that does not
    /// change.
    fn expected(&self, length: usize) -> usize {
        let known = self.opened.len();
        // Those that the system makes up while they are read have a length of 0.
        if !self.opened.is_file() || known == 0 {
            return length;
        }
        usize::try_from(known.saturating_sub(self.read)).map_or(length, |left| left.min(length))
    }

    /// Reads until `out` is full or there is nothing more; returns how much came. One
    /// call for each stripe, as a rule. One stripe after the other: that is faster than
    /// a put sends them, and several at once gain little on a disk.
    fn fill(&self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match (&self.file).read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

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
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    const MIB: usize = 1 << 20;

    fn numbers(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index % 251) as u8).collect()
    }

    fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn stripes(source: impl Into<Source>) -> (Stripes, Arc<Buffers>) {
        let buffers = Arc::new(Buffers::new(16 * MIB));
        (Stripes::new(source.into(), &buffers), buffers)
    }

    /// All stretches of a source, the empty one at its end, too.
    async fn all_of(stripes: &mut Stripes, length: usize) -> Vec<Bytes> {
        let mut all = Vec::new();
        loop {
            all.push(stripes.next(length).await.unwrap());
            if all.last().is_some_and(|bytes| bytes.len() < length) {
                assert!(stripes.next(length).await.unwrap().is_empty(), "nothing is behind it");
                return all;
            }
        }
    }

    /// Gives one byte, then twice as many, and so on.
    struct Slowly(io::Cursor<Vec<u8>>, usize);

    impl AsyncRead for Slowly {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.1 *= 2;
            let now = out.remaining().min(self.1 / 2);
            let read = Read::read(&mut self.0, out.initialize_unfilled_to(now))?;
            out.advance(read);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn every_kind_of_source_gives_the_same_stretches() {
        for length in [1_000, FIRST_BYTES, FIRST_BYTES + 1] {
            for bytes in [0, 1, length - 1, length, length + 1, 2 * length, 2 * length + length / 2]
            {
                let all = numbers(bytes);
                let file = file_of(&all);
                let sources = [
                    Source::from(all.clone()),
                    Source::reader(io::Cursor::new(all.clone())),
                    Source::reader(Slowly(io::Cursor::new(all.clone()), 1)),
                    Source::file(file.path()),
                ];
                for source in sources {
                    let what = format!("{source:?} of {bytes} by {length}");
                    let is_known = !matches!(source, Source::Reader(_));
                    let (mut stripes, _) = stripes(source);
                    assert_eq!(stripes.length().await, is_known.then_some(bytes as u64), "{what}");
                    let read = all_of(&mut stripes, length).await;
                    let lengths: Vec<usize> = read.iter().map(Bytes::len).collect();
                    let mut wanted = vec![length; bytes / length];
                    wanted.push(bytes % length);
                    assert_eq!(lengths, wanted, "{what}");
                    assert!(read.concat() == all, "{what}");
                }
            }
        }
    }

    #[tokio::test]
    async fn memory_is_handed_out_where_it_lies() {
        let all = Bytes::from_owner(numbers(2_500));
        let (mut stripes, _) = stripes(all.clone());
        let read = all_of(&mut stripes, 1_000).await;
        let places: Vec<*const u8> = read.iter().map(|bytes| bytes.as_ptr()).collect();
        assert_eq!(places, [0, 1_000, 2_000].map(|at| all[at..].as_ptr()));
    }

    #[tokio::test]
    async fn what_is_read_lies_in_memory_that_is_used_again() {
        let all = numbers(10 * MIB);
        let file = file_of(&all);
        for source in [Source::file(file.path()), Source::reader(io::Cursor::new(all.clone()))] {
            let (mut stripes, _buffers) = stripes(source);
            let mut places = Vec::new();
            for _ in 0..2 {
                let bytes = stripes.next(4 * MIB).await.unwrap();
                places.push(bytes.as_ptr());
            }
            assert_eq!(places[0], places[1]);
            let rest = stripes.next(4 * MIB).await.unwrap();
            assert!(rest == all[8 * MIB..], "of what was there before, nothing is left");
        }
    }

    #[tokio::test]
    async fn what_is_short_has_little_memory() {
        let file = file_of(&numbers(20_000));
        let reader = || Source::reader(io::Cursor::new(numbers(20_000)));
        for source in [Source::file(file.path()), reader()] {
            let (mut stripes, buffers) = stripes(source);
            assert_eq!(stripes.next(4 * MIB).await.unwrap().len(), 20_000);
            let again = buffers.take(20_000).unwrap();
            let fresh = buffers.take(4 * MIB as u64).unwrap();
            assert!(again.iter().any(|byte| *byte != 0), "it was used");
            assert!(fresh.iter().all(|byte| *byte == 0), "it was not");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_another_one_at_its_end_is_an_error() {
        type Change = fn(&File);
        let changes: [(&str, Change); 5] = [
            ("shorter than what was read", |file| file.set_len(500).unwrap()),
            ("as long as what was read", |file| file.set_len(1_000).unwrap()),
            ("shorter", |file| file.set_len(1_700).unwrap()),
            ("longer", |file| file.set_len(2_501).unwrap()),
            ("longer by stretches", |file| file.set_len(4_000).unwrap()),
        ];
        for (what, change) in changes {
            let file = file_of(&numbers(2_500));
            let (mut stripes, _) = stripes(Source::file(file.path()));
            assert_eq!(stripes.next(1_000).await.unwrap().len(), 1_000, "{what}");
            change(file.as_file());
            let error = loop {
                match stripes.next(1_000).await {
                    Ok(bytes) => assert_eq!(bytes.len(), 1_000, "{what}: it is not the end"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.to_string(), "the file changed while it was read", "{what}");
        }
    }

    #[tokio::test]
    async fn files_without_a_length_are_read_to_their_end() {
        let folder = tempfile::TempDir::new().unwrap();
        let pipe = folder.path().join("pipe");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
        let all = numbers(300_000);
        let (path, content) = (pipe.clone(), all.clone());
        let writer = std::thread::spawn(move || std::fs::write(path, content).unwrap());
        let (mut piped, _) = stripes(Source::file(&pipe));
        assert_eq!(piped.length().await, None);
        let read = all_of(&mut piped, 128 << 10).await;
        writer.join().unwrap();
        assert!(read.concat() == all);
        // Made up by the system while it is read, with a length of 0.
        let (mut made_up, _) = stripes(Source::file("/proc/cpuinfo"));
        assert!(!all_of(&mut made_up, 100).await.concat().is_empty());
    }

    #[tokio::test]
    async fn what_a_source_fails_with_is_told() {
        let (mut none, _) = stripes(Source::file("/nowhere"));
        assert_eq!(none.next(1_000).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        let folder = tempfile::TempDir::new().unwrap();
        let (mut folder, _) = stripes(Source::file(folder.path()));
        assert_eq!(folder.next(1_000).await.unwrap_err().kind(), io::ErrorKind::IsADirectory);
        let broken = broken_reader();
        let (mut broken, _) = stripes(Source::reader(broken));
        assert_eq!(broken.next(1_000).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let (mut any, _) = stripes(Source::reader(tokio::io::empty()));
        assert_eq!(any.next(usize::MAX).await.unwrap().len(), 0, "memory comes when bytes come");
    }

    /// A few bytes, and then an error.
    fn broken_reader() -> impl AsyncRead + Send + Unpin {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        }
        AsyncReadExt::chain(io::Cursor::new(numbers(10)), Broken)
    }
}
