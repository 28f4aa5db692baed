#!/usr/bin/env bash
# Prints the path of an apt configuration that knows one other release of Debian and
# nothing else, on this machine's own mirror; its lists of packages lie below
# target/tools. Fails, and says why, where it cannot be had.
#
#   APT_CONFIG=$(deploy/release-apt.sh RELEASE) deploy/unpack-package.sh PACKAGE FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."

release=$1
lists=$PWD/target/tools/$release
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(deploy/mirror.sh)
mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
echo "deb [signed-by=$keys] $mirror $release main" >"$lists/sources.list"
cat >"$lists/apt.conf" <<SETTINGS
Dir::Etc::SourceList "$lists/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$lists/lists";
Dir::Cache "$lists/cache";
APT::Sandbox::User "";
SETTINGS
if ! APT_CONFIG="$lists/apt.conf" apt-get update >"$lists/log" 2>&1; then
  cat "$lists/log" >&2
  exit 1
fi
echo "$lists/apt.conf"
