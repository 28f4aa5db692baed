#!/usr/bin/env bash
# Writes what a long run saw into the table at the end of docs/testing.md, in the
# place of what the same run saw before.
#
#   tests/record.sh NAME WHAT SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."

row="| \`$1\` | $2; $3 s ($(nproc) processors, $(date -u +%F)) |"
new=$(mktemp)
trap 'rm -f "$new"' EXIT
awk -v row="$row" -v key="| \`$1\` |" '
  index($0, key) == 1 { if (!done) print row; done = 1; next }
  { print }
  END { if (!done) print row }
' docs/testing.md >"$new"
cp "$new" docs/testing.md
