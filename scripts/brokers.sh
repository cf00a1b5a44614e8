#!/usr/bin/env bash
# Keeps the brokers that the tests share: Apache Kafka, RabbitMQ and Mosquitto.
#
#   scripts/brokers.sh up       start them; prints the environment that tests want
#   scripts/brokers.sh down     stop them
#   scripts/brokers.sh status   tell how they are
#   scripts/brokers.sh env      print the environment of those that run, for eval
#
# Each has its own script. One that can't be had does not keep the others from being
# started, and makes up fail at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

brokers=(kafka rabbitmq mosquitto)

case "${1:-}" in
up | down | status) ;;
env)
	for broker in "${brokers[@]}"; do
		if "scripts/$broker.sh" status >/dev/null 2>&1; then
			"scripts/$broker.sh" env
		fi
	done
	exit 0
	;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac

status=0
for broker in "${brokers[@]}"; do
	"scripts/$broker.sh" "$1" || status=1
done
exit "$status"
