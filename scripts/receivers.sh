#!/usr/bin/env bash
# Installs what test/receivers verifies webhooks with: the official libraries of Standard
# Webhooks for Python and for JavaScript, in fixed versions, into the user's cache. What is there
# already is left alone, and needs no network.
#
#   scripts/receivers.sh [python] [node]     python alone, if none is named, and node where npm is
#
# They are kept in $MESSAGE_API_RECEIVERS, or else caddy-message-api/receivers in the user's
# cache, and can be deleted. Exit status 3 means that one can't be had here.
set -euo pipefail
cd "$(dirname "$0")/.."

unavailable() {
	echo "$1" >&2
	exit 3
}

# The same place as Go's os.UserCacheDir.
cache_dir() {
	if [ "$(uname)" = Darwin ]; then
		echo "$HOME/Library/Caches"
	else
		echo "${XDG_CACHE_HOME:-$HOME/.cache}"
	fi
}

root=${MESSAGE_API_RECEIVERS:-$(cache_dir)/caddy-message-api/receivers}
new=
trap '[ -z "$new" ] || rm -rf "$new"' EXIT

# The copy of what names the versions tells that a library is there, whole and the right one.
is_there() { # folder, file that names the versions
	cmp -s "$2" "$root/$1/$(basename "$2")"
}

# A folder appears at once, so that nobody sees half of one.
begin() {
	mkdir -p "$root"
	new=$(mktemp -d "$root/new.XXXXXX")
}

put() { # folder, file that names the versions
	cp "$2" "$new/"
	rm -rf "${root:?}/$1"
	mv "$new" "$root/$1"
	new=
}

get_python() {
	local names=test/receivers/python/requirements.txt folder
	folder=python-$(sed -n 's/^standardwebhooks==\([^ ]*\).*/\1/p' "$names")
	if is_there "$folder" "$names" && command -v python3 >/dev/null; then
		return
	fi
	command -v python3 >/dev/null || scripts/install.sh python3 || unavailable "Python is not installed (apt-get install python3)"
	python3 -m pip --version >/dev/null 2>&1 || scripts/install.sh pip3 || unavailable "pip is not installed (apt-get install python3-pip)"
	echo "receivers.sh: fetching standardwebhooks for Python"
	begin
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile --require-hashes --target "$new" -r "$names" </dev/null ||
		unavailable "the package index can't be reached, or has not what $names names"
	put "$folder" "$names"
}

get_node() {
	local names=test/receivers/node/package-lock.json folder
	folder=node-$(sed -n 's/.*"standardwebhooks": "\([^"]*\)".*/\1/p' test/receivers/node/package.json)
	if is_there "$folder" "$names" && command -v node >/dev/null; then
		return
	fi
	command -v npm >/dev/null || unavailable "npm is not installed (apt-get install nodejs npm)"
	echo "receivers.sh: fetching standardwebhooks for JavaScript"
	begin
	cp test/receivers/node/package.json test/receivers/node/package-lock.json "$new/"
	npm --prefix "$new" ci --silent --ignore-scripts --no-audit --no-fund </dev/null ||
		unavailable "the npm registry can't be reached, or has not what $names names"
	put "$folder" "$names"
}

if [ $# = 0 ]; then
	set -- python
	! command -v npm >/dev/null || set -- python node
fi
for language in "$@"; do
	case "$language" in
	python) get_python ;;
	node) get_node ;;
	*)
		sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	esac
done
