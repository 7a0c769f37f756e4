package real_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// stores are a node with two image stores, two tenants with a registry each,
// and a registry with faults.
type stores struct {
	*node

	red, blue *rig.Private
	faulty    *rig.Front // "faulty.test"
}

// TestImages is what a handler's images need: their own store, credentials,
// limits and policies. It has a node of its own, for its registries have
// passwords that must be seen nowhere.
func TestImages(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	s := newStores(ctx, t)
	for name, test := range map[string]func(context.Context, *testing.T, *stores){
		"identity":     testIdentity,
		"snapshotters": testSnapshotters,
		"tenants":      testTenants,
		"always":       testAlways,
		"policies":     testPolicies,
		"plugin":       testPlugin,
		"limits":       testLimits,
		"collection":   testCollection,
		"faults":       testRegistryFaults,
		"references":   testReferences,
		"full-disk":    testFullDisk,
		"commands":     testImageCommands,
		"preload":      testPreload,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(ctx, t, s)
		})
	}
}

func newStores(ctx context.Context, t *testing.T) *stores {
	t.Helper()
	s := &stores{node: newNode(ctx, t)}
	if err := s.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	var err error
	for name, tenant := range map[string]**rig.Private{"red": &s.red, "blue": &s.blue} {
		if *tenant, err = s.Private(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if s.faulty, err = s.Front(ctx); err != nil {
		t.Fatal(err)
	}
	s.reach(t, s.alpha, s.beta)
	return s
}

// reach lets containerds find the registries by their hosts.
func (s *stores) reach(t *testing.T, containerds ...*rig.Containerd) {
	t.Helper()
	for _, c := range containerds {
		for host, address := range map[string]string{
			s.red.Host: s.red.Address, s.blue.Host: s.blue.Address, "faulty.test": s.faulty.Address, "gone.test": "127.0.0.1:1",
		} {
			if err := c.Reach(host, address); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// proxy starts a proxy before both stores, with keys for the images of its
// handlers.
func (s *stores) proxy(ctx context.Context, t *testing.T, name string, images map[string]string) *rig.Proxy {
	t.Helper()
	var config strings.Builder
	config.WriteString(rig.TwoHandlers(s.alpha, s.beta, second))
	for handler, keys := range images {
		fmt.Fprintf(&config, "\n[handlers.%s.images]\n%s\n", handler, keys)
	}
	proxy, err := s.Proxy(ctx, rig.ProxyOptions{Name: name, DefaultHandler: "runc", Config: config.String()})
	if err != nil {
		t.Fatal(err)
	}
	return proxy
}

func kubelet(t *testing.T, n *node, endpoint string) *rig.Kubelet {
	t.Helper()
	k, err := n.Kubelet(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// sandbox runs a pod that is removed when the test ends.
func sandbox(ctx context.Context, t *testing.T, k *rig.Kubelet, handler string) *rig.KubeletPod {
	t.Helper()
	pod, err := k.RunPod(ctx, t.Name()[strings.LastIndex(t.Name(), "/")+1:], handler)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Remove(context.WithoutCancel(ctx), pod); err != nil {
			t.Error(err)
		}
	})
	return pod
}

// start starts a container and asks whether its image had to be pulled.
func start(ctx context.Context, t *testing.T, k *rig.Kubelet, pod *rig.KubeletPod, c rig.KubeletContainer, pulled bool) rig.KubeletStarted {
	t.Helper()
	// The image's own command takes a port, and a pod may have several containers.
	c.Command = []string{"/bin/top"}
	started, err := k.Start(ctx, pod, c)
	if err != nil {
		t.Fatalf("handler %s, image %s: %v", pod.Handler, c.Image, err)
	}
	if started.Pulled != pulled {
		t.Errorf("handler %s, image %s: pulled %t, want %t", pod.Handler, c.Image, started.Pulled, pulled)
	}
	return started
}

// present asks about an image as the kubelet does for a pod.
func present(ctx context.Context, t *testing.T, k *rig.Kubelet, pod *rig.KubeletPod, image string) bool {
	t.Helper()
	spec := &runtimeapi.ImageSpec{Image: image, Annotations: pod.Config.GetAnnotations()}
	if k.Gate {
		spec.RuntimeHandler = pod.Handler
	}
	answer, err := k.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetImage() != nil
}

// push puts an image of a name into a registry and returns it.
func push(ctx context.Context, t *testing.T, to interface {
	Push(context.Context, string, rig.Image) (rig.Pushed, error)
}, name string, made rig.Image,
) image {
	t.Helper()
	pushed, err := to.Push(ctx, name, made)
	if err != nil {
		t.Fatal(err)
	}
	return image{Pushed: pushed, name: name}
}

// wantRefused asks for an error, and that it is no sign of a broken connection.
func wantRefused(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("it succeeded, want an error with %q", words)
		return
	}
	if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded || code == codes.Canceled {
		t.Errorf("got %v, want a refusal", err)
	}
	wantContains(t, err.Error(), words...)
}

// users are those who asked a front for a repository, each once, in order.
func users(front *rig.Front, repository string) []string {
	var found []string
	for _, request := range front.Requests(repository) {
		if request.User != "" && !slices.Contains(found, request.User) {
			found = append(found, request.User)
		}
	}
	return found
}

func wantUsers(t *testing.T, front *rig.Front, repository string, wanted ...string) {
	t.Helper()
	if got := users(front, repository); !slices.Equal(got, wanted) {
		t.Errorf("%s was asked for by %q, want %q", repository, got, wanted)
	}
}
