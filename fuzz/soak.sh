#!/usr/bin/env bash
# The long runs of the fuzzers, by hand: 10 million executions of the decoder, a
# million sessions, the other targets, the planted bugs, line coverage, and each
# target for a while under libFuzzer. Writes what was seen into docs/testing.md.
#
#   fuzz/soak.sh
set -euo pipefail
cd "$(dirname "$0")"

seed=${SEED:-$RANDOM$RANDOM}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo build --quiet --locked --release
driver=${CARGO_TARGET_DIR:-target}/release/rampuddle-fuzz

# record NAME PATTERN COMMAND...: runs, and keeps the lines that have the pattern.
record() {
  local name=$1 pattern=$2 began=$SECONDS
  shift 2
  echo "== $name"
  "$@" 2>&1 | tee "$log"
  # Of a planted bug's message only where it was found.
  said=$(grep -E "$pattern" "$log" | sed -E 's/(found in execution [0-9]+).*/\1/' | paste -sd ';' | sed 's/;/; /g')
  [ -n "$said" ]
  ../tests/record.sh "$name" "$said" $((SECONDS - began))
}

for run in decoder:10000000 session:1000000 client:1000000 head:1000000; do
  name=${run%:*}
  record "fuzz_$name" 'executions' "$driver" "$name" --seed "$seed" --executions "${run#*:}"
done
record fuzz_planted_bugs 'found in|do not find' ./check.sh
record fuzz_coverage '^line coverage' ./coverage.sh 2000000
for name in decoder session client head; do
  record "fuzz_${name}_guided" 'under libFuzzer' ./guided.sh "$name" 120
done
