package e2e_test

import (
	"context"
	"errors"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testSwitch brings a node that runs on one containerd under the proxy and back.
// The default handler's pods do not notice. Those of other handlers have to go
// before the way back, for the containerd alone does not know them.
func testSwitch(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	t.Cleanup(func() { s.point(context.WithoutCancel(ctx), t, c.proxy.Endpoint()) })
	s.point(ctx, t, c.alpha.Endpoint())
	s.create(ctx, t, s.pod("stays", runc, image))
	before := s.ready(ctx, t, "stays")

	s.point(ctx, t, c.proxy.Endpoint())
	s.create(ctx, t, s.pod("passes", gvisor, image))
	s.ready(ctx, t, "passes")
	s.wantHandler(ctx, t, "passes", gvisor)
	s.wantHandler(ctx, t, "stays", runc)
	s.mustKubectl(ctx, t, "delete", "pod", "passes")

	s.point(ctx, t, c.alpha.Endpoint())
	// A kubelet that is ready may not have heard of its pods yet.
	s.wait(ctx, t, func() error {
		pods, err := c.Cluster.Kubelet.Get(ctx, "/pods")
		return errors.Join(err, contains(string(pods), string(before.UID)))
	})
	s.wantHandler(ctx, t, "stays", runc)
	if after := s.ready(ctx, t, "stays"); containerID(after) != containerID(before) || restarts(after) != 0 {
		t.Errorf("the pod has container %s after %d restarts, it had %s", containerID(after), restarts(after), containerID(before))
	}
}

// point starts the kubelet again on another runtime.
func (s *space) point(ctx context.Context, t *testing.T, endpoint string) {
	t.Helper()
	kubelet := s.Cluster.Kubelet
	err := kubelet.Stop()
	kubelet.Endpoint = endpoint
	if err := errors.Join(err, kubelet.Start(ctx)); err != nil {
		t.Fatal(err)
	}
}
