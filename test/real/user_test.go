package real_test

import (
	"context"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testUser runs an image whose configuration names a user. Runtimes read the
// user from the image, so a container that runs as root here was made from a
// wrong or a missing one.
func testUser(ctx context.Context, t *testing.T, n *node, target target) {
	t.Helper()
	c, image := crictl(t, n, target.endpoint), imageName(t)
	if _, err := n.Push(ctx, image, rig.Image{User: "65532:65533"}); err != nil {
		t.Fatal(err)
	}
	run(ctx, t, c, "pull", image)
	pod, err := n.Pod("user-" + target.name)
	if err != nil {
		t.Fatal(err)
	}
	podID, err := c.RunPod(ctx, target.handler, pod)
	if err != nil {
		t.Fatal(err)
	}
	id, err := c.Start(ctx, podID, pod, rig.Container(pod, "app", image))
	if err != nil {
		t.Fatal(err)
	}
	wantContains(t, run(ctx, t, c, "exec", "--sync", id, "/bin/id"), "uid=65532 gid=65533")
	run(ctx, t, c, "rmp", "--force", podID)
}
