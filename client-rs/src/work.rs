//! Futures that are compiled with this crate.

use futures_util::future::BoxFuture;

/// What an operation does, in a box. The code of an `async fn` is made again by each
/// program that awaits it, and what it awaits with it: a minute of compiling for
/// the least program. That behind a box is made once, with this crate. Costs one
/// allocation for each operation.
pub(crate) type Work<'a, T> = BoxFuture<'a, T>;
