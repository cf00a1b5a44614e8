#!/usr/bin/env bash
# Everything the tests need on a fresh Debian machine, and all tests: first those that need
# no broker, then what is missing is installed, Apache Kafka, RabbitMQ and Mosquitto are
# started, and the rest runs. The last lines say what passed, and loudly what could not be had.
set -euo pipefail
cd "$(dirname "$0")/.."

summary=()
started=()
without=
phase="looking around"

finish() {
	local status=$?
	trap - EXIT
	local broker
	for broker in "${started[@]}"; do
		"scripts/$broker.sh" down || status=1
	done
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

# Starts a broker by its script, unless it runs already. One that can't be had (3) is told;
# one that is there and does not start fails.
start() { # script, name, the variable that makes tests do without it
	local reason status=0
	if "scripts/$1.sh" status >/dev/null 2>&1; then
		echo "test.sh: using the $2 that runs already"
	else
		reason=$("scripts/$1.sh" up 2>&1) || status=$?
		echo "$reason"
		if [ "$status" = 3 ]; then
			summary+=("NOT RUN on $2: $(tail -n 1 <<<"$reason")")
			without+=", without $2"
			export "$3=1"
			return
		fi
		[ "$status" = 0 ] || exit "$status"
		started+=("$1")
	fi
	eval "$("scripts/$1.sh" env)"
}

trap finish EXIT
scripts/preflight.sh go disk=4 install=cc,curl,kcat,chromium,java,mvn,rabbitmq-server,amqp-publish,mosquitto,mosquitto_pub,redis-server,python3,pip3
scripts/install.sh cc

phase="unit tests"
SECONDS=0
scripts/unit.sh
summary+=("unit tests: passed in $SECONDS s")

phase="getting what the integration tests need"
scripts/install.sh curl
install_or_tell kcat "with kcat, the foreign Kafka client"
install_or_tell chromium "in a browser"
if ! command -v chromium >/dev/null; then
	export MESSAGE_API_NO_CHROMIUM=1
	without+=", without a browser"
fi
install_or_tell java "on Apache Kafka"
install_or_tell mvn "on Apache Kafka"
install_or_tell rabbitmq-server "on RabbitMQ"
install_or_tell amqp-publish "with amqp-tools, the foreign AMQP client"
install_or_tell mosquitto "on Mosquitto"
install_or_tell mosquitto_pub "with mosquitto_pub and mosquitto_sub, the foreign MQTT clients"
install_or_tell redis-server "on Redis"
if ! command -v redis-server >/dev/null; then # tests start it themselves, within milliseconds
	export MESSAGE_API_NO_REDIS=1
	without+=", without Redis"
fi
for language in python node; do
	reason=$(scripts/receivers.sh $language 2>&1) && continue
	summary+=("NOT RUN with the official library of Standard Webhooks for $language: $(tail -n 1 <<<"$reason")")
	without+=", without $language"
	export "MESSAGE_API_NO_${language^^}=1"
done
start kafka "Apache Kafka" MESSAGE_API_NO_KAFKA
start rabbitmq RabbitMQ MESSAGE_API_NO_RABBITMQ
start mosquitto Mosquitto MESSAGE_API_NO_MOSQUITTO

# What no build machine can start is named by those who have it.
[ -n "${SERVICE_BUS_CONNECTION_STRING:-}" ] ||
	summary+=("NOT RUN on Azure Service Bus, but on a peer: SERVICE_BUS_CONNECTION_STRING is not set (docs/endpoints/azure_service_bus.md)")
[ -n "${SOLACE_URL:-}" ] || summary+=("NOT RUN on Solace, but on a peer: SOLACE_URL is not set (docs/endpoints/solace.md)")

phase="integration tests"
SECONDS=0
scripts/integration.sh
summary+=("integration tests: passed in $SECONDS s$without")
