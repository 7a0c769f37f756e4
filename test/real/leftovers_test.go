package real_test

import (
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// TestCloseLeavesNothing closes a rig in its worst state: a pod runs, and its
// containerd was killed. What each rig leaves is checked after each test; here
// it is made hard.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	killed := startContainerd(ctx, t, n, "killed")
	c, image := crictl(t, n, killed.Endpoint()), pushImage(ctx, t, n)
	run(ctx, t, c, "pull", image.name)
	startPod(ctx, t, n, c, second, image)
	if found := leftovers(t, n.Rig); len(found) < 5 {
		t.Errorf("of a running pod only this is found: %q", found)
	}
	if err := killed.Kill(); err != nil {
		t.Fatal(err)
	}
}

// TestEmpty takes a containerd's disk away under a running pod.
func TestEmpty(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := &node{Rig: newRig(ctx, t)}
	emptied := startContainerd(ctx, t, n, "emptied")
	c, image := crictl(t, n, emptied.Endpoint()), pushImage(ctx, t, n)
	run(ctx, t, c, "pull", image.name)
	startPod(ctx, t, n, c, "runc", image)
	for _, do := range []func() error{emptied.Stop, func() error { return emptied.Empty(ctx) }, func() error { return emptied.Start(ctx) }} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	wantLines(t, run(ctx, t, c, "pods", "-q"))
	wantImage(ctx, t, c, image, false)
}

// leftovers is what a rig has on the machine.
func leftovers(t *testing.T, r *rig.Rig) []string {
	t.Helper()
	found, err := r.Leftovers()
	if err != nil {
		t.Fatal(err)
	}
	return found
}
