//! The targets under libFuzzer, which changes inputs by what code they reach.
//! `PUDDLE_FUZZ_TARGET` names the target; `guided.sh` builds and runs it.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use rampuddle_fuzz::{Counts, Target, target};

thread_local! {
    static TARGET: RefCell<Box<dyn Target>> = RefCell::new(named());
}

fn named() -> Box<dyn Target> {
    let name = std::env::var("PUDDLE_FUZZ_TARGET").unwrap_or_default();
    target(&name).expect("PUDDLE_FUZZ_TARGET names a target")
}

fuzz_target!(|input: &[u8]| {
    TARGET.with_borrow_mut(|target| {
        target.run(input, &mut Counts::default());
    });
});
