#!/usr/bin/env bash
# Builds Caddy with the plugins of xcaddy.json into bin/caddy-xcaddy.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/tools.sh
bin/tools/xcaddybuild -manifest xcaddy.json -xcaddy bin/tools/xcaddy -output bin/caddy-xcaddy
