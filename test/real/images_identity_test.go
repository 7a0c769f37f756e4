package real_test

import (
	"context"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testIdentity: an image is there for a pod when it is in the store of the pod's
// handler, and it is pulled when such a pod needs it and at no other time. It
// holds whether or not the kubelet names the handler in its image calls.
func testIdentity(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	for name, gate := range map[string]bool{"id-off": false, "id-on": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := s.proxy(ctx, t, name, nil)
			k := kubelet(t, s.node, proxy.Endpoint())
			k.Gate = gate
			testOwnStore(ctx, t, s, k, proxy)
		})
	}
}

func testOwnStore(ctx context.Context, t *testing.T, s *stores, k *rig.Kubelet, proxy *rig.Proxy) {
	t.Helper()
	alpha, beta := crictl(t, s.node, s.alpha.Endpoint()), crictl(t, s.node, s.beta.Endpoint())
	image := pushImage(ctx, t, s.node)
	app := rig.KubeletContainer{Image: image.name}
	here, there := sandbox(ctx, t, k, "runc"), sandbox(ctx, t, k, second)
	start(ctx, t, k, here, app, true)
	wantImage(ctx, t, alpha, image, true)
	wantImage(ctx, t, beta, image, false)
	start(ctx, t, k, there, app, true)
	wantImage(ctx, t, beta, image, true)
	start(ctx, t, k, sandbox(ctx, t, k, "runc"), app, false)
	start(ctx, t, k, sandbox(ctx, t, k, second), app, false)

	// Only the first store has it, and the kubelet is a new one.
	run(ctx, t, beta, "rmi", image.name)
	start(ctx, t, k, there.Restarted(), app, true)
	wantImage(ctx, t, beta, image, true)

	// Now the proxy is a new one as well.
	run(ctx, t, beta, "rmi", image.name)
	if err := proxy.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := proxy.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if present(ctx, t, k, there, image.name) {
		t.Error("after a restart of the proxy the other store's image is taken for this one's")
	}
	started := start(ctx, t, k, there.Restarted(), app, true)
	wantMark(t, run(ctx, t, crictl(t, s.node, proxy.Endpoint()), "exec", "--sync", started.ID, "/bin/env"), "beta/"+second)
}
