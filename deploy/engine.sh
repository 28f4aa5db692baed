#!/usr/bin/env bash
# Prints the command of Docker Compose for a running Docker engine: `docker compose`
# where this machine has both. Where it has not, and we are root on Debian, brings them:
# installs docker.io, starts dockerd, and unpacks the newest Compose that Debian has
# below target/tools/compose, from this machine's own mirror. Fails, and says so, where
# they cannot be had. An engine that runs is used, and no second one is started.
#
#   deploy/engine.sh         finds or starts an engine
#   deploy/engine.sh stop    stops the engine that this script started, and no other,
#                            takes back what that did to the machine, and says what stays
#
# What our engine keeps, images too, lies below target/tools/engine. An engine that finds
# forwarding off turns it on and sets the policy of FORWARD to DROP, which cuts every
# other bridge of the machine. So forwarding is turned on here first.
set -euo pipefail
cd "$(dirname "$0")/.."

engine=$PWD/target/tools/engine
compose=$PWD/target/tools/compose
# The release whose Compose is taken where the machine's own has none.
release=trixie
forwarding=/proc/sys/net/ipv4/ip_forward
packages=(docker.io iptables)

started=
give_up() {
  tail -n 3 "$log" >&2 2>/dev/null || true
  echo "Docker cannot be had here: $1." >&2
  echo "Start a Docker engine 20.10 or newer, with the Compose plugin 2.24 or newer." >&2
  if [ -n "$started" ]; then stop_engine >&2; fi
  exit 1
}

is_debian_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
answers() { docker info >/dev/null 2>&1; }
# Within so many fifths of a second.
answers_within() {
  for _ in $(seq "$1"); do
    if answers; then return 0; fi
    sleep 0.2
  done
  return 1
}
# The number of a process by its name, if there is one.
process_of() {
  local found
  found=$(grep -lx "$1" /proc/[0-9]*/comm 2>/dev/null | head -n 1) || true
  found=${found#/proc/}
  echo "${found%/comm}"
}

install_engine() {
  touch "$engine/installed"
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

# The tables of packets, of both families where the machine has them.
tables() {
  local family
  for family in iptables ip6tables; do
    if command -v $family-save >/dev/null; then echo $family; fi
  done
}
# Whether there is something of an engine's in them, or its bridge.
has_traces() {
  local family
  for family in $(tables); do
    if $family-save 2>/dev/null | grep -q DOCKER; then return 0; fi
  done
  [ -e /sys/class/net/docker0 ]
}

# Once: what is found later may be our own.
remember_machine() {
  [ -e "$engine/forwarding" ] && return
  if has_traces; then touch "$engine/traces"; else rm -f "$engine/traces"; fi
  for family in $(tables); do
    $family -S FORWARD 2>/dev/null | sed -n 's/^-P FORWARD //p' >"$engine/$family"
  done
  cat "$forwarding" >"$engine/forwarding"
}

start_engine() {
  clear_killed
  remember_machine
  echo 1 >"$forwarding" 2>/dev/null || true
  started=yes
  # With pipes of its own, or whoever reads ours would wait for it.
  setsid dockerd --pidfile "$engine/pid" --data-root "$engine/data" \
    >"$engine/dockerd.log" 2>&1 </dev/null &
  if answers_within 150; then return 0; fi
  tail -n 3 "$engine/dockerd.log" >>"$log"
  return 1
}

bring_engine() {
  local other
  if answers; then return 0; fi
  other=$(process_of dockerd)
  if [ -n "$other" ]; then
    # It may be starting.
    answers_within 50 && return
    docker info >>"$log" 2>&1 || true
    give_up "an engine runs (dockerd, process $other), and does not answer: see DOCKER_HOST, and who may use it"
  fi
  is_debian_root || give_up "no engine answers, and this needs root and Debian to start one"
  if [ -n "${DOCKER_HOST:-}" ]; then give_up "no engine answers at DOCKER_HOST, $DOCKER_HOST"; fi
  command -v dockerd >/dev/null || install_engine >>"$log" 2>&1 ||
    give_up "docker.io cannot be installed"
  # With a service manager the package has started one, which we are to stop.
  if [ -n "$(process_of dockerd)" ] && answers_within 50; then
    touch "$engine/by-package"
    return 0
  fi
  start_engine || give_up "dockerd does not start"
}

# Ends a process, by force where it does not go.
end_process() {
  kill "$1" 2>/dev/null || true
  for _ in $(seq 150); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.2
  done
  echo "the engine, process $1, did not stop in 30 s: killing it"
  kill -KILL "$1" 2>/dev/null || true
}

# Takes an engine's rules out, and its bridge, unless some were there before ours.
clear_traces() {
  local family policy
  if [ -e "$engine/traces" ]; then
    echo "left: rules and the bridge of an engine, which were there before"
    return
  fi
  for family in $(tables); do
    if $family-save 2>/dev/null | grep -q DOCKER; then
      $family-save | grep -v -e DOCKER -e docker0 | $family-restore
    fi
    policy=$(cat "$engine/$family" 2>/dev/null) || policy=
    $family -P FORWARD "${policy:-ACCEPT}" 2>/dev/null || true
  done
  ip link delete docker0 2>/dev/null || true
  grep -o ' /run/docker/netns/[^ ]*' /proc/self/mounts | xargs -r umount || true
}

stop_engine() {
  local pid
  if [ -e "$engine/by-package" ]; then
    systemctl disable --now docker.socket docker.service containerd.service || true
    rm -f "$engine/by-package"
    echo "the engine that the package docker.io started is stopped, and will not start by itself"
    return
  fi
  pid=$(cat "$engine/pid" 2>/dev/null) || return 0
  end_process "$pid"
  clear_traces
  cat "$engine/forwarding" >"$forwarding"
  rm -f "$engine"/{pid,forwarding,traces,iptables,ip6tables}
  echo "the engine is stopped; left: what it keeps in $engine ($(du -sh "$engine" | cut -f 1))," \
    "modules of the kernel$([ ! -e "$engine/installed" ] || echo ", the packages ${packages[*]}")"
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
