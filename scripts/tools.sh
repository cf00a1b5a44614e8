#!/usr/bin/env bash
# Builds the development tools, in the versions of tools/go.mod, into bin/tools.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p bin/tools
go -C tools build -o "$PWD/bin/tools/" tool ./...
