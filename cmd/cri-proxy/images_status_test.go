package main

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestImageStatusOfPods: each pod sees its own store, and only that is asked.
// With imagePullPolicy Never this is all that the kubelet asks.
func TestImageStatusOfPods(t *testing.T) {
	t.Parallel()
	for name, gate := range gates() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range []struct {
				name            string
				inAlpha, inBeta bool
			}{{"nowhere", false, false}, {"in alpha", true, false}, {"in beta", false, true}, {"in both", true, true}} {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					p, alpha, beta := twoBackends(t)
					k := kubelet{t, p, gate}
					if c.inAlpha {
						alpha.AddImage("app", nil)
					}
					if c.inBeta {
						beta.AddImage("app", nil)
					}
					a, b := k.run("a", "runc"), k.run("b", "isolated")
					k.wantPresent(a, "app", c.inAlpha)
					k.wantPresent(b, "app", c.inBeta)
					once := map[*fakeruntime.Runtime]int{alpha: 1, beta: 1}
					wantCalls(t, "ImageStatus", once)
					wantCalls(t, "PullImage", map[*fakeruntime.Runtime]int{alpha: 0, beta: 0})
					// Both are pending: where both stores have it they agree.
					want := "absent"
					if c.inAlpha || c.inBeta {
						want = ""
					}
					k.wantUser("app", want)
				})
			}
		})
	}
}

// TestImageStatusUnchanged: what need not be changed arrives byte for byte.
func TestImageStatusUnchanged(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	k := kubelet{t, p, true}
	b := k.run("b", "isolated")
	sent := withUnknown(t, &runtimeapi.ImageStatusRequest{Image: k.spec(b, "app")})
	if err := p.invoke(t.Context(), runtimeapi.ImageService_ImageStatus_FullMethodName, sent); err != nil {
		t.Fatal(err)
	}
	if call, _ := lastCall[*runtimeapi.ImageStatusRequest](t, beta, "ImageStatus"); string(call.Raw) != string(sent) {
		t.Errorf("arrived %x, want %x", call.Raw, sent)
	}
}

// TestImageStatusKubeletRestarted: pods are told apart but for the time stamp;
// where several are alike, by the image that they had.
func TestImageStatusKubeletRestarted(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	alpha.AddImage("app", nil)
	beta.AddImage("other", nil)
	a, b := k.run("a", "runc"), k.run("b", "isolated")
	k.wantPresent(a.restarted(), "app", true)
	k.wantPresent(b.restarted(), "app", false)

	c, d := k.plain("c", "runc"), k.plain("d", "isolated")
	k.wantPresent(c.restarted(), "app", false) // Alike: not in both stores.
	k.mustCreate(c, "c", "app")
	k.mustCreate(d, "d", "other")
	k.wantPresent(c.restarted(), "app", true)
	k.wantPresent(d.restarted(), "other", true)
	k.wantPresent(d.restarted(), "third", false)
}

// TestImageStatusEdited: annotations that no pod has mean any pod, until a
// call tells whose they are.
func TestImageStatusEdited(t *testing.T) {
	t.Parallel()
	for name, learn := range map[string]func(k kubelet, p *kubeletPod){
		"from a pull": func(k kubelet, p *kubeletPod) {
			if _, err := k.pull(p, "other", nil); err != nil {
				k.t.Error(err)
			}
		},
		"from a create": func(k kubelet, p *kubeletPod) { k.mustCreate(p, "c", "app") },
		"from a create that fails": func(k kubelet, p *kubeletPod) {
			if err := k.create(p, "c", "", "sha256:0000"); err == nil {
				k.t.Error("created from an unknown id")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha, beta := twoBackends(t)
			k := kubelet{t: t, p: p}
			alpha.AddImage("app", nil)
			a := k.run("a", "runc").edited("example.org/note", "new")
			k.run("b", "isolated")
			k.wantPresent(a, "app", false)
			wantCalls(t, "ImageStatus", map[*fakeruntime.Runtime]int{alpha: 1, beta: 1})
			learn(k, a)
			beta.ClearJournal()
			k.wantPresent(a, "app", true)
			wantCalls(t, "ImageStatus", map[*fakeruntime.Runtime]int{beta: 0})
		})
	}
}

// TestImageStatusAway: a store that cannot be asked is never "absent".
func TestImageStatusAway(t *testing.T) {
	t.Parallel()
	for name, gate := range gates() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha, beta := twoBackends(t)
			k := kubelet{t, p, gate}
			a, b := k.run("a", "runc"), k.run("b", "isolated")
			beta.Stop()
			p.waitAway("beta")
			k.wantPresent(a, "app", false)
			k.wantUser("app", "absent") // Pending for a alone.
			_, err := k.status(b, "app")
			wantCode(t, "status", err, codes.Unavailable, `"beta"`)
			_, err = k.user("app")
			wantCode(t, "the user, pending for both", err, codes.Unavailable, `"beta"`)
			_, err = k.user("other")
			wantCode(t, "the user, pending for nobody", err, codes.Unavailable, `"beta"`)
			alpha.AddImage("other", nil)
			k.wantUser("other", "")
		})
	}
	t.Run("edited", func(t *testing.T) {
		t.Parallel()
		p, alpha, beta := twoBackends(t)
		k := kubelet{t: t, p: p}
		a := k.run("a", "runc").edited("example.org/note", "new")
		k.run("b", "isolated")
		alpha.AddImage("app", nil)
		beta.Stop()
		p.waitAway("beta")
		for _, image := range []string{"app", "other"} {
			_, err := k.status(a, image)
			wantCode(t, image, err, codes.Unavailable, `"beta"`)
		}
	})
	t.Run("its pods unknown", func(t *testing.T) {
		t.Parallel()
		p, alpha, beta := twoBackends(t)
		k := kubelet{t: t, p: p}
		a, b := k.run("a", "runc"), k.run("b", "isolated")
		alpha.AddImage("app", nil)
		beta.AddImage("app", nil)
		beta.Stop()
		p.restart()
		k.p = p
		k.wantPresent(a, "app", true)
		for _, image := range []string{"app", "other"} {
			_, err := k.status(b, image)
			wantCode(t, image, err, codes.Unavailable, `"beta"`)
		}
		beta.Restart()
		p.waitUp("beta")
		k.wantPresent(b, "app", true)
	})
}

// TestImageStatusHanging: a store that does not answer is not "absent", and
// its backend still takes new pods.
func TestImageStatusHanging(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	a, b := k.run("a", "runc"), k.run("b", "isolated")
	alpha.AddImage("app", nil)
	beta.Inject("ImageStatus", fakeruntime.Fault{Hang: true})
	since := p.daemon.backends().Get("beta").State().Since
	_, err := k.status(a.edited("example.org/note", "new"), "app")
	wantCode(t, "a pod that is not told", err, codes.Unavailable, `"beta"`)
	if s := p.daemon.backends().Get("beta").State(); !s.Up || !s.Since.Equal(since) {
		t.Errorf("a backend that is slow with its images was taken for away: %+v", s)
	}
	k.wantPresent(a, "app", true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = p.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: k.spec(b, "app")})
	wantCode(t, "the hanging store's pod", err, codes.DeadlineExceeded)
}

// TestImageStatusHandlers: handlers that do not map one to one on stores.
func TestImageStatusHandlers(t *testing.T) {
	t.Parallel()
	t.Run("two on one backend", func(t *testing.T) {
		t.Parallel()
		testTwoHandlersOfOne(t)
	})
	t.Run("renamed and unknown", func(t *testing.T) {
		t.Parallel()
		testRenamedHandler(t)
	})
	t.Run("one store for two backends", func(t *testing.T) {
		t.Parallel()
		testOneStoreForTwo(t)
	})
}

func testTwoHandlersOfOne(t *testing.T) {
	t.Helper()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc", "runsc"}})
	p := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.runc]
backend = "alpha"
[handlers.gvisor]
backend = "alpha"
runtime = "runsc"
`)
	k := kubelet{t, p, true}
	alpha.AddImage("app", nil)
	k.wantPresent(k.run("a", "runc"), "app", true)
	k.wantPresent(k.run("b", "gvisor"), "app", true)
	if _, r := lastCall[*runtimeapi.ImageStatusRequest](t, alpha, "ImageStatus"); r.GetImage().GetRuntimeHandler() != "runsc" {
		t.Errorf("arrived for the handler %q, want runsc", r.GetImage().GetRuntimeHandler())
	}
	_, err := p.images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "nope"}})
	wantCode(t, "an unknown handler", err, codes.InvalidArgument, `handler "nope" is not configured; known: gvisor, runc`)
	k.wantUser("app", "")
}

func testRenamedHandler(t *testing.T) {
	t.Helper()
	p, _, beta := twoBackends(t, `[handlers.vm]
backend = "beta"
runtime = "isolated"`)
	k := kubelet{t, p, true}
	beta.AddImage("app", nil)
	k.wantPresent(k.run("v", "vm"), "app", true)
	if _, r := lastCall[*runtimeapi.ImageStatusRequest](t, beta, "ImageStatus"); r.GetImage().GetRuntimeHandler() != "isolated" {
		t.Errorf("arrived for the handler %q, want isolated", r.GetImage().GetRuntimeHandler())
	}
	_, err := p.images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "nope"}})
	wantCode(t, "an unknown handler", err, codes.InvalidArgument, `handler "nope" is not configured; known: isolated, runc, vm`)
}

func testOneStoreForTwo(t *testing.T) {
	t.Helper()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
	beta := fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"isolated"}})
	p := startProxy(t, twoBackendsConfig(alpha, beta, `image_endpoint = "`+alpha.Endpoint()+`"`))
	k := kubelet{t: t, p: p}
	a, b := k.run("a", "runc"), k.run("b", "isolated")
	k.wantPresent(b, "app", false)
	if _, err := k.pull(b, "app", nil); err != nil {
		t.Fatal(err)
	}
	k.wantPresent(a, "app", true)
	k.wantUser("app", "")
	if _, err := p.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "app"}}); err != nil {
		t.Error(err)
	}
	wantCalls(t, "RemoveImage", map[*fakeruntime.Runtime]int{alpha: 1})
	for _, method := range []string{"ImageStatus", "PullImage", "RemoveImage"} {
		wantCalls(t, method, map[*fakeruntime.Runtime]int{beta: 0})
	}
	if _, r := lastCall[*runtimeapi.PullImageRequest](t, alpha, "PullImage"); r.GetImage().GetRuntimeHandler() != "isolated" {
		t.Errorf("pulled for the handler %q, want isolated", r.GetImage().GetRuntimeHandler())
	}
}

// twoBackendsConfig is the configuration of twoBackends, with more keys of beta.
func twoBackendsConfig(alpha, beta *fakeruntime.Runtime, betaKeys string) string {
	return `
default_handler = "runc"
[backends.alpha]
endpoint = "` + alpha.Endpoint() + `"
list_timeout = "1s"
[backends.beta]
endpoint = "` + beta.Endpoint() + `"
list_timeout = "1s"
` + betaKeys + `
[handlers.runc]
backend = "alpha"
[handlers.isolated]
backend = "beta"
`
}

// TestImageEndpointOnItsOwn: a store with a socket of its own is away, or
// not, on its own account.
func TestImageEndpointOnItsOwn(t *testing.T) {
	t.Parallel()
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
	beta := fakeruntime.Start(t, fakeruntime.Options{Name: "beta", Runtimes: []string{"isolated"}})
	store := fakeruntime.Start(t, fakeruntime.Options{Name: "store"})
	p := startProxy(t, twoBackendsConfig(alpha, beta, `image_endpoint = "`+store.Endpoint()+`"`))
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	alpha.AddImage("app", nil)
	store.AddImage("app", nil)
	since := p.daemon.backends().Get("beta").State().Since

	beta.Stop()
	p.waitAway("beta")
	if list, err := p.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{}); err != nil || len(list.GetImages()) != 1 {
		t.Errorf("with the runtime away the store answered %v, %v", list, err)
	}
	k.wantPresent(b, "app", true)
	beta.Restart()
	eventually(t, "beta is up again", func() bool {
		s := p.daemon.backends().Get("beta").State()
		return s.Up && s.Since.After(since)
	})
	since = p.daemon.backends().Get("beta").State().Since

	store.Stop()
	_, err := k.user("other")
	wantCode(t, "with the store away", err, codes.Unavailable, `"beta"`, store.Endpoint())
	if s := p.daemon.backends().Get("beta").State(); !s.Up || !s.Since.Equal(since) {
		t.Errorf("the runtime was taken for away with its image store: %+v", s)
	}
}
