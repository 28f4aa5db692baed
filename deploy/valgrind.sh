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
if [ ! -x "$tools/usr/bin/valgrind" ]; then
  unpacked=$(mktemp -d)
  trap 'rm -rf "$unpacked"' EXIT
  download() { (cd "$unpacked" && apt-get download valgrind) >"$unpacked/log" 2>&1; }
  if ! { command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; } ||
    ! { download || { [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 && download; }; }; then
    echo "valgrind cannot be had here: install the package valgrind." >&2
    cat "$unpacked/log" >&2 2>/dev/null || true
    exit 1
  fi
  mkdir -p "$tools"
  dpkg-deb -x "$unpacked"/valgrind_*.deb "$tools"
fi
echo "env VALGRIND_LIB=$tools/usr/libexec/valgrind $tools/usr/bin/valgrind --tool=callgrind"
