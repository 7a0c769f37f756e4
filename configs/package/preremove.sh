#!/bin/sh
# dpkg says what it does; rpm says how many versions stay.
set -e
case "${1:-}" in
upgrade | failed-upgrade | deconfigure | [1-9]*) exit 0 ;;
esac
refuse() {
	echo "cri-proxy: the kubelet of this node runs on cri-proxy, and would be without a runtime: $1 first" >&2
	exit 1
}
if [ -e "${DPKG_ROOT:-}/var/lib/cri-proxy/install/manifest.json" ]; then
	refuse 'run "cri-proxy uninstall"'
fi
# Where it was led here by hand.
for file in /var/lib/kubelet/config.yaml /var/lib/kubelet/kubeadm-flags.env /etc/default/kubelet /etc/sysconfig/kubelet; do
	if grep -qs '^[^#]*/run/cri-proxy/cri-proxy\.sock' "${DPKG_ROOT:-}$file"; then
		refuse "lead it back in $file"
	fi
done
if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
	systemctl disable --now cri-proxy.service cri-proxy.socket || :
fi
