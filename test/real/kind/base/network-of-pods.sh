#!/bin/sh
# What kindnet does: this node's part of the pods' network becomes a bridge, and
# the parts of the others are reached by way of their nodes.
set -u
configure() { # configure SUBNET
	mkdir -p /etc/cni/net.d
	cat >/etc/cni/net.d/.new <<-END
		{"cniVersion": "1.0.0", "name": "pods", "plugins": [
		  {"type": "bridge", "bridge": "pods0", "isGateway": true, "ipam":
		    {"type": "host-local", "ranges": [[{"subnet": "$1"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
		  {"type": "portmap", "capabilities": {"portMappings": true}}]}
	END
	mv /etc/cni/net.d/.new /etc/cni/net.d/10-pods.conflist
}

nodes='{range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address} {.spec.podCIDR}{"\n"}{end}'
while sleep 3; do
	kubectl --kubeconfig /etc/kubernetes/kubelet.conf get nodes --output jsonpath="$nodes" 2>/dev/null |
		while read -r name address subnet; do
			[ -n "$subnet" ] || continue
			if [ "$name" != "$(hostname)" ]; then
				ip route replace "$subnet" via "$address"
			elif [ ! -e /etc/cni/net.d/10-pods.conflist ]; then
				configure "$subnet"
			fi
		done
done
