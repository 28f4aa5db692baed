#!/usr/bin/env bash
# Unpacks libfaketime into target/tools/faketime, for the tests of clocks that are
# wrong. Takes the Debian package from this machine's configured sources; nothing is
# installed into the system. Does nothing when it is there already.
#
# Where it cannot be had, the tests that need it say so and are skipped, unless
# CI is set: then this script fails.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=target/tools/faketime
library=$tools/libfaketime.so.1
for found in /usr/lib/*/faketime/libfaketime.so.1 /usr/local/lib/faketime/libfaketime.so.1; do
  if [ -f "$found" ] && [ ! -e "$library" ]; then
    mkdir -p "$tools" && cp "$found" "$library"
  fi
done
if [ -e "$library" ]; then exit 0; fi

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
if deploy/unpack-package.sh libfaketime "$unpacked"; then
  mkdir -p "$tools"
  cp "$unpacked"/usr/lib/*/faketime/libfaketime.so.1 "$library"
else
  echo "libfaketime cannot be had here: the tests of wrong clocks are skipped." >&2
  echo "Install the package libfaketime, or copy libfaketime.so.1 to $library." >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
fi
