#!/usr/bin/env bash
# Builds Caddy with the plugins of xcaddy.json into bin/caddy-xcaddy. SOLACE=1 adds the Solace
# endpoint and puts its licence beside the program; see build.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/tools.sh
options=()
licence=bin/caddy-xcaddy.solace-licence.txt
rm -f "$licence"
if [ "${SOLACE:-0}" = 1 ]; then
	scripts/install.sh cc
	options+=(-with solace)
	mkdir -p bin
	scripts/solacelicence.sh >"$licence"
fi
bin/tools/xcaddybuild -manifest xcaddy.json -xcaddy bin/tools/xcaddy -output bin/caddy-xcaddy "${options[@]}"
