#!/usr/bin/env bash
# Brings the peers that `make bench` measures beside RamPuddle: memcached and Redis
# with the tools that count and measure (strace, valgrind, fio), where this is Debian
# and we are root; Mooncake Store as a Python environment below target/. Does nothing
# for what is there already.
#
# What cannot be had is named here and in the tables, and the bench goes on without.
set -uo pipefail
cd "$(dirname "$0")/.."

environment=target/peers/mooncake
log=target/peers/log
mkdir -p target/peers
: >"$log"

# Package of Debian by the program it brings.
missing=()
for pair in memcached:memcached redis-server:redis-server strace:strace valgrind:valgrind \
  fio:fio; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# Libraries that Mooncake Store is linked to.
for pair in libibverbs.so.1:libibverbs1 libnuma.so.1:libnuma1; do
  ldconfig -p 2>/dev/null | grep -q "${pair%%:*}" || missing+=("${pair#*:}")
done
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)

install() {
  # Lists of a new machine may be empty or old.
  apt-get install -y "$@" >>"$log" 2>&1 ||
    { apt-get update >>"$log" 2>&1 && apt-get install -y "$@" >>"$log" 2>&1; }
}
# No service is wanted, only the programs.
stop_services() {
  command -v systemctl >/dev/null || return 0
  systemctl disable --now memcached redis-server >>"$log" 2>&1 || true
}
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not installed: ${missing[*]}. Install them by hand: this needs root and Debian." >&2
  elif install "${missing[@]}"; then
    stop_services
  else
    echo "These packages cannot be had here: ${missing[*]}" >&2
    tail -n 3 "$log" >&2
  fi
fi

brings_mooncake() {
  python3 -m venv "$environment" &&
    "$environment/bin/pip" install --quiet mooncake-transfer-engine-non-cuda
}
if ! "$environment/bin/python" -c 'import mooncake.store' >>"$log" 2>&1; then
  if ! brings_mooncake >>"$log" 2>&1 ||
    ! "$environment/bin/python" -c 'import mooncake.store' >>"$log" 2>&1; then
    echo "Mooncake Store cannot be had here:" >&2
    tail -n 3 "$log" >&2
  fi
fi
