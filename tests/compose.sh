#!/usr/bin/env bash
# docker-compose.yml under a real engine, once for each service of discovery, by the
# commands that README.md has: the cluster comes up healthy, takes a file of 1 GiB with
# two copies through the `cli` service and gives it back, a server is killed and the file
# is still given back, the host reaches it all, and `down -v` leaves nothing. At the end
# the machine is as it was.
#
#   tests/compose.sh [consul|zookeeper|etcd]...      all three unless named
#
# Images are pulled; where they cannot be, stand-ins of deploy/stand-ins take their
# places. The image of puddle has the program that the tests have built;
# PUDDLE_FROM=source builds it by the Dockerfile instead, as users do. The project has a
# name and ports of its own. BYTES=... for another length.
#
# Where there is no engine it says how to get one, and is skipped; it fails if CI is set.
set -euo pipefail
cd "$(dirname "$0")/.."

services=("$@")
[ ${#services[@]} -gt 0 ] || services=(consul zookeeper etcd)
bytes=${BYTES:-1073741824}
program=${PUDDLE_BINARY:-${CARGO_TARGET_DIR:-target}/debug/puddle}
export PUDDLE_FROM=${PUDDLE_FROM:-ready}
export PUDDLE_IMAGE=rampuddle/puddle:test CLI_USER="$(id -u):$(id -g)"
export PORT_1=17117 PORT_2=17118 PORT_3=17119 CONSUL_PORT=18500 ZOOKEEPER_PORT=12181 ETCD_PORT=12379
# Nothing of whoever runs this reaches the cluster.
unset COMPOSE_PROFILES SERVICE DISCOVERY POOL MEMORY PUBLISH
export COMPOSE_PROJECT_NAME=rampuddle-test-$$ COMPOSE_ANSI=never

discovery_of() {
  case "$1" in
    consul) echo consul://"${2:-consul:8500}"/rampuddle ;;
    zookeeper) echo zk://"${2:-zookeeper:2181}"/rampuddle ;;
    etcd) echo etcd://"${2:-etcd:2379}"/rampuddle ;;
    *) echo "no such service: $1" >&2; exit 2 ;;
  esac
}
port_of() {
  case "$1" in consul) echo $CONSUL_PORT ;; zookeeper) echo $ZOOKEEPER_PORT ;; etcd) echo $ETCD_PORT ;; esac
}
for service in "${services[@]}"; do discovery_of "$service" >/dev/null; done

# What an engine does to the machine.
machine() {
  echo "forwarding $(cat /proc/sys/net/ipv4/ip_forward)"
  ls /sys/class/net | grep -E '^(docker|br-)' || true
  grep -lxE 'dockerd|containerd|docker-proxy' /proc/[0-9]*/comm 2>/dev/null || true
  grep -o ' /[^ ]*docker[^ ]*' /proc/self/mounts || true
  for family in iptables ip6tables; do
    $family-save 2>/dev/null | grep -E '^-|^:[A-Z]+ DROP' | grep -E 'DOCKER|docker|DROP' || true
  done
}
before=$(machine)
was_running=$(docker info >/dev/null 2>&1 && echo yes || true)
began=$SECONDS
if ! compose_command=$(deploy/engine.sh); then
  if [ -n "${CI:-}" ]; then exit 1; fi
  echo "tests/compose.sh is skipped: there is no engine to run it"
  exit 0
fi
echo "the engine, ${was_running:+which runs already, }and Compose: $((SECONDS - began)) s"
read -ra engine_compose <<<"$compose_command"
folder=$(mktemp -d)
export DATA=$folder/data COMPOSE_FILE=docker-compose.yml:$folder/secrets.yml

compose() { "${engine_compose[@]}" "$@"; }
cli() { compose run --rm --no-TTY cli "$@" </dev/null; }

# What belongs to the project, of every kind that the engine keeps.
left() {
  local label=label=com.docker.compose.project=$COMPOSE_PROJECT_NAME
  docker ps --all --quiet --filter "$label"
  docker network ls --quiet --filter "$label"
  docker volume ls --quiet --filter "$label"
}

finish() {
  local code=$?
  trap - EXIT INT TERM
  if [ $code -ne 0 ]; then
    echo "tests/compose.sh failed; what the containers said last:" >&2
    compose --profile '*' logs --no-color --tail 15 >&2 || true
  fi
  compose --profile '*' down --volumes --timeout 5 >/dev/null 2>&1 || true
  docker image rm --force "$PUDDLE_IMAGE" >/dev/null 2>&1 || true
  docker image prune --force --filter label=org.opencontainers.image.title=RamPuddle >/dev/null || true
  rm -rf "$folder"
  if [ -z "$was_running" ]; then deploy/engine.sh stop || code=1; fi
  if [ $code = 0 ] && [ "$(machine)" != "$before" ]; then
    echo "the machine is not as it was before:" >&2
    diff <(echo "$before") <(machine) >&2
    code=1
  fi
  # The closing line that every suite of this project has.
  if [ $code = 0 ]; then echo "${#services[@]} passed, 0 failed; $SECONDS s"; fi
  exit $code
}
trap finish EXIT
trap 'exit 1' INT TERM

# Runs a step, and prints its seconds and its figure. It ends the script when a
# command of it fails, or the last one of those that are joined by &&.
step() {
  local what=$1 output=$folder/step began took
  shift
  figure=
  began=$(date +%s%N)
  if ! "$@" >"$output" 2>&1; then
    tail -n 40 "$output" >&2
    echo "failed: $what" >&2
    exit 1
  fi
  took=$((($(date +%s%N) - began) / 1000000))
  printf '%5d.%03d s  %s\n' $((took / 1000)) $((took % 1000)) "$what${figure:+: $figure}"
}
figure=

# The Dockerfile fetches crates as this machine does.
prepare_secrets() {
  local home=${CARGO_HOME:-$HOME/.cargo} config=$folder/cargo-config certificates=$folder/certificates
  cat "$home/config.toml" "$home/config" >"$config" 2>/dev/null || true
  cat "${CARGO_HTTP_CAINFO:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}" \
    >"$certificates" 2>/dev/null || true
  {
    echo "services:"
    for user in server-1 server-2 server-3 cli; do
      echo "  $user: {build: {secrets: [cargo-config, certificates]}}"
    done
    echo "secrets: {cargo-config: {file: $config}, certificates: {file: $certificates}}"
  } >"$folder/secrets.yml"
}

# Sets the variables of the compose file that name images, for those that are needed.
bring_images() {
  local variable official lines
  while read -r variable official; do
    case "$variable" in
      RUST_IMAGE) [ "$PUDDLE_FROM" = source ] || continue ;;
      RUNTIME_IMAGE) ;;
      *) grep -qi "${variable%_IMAGE}" <<<"${services[*]}" || continue ;;
    esac
    lines=$(deploy/images.sh "${!variable:-$official}" </dev/null) || return 1
    echo "$lines"
    export "$variable=${lines#* }"
  done < <(sed -n 's/.*${\([A-Z]*_IMAGE\):-\([^}]*\)}.*/\1 \2/p' docker-compose.yml | grep -v ^PUDDLE_)
}

sum() { sha256sum "$DATA/$1" | cut -d ' ' -f 1; }
# What `puddle --json` said of itself: a number, to the third digit.
said() { grep -oE "\"$1\":[0-9]+(\.[0-9]{1,3})?" "$folder/said" | head -n 1 | cut -d : -f 2; }
put() {
  cli put given --replicas 2 --json >"$folder/said" &&
    figure="$(said bytes) bytes in $(said seconds) s, at least $(said copies) copies of each" &&
    [ "$(said bytes)" = "$bytes" ] && [ "$(said copies)" = 2 ]
}
get_equals() {
  "$@" get given copy --json >"$folder/said" &&
    figure="$(said bytes) bytes in $(said seconds) s, from $(grep -o '"server"' "$folder/said" | wc -l) servers" &&
    [ "$(sum copy)" = "$given" ] &&
    rm -f "$DATA/copy"
}
nodes_alive() {
  local wanted=$1
  shift
  "$@" nodes --json >"$folder/said" && cat "$folder/said" &&
    [ "$(grep -c '"alive":true' "$folder/said")" = "$wanted" ] &&
    [ "$(grep -c '"used_bytes":[0-9]' "$folder/said")" = "$wanted" ]
}
# As a program on the host sees it: the host's network, and the published ports.
on_host() {
  local discovery=$1
  shift
  docker run --rm --init --network host --user "$CLI_USER" --volume "$DATA:/data" \
    --add-host server-1:127.0.0.1 --add-host server-2:127.0.0.1 --add-host server-3:127.0.0.1 \
    --env "PUDDLE_DISCOVERY=$discovery" --label "com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
    "$PUDDLE_IMAGE" "$@"
}
by_list() { on_host "static:server-1=127.0.0.1:$PORT_1,server-2=127.0.0.1:$PORT_2,server-3=127.0.0.1:$PORT_3" "$@"; }
by_service() { on_host "$(discovery_of "$service" "127.0.0.1:$(port_of "$service")")" "$@"; }

all_healthy() {
  local container count=0
  for container in $(compose ps --quiet); do
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ] || return 1
    count=$((count + 1))
  done
  figure="$count containers"
  [ $count = 4 ]
}
kill_server() {
  local container
  container=$(compose ps --quiet server-2) && docker kill "$container" &&
    [ "$(docker inspect --format '{{.State.Running}}' "$container")" = false ]
}
# The engine counts a container that it started again, or that ran out of memory.
none_failed() {
  local container state
  for container in $(compose ps --quiet); do
    state=$(docker inspect --format '{{.RestartCount}} {{.State.OOMKilled}}' "$container")
    [ "$state" = "0 false" ] || { docker inspect --format '{{.Name}}' "$container"; echo "$state"; return 1; }
  done
}
# Anonymous volumes, too, which bear no name of the project.
down() {
  volumes=$(compose ps --all --quiet |
    xargs docker inspect --format '{{range .Mounts}}{{.Name}} {{end}}') &&
    compose down -v
}
nothing_is_left() {
  local found volume
  found=$(left)
  for volume in $volumes; do found+=$(docker volume ls --quiet --filter "name=^$volume\$"); done
  figure="$(wc -w <<<"$volumes") volumes are gone"
  [ -z "$found" ] || { echo "left: $found"; return 1; }
}

# A machine may have its sources of packages in the one form or in the other only.
mirror_is_found_in() { # LIST SOURCES, which are text
  mkdir -p "$folder"/apt/{parts,lists} && printf '%b' "$1" >"$folder/apt/sources.list" &&
    printf '%b' "$2" >"$folder/apt/parts/debian.sources" &&
    printf 'Dir::Etc::SourceList "%s/sources.list";\nDir::Etc::SourceParts "%s/parts";\nDir::State::Lists "%s/lists";\n' \
      "$folder/apt" "$folder/apt" "$folder/apt" >"$folder/apt/apt.conf" || return 1
  find "$folder/apt" -type f -empty -delete
  [ "$(APT_CONFIG=$folder/apt/apt.conf deploy/mirror.sh)" = http://mirror.example/debian ]
}
mirror_is_found() {
  local release
  command -v apt-get || return 0
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
  mirror_is_found_in "deb http://other.example/x $release-extra main\n\
deb [signed-by=/a arch=amd64] http://mirror.example/debian $release main\n" "" &&
    mirror_is_found_in "" "Types: deb\nURIs: http://mirror.example/debian\nSuites: $release $release-updates\nComponents: main\n"
}

# Settings that do not belong together, before anything is started.
is_refused() {
  local wanted=$1 said
  shift
  said=$("$@" 2>&1) && { echo "not refused: $*"; return 1; }
  grep -q "$wanted" <<<"$said" || { echo "$said"; return 1; }
}
mistakes_are_refused() {
  is_refused '"consul"' compose --profile zookeeper up -d --wait &&
    is_refused '"etcd"' env SERVICE=etcd "${engine_compose[@]}" --profile consul up -d --wait &&
    is_refused "wants DISCOVERY" env SERVICE=elsewhere "${engine_compose[@]}" up -d --wait &&
    is_refused "nonsense" env SERVICE=nonsense "${engine_compose[@]}" up -d --wait &&
    [ -z "$(left)" ]
}

try() {
  service=$1
  echo "$service"
  # As it comes it is Consul.
  if [ "$service" = consul ]; then unset SERVICE; else export SERVICE=$service; fi
  step "up, until all are healthy" compose up -d --wait
  step "each container says that it is healthy" all_healthy
  step "the host sees three servers by a list" nodes_alive 3 by_list
  step "the host sees three servers by $service" nodes_alive 3 by_service
  step "put" put
  step "get, compared" get_equals cli
  step "get on the host by a list, compared" get_equals by_list
  step "a server killed" kill_server
  step "get after that, compared" get_equals cli
  step "the server started again" compose up -d --wait
  step "three servers are alive" nodes_alive 3 cli
  step "no container ended by itself" none_failed
  step "down -v" down
  step "nothing is left" nothing_is_left
}

mkdir -p "$DATA"
step "the mirror of packages is found wherever it stands" mirror_is_found
prepare_secrets
step "images" bring_images
sed 's/^/             /' "$folder/step"
if [ "$PUDDLE_FROM" = ready ]; then step "what is ready for the image of puddle" deploy/image-tree.sh "$program"; fi
docker image rm --force "$PUDDLE_IMAGE" >/dev/null 2>&1 || true
head -c "$bytes" /dev/urandom >"$DATA/given"
given=$(sum given)
step "settings that do not belong together are refused" mistakes_are_refused
for service in "${services[@]}"; do try "$service"; done
