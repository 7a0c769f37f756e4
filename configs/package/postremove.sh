#!/bin/sh
set -e
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
# An upgrade leaves it in use; where it is not, systemd leaves it behind.
if [ -d "${DPKG_ROOT:-}/run/cri-proxy" ]; then
	rmdir --ignore-fail-on-non-empty "${DPKG_ROOT:-}/run/cri-proxy" || :
fi
# The configuration and the state go only when dpkg is told to purge.
if [ "${1:-}" = purge ]; then
	rm -rf "${DPKG_ROOT:-}/etc/cri-proxy" "${DPKG_ROOT:-}/var/lib/cri-proxy"
fi
