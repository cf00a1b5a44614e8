#!/usr/bin/env bash
# Builds bin/caddy: static, without paths of this machine, and without the databases that
# Caddy's own releases leave out too.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/preflight.sh go
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -tags nobadger,nomysql,nopgx -o bin/caddy ./cmd/caddy
