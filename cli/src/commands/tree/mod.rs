//! `puddle put -r` and `puddle get -r`: all files of a directory, several in
//! flight at once, each left alone where it is there already.

pub(crate) mod get;
mod names;
pub(crate) mod put;
mod report;
mod several;
mod walk;
