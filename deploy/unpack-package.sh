#!/usr/bin/env bash
# Unpacks a Debian package into a folder, from this machine's configured sources;
# nothing is installed into the system. Fails, and says why, where it cannot be had.
#
#   deploy/unpack-package.sh PACKAGE FOLDER
set -euo pipefail

package=$1
folder=$2
fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
download() { (cd "$fetched" && apt-get download "$package") >"$fetched/log" 2>&1; }
fetch() {
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  # The lists of a new machine may be empty or old; only root can renew them.
  download || { [ "$(id -u)" = 0 ] && apt-get update >/dev/null 2>&1 && download; }
}
if ! fetch; then
  cat "$fetched/log" >&2 2>/dev/null || true
  exit 1
fi
mkdir -p "$folder"
dpkg-deb -x "$fetched/$package"_*.deb "$folder"
