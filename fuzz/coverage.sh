#!/usr/bin/env bash
# Line coverage of the decoder under the fuzz driver and the tests of recorded
# frames; fails below 95 %. Pure cargo: rustc instruments, coverage/ reads.
#
#   fuzz/coverage.sh [EXECUTIONS]
#
# The rows of requests have no lines of their own: a macro of field.rs makes them.
set -euo pipefail
cd "$(dirname "$0")"

executions=${1:-200000}
least=95
build=$(realpath -m "${CARGO_TARGET_DIR:-target}")
profiles=$build/profiles
rm -rf "$profiles"
mkdir -p "$profiles"

export CARGO_TARGET_DIR=$build/coverage
export LLVM_PROFILE_FILE=$profiles/%p-%m.profraw RUSTFLAGS="-C instrument-coverage"
cargo build --quiet --locked --release
driver=$CARGO_TARGET_DIR/release/rampuddle-fuzz
dumps=$(cargo test --quiet --locked --manifest-path ../Cargo.toml --package rampuddle-protocol \
  --test dumps --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*dumps-[^"]*\)".*/\1/p')
# What derive macros and build scripts did is nothing to count.
rm -f "$profiles"/*.profraw
(cd ../protocol && "$dumps" --quiet >/dev/null)
"$driver" decoder --seed 1 --executions "$executions"
unset RUSTFLAGS LLVM_PROFILE_FILE

CARGO_TARGET_DIR=$build cargo run --quiet --locked --release --package rampuddle-fuzz-coverage -- \
  "$least" "$profiles" "$driver,$dumps" \
  protocol/src/{answer,field,flags,header,hello,identifier,opcode,status,table,version}.rs
