#!/usr/bin/env bash
# Install what tests and benchmarks compare Quorate with or watch it by, on Debian and Ubuntu.
# Nothing needs it to run Quorate; tests that miss one of these skip themselves and say so.
#
#   zookeeper, default-jre-headless   the server that bench/zookeeper.py measures against
#   etcd-server, etcd-client          the server that tests and benchmarks hold the etcd door against, and etcdctl
#   nghttp2-client, curl              clients of HTTP/2; h2load is the load generator of bench/etcd.py
#   gcc, libc6-dev                    for the benchmark's load generator
#   strace                            for the test that watches the order of a node's system calls
#
# Safe to run again: what is installed already is left alone. Debian may start its etcd as a system service, on ports
# 2379 and 2380, where `quorate up` wants to listen: `systemctl disable --now etcd` frees them.
set -euo pipefail

packages=(curl default-jre-headless etcd-client etcd-server gcc libc6-dev nghttp2-client strace zookeeper)

if ! command -v apt-get >/dev/null; then
  echo "This script knows apt-get only. Install by hand: ${packages[*]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  if [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]]; then
    missing+=("$package")
  fi
done
if ((${#missing[@]} == 0)); then
  echo "All installed already: ${packages[*]}"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  as_root=(sudo)
fi
echo "Installing: ${missing[*]}"
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends "${missing[@]}"
