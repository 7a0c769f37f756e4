package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/cri-proxy/cri-proxy/configs"
)

// restConfig returns the way to the API server, nil when none is configured. It
// connects to nobody. A kubeconfig that is not there is waited for, and so are the
// files that it names: a node's own come when it joins its cluster, the certificate
// last, and for that its kubelet needs this program.
func restConfig(cfg *configs.Config) (*rest.Config, error) {
	file := cfg.Kubernetes.Kubeconfig
	if file == "" {
		return nil, nil //nolint:nilnil // No API server is a choice.
	}
	c, err := loadKubeconfig(file)
	if errors.Is(err, fs.ErrNotExist) {
		// Nobody asks this host: the transport knows where to go.
		return withDefaults(&rest.Config{Host: "http://kubeconfig.invalid", Transport: &laterAPI{file: file}}), nil
	}
	return c, err
}

// loadKubeconfig reads a kubeconfig. The files of certificates and tokens that it
// names are read anew by client-go when they change.
func loadKubeconfig(file string) (*rest.Config, error) {
	// Not client-go's deferred loading: it falls back on the service account of a pod.
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: file}
	raw, err := rules.Load()
	if err != nil {
		return nil, kubeconfigError(file, err)
	}
	c, err := clientcmd.NewDefaultClientConfig(*raw, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, kubeconfigError(file, err)
	}
	return withDefaults(c), nil
}

func withDefaults(c *rest.Config) *rest.Config {
	c.UserAgent = "cri-proxy/" + readVersion().Version
	c.ContentType = runtime.ContentTypeProtobuf
	c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	// One watch and now and then an Event: a loop gone wild must not reach the API server.
	c.QPS, c.Burst = 5, 10
	c.WarningHandler = rest.NoWarnings{}
	return c
}

// laterAPI is the API server of a kubeconfig that was not there at the start.
type laterAPI struct {
	file string

	mu        sync.Mutex
	server    *url.URL
	transport http.RoundTripper // nil until the kubeconfig could be read.
}

// RoundTrip fails until the kubeconfig is there.
func (a *laterAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	server, transport, err := a.find()
	if err != nil {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, err
	}
	r = r.Clone(r.Context())
	r.Host, r.URL.Scheme, r.URL.Host, r.URL.Path = "", server.Scheme, server.Host, path.Join(server.Path, r.URL.Path)
	return transport.RoundTrip(r)
}

func (a *laterAPI) find() (*url.URL, http.RoundTripper, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.transport != nil {
		return a.server, a.transport, nil
	}
	c, err := loadKubeconfig(a.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("kubernetes.kubeconfig: %s is not there yet, or a file that it names: %w", a.file, err)
	}
	if err != nil {
		return nil, nil, err
	}
	server, _, err := rest.DefaultServerUrlFor(c)
	if err != nil {
		return nil, nil, kubeconfigError(a.file, err)
	}
	transport, err := rest.TransportFor(c)
	if err != nil {
		return nil, nil, kubeconfigError(a.file, err)
	}
	a.server, a.transport = server, transport
	return server, transport, nil
}

// CloseIdleConnections closes those to the API server.
func (a *laterAPI) CloseIdleConnections() {
	a.mu.Lock()
	defer a.mu.Unlock()
	utilnet.CloseIdleConnectionsFor(a.transport)
}

func kubeconfigError(path string, err error) error {
	return fmt.Errorf("kubernetes.kubeconfig: %s cannot be used; write a kubeconfig with a current context there, or leave the key out: %w", path, err)
}
