package e2e_test

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testHookEvents: whoever describes a pod sees which of its hooks failed, and why. A
// finalizer keeps the pod for the second look.
func testHookEvents(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	const name = "unlucky"
	pod := s.pod(name, runc, s.image(ctx, t, rig.Image{}))
	pod.Spec.Containers[0].Name, pod.Finalizers = "failing", []string{"example.test/look"}
	s.create(ctx, t, pod)
	s.ready(ctx, t, name)
	t.Cleanup(func() { s.letGo(context.WithoutCancel(ctx), t, name) })
	s.event(ctx, t, name, "FailedPostStartHook", `PostStart hook "refused" of container "failing" failed: exit code 3`)
	s.mustKubectl(ctx, t, "delete", "pod", name, "--wait=false")
	s.event(ctx, t, name, "FailedPreStopHook", `PreStop hook "broken" of container "failing" failed: exit code 4`)
	wantContains(t, s.mustKubectl(ctx, t, "describe", "pod", name), "FailedPostStartHook", "FailedPreStopHook", "cri-proxy")
}

// letGo takes the finalizers from a pod.
func (s *space) letGo(ctx context.Context, t *testing.T, pod string) {
	t.Helper()
	patch := []byte(`{"metadata": {"finalizers": null}}`)
	if _, err := s.Client.CoreV1().Pods(s.name).Patch(ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}
