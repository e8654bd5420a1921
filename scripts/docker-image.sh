#!/usr/bin/env bash
# Makes the image `assay-python:1` from the Python root filesystem, and starts a Docker engine where
# none runs and we may. A no-op when the image is there. Prints why, and exits 3, where it can't.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
image=assay-python:1

skip() {
  echo "no Docker: $*" >&2
  exit 3
}

if ! docker info >/dev/null 2>&1; then
  [ "$(id -u)" = 0 ] || skip "no engine answers, and only root can start one"
  if ! command -v dockerd >/dev/null; then
    command -v apt-get >/dev/null || skip "dockerd is not installed and there is no apt-get"
    (apt-get update && apt-get install -y --no-install-recommends docker.io) >/dev/null 2>&1 ||
      skip "installing docker.io failed"
  fi
  # What a killed engine left. It may still be dying, and its process ids may be others' by now.
  alive() { pgrep -x --runstates D,R,S dockerd >/dev/null; }
  for _ in $(seq 50); do alive && sleep 0.1 || break; done
  alive || rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
  echo "starting dockerd" >&2
  setsid dockerd >"${TMPDIR:-/tmp}/assay-dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && break
    sleep 0.5
  done
  docker info >/dev/null 2>&1 ||
    skip "dockerd does not start; see ${TMPDIR:-/tmp}/assay-dockerd.log"
fi

# A registry to pull from, for the tests of images.
if [ "$(id -u)" = 0 ] && ! command -v docker-registry >/dev/null && command -v apt-get >/dev/null; then
  { apt-get update && apt-get install -y --no-install-recommends docker-registry; } >/dev/null 2>&1 ||
    echo "no docker-registry: the test that pulls from one skips" >&2
fi

rootfs=$("$here/make-rootfs.sh")
digest=$(sed -n 's/^digest = "\(.*\)"/\1/p' "$rootfs")
path=$(sed -n 's/^path = "\(.*\)"/\1/p' "$rootfs")
have=$(docker image inspect --format '{{index .Config.Labels "assay.rootfs"}}' "$image" 2>/dev/null || true)
if [ "$have" != "$digest" ]; then
  echo "importing $image" >&2
  tar -C "$path" --numeric-owner -c . |
    docker import --change "LABEL assay.rootfs=$digest" - "$image" >/dev/null
fi
