package e2e_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testShippedObjects applies configs/kubernetes as an administrator would.
func testShippedObjects(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	for _, name := range []string{"runtimeclasses.yaml", "rbac.yaml"} {
		s.mustKubectl(ctx, t, "apply", "--filename", shipped(c, name), "--namespace", "")
	}
	t.Run("node", func(t *testing.T) { testNode(ctx, t, c) })
	t.Run("rbac", func(t *testing.T) { testRBAC(ctx, t, s) })
	t.Run("scheduling-and-overhead", func(t *testing.T) { testScheduling(ctx, t, s) })
}

func shipped(c *cluster, name string) string {
	return filepath.Join(c.Root, "configs", "kubernetes", name)
}

// testNode: the node says which handlers it has, and which proxy it runs on.
func testNode(ctx context.Context, t *testing.T, c *cluster) {
	node, err := c.Client.CoreV1().Nodes().Get(ctx, rig.NodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, handler := range node.Status.RuntimeHandlers {
		names = append(names, handler.Name)
	}
	if want := []string{"", gvisor, runc}; !slices.Equal(names, want) {
		t.Errorf("the node has the handlers %q, want %q", names, want)
	}
	if version := node.Status.NodeInfo.ContainerRuntimeVersion; !strings.HasPrefix(version, "containerd://") {
		t.Errorf("the node's runtime is %q, want containerd's: the ids of containers begin with it", version)
	}
}

// testRBAC: the ServiceAccount may do what cri-proxy does, and no more.
func testRBAC(ctx context.Context, t *testing.T, s *space) {
	for _, test := range []struct {
		do  []string
		may string
	}{
		{[]string{"list", "services", "--all-namespaces"}, "yes"},
		{[]string{"watch", "services", "--all-namespaces"}, "yes"},
		{[]string{"create", "events", "--all-namespaces"}, "yes"},
		{[]string{"patch", "events", "--all-namespaces"}, "yes"},
		{[]string{"create", "events.events.k8s.io", "--all-namespaces"}, "yes"},
		{[]string{"update", "services", "--all-namespaces"}, "no"},
		{[]string{"list", "secrets", "--all-namespaces"}, "no"},
		{[]string{"list", "pods", "--all-namespaces"}, "no"},
	} {
		arguments := append([]string{"auth", "can-i", "--as", "system:serviceaccount:kube-system:cri-proxy"}, test.do...)
		// It fails where the answer is no.
		got, err := s.kubectl(ctx, arguments...)
		if strings.TrimSpace(got) != test.may {
			t.Errorf("may cri-proxy %q: %q (%v), want %q", test.do, got, err, test.may)
		}
	}
}

// testScheduling: a pod of the second handler waits for a node with the label,
// and is counted with its overhead.
func testScheduling(ctx context.Context, t *testing.T, s *space) {
	if _, err := s.Push(ctx, "registry.k8s.io/pause:3.10.2", rig.Image{}); err != nil {
		t.Fatal(err)
	}
	s.mustKubectl(ctx, t, "apply", "--filename", shipped(s.cluster, "deployments.yaml"))
	s.mustKubectl(ctx, t, "rollout", "status", "deployment/example-runc", "--timeout", patience.String())
	pods, err := s.Client.CoreV1().Pods(s.name).List(ctx, metav1.ListOptions{LabelSelector: "app=example-gvisor"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods of the second handler (%v), want 1", len(pods.Items), err)
	}
	pod := pods.Items[0]
	s.event(ctx, t, pod.Name, "FailedScheduling", "didn't match Pod's node affinity/selector")
	s.mustKubectl(ctx, t, "label", "node", rig.NodeName, "cri-proxy.io/gvisor=true")
	s.mustKubectl(ctx, t, "rollout", "status", "deployment/example-gvisor", "--timeout", patience.String())
	if got := pod.Spec.Overhead.Memory().String(); got != "50Mi" {
		t.Errorf("the pod's overhead is %s of memory, want 50Mi", got)
	}
	// The container asks for 16Mi, and has no limit.
	if got := s.podRequest(ctx, t, pod.Name); got != "66Mi" {
		t.Errorf("the node counts %s of memory for the pod, want 66Mi", got)
	}
}

// podRequest is the memory that the node counts for a pod, as kubectl shows it.
func (s *space) podRequest(ctx context.Context, t *testing.T, pod string) string {
	t.Helper()
	for line := range strings.Lines(s.mustKubectl(ctx, t, "describe", "node", rig.NodeName)) {
		if fields := strings.Fields(line); len(fields) > 6 && fields[0] == s.name && fields[1] == pod {
			return fields[6] // NAMESPACE NAME CPU (%) CPU-LIMIT (%) MEMORY (%) …
		}
	}
	return ""
}
