#!/bin/sh
# dpkg says what it does; rpm says how many versions stay.
set -e
case "${1:-}" in
upgrade | failed-upgrade | deconfigure | 1) exit 0 ;;
esac
if [ -e "${DPKG_ROOT:-}/var/lib/cri-proxy/install/manifest.json" ]; then
	echo "cri-proxy: the kubelet of this node runs on cri-proxy, and would be without a runtime: run \"cri-proxy uninstall\" first" >&2
	exit 1
fi
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl disable --now cri-proxy.service cri-proxy.socket || :
fi
