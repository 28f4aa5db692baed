#!/usr/bin/env bash
# Counts the instructions that each operation costs the server, without sockets, and
# compares them with bench/instructions.txt: fails where one takes more than a twentieth
# more. With --write it writes that file anew.
#
# Callgrind counts, so the figures are the same on a busy machine. Another compiler
# makes other code: with one that is not the baseline's, a sixth more is allowed.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

baseline=bench/instructions.txt
callgrind=$(deploy/valgrind.sh) || {
  # Named, not silent; where everything must be checked it is a failure.
  echo "instructions are not counted" >&2
  [ -z "${CI:-}" ]
  exit
}
cargo build --quiet --release --locked --package rampuddle-server --features simulation \
  --example instructions
binary=${CARGO_TARGET_DIR:-target}/release/examples/instructions
compiler=$(rustc --version | cut -d' ' -f1,2)

counted() { # OPERATION TIMES: instructions in all
  $callgrind --callgrind-out-file=/dev/null "$binary" "$1" "$2" 2>&1 |
    sed -n 's/^.*Collected *: *//p'
}
few=500
many=1500
found=$(for operation in $("$binary"); do
  less=$(counted "$operation" $few)
  more=$(counted "$operation" $many)
  echo "$operation $(((more - less) / (many - few)))"
done)

if [ "${1:-}" = --write ]; then
  { echo "# Instructions for each operation, by bench/instructions.sh --write, $compiler" &&
    echo "$found"; } >$baseline
fi
allowed=20
if ! grep -q "$compiler\$" $baseline; then
  allowed=6
  echo "the baseline is of another compiler than $compiler: a sixth more is allowed"
fi
missed=0
printf '%-20s %8s %8s\n' operation baseline now
while read -r operation now; do
  before=$(sed -n "s/^$operation //p" $baseline)
  printf '%-20s %8s %8s' "$operation" "${before:--}" "$now"
  if [ -z "$before" ] || [ "$now" -gt $((before + before / allowed)) ]; then
    printf '  too many'
    missed=1
  elif [ "$now" -lt $((before - before / allowed)) ]; then
    printf '  fewer: write the baseline anew'
  fi
  echo
done <<<"$found"
if [ $missed = 1 ]; then
  echo "operations cost more than bench/instructions.txt says; if that is right, run" >&2
  echo "bench/instructions.sh --write and say in the commit what it buys" >&2
  exit 1
fi
