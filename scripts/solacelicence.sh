#!/usr/bin/env bash
# Prints what must accompany every program with the Solace endpoint: the notices of the Go
# module, and the licences of the native library that is linked into it.
set -euo pipefail
cd "$(dirname "$0")/.."

module=solace.dev/go/messaging
go mod download "$module"
dir=$(go list -m -f '{{.Dir}}' "$module")
go list -m -f 'This program contains {{.Path}} {{.Version}}, and the native library libsolclient that comes with it.' "$module"
for part in NOTICE.txt LICENSE.txt internal/ccsmp/lib/licenses.txt; do
	printf '\n==== %s of %s ====\n\n' "$part" "$module"
	cat "$dir/$part"
done
