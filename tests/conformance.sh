#!/usr/bin/env bash
# The sentences that every back end of discovery must pass, over each of them, and what
# each ran against. Fails when one does not pass, or was not run at all: nothing is
# skipped here. After `make tools built`:
#
#   tests/conformance.sh
set -euo pipefail
cd "$(dirname "$0")/.."

backends=(static file dir consul etcd zookeeper srv dns)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
PUDDLE_REQUIRE_SERVICES=1 cargo test --locked --workspace --no-fail-fast \
  --test conformance --test discovery -- conform --show-output | tee "$log"

# Beside the lines of libtest, another process may have printed.
missing=()
for backend in "${backends[@]}"; do
  grep -q "^conforms: $backend, .* sentences hold$" "$log" || missing+=("$backend")
done
echo
grep '^conforms: ' "$log" | sort || true
if [ "${#missing[@]}" -gt 0 ]; then
  echo "expected all of ${backends[*]}, and these were not run: ${missing[*]}" >&2
  exit 1
fi
