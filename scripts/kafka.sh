#!/usr/bin/env bash
# Keeps the Apache Kafka that the tests share, on loopback ports 19092 to 19098.
#
#   scripts/kafka.sh jars     fetch Kafka's jars from Maven Central, if they aren't there
#   scripts/kafka.sh up       jars, then start it; prints the environment that tests want
#   scripts/kafka.sh down     stop it
#   scripts/kafka.sh status   tell how it is
#   scripts/kafka.sh env      print the environment alone, for eval
#
# Everything is kept below .brokers/kafka and can be deleted when it is down. Exit status 3
# of jars and up means that Apache Kafka can't be had here.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=.brokers/kafka
pom=test/brokers/kafka/pom.xml

# What can't be had is told in one line, which scripts/test.sh repeats in its summary.
unavailable() {
	echo "$1" >&2
	exit 3
}

need_java() {
	local major
	command -v java >/dev/null || unavailable "Java is not installed (apt-get install default-jre-headless)"
	major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
	[ "${major:-0}" -ge 17 ] || unavailable "Java ${major:-of unknown version} is too old, it must be 17 or newer"
}

fetch_jars() {
	need_java
	# The copy of the pom beside the jars tells whether they are the right ones.
	if cmp -s "$pom" "$dir/libs/pom.xml"; then
		return
	fi
	command -v mvn >/dev/null || unavailable "Maven is not installed (apt-get install maven)"
	echo "kafka.sh: fetching Apache Kafka from Maven Central"
	rm -rf "$dir/libs.new"
	mkdir -p "$dir/libs.new"
	if ! mvn -B -q -Dstyle.color=never -f "$pom" dependency:copy-dependencies -DincludeScope=runtime \
		-DoutputDirectory="$PWD/$dir/libs.new" </dev/null; then
		unavailable "Maven can't be reached, or has not the jars that $pom names"
	fi
	cp "$pom" "$dir/libs.new/pom.xml"
	rm -rf "$dir/libs"
	mv "$dir/libs.new" "$dir/libs"
}

brokerctl() {
	mkdir -p bin
	go build -o bin/brokerctl ./test/brokers/brokerctl
	bin/brokerctl -dir .brokers kafka "$@"
}

case "${1:-}" in
jars) fetch_jars ;;
up)
	fetch_jars
	brokerctl up
	brokerctl env
	;;
down | status | env) brokerctl "$1" ;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
