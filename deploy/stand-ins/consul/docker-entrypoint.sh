#!/bin/sh
# What hashicorp/consul documents: `agent ...` runs an agent with the folders of the
# image, another command of Consul runs as it is, and so does any other program.
# CONSUL_LOCAL_CONFIG is a configuration in JSON.
set -eu
if [ -n "${CONSUL_LOCAL_CONFIG:-}" ]; then
  printf '%s' "$CONSUL_LOCAL_CONFIG" >/consul/config/local.json
fi
if [ "${1:-}" = agent ]; then
  shift
  # A flag that is given later counts.
  exec consul agent -data-dir=/consul/data -config-dir=/consul/config "$@"
fi
if consul --help "${1:-}" 2>&1 | grep -q "^Usage: consul ${1:-nothing}"; then
  exec consul "$@"
fi
exec "$@"
