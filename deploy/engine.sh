#!/usr/bin/env bash
# Prints the command of Docker Compose for a running Docker engine: `docker compose`
# where this machine has both. Where it has not, and we are root on Debian, brings them:
# installs docker.io, starts dockerd, and unpacks the newest Compose that Debian has
# below target/tools/compose, from this machine's own mirror. Fails, and says so, where
# they cannot be had.
#
#   deploy/engine.sh         finds or starts an engine
#   deploy/engine.sh stop    stops the engine that this script started, and no other
#
# An engine that finds forwarding off turns it on and sets the policy of FORWARD to
# DROP, which cuts every other bridge of the machine. So forwarding is turned on here
# first, and put back by `stop`.
set -euo pipefail
cd "$(dirname "$0")/.."

engine=$PWD/target/tools/engine
compose=$PWD/target/tools/compose
# The release whose Compose is taken where the machine's own has none.
release=trixie
forwarding=/proc/sys/net/ipv4/ip_forward

give_up() {
  tail -n 3 "$log" >&2 2>/dev/null || true
  echo "Docker cannot be had here: $1." >&2
  echo "Start a Docker engine 20.10 or newer, with the Compose plugin 2.20 or newer." >&2
  exit 1
}

is_debian_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install_engine() {
  local packages=(docker.io iptables)
  apt-get install -y --no-install-recommends "${packages[@]}" ||
    { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; }
}

# What an engine leaves behind that was killed makes the next one wait for ever.
clear_killed() {
  local containerd=/var/run/docker/containerd/containerd.pid pid
  pid=$(cat "$containerd" 2>/dev/null) || pid=
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = containerd ]; then kill -KILL "$pid" 2>/dev/null || true; fi
  rm -f "$containerd" "$engine/pid"
}

start_engine() {
  clear_killed
  [ -e "$engine/forwarding" ] || cat "$forwarding" >"$engine/forwarding"
  echo 1 >"$forwarding" 2>/dev/null || true
  # With pipes of its own, or whoever reads ours would wait for it.
  setsid dockerd --pidfile "$engine/pid" >"$engine/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 150); do
    if docker info >/dev/null 2>&1; then return 0; fi
    sleep 0.2
  done
  tail -n 3 "$engine/dockerd.log" >>"$log"
  return 1
}

bring_engine() {
  if docker info >/dev/null 2>&1; then return 0; fi
  is_debian_root || give_up "no engine answers, and this needs root and Debian to start one"
  command -v dockerd >/dev/null || install_engine >>"$log" 2>&1 ||
    give_up "docker.io cannot be installed"
  # Where the package has a service manager to start it, it runs already.
  if docker info >/dev/null 2>&1; then return 0; fi
  start_engine || give_up "dockerd does not start"
}

stop_engine() {
  local pid
  pid=$(cat "$engine/pid" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 150); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
  cat "$engine/forwarding" >"$forwarding"
  rm -f "$engine/pid" "$engine/forwarding"
}

# Version 1, a Python program, has the same name.
unpack_compose() {
  local settings
  if apt-cache show docker-compose 2>/dev/null | grep -q '^Version: [2-9]'; then
    deploy/unpack-package.sh docker-compose "$compose" 2>>"$log" && has_plugin && return
  fi
  settings=$(deploy/release-apt.sh "$release" 2>>"$log") &&
    APT_CONFIG=$settings deploy/unpack-package.sh docker-compose "$compose" 2>>"$log" &&
    has_plugin
}
plugin=$compose/usr/libexec/docker/cli-plugins/docker-compose
has_plugin() { [ -x "$plugin" ]; }

log=$engine/log
mkdir -p "$engine" 2>/dev/null || true
{ : >"$log"; } 2>/dev/null || log=/dev/null
if [ "${1:-}" = stop ]; then
  stop_engine
  exit 0
fi
bring_engine
if docker compose version >/dev/null 2>&1; then
  echo "docker compose"
elif has_plugin || { command -v apt-get >/dev/null && unpack_compose; }; then
  # It runs by itself as well as under the name `docker compose`.
  echo "$plugin"
else
  give_up "there is no Compose"
fi
