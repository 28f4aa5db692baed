//! Memory for what is read, from servers or from the sources of puts, used again: the
//! first touch of fresh memory costs more than a read from another machine's.

mod region;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use self::region::{HUGE_PAGE_BYTES, Region};

/// From this on memory comes straight from the system. Below it there may be more
/// pieces than the system gives mappings to a process.
const REGION_BYTES: usize = HUGE_PAGE_BYTES;
/// Shorter ones are not worth keeping.
const KEPT_BYTES_MIN: usize = 16 << 10;
/// Pieces that are kept at most: they are looked through one by one.
const KEPT_MAX: usize = 64;

/// The memory that a client keeps for its next reads.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    kept_bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The one used last is at the end.
    pieces: Vec<Piece>,
    bytes: usize,
}

/// Memory of one origin.
#[derive(Debug)]
enum Piece {
    Heap(Box<[u8]>),
    Region(Region),
}

/// Memory for one read. Dropped, it is kept for the next one.
pub(crate) struct Buffer {
    /// `Some` until it is dropped.
    piece: Option<Piece>,
    length: usize,
    home: Arc<Buffers>,
}

impl Buffers {
    /// None yet; at most so many bytes are kept while nobody uses them.
    pub(crate) fn new(kept_bytes_max: usize) -> Self {
        Self { kept_bytes_max, kept: Mutex::default() }
    }

    /// Memory of a length. It reads as zeros, or as what this client read before.
    ///
    /// # Errors
    /// When there is not so much.
    pub(crate) fn take(self: &Arc<Self>, length: u64) -> io::Result<Buffer> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let piece = match self.take_kept(length) {
            Some(piece) => piece,
            None => Piece::new(length)?,
        };
        Ok(Buffer { piece: Some(piece), length, home: Arc::clone(self) })
    }

    /// The shortest piece that is long enough, and not more than twice as long; below
    /// 2 MiB four times.
    fn take_kept(&self, length: usize) -> Option<Piece> {
        if length < KEPT_BYTES_MIN {
            return None;
        }
        let kept = &mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let enough =
            length..=length.saturating_mul(2).max(REGION_BYTES.min(length.saturating_mul(4)));
        let lengths = kept.pieces.iter().map(|piece| piece.bytes().len()).enumerate();
        let fitting = lengths.rev().filter(|(_, bytes)| enough.contains(bytes));
        let (index, bytes) = fitting.min_by_key(|(_, bytes)| *bytes)?;
        kept.bytes -= bytes;
        Some(kept.pieces.remove(index))
    }

    fn give_back(&self, mut piece: Piece) {
        let bytes = piece.bytes().len();
        if !(KEPT_BYTES_MIN..=self.kept_bytes_max).contains(&bytes) {
            return;
        }
        if let Piece::Region(region) = &mut piece {
            region.offer_back();
        }
        let kept = &mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.bytes + bytes > self.kept_bytes_max || kept.pieces.len() >= KEPT_MAX {
            kept.bytes -= kept.pieces.remove(0).bytes().len();
        }
        kept.bytes += bytes;
        kept.pieces.push(piece);
    }
}

impl Piece {
    fn new(length: usize) -> io::Result<Self> {
        if length >= REGION_BYTES {
            return Region::new(length).map(Self::Region);
        }
        let bytes = if length < KEPT_BYTES_MIN { length } else { length.next_multiple_of(4096) };
        Ok(Self::Heap(vec![0; bytes].into_boxed_slice()))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Region(region) => region.bytes(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Region(region) => region.bytes_mut(),
        }
    }
}

impl Buffer {
    /// The same bytes, to be shared. The last of those who have them gives the memory
    /// back.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.length == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }

    /// Forgets the bytes from `length` on.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let piece = self.piece.as_ref().expect("it is there until it is dropped");
        &piece.bytes()[..self.length]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let piece = self.piece.as_mut().expect("it is there until it is dropped");
        &mut piece.bytes_mut()[..self.length]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take() {
            self.home.give_back(piece);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn kept(buffers: &Buffers) -> (usize, usize) {
        let kept = buffers.kept.lock().unwrap();
        (kept.pieces.len(), kept.bytes)
    }

    #[test]
    fn memory_that_was_given_back_is_used_again() {
        let buffers = Arc::new(Buffers::new(16 * MIB));
        for length in [64 << 10, MIB, 5 * MIB] {
            let mut buffer = buffers.take(length as u64).unwrap();
            buffer.fill(7);
            let begin = buffer.as_ptr();
            let bytes = buffer.into_bytes();
            let half = bytes.slice(..length / 2);
            drop(bytes);
            assert!(half.iter().all(|byte| *byte == 7));
            let before = kept(&buffers).0;
            drop(half);
            assert_eq!(kept(&buffers).0, before + 1, "the last reader gave it back");
            let again = buffers.take(length as u64).unwrap();
            assert_eq!((again.as_ptr(), again.len()), (begin, length));
            drop(again);
        }
    }

    #[test]
    fn no_more_is_kept_than_asked_for_and_nothing_that_is_far_too_long() {
        let buffers = Arc::new(Buffers::new(8 * MIB));
        let taken: Vec<Buffer> = (0..8).map(|_| buffers.take(2 << 20).unwrap()).collect();
        drop(taken);
        assert_eq!(kept(&buffers), (4, 8 * MIB));
        drop(buffers.take(9 << 20).unwrap());
        assert_eq!(kept(&buffers), (4, 8 * MIB), "it is longer than all that may be kept");
        let short = buffers.take(64 << 10).unwrap();
        assert_eq!(kept(&buffers).0, 4, "32 times as long is a waste");
        drop(short);
        let pieces: Vec<Buffer> = (0..200).map(|_| buffers.take(16 << 10).unwrap()).collect();
        drop(pieces);
        assert_eq!(kept(&buffers).0, KEPT_MAX);
    }

    #[test]
    fn memory_that_no_machine_has_is_an_error() {
        let buffers = Arc::new(Buffers::new(8 * MIB));
        for length in [u64::MAX, u64::MAX - 5, 1 << 62, 1 << 55] {
            let refused = buffers.take(length).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
        }
        assert_eq!(*buffers.take(5).unwrap(), [0; 5]);
        assert!(buffers.take(0).unwrap().into_bytes().is_empty());
    }
}
