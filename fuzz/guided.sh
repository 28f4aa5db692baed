#!/usr/bin/env bash
# Runs a target under libFuzzer for so many seconds, from the recorded frames.
# Fails when a rule is broken, and when no code was reached that the first inputs
# had not reached. Needs a C++ compiler.
#
#   fuzz/guided.sh TARGET [SECONDS]
set -euo pipefail
cd "$(dirname "$0")"

name=${1:?a target: decoder, session, client or head}
seconds=${2:-60}
host=$(rustc -vV | sed -n 's/^host: //p')
build=${CARGO_TARGET_DIR:-target}
# What an earlier run found would hide whether this one finds anything.
corpus=$(mktemp -d)
log=$(mktemp)
trap 'rm -rf "$log" "$corpus"' EXIT

cargo run --quiet --locked --release -- "$name" --seeds "$corpus"
# Instrumentation of edges and of comparisons, as libFuzzer wants it; with a
# target named, build scripts and derive macros go without.
flags="-Cpasses=sancov-module -Ccodegen-units=1"
for one in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$one"
done
RUSTFLAGS=$flags cargo build --quiet --locked --release --features guided --bin guided --target "$host"

export PUDDLE_FUZZ_TARGET=$name
mkdir -p findings
"$build/$host/release/guided" "$corpus" -max_total_time="$seconds" -max_len=16384 -len_control=0 \
  -rss_limit_mb=2048 -timeout=20 -artifact_prefix=findings/"$name"- -print_final_stats=1 2>&1 | tee "$log" |
  grep -E '^#[0-9]+.(INITED|pulse|DONE)|^stat::|panicked|ERROR' || true
begin=$(sed -n 's/^#[0-9]*.INITED cov: \([0-9]*\).*/\1/p' "$log")
end=$(sed -n 's/^#[0-9]*.DONE *cov: \([0-9]*\).*/\1/p' "$log")
if [ -z "$end" ]; then
  tail -n 40 "$log" >&2
  exit 1
fi
executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
echo "$name: $executions executions in $seconds s under libFuzzer, edges reached $begin, then $end"
[ "$end" -gt "$begin" ]
