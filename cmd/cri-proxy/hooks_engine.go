package main

import (
	"context"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// newHooks makes the engine of the hooks, on the daemon's state file.
func (d *daemon) newHooks(ctx context.Context, registry prometheus.Registerer) (*hooks.Engine, error) {
	clock, err := hooks.SystemClock()
	if err != nil {
		return nil, err
	}
	log := component(d.log, "hooks")
	warn, err := d.newEvents(ctx, log)
	if err != nil {
		return nil, err
	}
	return hooks.New(hooks.Options{
		Handlers: d.cfg.Handlers, Journal: journal.New(d.store, nil), Clock: clock,
		Backend: d.runtimeOf, NodeIP: nodeIP,
		Warn: warn, Span: d.tracer.Start, Registerer: registry, Log: log,
	})
}

// newEvents returns what makes Kubernetes Events; nil without an API server.
func (d *daemon) newEvents(ctx context.Context, log *logrus.Entry) (warn func(pod journal.Pod, reason, message string), err error) {
	if d.api == nil {
		return nil, nil //nolint:nilnil // Nobody could be told.
	}
	node, err := os.Hostname() // The kubelet's default for the node's name.
	if err != nil {
		return nil, err
	}
	if d.events, err = hooks.StartEvents(ctx, d.api, strings.ToLower(node), log); err != nil {
		return nil, kubeconfigError(d.cfg.Kubernetes.Kubeconfig, err)
	}
	return d.events.Warn, nil
}

// runtimeOf returns the client of the runtime that has a container, or a
// sandbox where no container is named.
func (d *daemon) runtimeOf(ctx context.Context, c hooks.Container) (runtimeapi.RuntimeServiceClient, error) {
	kind, id := rawcri.ContainerID, c.ID
	if id == "" {
		kind, id = rawcri.SandboxID, c.Sandbox
	}
	b, err := d.backends().Owner(ctx, kind, []byte(id))
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
