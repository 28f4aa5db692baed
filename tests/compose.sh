#!/usr/bin/env bash
# docker-compose.yml under a real engine, once for each service of discovery: the cluster
# comes up healthy, takes a file of 1 GiB with two copies through the `cli` service and
# gives it back, a server is killed and the file is still given back, the host reaches
# it all, and `down -v` leaves nothing.
#
#   tests/compose.sh [consul|zookeeper|etcd]...      all three unless named
#
# Images are pulled; where they cannot be, stand-ins of deploy/stand-ins take their
# places. The image of puddle is built by the Dockerfile. The project has a name and
# ports of its own. BYTES=... for another length.
#
# Where there is no engine it says how to get one, and is skipped; it fails if CI is set.
set -euo pipefail
cd "$(dirname "$0")/.."

services=("$@")
[ ${#services[@]} -gt 0 ] || services=(consul zookeeper etcd)
bytes=${BYTES:-1073741824}
project=rampuddle-test-$$
export PUDDLE_IMAGE=rampuddle/puddle:test CLI_USER="$(id -u):$(id -g)"
export PORT_1=17117 PORT_2=17118 PORT_3=17119 CONSUL_PORT=18500 ZOOKEEPER_PORT=12181 ETCD_PORT=12379
# Nothing of whoever runs this reaches the cluster.
unset COMPOSE_FILE COMPOSE_PROJECT_NAME COMPOSE_PROFILES DISCOVERY POOL MEMORY PUBLISH

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

if ! compose_command=$(deploy/engine.sh); then
  if [ -n "${CI:-}" ]; then exit 1; fi
  echo "tests/compose.sh is skipped: there is no engine to run it"
  exit 0
fi
read -ra engine_compose <<<"$compose_command"
folder=$(mktemp -d)
export DATA=$folder/data

files=(-f docker-compose.yml -f "$folder/secrets.yml")
compose() { "${engine_compose[@]}" --ansi never "${files[@]}" -p "$project" "$@"; }
cli() { compose run --rm --no-TTY --no-deps cli "$@" </dev/null; }

# What belongs to the project, of every kind that the engine keeps.
left() {
  local label=label=com.docker.compose.project=$project
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
  rm -rf "$folder"
  deploy/engine.sh stop || true
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

# The Dockerfile wants to fetch crates as this machine does.
prepare_secrets() {
  local home=${CARGO_HOME:-$HOME/.cargo} config=$folder/cargo-config certificates=$folder/certificates
  cat "$home/config.toml" "$home/config" >"$config" 2>/dev/null || true
  cat "${CARGO_HTTP_CAINFO:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}" \
    >"$certificates" 2>/dev/null || true
  cat >"$folder/secrets.yml" <<SECRETS
services:
  server-1:
    build:
      secrets: [cargo-config, certificates]
secrets:
  cargo-config: {file: "$config"}
  certificates: {file: "$certificates"}
SECRETS
}

bring_images() {
  local wanted service
  wanted=$(compose config | sed -n 's/^ *R[A-Z]*_IMAGE: //p') || return 1
  for service in "${services[@]}"; do
    wanted+=" $(compose --profile "$service" config --images | grep -v "^$PUDDLE_IMAGE\$")"
  done
  # shellcheck disable=SC2086
  deploy/images.sh $(printf '%s\n' $wanted | sort -u)
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
    --env "PUDDLE_DISCOVERY=$discovery" --label "com.docker.compose.project=$project" \
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
    compose down --volumes
}
nothing_is_left() {
  local found volume
  found=$(left)
  for volume in $volumes; do found+=$(docker volume ls --quiet --filter "name=^$volume\$"); done
  figure="$(wc -w <<<"$volumes") volumes are gone"
  [ -z "$found" ] || { echo "left: $found"; return 1; }
}

try() {
  service=$1
  export COMPOSE_PROFILES=$service DISCOVERY
  DISCOVERY=$(discovery_of "$service")
  echo "$service"
  step "up, until all are healthy" compose up --detach --wait --no-build
  step "each container says that it is healthy" all_healthy
  step "the host sees three servers by a list" nodes_alive 3 by_list
  step "the host sees three servers by $service" nodes_alive 3 by_service
  step "put" put
  step "get, compared" get_equals cli
  step "get on the host by a list, compared" get_equals by_list
  step "a server killed" kill_server
  step "get after that, compared" get_equals cli
  step "the server started again" compose up --detach --wait --no-build
  step "three servers are alive" nodes_alive 3 cli
  step "no container ended by itself" none_failed
  step "down -v" down
  step "nothing is left" nothing_is_left
}

mkdir -p "$DATA"
prepare_secrets
step "images" bring_images
sed 's/^/             /' "$folder/step"
step "the image of puddle, by the Dockerfile" compose build server-1
docker image prune --force --filter label=org.opencontainers.image.title=RamPuddle >/dev/null
head -c "$bytes" /dev/urandom >"$DATA/given"
given=$(sum given)
for service in "${services[@]}"; do try "$service"; done
# The closing line that every suite of this project has.
echo "${#services[@]} passed, 0 failed"
