#!/usr/bin/env bash
# The long runs at their full size: each test of the system suite whose name has
# `soak_` in it, with the release build. Fails when one fails or there is none,
# and writes what was seen into docs/testing.md.
#
#   tests/soak.sh [FILTER]
set -euo pipefail
cd "$(dirname "$0")/.."

filter=${1:-soak_}
cargo build --release --locked --package puddle
export PUDDLE_BINARY=$PWD/target/release/puddle PUDDLE_SOAK=1
system=(cargo test --locked --package rampuddle-harness --test system --)

mapfile -t names < <("${system[@]}" --list 2>/dev/null | sed -n 's/: test$//p' | grep -F "$filter" | grep -F soak_)
if [ "${#names[@]}" -eq 0 ]; then
  echo "no long run has \"$filter\" in its name" >&2
  exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for name in "${names[@]}"; do
  echo "== $name"
  began=$SECONDS
  "${system[@]}" --exact "$name" --nocapture --test-threads=1 | tee "$log"
  seconds=$((SECONDS - began))
  if ! grep -q '^test result: ok. 1 passed' "$log"; then
    echo "$name did not run" >&2
    exit 1
  fi
  said=$(grep -hoE '(counts of|the file has) .*' "$log" | sed 's/^counts of //; s/,$//' | paste -sd ';' | sed 's/;/; /g')
  tests/record.sh "${name##*::}" "$said" "$seconds"
done
