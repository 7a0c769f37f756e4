package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

const (
	handler = "runc"
	image   = "example.test/podstart:v1"
)

// warmUp is how many pairs are not counted: the first pulls the image.
const warmUp = 2

// node is one containerd with its two kubelets: one asks it directly, one
// through a proxy that has nothing else behind it.
type node struct {
	rig             *rig.Rig
	out             io.Writer
	direct, proxied *kubelet
}

func newNode(ctx context.Context, r *rig.Rig, out io.Writer) (*node, error) {
	fmt.Fprintln(out, "building cri-proxy …")
	if err := r.BuildProxy(ctx); err != nil {
		return nil, err
	}
	if _, err := r.Push(ctx, image, rig.Image{}); err != nil {
		return nil, err
	}
	backend, err := r.Containerd(ctx, rig.ContainerdOptions{Name: "podstart"})
	if err != nil {
		return nil, err
	}
	proxy, err := startProxy(ctx, r, backend)
	if err != nil {
		return nil, err
	}
	n := &node{rig: r, out: out}
	if n.direct, err = dial("direct", backend.Endpoint()); err != nil {
		return nil, err
	}
	if n.proxied, err = dial("proxied", proxy.Endpoint()); err != nil {
		return nil, errors.Join(err, n.direct.close())
	}
	return n, nil
}

// startProxy runs a proxy that logs as users' do: the rig's own tell all that
// they do, which would be measured as well.
func startProxy(ctx context.Context, r *rig.Rig, backend *rig.Containerd) (*rig.Proxy, error) {
	proxy, err := r.Proxy(ctx, rig.ProxyOptions{
		Name: "proxy", DefaultHandler: handler,
		Config: fmt.Sprintf("[backends.%s]\nendpoint = %q\n\n[handlers.%s]\nbackend = %q\n", backend.Name, backend.Endpoint(), handler, backend.Name),
	})
	if err != nil {
		return nil, err
	}
	config, err := os.ReadFile(proxy.Config)
	if err != nil {
		return nil, err
	}
	quiet := strings.Replace(string(config), `level = "debug"`, `level = "info"`, 1)
	if quiet == string(config) {
		return nil, fmt.Errorf("%s sets no log level that could be lowered", proxy.Config)
	}
	return proxy, errors.Join(os.WriteFile(proxy.Config, []byte(quiet), 0o600), proxy.Stop(), proxy.Start(ctx))
}

func (n *node) close() error { return errors.Join(n.direct.close(), n.proxied.close()) }

// measure starts pods in pairs, one on each side, and the side that begins
// changes from pair to pair: A B B A. What slows the machine for a while, and
// what the removal of the pod before leaves to do, then meets both alike.
func (n *node) measure(ctx context.Context, pairs int, r *result) error {
	begun := time.Now()
	for i := range warmUp + pairs {
		d, p, err := n.pair(ctx, i)
		if err != nil {
			return err
		}
		if i < warmUp {
			continue
		}
		r.direct, r.proxied = append(r.direct, d), append(r.proxied, p)
		if done := i - warmUp + 1; done%20 == 0 {
			fmt.Fprintf(n.out, "%d of %d pairs after %s\n", done, pairs, time.Since(begun).Round(time.Second))
		}
	}
	r.took = time.Since(begun)
	return nil
}

func (n *node) pair(ctx context.Context, i int) (direct, proxied time.Duration, err error) {
	first := func() error { direct, err = n.pod(ctx, n.direct, i); return err }
	second := func() error { proxied, err = n.pod(ctx, n.proxied, i); return err }
	if i%2 == 1 {
		first, second = second, first
	}
	if err := first(); err != nil {
		return 0, 0, err
	}
	return direct, proxied, second()
}

// pod starts a pod and removes it. Only the start is timed.
func (n *node) pod(ctx context.Context, k *kubelet, i int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, podWithin)
	defer cancel()
	name := fmt.Sprintf("%s-%d", k.name, i)
	config, err := n.rig.Pod(name)
	if err != nil {
		return 0, err
	}
	p := &pod{kubelet: k, config: config, spec: &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: image, Annotations: config.GetAnnotations()}}
	took, err := p.start(ctx)
	if err != nil {
		return 0, fmt.Errorf("start the pod %s: %w", name, err)
	}
	if err := p.remove(ctx); err != nil {
		return 0, fmt.Errorf("remove the pod %s: %w", name, err)
	}
	return took, nil
}
