package real_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// testProxy is what holds for the two containerds behind one proxy.
func testProxy(ctx context.Context, t *testing.T, n *node) {
	t.Helper()
	if err := n.BuildProxy(ctx); err != nil {
		t.Fatal(err)
	}
	proxy := startProxy(ctx, t, n.Rig, "proxy", n.alpha, n.beta)
	testTargets(ctx, t, n, []target{
		{name: "runc", endpoint: proxy.Endpoint(), handler: "runc"},
		{name: second, endpoint: proxy.Endpoint(), handler: second, mark: "beta/" + second},
	})
	for name, test := range map[string]func(context.Context, *testing.T, *node, *rig.Proxy){
		"default-handler": testDefaultHandler,
		"pull-on-create":  testPullOnCreate,
		"merged-lists":    testMergedLists,
		"events":          testEvents,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(ctx, t, n, proxy)
		})
	}
	t.Run("critest", func(t *testing.T) {
		t.Parallel()
		testCritest(ctx, t, n)
	})
	t.Run("killed", func(t *testing.T) {
		t.Parallel()
		testKilled(ctx, t, n)
	})
	t.Run("backend-away", func(t *testing.T) {
		t.Parallel()
		testBackendAway(ctx, t, n)
	})
}

func startProxy(ctx context.Context, t *testing.T, r *rig.Rig, name string, first, other *rig.Containerd) *rig.Proxy {
	t.Helper()
	proxy, err := r.Proxy(ctx, rig.ProxyOptions{
		Name: name, DefaultHandler: "runc", Config: rig.TwoHandlers(first, other, second),
	})
	if err != nil {
		t.Fatal(err)
	}
	return proxy
}

// testDefaultHandler runs a pod that names no handler.
func testDefaultHandler(ctx context.Context, t *testing.T, n *node, proxy *rig.Proxy) {
	t.Helper()
	front, direct := crictl(t, n, proxy.Endpoint()), crictl(t, n, n.alpha.Endpoint())
	pod := newPod(t, n, "default-handler")
	id, err := front.RunPod(ctx, "", pod)
	if err != nil {
		t.Fatal(err)
	}
	if got := inspectPod(ctx, t, direct, id); got.ID != id {
		t.Errorf("the first containerd has %+v, want the pod %s", got, id)
	}
	run(ctx, t, front, "rmp", "--force", id)
}

// testPullOnCreate pulls as crictl does, without a pod and so for the default
// handler only, and then uses the image under the other handler.
func testPullOnCreate(ctx context.Context, t *testing.T, n *node, proxy *rig.Proxy) {
	t.Helper()
	front, alpha, beta := crictl(t, n, proxy.Endpoint()), crictl(t, n, n.alpha.Endpoint()), crictl(t, n, n.beta.Endpoint())
	image := pushImage(ctx, t, n)
	run(ctx, t, front, "pull", image.name)
	wantImage(ctx, t, alpha, image, true)
	wantImage(ctx, t, beta, image, false)
	started := startPod(ctx, t, n, front, second, image)
	wantMark(t, run(ctx, t, front, "exec", "--sync", started.container, "/bin/env"), "beta/"+second)
	wantImage(ctx, t, beta, image, true)
	if listed := run(ctx, t, front, "images", "-q", "--no-trunc"); strings.Count(listed, image.ID) != 1 {
		t.Errorf("an image in both stores is not listed once:\n%s", listed)
	}
	run(ctx, t, front, "rmp", "--force", started.pod)
	run(ctx, t, front, "rmi", image.name)
	wantImage(ctx, t, alpha, image, false)
	wantImage(ctx, t, beta, image, false)
}

func testMergedLists(ctx context.Context, t *testing.T, n *node, proxy *rig.Proxy) {
	t.Helper()
	front := crictl(t, n, proxy.Endpoint())
	image := pushImage(ctx, t, n)
	run(ctx, t, front, "pull", image.name)
	first, other := startPod(ctx, t, n, front, "runc", image), startPod(ctx, t, n, front, second, image)
	name := []string{"-q", "--no-trunc", "--name", first.name}
	pods := slices.Concat([]string{"pods"}, name)
	wantLines(t, run(ctx, t, front, pods...), first.pod, other.pod)
	wantLines(t, run(ctx, t, crictl(t, n, n.alpha.Endpoint()), pods...), first.pod)
	wantLines(t, run(ctx, t, crictl(t, n, n.beta.Endpoint()), pods...), other.pod)
	wantContains(t, run(ctx, t, front, "ps", "-q", "--no-trunc"), first.container, other.container)
	wantContains(t, run(ctx, t, front, "pods", "--name", first.name), " runc", " "+second)
	run(ctx, t, front, "rmp", "--force", first.pod, other.pod)
}

// testKilled kills the proxy as a power failure would, with pods on both
// backends, and asks the next one for every id.
func testKilled(ctx context.Context, t *testing.T, n *node) {
	t.Helper()
	proxy := startProxy(ctx, t, n.Rig, "killed", n.alpha, n.beta)
	front := crictl(t, n, proxy.Endpoint())
	image := pushImage(ctx, t, n)
	first, other := startPod(ctx, t, n, front, "runc", image), startPod(ctx, t, n, front, second, image)
	if err := proxy.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := proxy.Start(ctx); err != nil {
		t.Fatal(err)
	}
	wantRouted(ctx, t, front, first)
	wantRouted(ctx, t, front, other)
	run(ctx, t, front, "rmp", "--force", first.pod, other.pod)
}

// testBackendAway starts the proxy while one backend is away. It has
// containerds of its own, for the other tests need theirs.
func testBackendAway(ctx context.Context, t *testing.T, n *node) {
	t.Helper()
	stays, goes := startContainerd(ctx, t, n, "stays"), startContainerd(ctx, t, n, "goes")
	proxy := startProxy(ctx, t, n.Rig, "away", stays, goes)
	front := crictl(t, n, proxy.Endpoint())
	image := pushImage(ctx, t, n)
	here, away := startPod(ctx, t, n, front, "runc", image), startPod(ctx, t, n, front, second, image)
	for _, do := range []func() error{proxy.Kill, goes.Stop, func() error { return proxy.Start(ctx) }} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	wantRouted(ctx, t, front, here)
	for command, id := range map[string]string{"inspectp": away.pod, "inspect": away.container, "stop": away.container, "rmp": away.pod} {
		_, err := front.Run(ctx, command, id)
		wantCode(t, err, "Unavailable")
	}
	if err := goes.Start(ctx); err != nil {
		t.Fatal(err)
	}
	// By a short id: whose that is can be told only when the containerd was listed again.
	waitFor(ctx, t, func() error { _, err := front.Run(ctx, "inspectp", short(away.pod)); return err })
	wantRouted(ctx, t, front, here)
	wantRouted(ctx, t, front, away)
}
