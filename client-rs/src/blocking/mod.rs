//! The same client for programs without an async runtime: every call returns
//! when it is done.
//!
//! ```no_run
//! use rampuddle_client::{GetOptions, Options, PutOptions, blocking::Client};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::from_env()?)?;
//! client.put(b"name", "bytes", &PutOptions::default())?;
//! let value = client.get(b"name", &GetOptions::default())?.expect("just put");
//! assert_eq!(value.into_bytes(), "bytes");
//! # Ok(())
//! # }
//! ```
//!
//! A client has one thread of its own, for what goes on behind the calls; the
//! bytes of most calls are moved by the thread that calls. Readers and writers
//! are used on the caller's thread too, so they need not be `Send`; meanwhile the
//! client's thread moves the bytes to and from servers, and no server waits for
//! a slow pipe or disk.
//!
//! On a thread of an async runtime a call would keep all tasks of that thread
//! from going on. There every call is refused with
//! [`Error::WithinRuntime`]; threads for blocking work that a runtime made
//! (`spawn_blocking`) are such threads too: use the async
//! [`Client`](crate::Client) there, or a thread of your own.

mod pipe;
mod verification;

use std::future::Future;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

use self::pipe::pipe;
pub use self::verification::Verification;
use crate::client::Node;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::object::{
    CompareOptions, Comparison, DeleteReport, GetOptions, GetReport, Listing, Located, ObjectStat,
    Orphans, PutOptions, PutReport, RangeOf, Source, Unreadable, Value, VerifyOptions,
};
use crate::options::Options;
use crate::view::View;

/// A client of one cluster whose calls block. Cheap to clone; clones share
/// connections and thread, which end with the last of them.
#[derive(Debug, Clone)]
pub struct Client {
    client: crate::Client,
    // Behind the client, which has tasks on it.
    own: Arc<Own>,
}

/// The runtime of a client and its clones.
#[derive(Debug)]
struct Own {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Drop for Own {
    fn drop(&mut self) {
        // Without waiting: the last clone may go on a thread that must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Own {
    fn start() -> Result<Self, Error> {
        let failed = |source| Error::local("cannot start the client's thread", source);
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("rampuddle-client").enable_all();
        let runtime = builder.build().map_err(failed)?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Waits for `work` on this thread.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        refuse_within_runtime()?;
        self.handle.block_on(work)
    }
}

/// Refuses a thread that an async runtime goes on with.
fn refuse_within_runtime() -> Result<(), Error> {
    if Handle::try_current().is_ok() { Err(Error::WithinRuntime) } else { Ok(()) }
}

impl Client {
    /// Connects to discovery, as [`Client::connect`](crate::Client::connect).
    ///
    /// # Errors
    /// As there, and when there is no thread to be had.
    pub fn connect(options: Options) -> Result<Self, Error> {
        refuse_within_runtime()?;
        let own = Own::start()?;
        let client = own.wait(crate::Client::connect(options))?;
        Ok(Self { client, own: Arc::new(own) })
    }

    /// The async client behind this one.
    pub fn as_async(&self) -> &crate::Client {
        &self.client
    }

    /// What the client knows of the cluster now. Does not block.
    pub fn view(&self) -> Arc<View> {
        self.client.view()
    }

    /// What this client and its clones have done so far. Does not block.
    pub fn metrics(&self) -> Metrics {
        self.client.metrics()
    }

    /// Writes an object from memory or from a file:
    /// [`Client::put`](crate::Client::put).
    ///
    /// # Errors
    /// As there.
    pub fn put(
        &self,
        name: &[u8],
        source: impl Into<Source>,
        options: &PutOptions,
    ) -> Result<PutReport, Error> {
        self.own.wait(self.client.put(name, source, options))
    }

    /// Writes an object from a file: [`Client::put`](crate::Client::put).
    ///
    /// # Errors
    /// As there.
    pub fn put_file(
        &self,
        name: &[u8],
        path: impl AsRef<Path>,
        options: &PutOptions,
    ) -> Result<PutReport, Error> {
        self.put(name, Source::file(path.as_ref()), options)
    }

    /// Writes an object from a reader of unknown length, which is read on this
    /// thread, to its end.
    ///
    /// # Errors
    /// As [`Client::put`](crate::Client::put).
    pub fn put_reader(
        &self,
        name: &[u8],
        reader: &mut dyn Read,
        options: &PutOptions,
    ) -> Result<PutReport, Error> {
        refuse_within_runtime()?;
        let (feeder, source) = pipe();
        let (client, name, options) = (self.client.clone(), name.to_vec(), options.clone());
        let put = self
            .own
            .handle
            .spawn(async move { client.put(&name, Source::reader(source), &options).await });
        feeder.feed(reader);
        self.joined(put)
    }

    /// Reads an object into new memory: [`Client::get`](crate::Client::get).
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, name: &[u8], options: &GetOptions) -> Result<Option<Value>, Error> {
        self.own.wait(self.client.get(name, options))
    }

    /// Reads a range of an object:
    /// [`Client::get_range`](crate::Client::get_range).
    ///
    /// # Errors
    /// As there.
    pub fn get_range(
        &self,
        name: &[u8],
        range: Range<u64>,
        options: &GetOptions,
    ) -> Result<Option<Value>, Error> {
        self.own.wait(self.client.get_range(name, range, options))
    }

    /// Reads many ranges, of one object or of many:
    /// [`Client::get_ranges`](crate::Client::get_ranges).
    ///
    /// # Errors
    /// For each range as there; for all of them only within an async runtime.
    pub fn get_ranges(
        &self,
        asked: &[RangeOf],
        options: &GetOptions,
    ) -> Result<Vec<Result<Option<Value>, Error>>, Error> {
        self.own.wait(async { Ok(self.client.get_ranges(asked, options).await) })
    }

    /// Reads an object into the begin of the caller's memory:
    /// [`Client::get_into`](crate::Client::get_into).
    ///
    /// # Errors
    /// As there.
    pub fn get_into(
        &self,
        name: &[u8],
        buffer: &mut [u8],
        options: &GetOptions,
    ) -> Result<Option<GetReport>, Error> {
        self.own.wait(self.client.get_into(name, buffer, options))
    }

    /// Writes an object, or a range of it, to a writer, in order and on this
    /// thread. Takes about 32 MiB of memory.
    ///
    /// # Errors
    /// As [`Client::get_to`](crate::Client::get_to).
    pub fn get_to(
        &self,
        name: &[u8],
        writer: &mut dyn Write,
        range: Option<Range<u64>>,
        options: &GetOptions,
    ) -> Result<Option<GetReport>, Error> {
        refuse_within_runtime()?;
        let failed = |source| Error::local("cannot write to the destination", source);
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let (client, name, options) = (self.client.clone(), name.to_vec(), options.clone());
        let get = self.own.handle.spawn(async move {
            let sender = &sender;
            let take = |bytes| async move {
                // Only a writer that failed takes no more, and says so itself.
                let gone = |_| failed(std::io::ErrorKind::BrokenPipe.into());
                sender.send(bytes).await.map_err(gone)
            };
            client.stream_object(&name, range, &options, take).await
        });
        while let Some(bytes) = receiver.blocking_recv() {
            if let Err(source) = writer.write_all(&bytes) {
                get.abort();
                return Err(failed(source));
            }
        }
        let report = self.joined(get)?;
        writer.flush().map_err(failed)?;
        Ok(report)
    }

    /// Writes an object, or a range of it, to a file, which appears when it is
    /// whole: [`Client::get_to_file`](crate::Client::get_to_file).
    ///
    /// # Errors
    /// As there.
    pub fn get_to_file(
        &self,
        name: &[u8],
        path: &Path,
        range: Option<Range<u64>>,
        options: &GetOptions,
    ) -> Result<Option<GetReport>, Error> {
        self.own.wait(self.client.get_to_file(name, path, range, options))
    }

    /// What is known of an object: [`Client::stat`](crate::Client::stat).
    ///
    /// # Errors
    /// As there.
    pub fn stat(&self, name: &[u8]) -> Result<Option<ObjectStat>, Error> {
        self.own.wait(self.client.stat(name))
    }

    /// An object and where its copies lie:
    /// [`Client::locate`](crate::Client::locate).
    ///
    /// # Errors
    /// As there.
    pub fn locate(&self, name: &[u8]) -> Result<Option<Located>, Error> {
        self.own.wait(self.client.locate(name))
    }

    /// The objects whose names begin with `prefix`:
    /// [`Client::list`](crate::Client::list).
    pub fn list(&self, prefix: &[u8]) -> List {
        List { listing: self.client.list(prefix), own: Arc::clone(&self.own), is_over: false }
    }

    /// Deletes an object: [`Client::delete`](crate::Client::delete).
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, name: &[u8]) -> Result<DeleteReport, Error> {
        self.own.wait(self.client.delete(name))
    }

    /// Whether an object has just these bytes, from memory or from a file:
    /// [`Client::compare`](crate::Client::compare).
    ///
    /// # Errors
    /// As there.
    pub fn compare(
        &self,
        name: &[u8],
        source: impl Into<Source>,
        options: &CompareOptions,
    ) -> Result<Comparison, Error> {
        self.own.wait(self.client.compare(name, source, options))
    }

    /// Whether an object has just the bytes of a reader, which is read on this thread,
    /// to its end or to about the first difference.
    ///
    /// # Errors
    /// As [`Client::compare`](crate::Client::compare).
    pub fn compare_reader(
        &self,
        name: &[u8],
        reader: &mut dyn Read,
        options: &CompareOptions,
    ) -> Result<Comparison, Error> {
        refuse_within_runtime()?;
        let (feeder, source) = pipe();
        let (client, name, options) = (self.client.clone(), name.to_vec(), options.clone());
        let compare = self
            .own
            .handle
            .spawn(async move { client.compare(&name, Source::reader(source), &options).await });
        feeder.feed(reader);
        self.joined(compare)
    }

    /// Verifies all objects whose names begin with `prefix`:
    /// [`Client::verify`](crate::Client::verify).
    pub fn verify(&self, prefix: &[u8], options: &VerifyOptions) -> Verification {
        Verification::new(self.client.verify(prefix, options), Arc::clone(&self.own))
    }

    /// Finds stripes that no head names:
    /// [`Client::orphans`](crate::Client::orphans).
    ///
    /// # Errors
    /// As there.
    pub fn orphans(&self) -> Result<Orphans, Error> {
        self.own.wait(self.client.orphans())
    }

    /// All servers: [`Client::nodes`](crate::Client::nodes).
    ///
    /// # Errors
    /// Only within an async runtime.
    pub fn nodes(&self) -> Result<Vec<Node>, Error> {
        self.own.wait(async { Ok(self.client.nodes().await) })
    }

    /// Waits for what goes on on the client's thread.
    fn joined<T>(&self, task: tokio::task::JoinHandle<Result<T, Error>>) -> Result<T, Error> {
        self.own.wait(async {
            task.await.unwrap_or_else(|broken| {
                let source = std::io::Error::other(broken.to_string());
                Err(Error::local("the client's thread was stopped", source))
            })
        })
    }
}

/// The objects of a listing, in the order of their names.
#[derive(Debug)]
pub struct List {
    listing: Listing,
    own: Arc<Own>,
    is_over: bool,
}

impl List {
    /// Servers that gave no answer so far: [`Listing::unreachable`].
    pub fn unreachable(&self) -> &[String] {
        self.listing.unreachable()
    }

    /// Objects so far that were left out: [`Listing::unreadable`].
    pub fn unreadable(&self) -> &Unreadable {
        self.listing.unreadable()
    }
}

impl Iterator for List {
    type Item = Result<ObjectStat, Error>;

    /// The next object. An error is the last item.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.own.wait(async { self.listing.next().await.transpose() }).transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
