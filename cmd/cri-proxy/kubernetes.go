package main

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/cri-proxy/cri-proxy/configs"
)

// restConfig returns the way to the API server, nil when none is configured. It
// connects to nobody. The kubeconfig is read once; the files of certificates and
// tokens that it names are read anew by client-go when they change.
func restConfig(cfg *configs.Config) (*rest.Config, error) {
	path := cfg.Kubernetes.Kubeconfig
	if path == "" {
		return nil, nil //nolint:nilnil // No API server is a choice.
	}
	// Not client-go's deferred loading: it falls back on the service account of a pod.
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	raw, err := rules.Load()
	if err != nil {
		return nil, kubeconfigError(path, err)
	}
	c, err := clientcmd.NewDefaultClientConfig(*raw, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, kubeconfigError(path, err)
	}
	c.UserAgent = "cri-proxy/" + readVersion().Version
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	// One watch and now and then an Event: a loop gone wild must not reach the API server.
	c.QPS, c.Burst = 5, 10
	c.WarningHandler = rest.NoWarnings{}
	return c, nil
}

func kubeconfigError(path string, err error) error {
	return fmt.Errorf("kubernetes.kubeconfig: %s cannot be used; write a kubeconfig with a current context there, or leave the key out: %w", path, err)
}
