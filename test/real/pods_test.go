package real_test

import (
	"context"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// image is a test's own image in the registry.
type image struct {
	rig.Pushed

	name string
}

// started is a pod with one running container, by their ids.
type started struct {
	name, pod, container string
}

func pushImage(ctx context.Context, t *testing.T, n *node) image {
	t.Helper()
	name := imageName(t)
	pushed, err := n.Push(ctx, name, rig.Image{})
	if err != nil {
		t.Fatal(err)
	}
	return image{Pushed: pushed, name: name}
}

func newPod(t *testing.T, n *node, name string) *runtimeapi.PodSandboxConfig {
	t.Helper()
	pod, err := n.Pod(name)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// startPod starts a pod that has the test's name and serves HTTP.
func startPod(ctx context.Context, t *testing.T, n *node, c rig.Crictl, handler string, image image) started {
	t.Helper()
	pod := newPod(t, n, t.Name()[strings.LastIndex(t.Name(), "/")+1:])
	podID, err := c.RunPod(ctx, handler, pod)
	if err != nil {
		t.Fatal(err)
	}
	container, err := c.Start(ctx, podID, pod, rig.Container(pod, "app", image.name))
	if err != nil {
		t.Fatal(err)
	}
	return started{name: pod.GetMetadata().GetName(), pod: podID, container: container}
}

func startContainerd(ctx context.Context, t *testing.T, n *node, name string) *rig.Containerd {
	t.Helper()
	c, err := n.Containerd(ctx, rig.ContainerdOptions{Name: name, Handlers: []string{second}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantImage asks a runtime's own store.
func wantImage(ctx context.Context, t *testing.T, c rig.Crictl, image image, wanted bool) {
	t.Helper()
	listed := run(ctx, t, c, "images", "-q", "--no-trunc")
	if got := strings.Contains(listed, image.ID); got != wanted {
		t.Errorf("%s is in the store of %s: %t, want %t", image.name, c.Endpoint, got, wanted)
	}
}

// wantRouted uses a pod's ids, whole and short, for calls that only its own
// runtime can answer.
func wantRouted(ctx context.Context, t *testing.T, c rig.Crictl, pod started) {
	t.Helper()
	for _, id := range []string{pod.pod, short(pod.pod)} {
		if got := inspectPod(ctx, t, c, id); got.ID != pod.pod || got.State != "SANDBOX_READY" {
			t.Errorf("inspectp %s: got %+v", id, got)
		}
	}
	for _, id := range []string{pod.container, short(pod.container)} {
		wantLines(t, run(ctx, t, c, "exec", "--sync", id, "/bin/echo", "routed"), "routed")
	}
}
