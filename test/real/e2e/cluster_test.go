package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// The handlers of the proxy, and the RuntimeClasses of configs/kubernetes.
const (
	runc   = "runc"   // on containerd alpha
	gvisor = "gvisor" // on containerd beta, which calls it "isolated"
)

// mark is RIG_HANDLER in the containers of a handler.
func mark(handler string) string {
	if handler == gvisor {
		return "beta/isolated"
	}
	return ""
}

func handlers() []string { return []string{runc, gvisor} }

// proxyConfig is that of the cluster's proxy, for the endpoints of the two
// containerds and a kubeconfig. The hooks are for the containers of one name alone;
// the folder is that of hooks_test.go.
const proxyConfig = `[kubernetes]
kubeconfig = %q

[backends.alpha]
endpoint = %q

[backends.beta]
endpoint = %q

[handlers.gvisor]
backend = "beta"
runtime = "isolated"

[handlers.gvisor.hooks]
pod_pre_stop = "ensure"

[handlers.gvisor.service_env]
on_unavailable = "skip"

[handlers.runc]
backend = "alpha"

[handlers.runc.hooks]
pod_pre_stop = "ensure"

[[handlers.runc.hooks.post_start]]
name = "register"
exec = { command = ["/bin/append", "/hooks/log", "registered"] }
match = { containers = ["hooked"] }

[[handlers.runc.hooks.pre_stop]]
name = "drain"
exec = { command = ["/bin/append", "/hooks/log", "drained"] }
match = { containers = ["hooked"] }

[[handlers.runc.hooks.post_start]]
name = "refused"
exec = { command = ["/bin/exit", "3"] }
on_failure = "ignore"
match = { containers = ["failing"] }

[[handlers.runc.hooks.pre_stop]]
name = "broken"
exec = { command = ["/bin/exit", "4"] }
match = { containers = ["failing"] }
`

// cluster is what all tests share.
type cluster struct {
	*rig.Rig
	*rig.Cluster

	alpha, beta *rig.Containerd
	proxy       *rig.Proxy
	kubeconfig  string // of the proxy; it comes later
}

// TestCluster is one test with many parts, so that the cluster is started once.
// The parts within one of its groups run side by side; what starts the kubelet or
// the proxy again has the cluster for itself.
func TestCluster(t *testing.T) { //nolint:paralleltest // It has the machine for itself.
	if os.Getenv("E2E") == "" {
		t.Skip("LEFT OUT: a real cluster; it builds Kubernetes and takes many minutes: sudo make e2e")
	}
	ctx := interruptible(t)
	c := newCluster(ctx, t)
	runFirst(ctx, t, c)
	runGroups(ctx, t, c)
}

// runFirst makes what all others need: the RuntimeClasses, and the proxy's way to
// the API server.
func runFirst(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	for _, first := range []test{{"shipped-objects", testShippedObjects}, {"before-the-kubeconfig", testEarlyServices}} {
		if !t.Run(first.name, func(t *testing.T) { first.run(ctx, t, c) }) {
			t.FailNow()
		}
	}
}

// test is one part.
type test struct {
	name string
	run  func(ctx context.Context, t *testing.T, c *cluster)
}

// group are parts that run side by side, under a kubelet with feature gates.
type group struct {
	name  string
	gates []string
	tests []test
}

// mainFlows are what is repeated under other feature gates of the kubelet.
func mainFlows() []test {
	return []test{
		{"deployment", testDeployment},
		{"streams", testStreams},
		{"probes", testProbes},
		{"private-images", testPrivateImages},
		{"init-and-sidecar", testInitAndSidecar},
	}
}

func groups() []group {
	return []group{
		{name: "node", tests: append(mainFlows(), []test{
			{"documents", testDocuments},
			{"job", testJob},
			{"stats", testStats},
			{"no-class", testNoClass},
			{"resize", testResize},
			{"image-volume", testImageVolume},
			{"hooks", testHooks},
			{"hook-events", testHookEvents},
			{"service-env", testServiceEnv},
			{"service-bytes", testServiceBytes},
		}...)},
		{name: "unknown-handler", tests: []test{{"starts-once-configured", testUnknownHandler}}},
		{name: "kubelet-restart", tests: []test{{"every-pull-policy", testKubeletRestart}}},
		{name: "running-node", tests: []test{{"switched-and-back", testSwitch}}},
		{name: "proxy-killed", tests: []test{{"every-20s", testProxyKilled}}},
		{name: "backend-restarted", tests: []test{{"every-30s", testBackendRestarted}}},
		{name: "gate-handler-in-images", gates: []string{"RuntimeClassInImageCriApi"}, tests: append(mainFlows(), test{"is-on", testHandlerInImages})},
		{name: "gate-events-and-streams", gates: []string{"EventedPLEG", "CRIListStreaming"}, tests: append(mainFlows(), test{"are-on", testEventsAndStreams})},
	}
}

func runGroups(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	for _, group := range groups() {
		t.Run(group.name, func(t *testing.T) { runGroup(ctx, t, c, group) })
	}
}

func runGroup(ctx context.Context, t *testing.T, c *cluster, group group) {
	t.Helper()
	if len(group.gates) > 0 {
		restartKubelet(ctx, t, c, group.gates...)
		t.Cleanup(func() { restartKubelet(ctx, t, c) })
	}
	for _, test := range group.tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(ctx, t, c)
		})
	}
}

func restartKubelet(ctx context.Context, t *testing.T, c *cluster, gates ...string) {
	t.Helper()
	if err := c.Cluster.Kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Cluster.Kubelet.Start(ctx, gates...); err != nil {
		t.Fatal(err)
	}
}

// cleaningTime is what a test that runs out of time leaves for the cleaning.
const cleaningTime = time.Minute

// interruptible is a context that ends with Ctrl-C as well as with the test, and
// early enough before the test binary's own end, which nothing survives to
// clean up.
func interruptible(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-cleaningTime))
		t.Cleanup(cancel)
	}
	return ctx
}

func newCluster(ctx context.Context, t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Rig: newRig(ctx, t)}
	c.kubeconfig = filepath.Join(c.Dir, "cri-proxy.kubeconfig")
	var err error
	if err = c.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	if c.alpha, err = c.Containerd(ctx, rig.ContainerdOptions{Name: "alpha"}); err != nil {
		t.Fatal(err)
	}
	if c.beta, err = c.Containerd(ctx, rig.ContainerdOptions{Name: "beta", Handlers: []string{"isolated"}}); err != nil {
		t.Fatal(err)
	}
	c.proxy, err = c.Proxy(ctx, rig.ProxyOptions{
		Name: "proxy", DefaultHandler: runc, Config: fmt.Sprintf(proxyConfig, c.kubeconfig, c.alpha.Endpoint(), c.beta.Endpoint()),
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Cluster, err = c.Rig.Cluster(ctx, c.proxy.Endpoint()); err != nil {
		t.Fatal(err)
	}
	return c
}

// newRig builds what is not built yet, and closes the rig after the test. Where
// the test failed it shows the ends of all logs first, and keeps all of them.
func newRig(ctx context.Context, t *testing.T) *rig.Rig {
	t.Helper()
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := rig.Build(ctx, root, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if err := parts.BuildCluster(ctx, root, os.Stderr); err != nil {
		t.Fatal(err)
	}
	r, err := rig.New(ctx, rig.Options{Root: root, Parts: parts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			r.Logs(t.Output())
			keepLogs(t, r)
		}
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
		found, err := r.Leftovers()
		if err != nil || len(found) > 0 {
			t.Errorf("the rig left behind (%v):\n%s", err, strings.Join(found, "\n"))
		}
	})
	return r
}

// keepLogs copies the rig's logs to the folder in E2E_LOGS, if that is set.
func keepLogs(t *testing.T, r *rig.Rig) {
	t.Helper()
	folder := os.Getenv("E2E_LOGS")
	files, err := filepath.Glob(filepath.Join(r.Dir, "*.log"))
	if err != nil || folder == "" {
		return
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Log(err)
			continue
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(file)), content, 0o600); err != nil {
			t.Log(err)
		}
	}
}
