package real_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testPreload: an image of the configuration is pulled before a pod asks for it,
// and is not garbage.
func testPreload(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	image := pushImage(ctx, t, s.node)
	proxy := s.proxy(ctx, t, "preload", map[string]string{second: fmt.Sprintf("preload = [%q]", image.name)})
	beta := crictl(t, s.node, s.beta.Endpoint())
	waitFor(ctx, t, func() error {
		return contains(run(ctx, t, beta, "images", "-q", "--no-trunc"), image.ID)
	})
	wantImage(ctx, t, crictl(t, s.node, s.alpha.Endpoint()), image, false)
	front := crictl(t, s.node, proxy.Endpoint())
	var listed struct {
		Images []struct {
			ID     string
			Pinned bool
		}
	}
	runJSON(ctx, t, front, &listed, "images")
	pinned := false
	for _, i := range listed.Images {
		pinned = pinned || i.ID == image.ID && i.Pinned
	}
	if !pinned {
		t.Errorf("%s is not shown as pinned: %+v", image.name, listed.Images)
	}
	c := &commanded{s, proxy, kubelet(t, s.node, proxy.Endpoint())}
	for _, store := range c.list(ctx, t).Stores {
		for _, i := range store.Images {
			if i.ID == image.ID && (!i.Pinned || store.Backend != s.beta.Name) {
				t.Errorf("on backend %s the list has %+v, want it pinned on %s only", store.Backend, i, s.beta.Name)
			}
		}
	}
	c.want(ctx, t, image, second)
	output, err := c.run(ctx, "status")
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	wantContains(t, output, image.name)
	start(ctx, t, c.k, sandbox(ctx, t, c.k, second), rig.KubeletContainer{Image: image.name, Policy: rig.Never}, false)
}
