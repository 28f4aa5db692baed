//! Bytes from a reader on one thread to the client on another.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces between the two threads.
const PIECES: usize = 2;

/// An empty one is the end. A sender that goes without it was broken off: what
/// came before must not pass for all there is.
type Piece = io::Result<Bytes>;

/// Where a reader's bytes go in.
pub(super) struct Feeder(Sender<Piece>);

/// Where they come out.
pub(super) struct Fed {
    pieces: Receiver<Piece>,
    rest: Bytes,
    has_ended: bool,
}

/// Both ends.
pub(super) fn pipe() -> (Feeder, Fed) {
    let (sender, pieces) = channel(PIECES);
    (Feeder(sender), Fed { pieces, rest: Bytes::new(), has_ended: false })
}

impl Feeder {
    /// Reads to the end, or until nobody wants more. A failure goes the same way
    /// as the bytes.
    pub(super) fn feed(self, reader: &mut dyn Read) {
        loop {
            let piece = next_piece(reader);
            let is_last = piece.as_ref().map_or(true, Bytes::is_empty);
            let is_unwanted = self.0.blocking_send(piece).is_err();
            if is_last || is_unwanted {
                return;
            }
        }
    }
}

/// What one call of the reader gives; empty at the end. A pipe gives little at a
/// time, and whoever waits for it is to have that at once.
fn next_piece(reader: &mut dyn Read) -> Piece {
    let mut bytes = BytesMut::zeroed(PIECE_BYTES);
    loop {
        match reader.read(&mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                return Ok(bytes.freeze());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl AsyncRead for Fed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() && !self.has_ended {
            let Some(piece) = ready!(self.pieces.poll_recv(context)) else {
                return Poll::Ready(Err(io::Error::other("the reader was given up")));
            };
            self.rest = piece?;
            self.has_ended = self.rest.is_empty();
        }
        let now = self.rest.len().min(out.remaining());
        out.put_slice(&self.rest[..now]);
        self.rest.advance(now);
        Poll::Ready(Ok(()))
    }
}
