#!/usr/bin/env bash
# Runs at full length what scripts/unit.sh cuts short or skips, with the brokers that the
# environment names (`make brokers-up` starts them and prints the variables). Packages whose
# tests ask neither testing.Short nor the environment, and use no broker and no gateway, have
# nothing more to say.
#
# First, side by side, what mostly waits: endpoints for their brokers, brokers and stores for their
# disks; the longest begin, and those come last that do best beside few others. The programs without
# and with Solace are built beside it. Then one package after the other, because they measure time.
# test/patience, which does nothing but wait, runs beside all of them. Nothing comes from the test
# cache, which knows nothing of brokers.
set -euo pipefail
cd "$(dirname "$0")/.."

alone='^\./(test/e2e|test/history|test/soak)$'
last='^\./(bench|test/webhooks)$'
mapfile -t all < <(
	grep -rlE 'testing\.Short\(\)|os\.Getenv|/test/(brokers|gateway)' --include='*_test.go' ./admin ./bench ./cli ./endpoints ./entrypoints \
		./lifecycle ./plans ./store ./subscriptions ./test ./workers |
		xargs -n 1 dirname | sort -u
)
mapfile -t together < <(printf '%s\n' "${all[@]}" | grep -Ev "$alone|$last|^\./test/patience\$")
mapfile -t packages < <(printf '%s\n' "${all[@]}" | grep -E "$alone")
mapfile -t lasts < <(printf '%s\n' "${all[@]}" | grep -E "$last")
[ ${#together[@]} -gt 10 ] && [ ${#packages[@]} = 3 ] && [ ${#lasts[@]} = 2 ] # or the search above finds too little
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

export GORACE=atexit_sleep_ms=0 # or each package ends with a second of waiting
status=0
go test -race -count=1 -timeout 10m "$@" ./test/patience >"$waiting" 2>&1 &
patience=$!
scripts/builds.sh >"$building" 2>&1 &
builds=$!
go test -race -count=1 -p 4 -timeout 10m "$@" ./endpoints/rabbitmq ./endpoints/kafka ./endpoints/mqtt5 \
	"${together[@]}" "${lasts[@]}" -skip '^TestBlackHoles$' || status=$?
wait "$builds" || status=$?
builds=
cat "$building"
go test -race -count=1 -p 1 -timeout 15m "$@" "${packages[@]}" || status=$?
go test -race -count=1 -timeout 5m -run '^TestBlackHoles$' "$@" ./test/webhooks || status=$?
# The race detector multiplies memory and time, so what measures them runs once more without; and so
# do the 500 kills.
go test -count=1 -p 1 -run 'AreSmall$|^TestMany(Records|Subscriptions)$|^TestKilledWriter$' "$@" ./entrypoints/websocket ./store ./subscriptions || status=$?
wait "$patience" || status=$?
patience=
cat "$waiting"
exit "$status"
