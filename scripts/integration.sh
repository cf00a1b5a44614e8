#!/usr/bin/env bash
# Runs all tests at full length, with the brokers that the environment names (`make
# brokers-up` starts them and prints the variables).
#
# First, side by side, what mostly waits: endpoints for their brokers, brokers for their disks;
# the programs without and with Solace are built beside it.
# Then one package after the other, because they measure time. test/patience, which does
# nothing but wait, runs beside all of them. Nothing comes from the test cache, which
# knows nothing of brokers.
set -euo pipefail
cd "$(dirname "$0")/.."

waits='/(endpoints/|test/brokers|test/browser)'
mapfile -t together < <(go list ./... | grep -E "$waits")
mapfile -t packages < <(go list ./... | grep -Ev "$waits|/test/patience\$")
waiting=$(mktemp)
building=$(mktemp)
patience=
builds=
# shellcheck disable=SC2317 # the trap calls it
finish() {
	[ -z "$patience" ] || kill "$patience" 2>/dev/null || true
	[ -z "$builds" ] || kill "$builds" 2>/dev/null || true
	rm -f "$waiting" "$building"
}
trap finish EXIT

status=0
go test -race -count=1 -timeout 10m "$@" ./test/patience >"$waiting" 2>&1 &
patience=$!
scripts/builds.sh >"$building" 2>&1 &
builds=$!
go test -race -count=1 -p 3 -timeout 10m "$@" "${together[@]}" || status=$?
wait "$builds" || status=$?
builds=
cat "$building"
go test -race -count=1 -p 1 -timeout 15m "$@" "${packages[@]}" || status=$?
# The race detector multiplies memory, so what measures it runs once more without.
go test -count=1 -run 'AreSmall$' "$@" ./entrypoints/websocket || status=$?
wait "$patience" || status=$?
patience=
cat "$waiting"
exit "$status"
