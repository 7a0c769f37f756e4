package real_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// The caller's span, which is nobody's but in the metadata of its calls.
const callerSpan = "b7ad6b7169203331"

// TestTracing: the spans of a real containerd stand in its caller's trace: below
// the proxy's own where it makes some, else right below the caller's.
func TestTracing(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	if err := n.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	collector, err := rig.NewCollector(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := collector.Close(); err != nil {
			t.Error(err)
		}
	})
	if n.alpha, err = n.Containerd(ctx, rig.ContainerdOptions{Name: "alpha", Collector: collector.Address}); err != nil {
		t.Fatal(err)
	}
	const route, server = "route ", "runtime.v1."
	for name, test := range map[string]struct {
		trace, endpoint string
		chains          [][]string // From the caller's span downwards.
	}{
		"own": {"0af7651916cd43dd8448eb211c80319c", collector.Address, [][]string{
			{route + "RunPodSandbox", server + "RuntimeService/RunPodSandbox"},
			{route + "PullImage", "pull", server + "ImageService/PullImage"},
			{route + "StopContainer", "hook PreStop", server + "RuntimeService/ExecSync"},
			{route + "StopContainer", server + "RuntimeService/StopContainer"},
		}},
		"none": {"1bf7651916cd43dd8448eb211c80319c", "", [][]string{
			{server + "RuntimeService/RunPodSandbox"},
			{server + "ImageService/PullImage"},
			{server + "RuntimeService/ExecSync"},
			{server + "RuntimeService/StopContainer"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			traced(ctx, t, n, name, test.endpoint, "00-"+test.trace+"-"+callerSpan+"-01")
			for _, chain := range test.chains {
				wantChain(ctx, t, collector, test.trace, chain)
			}
		})
	}
}

// traced makes calls with a caller's trace context through a proxy of its own.
func traced(ctx context.Context, t *testing.T, n *node, name, endpoint, parent string) {
	t.Helper()
	proxy, err := n.Proxy(ctx, rig.ProxyOptions{Name: name, DefaultHandler: "runc", Config: fmt.Sprintf(`[tracing]
endpoint = %q
[backends.alpha]
endpoint = %q
[handlers.runc]
backend = "alpha"
images.max_parallel_pulls = 2
[[handlers.runc.hooks.pre_stop]]
name = "drain"
exec.command = ["/bin/true"]
`, endpoint, n.alpha.Endpoint())})
	if err != nil {
		t.Fatal(err)
	}
	k, image := kubelet(t, n, proxy.Endpoint()), pushImage(ctx, t, n)
	pod := newPod(t, n, "traced-"+name)
	caller := metadata.AppendToOutgoingContext(ctx, "traceparent", parent)
	made, err := k.Runtime.RunPodSandbox(caller, &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Images.PullImage(caller, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: image.name}, SandboxConfig: pod}); err != nil {
		t.Fatal(err)
	}
	container, err := k.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId: made.GetPodSandboxId(), SandboxConfig: pod, Config: rig.Container(pod, "app", image.name),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: container.GetContainerId()}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Runtime.StopContainer(caller, &runtimeapi.StopContainerRequest{ContainerId: container.GetContainerId(), Timeout: 5}); err != nil {
		t.Fatal(err)
	}
}

// wantChain waits for spans each of which is the parent of the next.
func wantChain(ctx context.Context, t *testing.T, c *rig.Collector, trace string, chain []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err := rig.Poll(ctx, func() error {
		parent := callerSpan
		for _, name := range chain {
			var span *tracepb.Span
			if span = c.Find(trace, name, parent); span == nil {
				return fmt.Errorf("no %q below %s", name, parent)
			}
			parent = hex.EncodeToString(span.GetSpanId())
		}
		return nil
	})
	if err != nil {
		t.Errorf("want %q: %v; there are\n%s", chain, err, strings.Join(c.Names(trace), "\n"))
	}
}
