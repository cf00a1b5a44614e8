#!/usr/bin/env bash
# Builds the program without Solace, which is the default and free of cgo, and with it, and
# looks whether each does what it says. bin/caddy is left as it is without.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "builds.sh: $1" >&2
	exit 1
}

with=$(mktemp -d)
trap 'rm -rf "$with"' EXIT

flags=(-trimpath -tags "nobadger,nomysql,nopgx") # those of build.sh, so that all is built once
CGO_ENABLED=0 go build "${flags[@]}" ./...
CGO_ENABLED=0 go test "${flags[@]}" -count=1 ./endpoints/solace/... >/dev/null || fail "without cgo: go test ./endpoints/solace/... fails"
scripts/build.sh
if said=$(bin/caddy adapt --config examples/solace/Caddyfile 2>&1); then
	fail "a program without Solace takes a configuration with it"
fi
grep -q 'make build SOLACE=1' <<<"$said" || fail "a program without Solace does not say how to get it: $said"
if go version -m bin/caddy | grep -q solace.dev; then
	fail "the default program contains Solace's library"
fi

SOLACE=1 scripts/build.sh "$with/caddy"
"$with/caddy" validate --config examples/solace/Caddyfile >"$with/log" 2>&1 || fail "with Solace: $(cat "$with/log")"
grep -q 'Solace API License Agreement' "$with/caddy.solace-licence.txt" || fail "the native library's licence is missing"
echo "builds.sh: without and with Solace, both as they should be"
