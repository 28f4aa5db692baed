//! Getting objects.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

use super::head::{Wanted, check_name};
use super::observed::observed;
use super::opened::{Opened, Stopped};
use super::operation::Operation;
use super::report::{GetOptions, GetReport, Value, cut};
use crate::client::Client;
use crate::error::Error;
use crate::metrics::OperationKind;
use crate::work::Work;

impl Client {
    /// Reads an object: into memory of its own, or, on the server's machine, where it
    /// lies in the server's memory, not compared with its checksums unless
    /// [`GetOptions::verify_mapped`] says so; see [`Value::is_mapped`]. `None` = there is none, which every
    /// server that may have it has confirmed.
    ///
    /// # Errors
    /// [`Error::Unknown`] when a server that may have it gave no answer,
    /// [`Error::Unreadable`] when no copy of some of its bytes is whole,
    /// [`Error::Local`] when there is not enough memory for it.
    pub async fn get(&self, name: &[u8], options: &GetOptions) -> Result<Option<Value>, Error> {
        let work = self.get_value(name, None, options);
        observed(self.core(), OperationKind::Get, name, work).await
    }

    /// Reads a range of an object, as [`Client::get`]; what lies behind its end is
    /// cut. Into memory of its own it reads whole blocks of 1 MiB, because a checksum
    /// covers one. Of an object that is viewed where it lies the server keeps all, not
    /// the range alone.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_range(
        &self,
        name: &[u8],
        range: Range<u64>,
        options: &GetOptions,
    ) -> Result<Option<Value>, Error> {
        let work = self.get_value(name, Some(range), options);
        observed(self.core(), OperationKind::GetRange, name, work).await
    }

    fn get_value<'a>(
        &'a self,
        name: &'a [u8],
        range: Option<Range<u64>>,
        options: &'a GetOptions,
    ) -> Work<'a, Result<Option<Value>, Error>> {
        Box::pin(async move {
            let operation = Operation::begin(self.core());
            let wanted = Wanted { verify: options.verify, into: None };
            let mut opened = Opened::open(&operation, &check_name(name)?, wanted).await?;
            while let Some(object) = opened {
                let range = cut(range.clone(), object.tag().object_bytes);
                set_total(options, &range);
                match object.read(&range, options).await {
                    Ok(value) => return Ok(Some(value)),
                    Err(Stopped::Local(error)) => return Err(error),
                    Err(Stopped::Unread(unread)) => opened = object.reopen(unread).await?,
                }
            }
            Ok(None)
        })
    }

    /// Reads an object into the begin of the caller's memory.
    ///
    /// # Errors
    /// As [`Client::get`], and [`Error::TooLarge`] when the object is longer
    /// than the buffer; then nothing was written, but for bytes of an object that was
    /// replaced while it was read.
    pub async fn get_into(
        &self,
        name: &[u8],
        buffer: &mut [u8],
        options: &GetOptions,
    ) -> Result<Option<GetReport>, Error> {
        let work = self.get_object_into(name, buffer, options);
        observed(self.core(), OperationKind::Get, name, work).await
    }

    fn get_object_into<'a>(
        &'a self,
        name: &'a [u8],
        buffer: &'a mut [u8],
        options: &'a GetOptions,
    ) -> Work<'a, Result<Option<GetReport>, Error>> {
        Box::pin(async move {
            let operation = Operation::begin(self.core());
            let wanted = Wanted { verify: options.verify, into: Some(&mut *buffer) };
            let mut opened = Opened::open(&operation, &check_name(name)?, wanted).await?;
            while let Some(object) = opened {
                let (bytes, limit) = (object.tag().object_bytes, buffer.len() as u64);
                if bytes > limit {
                    return Err(Error::TooLarge { what: "an object", bytes, limit });
                }
                set_total(options, &(0..bytes));
                match object.read_into(&mut buffer[..bytes as usize], options).await {
                    Ok(report) => return Ok(Some(report)),
                    Err(unread) => opened = object.reopen(unread).await?,
                }
            }
            Ok(None)
        })
    }

    /// Writes an object, or a range of it, to a writer, in order. Takes about
    /// 32 MiB of memory, and 8 bytes for each MiB of the object. A slow writer
    /// costs no server's patience.
    ///
    /// # Errors
    /// As [`Client::get`], and [`Error::Local`] when the writer fails. Bytes may
    /// have been written then; all of them were right.
    pub async fn get_to(
        &self,
        name: &[u8],
        writer: &mut (dyn AsyncWrite + Send + Unpin),
        range: Option<Range<u64>>,
        options: &GetOptions,
    ) -> Result<Option<GetReport>, Error> {
        self.get_to_writer(name, writer, range, options).await
    }

    fn get_to_writer<'a>(
        &'a self,
        name: &'a [u8],
        writer: &'a mut (dyn AsyncWrite + Send + Unpin),
        range: Option<Range<u64>>,
        options: &'a GetOptions,
    ) -> Work<'a, Result<Option<GetReport>, Error>> {
        Box::pin(async move {
            let failed = |source| Error::local("cannot write to the destination", source);
            let shared = &Mutex::new(writer);
            let take = |bytes: Bytes| async move {
                shared.lock().await.write_all(&bytes).await.map_err(failed)
            };
            let report = self.stream_object(name, range, options, take).await?;
            shared.lock().await.flush().await.map_err(failed)?;
            Ok(report)
        })
    }

    /// Writes an object, or a range of it, to a file, which appears under its
    /// name only when it is whole, and replaces one that is there.
    ///
    /// # Errors
    /// As [`Client::get_to`]. Then nothing appears.
    pub async fn get_to_file(
        &self,
        name: &[u8],
        path: &Path,
        range: Option<Range<u64>>,
        options: &GetOptions,
    ) -> Result<Option<GetReport>, Error> {
        self.get_to_path(name, path, range, options).await
    }

    fn get_to_path<'a>(
        &'a self,
        name: &'a [u8],
        path: &'a Path,
        range: Option<Range<u64>>,
        options: &'a GetOptions,
    ) -> Work<'a, Result<Option<GetReport>, Error>> {
        Box::pin(async move {
            let failed = |source| Error::local(format!("cannot write {}", path.display()), source);
            let part = &PartFile::create(path).map_err(failed)?;
            let take = |bytes: Bytes| async move { part.write(bytes).await.map_err(failed) };
            let report = self.stream_object(name, range, options, take).await?;
            if report.is_some() {
                part.finish(path).map_err(failed)?;
            }
            Ok(report)
        })
    }

    /// Hands an object, or a range of it, to `take` in order.
    pub(crate) async fn stream_object<F: Future<Output = Result<(), Error>>>(
        &self,
        name: &[u8],
        range: Option<Range<u64>>,
        options: &GetOptions,
        take: impl Fn(Bytes) -> F,
    ) -> Result<Option<GetReport>, Error> {
        let kind = range.as_ref().map_or(OperationKind::Get, |_| OperationKind::GetRange);
        observed(self.core(), kind, name, self.stream_range(name, range, options, take)).await
    }

    async fn stream_range<F: Future<Output = Result<(), Error>>>(
        &self,
        name: &[u8],
        range: Option<Range<u64>>,
        options: &GetOptions,
        take: impl Fn(Bytes) -> F,
    ) -> Result<Option<GetReport>, Error> {
        let operation = Operation::begin(self.core());
        let wanted = Wanted { verify: options.verify, into: None };
        let mut opened = Opened::open(&operation, &check_name(name)?, wanted).await?;
        let mut has_begun = false;
        while let Some(object) = opened {
            let range = cut(range.clone(), object.tag().object_bytes);
            set_total(options, &range);
            let taking = |bytes| {
                has_begun = true;
                take(bytes)
            };
            match object.stream(&range, options, taking).await {
                Ok(report) => return Ok(Some(report)),
                Err(Stopped::Local(error)) => return Err(error),
                // What was handed out cannot be taken back.
                Err(Stopped::Unread(unread)) if has_begun => {
                    return Err(object.broken_off(unread).await);
                }
                Err(Stopped::Unread(unread)) => opened = object.reopen(unread).await?,
            }
        }
        Ok(None)
    }
}

fn set_total(options: &GetOptions, range: &Range<u64>) {
    if let Some(progress) = &options.progress {
        progress.set_total(range.end - range.start);
    }
}

/// A file beside its destination, which it becomes when it is whole. Dropped
/// before, it vanishes.
#[derive(Debug)]
struct PartFile {
    file: Arc<File>,
    path: PathBuf,
}

impl PartFile {
    fn create(destination: &Path) -> io::Result<Self> {
        let name = destination.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        for attempt in 0..u32::MAX {
            let mut part = std::ffi::OsString::from(".");
            part.push(name);
            part.push(format!(".part-{}-{attempt}", std::process::id()));
            let path = destination.with_file_name(part);
            match File::create_new(&path) {
                Ok(file) => return Ok(Self { file: Arc::new(file), path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Appends bytes on a thread for blocking work.
    async fn write(&self, bytes: Bytes) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&bytes));
        written.await.map_err(io::Error::other)?
    }

    fn finish(&self, destination: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, destination)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_appears_under_its_name_only_when_it_is_whole() {
        let directory = std::env::temp_dir().join(format!("rampuddle-part-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("file");
        let part = PartFile::create(&path).unwrap();
        part.write(Bytes::from_static(b"half")).await.unwrap();
        assert!(!path.exists());
        drop(part);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "nothing is left behind");
        let part = PartFile::create(&path).unwrap();
        part.write(Bytes::from_static(b"whole")).await.unwrap();
        part.finish(&path).unwrap();
        drop(part);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
