package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/cri-proxy/cri-proxy/handlers/serviceenv"
)

// newServiceEnv makes the source of the Service variables; it asks nobody for
// anything yet.
func (d *daemon) newServiceEnv(registry prometheus.Registerer) (*serviceenv.Variables, error) {
	v, err := serviceenv.New(serviceenv.Options{
		Handlers: d.cfg.Handlers, File: d.cfg.ServiceEnv.ServicesFile, Config: d.api,
		Registerer: registry, Log: component(d.log, "serviceenv"),
	})
	if err != nil && d.cfg.Kubernetes.Kubeconfig != "" {
		return nil, kubeconfigError(d.cfg.Kubernetes.Kubeconfig, err)
	}
	if err != nil {
		return nil, fmt.Errorf("service_env: %w", err)
	}
	return v, nil
}

// runServiceEnv follows the Services. What client-go says of that to its own log
// is said in ours already.
func (d *daemon) runServiceEnv(ctx context.Context) error {
	return d.serviceEnv.Run(klog.NewContext(ctx, logr.Discard()))
}
