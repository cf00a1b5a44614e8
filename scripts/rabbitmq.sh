#!/usr/bin/env bash
# Keeps the RabbitMQ that the tests share, on loopback ports 19672 to 19676.
#
#   scripts/rabbitmq.sh up       start it; prints the environment that tests want
#   scripts/rabbitmq.sh down     stop it
#   scripts/rabbitmq.sh status   tell how it is
#   scripts/rabbitmq.sh env      print the environment alone, for eval
#
# It has an Erlang port mapper (epmd) of its own, and leaves a RabbitMQ that the system
# runs alone.
#
# Everything is kept below .brokers/rabbitmq and can be deleted when it is down. Exit status 3
# of up means that RabbitMQ is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."

# Ordinary users have no directories of servers on their PATH.
has() { PATH=$PATH:/usr/local/sbin:/usr/sbin command -v "$1" >/dev/null; }

brokerctl() {
	mkdir -p bin
	go build -o bin/brokerctl ./test/brokers/brokerctl
	bin/brokerctl -dir .brokers rabbitmq "$@"
}

case "${1:-}" in
up)
	if ! has rabbitmq-server; then
		echo "RabbitMQ is not installed (apt-get install rabbitmq-server)" >&2
		exit 3
	fi
	brokerctl up
	brokerctl env
	;;
down | status | env) brokerctl "$1" ;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
