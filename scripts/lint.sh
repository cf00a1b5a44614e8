#!/usr/bin/env bash
# Checks formatting, vet, staticcheck and, where shellcheck is installed, the scripts.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 -r ls -d 2>/dev/null | xargs -r gofmt -l)
if [ -n "$unformatted" ]; then
	echo "lint.sh: not formatted (make fmt does it):" >&2
	echo "$unformatted" >&2
	exit 1
fi
scripts/tools.sh
go vet ./...
bin/tools/staticcheck ./...
go -C tools vet ./...
(cd tools && ../bin/tools/staticcheck ./...)
if command -v shellcheck >/dev/null; then
	shellcheck .ci/run scripts/*.sh
else
	echo "lint.sh: shellcheck is not installed: the scripts were not checked" >&2
fi
