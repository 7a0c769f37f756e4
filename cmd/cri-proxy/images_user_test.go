package main

import (
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestImageUser: the call that names nothing but the image is about the pod
// that the calls before it were for.
func TestImageUser(t *testing.T) {
	t.Parallel()
	ask := func(k kubelet, p *kubeletPod) {
		if _, err := k.status(p, "app"); err != nil {
			k.t.Error(err)
		}
	}
	pull := func(k kubelet, p *kubeletPod) {
		if _, err := k.p.images.PullImage(k.t.Context(), &runtimeapi.PullImageRequest{Image: k.spec(p, "app"), SandboxConfig: p.now()}); err != nil {
			k.t.Error(err)
		}
	}
	for name, before := range map[string]func(k kubelet, p *kubeletPod){
		"status":                        ask,
		"pull":                          pull,
		"status and pull":               func(k kubelet, p *kubeletPod) { ask(k, p); pull(k, p); ask(k, p) },
		"kubelet restarted":             func(k kubelet, p *kubeletPod) { ask(k, p.restarted()) },
		"kubelet restarted, then pull":  func(k kubelet, p *kubeletPod) { ask(k, p.restarted()); pull(k, p.restarted()) },
		"annotations edited, then pull": func(k kubelet, p *kubeletPod) { pull(k, p.edited("note", "new")); ask(k, p.edited("note", "new")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for name, gate := range gates() {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					p, alpha, beta := twoBackends(t)
					twoUsers(alpha, beta, "app")
					k := kubelet{t, p, gate}
					a, b := k.run("a", "runc"), k.run("b", "isolated")
					differ := func(when string) {
						t.Helper()
						_, err := k.user("app")
						wantCode(t, when, err, codes.Unavailable, "of-alpha", "of-beta", `"alpha"`, `"beta"`)
					}
					publishUsers(alpha.Publish, "of-alpha")
					publishUsers(beta.Publish, "of-beta")
					differ("before any call")
					before(k, b)
					k.wantUser("app", "of-beta")
					k.mustCreate(b, "c", "app")
					differ("after the create")
					before(k, a)
					k.wantUser("app", "of-alpha")
					before(k, b)
					differ("for two pods at once")
					k.mustCreate(a, "c", "app")
					k.wantUser("app", "of-beta")
					if _, err := p.runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: b.sandbox}); err != nil {
						t.Error(err)
					}
					differ("after the pod's end")
				})
			}
		})
	}
}

func publishUsers(publish func(string, *runtimeapi.Image), user string) {
	publish("app", &runtimeapi.Image{Username: user})
}

// TestImageUserAgreed: stores that have the same user need no telling apart.
func TestImageUserAgreed(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	for _, user := range []string{"", "0", "nobody"} {
		alpha.SetUser("app", nil, user)
		beta.SetUser("app", nil, user)
		k.wantUser("app", user)
	}
	zero, one := int64(0), int64(1)
	alpha.SetUser("app", &one, "")
	beta.SetUser("app", &one, "")
	k.wantUser("app", "")
	beta.SetUser("app", &zero, "")
	_, err := k.user("app")
	wantCode(t, "users 1 and 0", err, codes.Unavailable, "the user 1 on", " 0 on")
	beta.SetUser("app", nil, "")
	_, err = k.user("app")
	wantCode(t, "users 1 and none", err, codes.Unavailable, "the user 1 on", ` "" on`)
	if _, err := p.images.RemoveImage(t.Context(), &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: "app"}}); err != nil {
		t.Fatal(err)
	}
	k.wantUser("app", "absent")
	beta.AddImage("app", nil)
	beta.SetUser("app", nil, "somebody")
	k.wantUser("app", "somebody") // It is in one store only.
}

// TestImageUserProxyRestarted: without the calls before it the stores must
// agree; the kubelet's next try tells them apart again.
func TestImageUserProxyRestarted(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	b := k.run("b", "isolated")
	twoUsers(alpha, beta, "app")
	k.wantPresent(b, "app", true)
	p.restart()
	_, err := k.user("app")
	wantCode(t, "after a restart", err, codes.Unavailable)
	k.wantPresent(b, "app", true)
	k.wantUser("app", "of-beta")
	alpha.SetUser("app", nil, "of-beta")
	p.restart()
	k.wantUser("app", "of-beta")
}

// TestImageUserParallel: pods of one image on two handlers start side by side.
func TestImageUserParallel(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	pods := []*kubeletPod{k.run("a", "runc"), k.run("b", "isolated")}
	var wg sync.WaitGroup
	for _, pod := range pods {
		wg.Go(func() {
			if found, err := k.status(pod, "app"); err != nil || found != nil {
				t.Errorf("before the pull: %v, %v", found, err)
			}
			ref, err := k.pull(pod, "app", nil)
			if err != nil {
				t.Error(err)
			}
			k.wantUser("app", "")
			if err := k.create(pod, "c", "app", ref); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(alpha.Images()) != 1 || len(beta.Images()) != 1 || len(alpha.Calls("PullImage")) != 1 || len(beta.Calls("PullImage")) != 1 {
		t.Errorf("alpha has %d images after %d pulls, beta %d after %d; want one each",
			len(alpha.Images()), len(alpha.Calls("PullImage")), len(beta.Images()), len(beta.Calls("PullImage")))
	}
}

// TestImageUserGuessEnds: a call that could mean several pods, and was for one
// of them, is over when a container of that one is created.
func TestImageUserGuessEnds(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*kubeletPod) *kubeletPod{
		"kubelet restarted":  (*kubeletPod).restarted,
		"annotations edited": func(p *kubeletPod) *kubeletPod { return p.edited("note", "new") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha, beta := twoBackends(t)
			k := kubelet{t: t, p: p}
			alpha.AddImage("app", nil)
			beta.AddImage("app", nil)
			a, b := k.plain("a", "runc"), k.plain("b", "isolated")
			k.mustCreate(a, "c", "app")
			k.mustCreate(b, "c", "app")
			a = change(a)
			k.wantPresent(a, "app", true)
			k.mustCreate(a, "d", "app")
			twoUsers(alpha, beta, "app")
			c := k.plain("c", "runc")
			k.wantPresent(c, "app", true)
			k.wantUser("app", "of-alpha")
		})
	}
}

// TestImageUserGateKeepsStore: with the gate on the handler says the store,
// also when the annotations fit pods of another one better.
func TestImageUserGateKeepsStore(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t, p, true}
	twoUsers(alpha, beta, "app")
	a, b := k.plain("a", "runc"), k.plain("b", "isolated")
	k.mustCreate(b, "c", "app")
	k.wantPresent(a.restarted(), "app", true)
	k.wantUser("app", "of-alpha")
}

// TestImageUserAfterVolume: an image that was mounted is no longer awaited.
func TestImageUserAfterVolume(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	k := kubelet{t: t, p: p}
	twoUsers(alpha, beta, "data")
	alpha.AddImage("app", nil)
	a, b := k.run("a", "runc"), k.run("b", "isolated")
	k.wantPresent(a, "data", true)
	k.wantPresent(a, "app", true)
	request := k.createRequest(a, "c", "app", "app")
	request.Config.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", Image: &runtimeapi.ImageSpec{
		Image: alpha.AddImage("data", nil), UserSpecifiedImage: "data", RuntimeHandler: "runc",
	}}}
	alpha.SetUser("data", nil, "of-alpha")
	if _, err := p.runtime.CreateContainer(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	k.wantPresent(b, "data", true)
	k.wantUser("data", "of-beta")
}
