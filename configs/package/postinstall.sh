#!/bin/sh
# Nothing is enabled, started or restarted: a node changes when its owner says so.
set -e
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
fi
