#!/usr/bin/env bash
# Installs the Debian packages of programs that are not there. What is there is left alone,
# however it came.
#
#   scripts/install.sh [-n] PROGRAM…     -n only tells whether it could: if not, it prints
#                                        "what|what to do" and fails
#
# Programs: cc curl kcat chromium java mvn rabbitmq-server amqp-publish mosquitto mosquitto_pub redis-server shellcheck
#           python3 pip3
set -euo pipefail

package_of() {
	case "$1" in
	cc) echo gcc libc6-dev ;;
	java) echo default-jre-headless ;;
	mvn) echo maven ;;
	amqp-publish) echo amqp-tools ;;
	mosquitto_pub) echo mosquitto-clients ;;
	pip3) echo python3-pip ;;
	curl | kcat | chromium | shellcheck | rabbitmq-server | mosquitto | redis-server | python3) echo "$1" ;;
	*)
		echo "install.sh: no package is known for $1" >&2
		exit 2
		;;
	esac
}

# Everything runs as root, or by sudo: without asking where nobody could answer.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

can_be_root() {
	[ "$(id -u)" = 0 ] && return
	command -v sudo >/dev/null || return 1
	[ -t 0 ] || sudo -n true 2>/dev/null
}

dry=
if [ "${1:-}" = -n ]; then
	dry=yes
	shift
fi

# Ordinary users have no directories of servers on their PATH.
has() { PATH=$PATH:/usr/local/sbin:/usr/sbin command -v "$1" >/dev/null; }

packages=()
for program in "$@"; do
	if ! has "$program"; then
		read -ra names <<<"$(package_of "$program")"
		packages+=("${names[@]}")
	fi
done
[ ${#packages[@]} -gt 0 ] || exit 0

if [ -n "$dry" ]; then
	if ! command -v apt-get >/dev/null; then
		echo "these are not installed, and there is no apt-get here to do it: ${packages[*]}.|Install what your system calls these Debian packages."
		exit 1
	fi
	if ! can_be_root; then
		echo "these Debian packages are not installed, which needs root or sudo: ${packages[*]}.|Run it as root, or first: sudo apt-get install ${packages[*]}"
		exit 1
	fi
	exit 0
fi

echo "install.sh: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
as_root apt-get -qq -o DPkg::Lock::Timeout=120 update </dev/null
as_root apt-get -qq -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "${packages[@]}" </dev/null >/dev/null
