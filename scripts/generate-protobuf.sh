#!/usr/bin/env bash
# Generate the Python modules of the etcd API's messages from src/quorate/services/etcd/etcd.proto.
#
# What it writes is committed, so that nobody needs a protobuf compiler to install Quorate; a test sees that it is
# current.  Another folder for the output: scripts/generate-protobuf.sh FOLDER
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../src/quorate/services/etcd"
exec "${PYTHON:-../../../../.venv/bin/python}" -m grpc_tools.protoc --proto_path=. \
  --python_out="${1:-.}" --pyi_out="${1:-.}" etcd.proto
