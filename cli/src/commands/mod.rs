//! One file per command.

pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod df;
pub(crate) mod forget;
pub(crate) mod get;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod nodes;
pub(crate) mod ping;
pub(crate) mod put;
pub(crate) mod raw;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod stat;
pub(crate) mod tree;
pub(crate) mod up;
pub(crate) mod verify;
