#!/usr/bin/env bash
# Keeps the Mosquitto that the tests share, on loopback ports 19883 to 19888.
#
#   scripts/mosquitto.sh up       start it; prints the environment that tests want
#   scripts/mosquitto.sh down     stop it
#   scripts/mosquitto.sh status   tell how it is
#   scripts/mosquitto.sh env      print the environment alone, for eval
#
# Everything is kept below .brokers/mosquitto and can be deleted when it is down. Exit status 3
# of up means that Mosquitto is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."

# Ordinary users have no directories of servers on their PATH.
has() { PATH=$PATH:/usr/local/sbin:/usr/sbin command -v "$1" >/dev/null; }

brokerctl() {
	mkdir -p bin
	go build -o bin/brokerctl ./test/brokers/brokerctl
	bin/brokerctl -dir .brokers mosquitto "$@"
}

case "${1:-}" in
up)
	if ! has mosquitto; then
		echo "Mosquitto is not installed (apt-get install mosquitto)" >&2
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
