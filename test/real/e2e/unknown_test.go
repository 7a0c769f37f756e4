package e2e_test

import (
	"context"
	"errors"
	"os"
	"testing"

	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testUnknownHandler: a pod whose RuntimeClass names a handler that the node does
// not have says so, and starts once the node has it.
func testUnknownHandler(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: "later"}, Handler: "later"}
	if _, err := c.Client.NodeV1().RuntimeClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.create(ctx, t, s.pod("early", "later", s.image(ctx, t, rig.Image{})))
	s.event(ctx, t, "early", "FailedCreatePodSandBox", `"later"`, runc, gvisor)
	config, err := os.ReadFile(c.proxy.Config)
	if err != nil {
		t.Fatal(err)
	}
	added := append(config, "\n[handlers.later]\nbackend = \"beta\"\nruntime = \"isolated\"\n"...)
	if err := errors.Join(c.proxy.Stop(), os.WriteFile(c.proxy.Config, added, 0o600), c.proxy.Start(ctx)); err != nil {
		t.Fatal(err)
	}
	s.ready(ctx, t, "early")
	s.wantHandler(ctx, t, "early", gvisor) // It is the same one, behind another name.
}
