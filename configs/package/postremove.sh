#!/bin/sh
set -e
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
# The configuration and the state go only when dpkg is told to purge.
if [ "${1:-}" = purge ]; then
	rm -rf "${DPKG_ROOT:-}/etc/cri-proxy" "${DPKG_ROOT:-}/var/lib/cri-proxy"
fi
