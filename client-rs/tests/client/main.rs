//! The client against servers that behave, break the protocol, die, or are cut
//! off. One binary, since its code is compiled once for all of them.

#![forbid(unsafe_code)]

mod blocking;
mod codecs;
mod compare;
mod doors;
mod environment;
mod examples;
mod failures;
mod hostile;
mod if_version;
mod joined;
mod metrics;
mod no_clobber;
mod object_faults;
mod objects;
mod patience;
mod put_ends;
mod ranges;
mod raw;
mod slow;
mod spans;
mod support;
mod ttl;
mod walks;
