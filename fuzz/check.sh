#!/usr/bin/env bash
# A short run of every target from a fresh seed, then each planted bug, which
# must be found: what `make check` runs. `SEED=...` runs one again.
#
#   fuzz/check.sh [TIMES]     so many times as many executions
set -euo pipefail
cd "$(dirname "$0")"

times=${1:-1}
seed=${SEED:-$RANDOM$RANDOM}
cargo build --locked --release
driver=${CARGO_TARGET_DIR:-target}/release/rampuddle-fuzz

for run in decoder:200000 head:20000 client:20000 session:10000; do
  "$driver" "${run%:*}" --seed "$seed" --executions $((${run#*:} * times))
done
# A bug that is planted is found, from any seed, long before these bounds; but
# not by random bytes.
for step in 1 2 3; do
  "$driver" decoder --seed $((seed + step)) --executions 200000 --canary wrapping-shares
  "$driver" session --seed $((seed + step)) --executions 10000 --canary split-at-row
done
"$driver" decoder --seed "$seed" --executions 200000 --canary wrapping-shares --blind
"$driver" session --seed "$seed" --executions 10000 --canary split-at-row --blind
