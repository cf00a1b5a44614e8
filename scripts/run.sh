#!/usr/bin/env bash
# Serves the quick start on port 8080, without a broker, until it is interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

config=examples/quickstart/Caddyfile
checks=(go port=8080)
# Caddy's admin API listens too, unless the Caddyfile turns it off.
grep -Eq '^[[:space:]]*admin[[:space:]]+off' "$config" || checks+=(port=2019)
scripts/preflight.sh "${checks[@]}"
scripts/build.sh

cat <<'LINES'

The quick start is about to be served. Paste into another terminal:

  curl -i http://localhost:8080/qs-message-api
        the messages of five seconds, as JSON
  websocat ws://localhost:8080/qs-message-api
        a message a second. Without websocat, in a browser's console on http://localhost:8080/healthz:
        new WebSocket('ws://localhost:8080/qs-message-api').onmessage = e => console.log(e.data)

  curl -N -H 'Accept: text/event-stream' http://localhost:8080/playground
        stays open and shows, as server-sent events, what is posted in a third terminal:
  curl -i -d 'hello' http://localhost:8080/playground

Ctrl-C ends it.

LINES
exec bin/caddy run --config "$config"
