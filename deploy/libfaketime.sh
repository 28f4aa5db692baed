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
download() { (cd "$unpacked" && apt-get download libfaketime) >"$unpacked/log" 2>&1; }
fetch() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  # The lists of a new machine may be empty or old; only root can renew them.
  download || { [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 && download; } || return 1
  dpkg-deb -x "$unpacked"/libfaketime_*.deb "$unpacked/root"
  mkdir -p "$tools"
  cp "$unpacked"/root/usr/lib/*/faketime/libfaketime.so.1 "$library"
}
if ! fetch; then
  echo "libfaketime cannot be had here: the tests of wrong clocks are skipped." >&2
  echo "Install the package libfaketime, or copy libfaketime.so.1 to $library." >&2
  cat "$unpacked/log" >&2 2>/dev/null || true
  if [ -n "${CI:-}" ]; then exit 1; fi
fi
