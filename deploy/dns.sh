#!/usr/bin/env bash
# Prints the command of the name server NSD, which the tests of srv: and dns: ask. Takes
# the one of the system, else unpacks the Debian package below target/tools/dns; nothing
# is installed into the system. Fails, and says so, where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

for found in /usr/sbin/nsd /usr/local/sbin/nsd; do
  if [ -x "$found" ]; then
    echo "$found"
    exit 0
  fi
done
tools=$PWD/target/tools/dns
# The mark says that all of them are there.
if [ ! -e "$tools/unpacked" ]; then
  for package in nsd libevent-2.1-7 libfstrm0 libprotobuf-c1; do
    if ! deploy/unpack-package.sh "$package" "$tools"; then
      echo "A name server cannot be had here: install the package nsd." >&2
      exit 1
    fi
  done
  touch "$tools/unpacked"
fi
libraries=$(dirname "$(find "$tools/usr/lib" -name 'libprotobuf-c.so.1' | head -n 1)")
echo "env LD_LIBRARY_PATH=$libraries $tools/usr/sbin/nsd"
