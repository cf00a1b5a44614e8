#!/usr/bin/env bash
# Everything the tests need on a fresh Debian machine, and all tests: first those that need
# no broker, then what is missing is installed, an Apache Kafka is started, and the rest
# runs. The last lines say what passed, and loudly what could not be had.
set -euo pipefail
cd "$(dirname "$0")/.."

summary=()
started=
phase="looking around"

finish() {
	local status=$?
	trap - EXIT
	if [ -n "$started" ]; then
		scripts/kafka.sh down || status=1
	fi
	echo
	echo "======== summary ========"
	[ ${#summary[@]} = 0 ] || printf '%s\n' "${summary[@]}"
	[ "$status" = 0 ] || echo "FAILED: $phase (exit status $status)"
	exit "$status"
}

# Programs without which something is not tested, but the rest is.
install_or_tell() {
	if scripts/install.sh "$1"; then
		return
	fi
	summary+=("NOT RUN $2: $1 could not be installed")
}

start_kafka() {
	local reason
	if scripts/kafka.sh status >/dev/null 2>&1; then
		echo "test.sh: using the Apache Kafka that runs already"
	elif reason=$(scripts/kafka.sh jars 2>&1); then
		started=yes
		scripts/kafka.sh up
	else
		echo "$reason" >&2
		summary+=("NOT RUN on Apache Kafka: $(tail -n 1 <<<"$reason")")
		export MESSAGE_API_NO_KAFKA=1
		return
	fi
	eval "$(scripts/kafka.sh env)"
}

trap finish EXIT
scripts/preflight.sh go disk=4 install=cc,curl,kcat,chromium,java,mvn
scripts/install.sh cc

phase="unit tests"
SECONDS=0
scripts/unit.sh
summary+=("unit tests: passed in $SECONDS s")

phase="getting what the integration tests need"
scripts/install.sh curl
install_or_tell kcat "with kcat, the foreign Kafka client"
install_or_tell chromium "in a browser"
command -v chromium >/dev/null || export MESSAGE_API_NO_CHROMIUM=1
install_or_tell java "on Apache Kafka"
install_or_tell mvn "on Apache Kafka"
start_kafka

phase="integration tests"
SECONDS=0
scripts/integration.sh
summary+=("integration tests: passed in $SECONDS s${MESSAGE_API_NO_KAFKA:+, without Apache Kafka}${MESSAGE_API_NO_CHROMIUM:+, without a browser}")
