package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// newHooks makes the engine of the hooks, on the daemon's state file.
func (d *daemon) newHooks(registry prometheus.Registerer) (*hooks.Engine, error) {
	clock, err := hooks.SystemClock()
	if err != nil {
		return nil, err
	}
	log := component(d.log, "hooks")
	return hooks.New(hooks.Options{
		Handlers: d.cfg.Handlers, Journal: journal.New(d.store, nil), Clock: clock,
		Backend: d.runtimeOf, NodeIP: nodeIP,
		// There is no API server to make an Event on.
		Warn: func(pod journal.Pod, reason, message string) {
			log.WithFields(logrus.Fields{"namespace": pod.Namespace, "pod": pod.Name, "reason": reason}).Debug(message)
		},
		Registerer: registry, Log: log,
	})
}

// runtimeOf returns the client of the runtime that has a container, or a
// sandbox where no container is named.
func (d *daemon) runtimeOf(ctx context.Context, c hooks.Container) (runtimeapi.RuntimeServiceClient, error) {
	kind, id := rawcri.ContainerID, c.ID
	if id == "" {
		kind, id = rawcri.SandboxID, c.Sandbox
	}
	b, err := d.backends.Owner(ctx, kind, []byte(id))
	if err != nil {
		return nil, err
	}
	return b.Runtime(), nil
}

// nodeIP is the address of the interface that the node's default route uses, as
// the kubelet chooses it where its flags do not; "" when there is none.
func nodeIP() string {
	ip, err := utilnet.ChooseHostInterface()
	if err != nil {
		return ""
	}
	return ip.String()
}
