#!/usr/bin/env bash
# Looks before anything is begun whether it can end well, and says in words what is missing
# and what to do. All problems are told at once.
#
#   scripts/preflight.sh CHECK…
#
#   go             Go is there, and as new as go.mod asks
#   install=A,B    these programs are there, or can be installed (see install.sh)
#   disk=N         N GiB are free where this folder and Go's build cache are
#   port=N         nobody listens on this port
set -euo pipefail
cd "$(dirname "$0")/.."

problems=0
problem() {
	echo "MISSING: $1" >&2
	echo "         $2" >&2
	problems=$((problems + 1))
}

check_go() {
	local wanted have
	wanted=$(awk '$1 == "go" { print $2 }' go.mod)
	if ! command -v go >/dev/null; then
		problem "Go is not installed, or not on the PATH." \
			"Install Go $wanted or newer (https://go.dev/doc/install)."
		return
	fi
	# In this folder go answers with the toolchain that go.mod makes it use.
	if ! have=$(go env GOVERSION 2>/dev/null); then
		problem "Go $(go version 2>/dev/null | cut -d' ' -f3) is too old and can't fetch a newer one by itself." \
			"Install Go $wanted or newer (https://go.dev/doc/install)."
		return
	fi
	have=${have#go}
	if [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
		problem "Go $have is too old." "Install Go $wanted or newer (https://go.dev/doc/install)."
	fi
}

check_install() {
	local programs
	IFS=, read -ra programs <<<"$1"
	if ! why=$(scripts/install.sh -n "${programs[@]}"); then
		problem "${why%%|*}" "${why#*|}"
	fi
}

check_disk() {
	local place free
	for place in . "$(go env GOCACHE 2>/dev/null || echo .)"; do
		[ -d "$place" ] || place=.
		free=$(df -Pk "$place" | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
		if [ "$free" -lt "$1" ]; then
			problem "only $free GiB are free at $(cd "$place" && pwd), and up to $1 are needed." \
				"Make room, or move Go's build cache (GOCACHE). 'go clean -cache' empties it."
			return
		fi
	done
}

check_port() {
	local host
	for host in 127.0.0.1 ::1; do
		if (exec 3<>"/dev/tcp/$host/$1") 2>/dev/null; then
			problem "somebody listens on port $1 already." \
				"End that program ('ss -ltnp sport = :$1' tells which) and try again."
			return
		fi
	done
}

for check in "$@"; do
	case "$check" in
	go) check_go ;;
	install=*) check_install "${check#*=}" ;;
	disk=*) check_disk "${check#*=}" ;;
	port=*) check_port "${check#*=}" ;;
	*)
		echo "preflight.sh: unknown check $check" >&2
		exit 2
		;;
	esac
done
exit $((problems > 0))
