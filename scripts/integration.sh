#!/usr/bin/env bash
# Runs the tests of the packages that know real brokers, with what the environment names
# (`make brokers-up` starts it and prints the variables).
#
# One package after the other: they measure time, and start brokers of their own. Nothing
# comes from the test cache, which knows nothing of brokers.
set -euo pipefail
cd "$(dirname "$0")/.."

brokers=github.com/caddy-message-api/caddy-message-api/test/brokers
users=$(go list -f "{{range .TestImports}}{{if eq . \"$brokers\"}}{{\$.ImportPath}}{{\"\\n\"}}{{end}}{{end}}{{range .XTestImports}}{{if eq . \"$brokers\"}}{{\$.ImportPath}}{{\"\\n\"}}{{end}}{{end}}" ./...)
rooms=$(go list ./endpoints/... ./test/...)
mapfile -t packages < <(printf '%s\n' "$users" "$rooms" | sed '/^$/d' | sort -u)
go test -race -count=1 -p 1 -timeout 10m "$@" "${packages[@]}"
