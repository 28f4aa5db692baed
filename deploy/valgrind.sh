#!/usr/bin/env bash
# Prints the command that runs callgrind. Where the system has no valgrind, unpacks the
# Debian package into target/tools/valgrind; nothing is installed into the system.
# Fails, and says so, where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v valgrind >/dev/null; then
  echo "valgrind --tool=callgrind"
  exit 0
fi
tools=$PWD/target/tools/valgrind
if [ ! -x "$tools/usr/bin/valgrind" ] && ! deploy/unpack-package.sh valgrind "$tools"; then
  echo "valgrind cannot be had here: install the package valgrind." >&2
  exit 1
fi
echo "env VALGRIND_LIB=$tools/usr/libexec/valgrind $tools/usr/bin/valgrind --tool=callgrind"
