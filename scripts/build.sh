#!/usr/bin/env bash
# Builds bin/caddy, or the program that is named: static, without paths of this machine, and
# without the databases that Caddy's own releases leave out too.
#
# SOLACE=1 adds the Solace endpoint, whose native library needs cgo and a C compiler and brings
# a licence of its own: that is put beside the program, where it has to stay.
set -euo pipefail
cd "$(dirname "$0")/.."

program=${1:-bin/caddy}
licence=$program.solace-licence.txt
tags=nobadger,nomysql,nopgx
export CGO_ENABLED=0
case "${SOLACE:-0}" in
0) ;;
1)
	scripts/install.sh cc
	CGO_ENABLED=1
	tags+=,solace
	;;
*)
	echo "build.sh: SOLACE=$SOLACE: use 1, or leave it out" >&2
	exit 2
	;;
esac

scripts/preflight.sh go
rm -f "$licence"
go build -trimpath -ldflags '-s -w' -tags "$tags" -o "$program" ./cmd/caddy
if [ "$CGO_ENABLED" = 1 ]; then
	scripts/solacelicence.sh >"$licence"
	echo "$program contains Solace's native library: keep $licence beside it wherever it goes"
fi
