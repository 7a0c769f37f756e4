#!/bin/sh
# Installs what the real node needs beyond Go and what a bare Debian 12 lacks:
# a C compiler and libseccomp for runc, iproute2 to remove bridges, iptables for
# pods with host ports, curl for the documents' examples. It is quiet where
# nothing is missing. Without root it prints the command and fails.
#
#   deps.sh               what the tests and the demo need
#   deps.sh conformance   also what critest's images are made with: make and
#                         dpkg-dev to build busybox, Debian's keys to fetch
#                         packages, which are not installed; and ipcmk, which
#                         critest calls
#   deps.sh kind          also Docker, jq, and debootstrap to make a node image
#   deps.sh dist          only what packages are tested with
set -eu

missing=""
need() { # need PACKAGE COMMAND...: the package is missing unless the command succeeds
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}

if [ "${1:-}" = dist ]; then
	need rpm command -v rpm
else
	need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
	need gcc command -v gcc
	need libc6-dev test -e /usr/include/stdlib.h
	need pkg-config command -v pkg-config
	need libseccomp-dev pkg-config --exists libseccomp
	need iproute2 command -v ip
	need iptables command -v iptables
	need curl command -v curl
fi
if [ "${1:-}" = conformance ]; then
	need make command -v make
	need dpkg-dev command -v dpkg-source
	need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
	need util-linux command -v ipcmk
fi

if [ "${1:-}" = kind ]; then
	need docker.io command -v dockerd
	need debootstrap command -v debootstrap
	need jq command -v jq
	need util-linux command -v nsenter
fi

if [ -n "$missing" ]; then
	install="apt-get install --yes --no-install-recommends$missing"
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		echo "missing:$missing; as root run: $install" >&2
		exit 1
	fi
	echo "installing:$missing"
	log=$(mktemp)
	# Time zones and key maps must not stop an installation to ask.
	export DEBIAN_FRONTEND=noninteractive
	if ! { apt-get update && $install; } >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		exit 1
	fi
	rm -f "$log"
fi

# Where the kernel has these built in, or loads them itself, there is nothing to
# do; where it does neither, the first pod says which one is missing.
if [ "${1:-}" != dist ] && [ "$(id -u)" -eq 0 ] && command -v modprobe >/dev/null; then
	for module in overlay bridge veth; do
		modprobe --quiet "$module" || true
	done
fi
