#!/usr/bin/env bash
# Starts and ends a kind cluster whose kubelets speak to cri-proxy: "kind.sh up"
# and "kind.sh down", by way of "make kind-up" and "make kind-down".
#
#   PROXY     the cri-proxy to put into the nodes
#   KIND      the kind to use
#   CLUSTER   the cluster's name
#   BASE      the node image to build on; "" is the one in the Dockerfile
#   CONFIG    kind's configuration; "" is cluster.yaml
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
KIND=${KIND:-kind}
CLUSTER=${CLUSTER:-cri-proxy}
CONFIG=${CONFIG:-$here/cluster.yaml}
oldest=v0.30.0

fail() {
	echo "kind.sh: $1" >&2
	exit 1
}

check_docker() {
	command -v docker >/dev/null ||
		fail "docker is not installed, and kind's nodes are its containers: install it (https://docs.docker.com/engine/install), or on Debian: apt-get install docker.io"
	docker version --format '{{.Server.Version}}' >/dev/null 2>&1 ||
		fail "no answer from Docker at ${DOCKER_HOST:-its usual socket}: start it (systemctl start docker), name another one in DOCKER_HOST, or become a user who may use it; docker says: $(docker version --format '{{.Server.Version}}' 2>&1 | tail -1)"
}

check_kind() {
	command -v "$KIND" >/dev/null || fail "there is no kind at $KIND: leave KIND out, and make builds it"
	version=v$("$KIND" version --quiet)
	[ "$(printf '%s\n' "$oldest" "$version" | sort --version-sort | head -1)" = "$oldest" ] ||
		fail "$KIND is $version, older than $oldest: leave KIND out, and make builds the one that is tested"
}

has_cluster() {
	"$KIND" get clusters 2>/dev/null | grep --quiet --line-regexp --fixed-strings "$CLUSTER"
}

build_image() {
	context=$(mktemp --directory)
	trap 'rm -rf "$context"' EXIT
	cp "$here"/* "$here"/../systemd/* "$context/"
	install -m 755 "$PROXY" "$context/cri-proxy"
	# One that this builds on may be on this machine only, so nothing is pulled anew.
	docker build ${BASE:+--build-arg "BASE=$BASE"} --tag "cri-proxy/node:$CLUSTER" "$context" ||
		fail "the node image was not built, for the reason above; without the internet, name a base image that Docker has: make kind-up BASE=…"
}

create_cluster() {
	log=$context/create.log
	if ! "$KIND" create cluster --name "$CLUSTER" --image "cri-proxy/node:$CLUSTER" --config "$CONFIG" --wait 5m 2>&1 | tee "$log"; then
		if grep --quiet --extended-regexp 'port is already allocated|address already in use' "$log"; then
			fail "a port of $CONFIG is taken on this machine: end what listens there, or choose another one in a copy of the file: make kind-up CONFIG=…"
		fi
		fail "kind did not create the cluster, for the reason above"
	fi
	# kind goes on when nodes do not become ready in time.
	kubectl wait --for=condition=Ready nodes --all --timeout=3m ||
		fail "a node does not become ready; look at: docker exec $CLUSTER-worker journalctl --unit cri-proxy --unit kubelet"
}

# kubectl is that of the node: the machine needs none.
kubectl() {
	docker exec --interactive "$CLUSTER-control-plane" kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"
}

apply_objects() {
	kubectl apply --filename - <"$here/runtimeclasses.yaml"
	# A pod that comes before this account is refused.
	kubectl wait --for=create serviceaccount/default --timeout=1m
	kubectl apply --filename - <"$here/pods.yaml"
	kubectl wait --for=condition=Ready --filename - --timeout=3m <"$here/pods.yaml"
}

up() {
	check_docker
	check_kind
	[ -x "${PROXY:-}" ] || fail "there is no cri-proxy at '${PROXY:-}': use make kind-up"
	[ -f "$CONFIG" ] || fail "there is no file $CONFIG"
	! has_cluster || fail "there is a cluster $CLUSTER already: end it (make kind-down CLUSTER=$CLUSTER), or make another one (make kind-up CLUSTER=other)"
	build_image
	create_cluster
	apply_objects
	cat <<-END

		The cluster $CLUSTER is there, with a pod for each handler:
		$(kubectl get pods --output custom-columns=POD:.metadata.name,RUNTIMECLASS:.spec.runtimeClassName,NODE:.spec.nodeName,STATE:.status.phase)

		Go on with:
		  kubectl --context kind-$CLUSTER get pods
		  docker exec $CLUSTER-worker crictl pods                            # through cri-proxy
		  docker exec $CLUSTER-worker cri-proxy status
		  docker exec $CLUSTER-worker cri-proxy images list
		  docker exec $CLUSTER-worker journalctl --follow --unit cri-proxy
		End it with: make kind-down$([ "$CLUSTER" = cri-proxy ] || echo " CLUSTER=$CLUSTER")
	END
}

down() {
	check_docker
	check_kind
	"$KIND" delete cluster --name "$CLUSTER"
	docker image rm --force "cri-proxy/node:$CLUSTER" >/dev/null
}

case ${1:-} in
up) up ;;
down) down ;;
*) fail "usage: kind.sh up|down" ;;
esac
