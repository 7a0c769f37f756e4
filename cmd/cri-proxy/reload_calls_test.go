package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestReloadDisturbsNoCall: a call that is in flight ends as it would have, also
// when its backend is taken out of the configuration meanwhile.
func TestReloadDisturbsNoCall(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	added, gamma := third(t)
	if err := p.reloadText(p.config + added); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	gamma.Inject("ListImages", fakeruntime.Fault{Until: hold, Times: 1})
	listed := async(func() error {
		_, err := p.images.ListImages(t.Context(), &runtimeapi.ListImagesRequest{Filter: &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{RuntimeHandler: "third"}}})
		return err
	})
	if _, err := gamma.WaitCalls(t.Context(), "ListImages", 1); err != nil {
		t.Fatal(err)
	}
	gone := p.daemon.backends().Get("gamma")
	for range 2 {
		if err := p.reload(); err != nil {
			t.Fatal(err)
		}
	}
	pending(t, "the call", listed)
	close(hold)
	if err := <-listed; err != nil {
		t.Errorf("a call that was in flight: %v", err)
	}
	eventually(t, "the connection is closed", func() bool {
		_, err := gone.Runtime().Version(t.Context(), &runtimeapi.VersionRequest{})
		return status.Code(err) == codes.Canceled
	})
}

// TestReloadWaitsForCreates: a backend that makes a pod sandbox is not removed.
func TestReloadWaitsForCreates(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	added, gamma := third(t)
	if err := p.reloadText(p.config + added); err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	gamma.Inject("RunPodSandbox", fakeruntime.Fault{Until: hold, Times: 1})
	made := async(func() error {
		_, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("slow"), RuntimeHandler: "third"})
		return err
	})
	if _, err := gamma.WaitCalls(t.Context(), "RunPodSandbox", 1); err != nil {
		t.Fatal(err)
	}
	// Also one that has had other settings since.
	for _, keys := range []string{`list_timeout = "2s"`, `when_down = "fail"`, `last_known_ttl = "1m"`} {
		if err := p.reloadText(p.config + strings.Replace(added, `list_timeout = "1s"`, keys, 1)); err != nil {
			t.Fatal(err)
		}
		if err := p.reload(); err == nil || !strings.Contains(err.Error(), "backends.gamma: was removed, but pod sandboxes are being made on it (1); reload again later") {
			t.Errorf("reloaded after %s: %v", keys, err)
		}
	}
	close(hold)
	if err := <-made; err != nil {
		t.Error(err)
	}
	// One whose answer was lost is found too.
	gamma.Reset()
	p.daemon.index.Forget("gamma")
	gamma.AddSandbox(fakeruntime.Sandbox{Config: sandboxConfig("lost"), Handler: "third"})
	if err := p.reload(); err == nil || !strings.Contains(err.Error(), "backends.gamma: was removed, but it has 1 pod sandbox of third (default/lost)") {
		t.Errorf("reloaded: %v", err)
	}
}

// TestReloadEvents: a stream of events goes on over reloads, with the backends
// that there are.
func TestReloadEvents(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	added, gamma := third(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events, err := p.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(r *fakeruntime.Runtime, handler string) {
		t.Helper()
		if err := r.WaitSubscribers(ctx, 1); err != nil {
			t.Fatal(err)
		}
		id := p.run("pod", handler) //nolint:contextcheck // It has the test's.
		for got := ""; got != id; {
			event, err := events.Recv()
			if err != nil {
				t.Fatal(err)
			}
			got = event.GetContainerId()
		}
		if _, err := p.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Fatal(err)
		}
	}
	expect(beta, "isolated")
	for range 3 {
		if err := p.reloadText(p.config + added); err != nil {
			t.Fatal(err)
		}
		expect(gamma, "third")
		expect(beta, "isolated")
		if err := p.reload(); err != nil {
			t.Fatal(err)
		}
		if err := gamma.WaitSubscribers(ctx, 0); err != nil {
			t.Errorf("the events of a backend that is gone are still subscribed to: %v", err)
		}
		expect(beta, "isolated")
	}
}

// TestReloadOneToTwo: a stream of the only backend's events ends when there is
// another one, and nothing else does.
func TestReloadOneToTwo(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, "")
	added, _ := third(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events, err := p.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := alpha.WaitSubscribers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if err := p.reload("[server]", "[log]\nlevel = \"error\"\n[server]"); err != nil {
		t.Fatal(err)
	}
	if err := p.daemon.log.Logger.GetLevel().String(); err != "error" {
		t.Errorf("the log's level is %s", err)
	}
	id := p.run("pod", "runc")
	if event, err := events.Recv(); err != nil || event.GetContainerId() != id {
		t.Errorf("after a reload that changes no backend: %v, %v", event, err)
	}
	if err := p.reloadText(p.config + added); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = events.Recv()
	}
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "cri-proxy was told of other backends: subscribe again") {
		t.Errorf("with a second backend: %v", err)
	}
	if ids, err := unarySandboxes(ctx, p.runtime); err != nil || len(ids) != 1 {
		t.Errorf("listed %v, %v", ids, err)
	}
}

// TestReloadKnowsPodsOfTheOnlyBackend: one that goes away right after another one
// was added beside it has its pods shown as those of any backend, though nobody
// needed its lists before.
func TestReloadKnowsPodsOfTheOnlyBackend(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, "")
	added, _ := third(t)
	var want []string
	for _, pod := range []string{"first", "second"} { // It is alone again in between.
		sandbox := p.run(pod, "runc")
		want = append(want, sandbox, p.create(sandbox, pod, "c"))
		if err := p.reloadText(p.config + added); err != nil {
			t.Fatal(err)
		}
		alpha.Stop()
		got, err := objectsOf(t.Context(), p.runtime, false)
		if err != nil || !slices.Equal(got, sorted(want...)) {
			t.Errorf("listed %v (%v), want what was there: %v", got, err, sorted(want...))
		}
		alpha.Restart()
		eventually(t, "alpha is up", p.daemon.backends().Get("alpha").Up)
		if err := p.reload(); err != nil {
			t.Fatal(err)
		}
	}
}
