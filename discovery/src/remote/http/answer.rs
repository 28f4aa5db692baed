//! What a service answers: read with limits, and checked.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use tokio::task::yield_now;

use super::connection::Connection;
use crate::error::DiscoveryError;
use crate::validate::ANSWER_BYTES_MAX;

/// The most bytes of a message that are kept.
const MESSAGE_BYTES_MAX: usize = 300;

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: hyper::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads it, and counts in `bytes` what came, the head as one.
    pub(super) async fn read(
        response: Response<Incoming>,
        what: &'static str,
        service: &str,
        bytes: &AtomicU64,
    ) -> Result<Self, DiscoveryError> {
        let mut answer = Self::head_of(&response);
        bytes.fetch_add(1, Ordering::Relaxed);
        let mut incoming = response.into_body();
        while let Some(part) = next_part(&mut incoming, service).await? {
            if (answer.body.len() + part.len()) as u64 > ANSWER_BYTES_MAX {
                return Err(too_large(what, service));
            }
            answer.body.extend_from_slice(&part);
            bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// The head of an answer, without its body.
    pub(super) fn head_of(response: &Response<Incoming>) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: Vec::new() }
    }

    /// The number in a header.
    pub(crate) fn number(&self, header: &str) -> Option<u64> {
        self.headers.get(header)?.to_str().ok()?.parse().ok()
    }

    /// The body as a text. What is shown of it is to be without secrets, and [`cut`] then.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    /// The body as JSON. The failure may quote it, and with it a secret of ours.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }
}

/// An answer that comes line by line, for as long as somebody reads: up to
/// [`ANSWER_BYTES_MAX`] in all.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) status: u16,
    incoming: Incoming,
    /// What came and was not read.
    buffer: BytesMut,
    /// How many bytes came.
    bytes: u64,
    what: &'static str,
    service: String,
    _connection: Connection,
}

impl Lines {
    pub(super) fn new(
        response: Response<Incoming>,
        connection: Connection,
        what: &'static str,
        service: &str,
    ) -> Self {
        Self {
            status: response.status().as_u16(),
            incoming: response.into_body(),
            buffer: BytesMut::new(),
            bytes: 0,
            what,
            service: service.to_owned(),
            _connection: connection,
        }
    }

    /// The next line that is not empty; waits for it for ever. Fails at the end, and when
    /// too much has come.
    pub(crate) async fn next(&mut self) -> Result<BytesMut, DiscoveryError> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.buffer[seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(seen + at + 1);
                seen = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(line);
            }
            seen = self.buffer.len();
            let part = next_part(&mut self.incoming, &self.service).await?;
            let part = part.ok_or_else(|| bad(self.what, &self.service, "it ended early"))?;
            self.bytes += part.len() as u64;
            if self.bytes > ANSWER_BYTES_MAX {
                return Err(too_large(self.what, &self.service));
            }
            self.buffer.extend_from_slice(&part);
            // A flood is always ready: time limits have their turn between its parts.
            yield_now().await;
        }
    }
}

/// The next bytes of a body; nothing at its end.
async fn next_part(
    incoming: &mut Incoming,
    service: &str,
) -> Result<Option<Bytes>, DiscoveryError> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *incoming).poll_frame(context)).await;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Err(error)) => {
                let (what, backend) = ("read an answer of", service.to_owned());
                return Err(DiscoveryError::Unreachable { what, backend, source: error.into() });
            }
        }
    }
}

/// The begin of a text, as much of it as a message may have. A secret is to be taken out
/// before: half of one would not be found.
pub(crate) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
    text
}

/// An answer that is none.
pub(crate) fn bad(
    what: &'static str,
    service: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DiscoveryError {
    DiscoveryError::BadAnswer { what, backend: service.to_owned(), source: source.into() }
}

fn too_large(what: &'static str, service: &str) -> DiscoveryError {
    let (backend, bytes_max) = (service.to_owned(), ANSWER_BYTES_MAX);
    DiscoveryError::AnswerTooLarge { what, backend, bytes_max }
}
