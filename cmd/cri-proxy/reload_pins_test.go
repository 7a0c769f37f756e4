package main

import (
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// first sorts before every other handler, and means the runtime of isolated: a
// pod of isolated whose handler is not known is taken for its own.
const first = `
[handlers.first]
backend = "beta"
runtime = "isolated"
`

// handlerOf returns which handler a sandbox has by the lists and by itself.
func (p *proxy) handlerOf(id string) string {
	p.t.Helper()
	list, err := p.runtime.ListPodSandbox(p.t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := p.runtime.PodSandboxStatus(p.t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range list.GetItems() {
		if s.GetId() == id && s.GetRuntimeHandler() != got.GetStatus().GetRuntimeHandler() {
			p.t.Errorf("sandbox %s is of %q by its status, of %q by the list", id, got.GetStatus().GetRuntimeHandler(), s.GetRuntimeHandler())
		}
	}
	return got.GetStatus().GetRuntimeHandler()
}

// relisted restarts beta and waits until it is listed anew.
func (p *proxy) relisted(beta *fakeruntime.Runtime) {
	p.t.Helper()
	since := p.daemon.backends().Get("beta").State().Since
	beta.Restart()
	eventually(p.t, "beta is up again", func() bool {
		s := p.daemon.backends().Get("beta").State()
		return s.Up && s.Since.After(since)
	})
}

// TestReloadSharesRuntime: the pods of a handler stay its own when another one
// means the same runtime from a reload on, whenever and by which configuration
// they were made, after a restart of their backend and after one of the proxy.
func TestReloadSharesRuntime(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	ids := map[string]string{p.run("of the last process", "isolated"): "isolated"}
	p.restart()
	ids[p.run("of this one", "isolated")] = "isolated"
	hold := make(chan struct{})
	beta.Inject("RunPodSandbox", fakeruntime.Fault{Until: hold, Times: 1})
	made := make(chan string, 1)
	sent := async(func() error {
		r, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("sent"), RuntimeHandler: "isolated"})
		made <- r.GetPodSandboxId()
		return err
	})
	if _, err := beta.WaitCalls(t.Context(), "RunPodSandbox", 3); err != nil {
		t.Fatal(err)
	}
	if err := p.reloadText(p.config + first); err != nil {
		t.Fatal(err)
	}
	pending(t, "the create", sent)
	close(hold)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	ids[<-made] = "isolated"
	ids[p.run("of the new handler", "first")] = "first"
	check := func(when string) {
		t.Helper()
		for id, want := range ids {
			if got := p.handlerOf(id); got != want {
				t.Errorf("%s: a sandbox of %s is one of %s", when, want, got)
			}
		}
	}
	check("after the reload")
	p.relisted(beta)
	check("after a restart of the backend")
	p.config += first
	p.restart()
	check("after a restart of the proxy")
	for id := range ids {
		if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
	}
	if all, err := p.daemon.pinsOnDisk(); err != nil || len(all) != 0 {
		t.Errorf("handlers of removed pods on disk: %v, %v", all, err)
	}
}

// TestReloadSharesRuntimeOfLateCreate: a create that begins in the old
// configuration when the reload has already looked for pods keeps its handler.
func TestReloadSharesRuntimeOfLateCreate(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	p.config += first
	cfg, err := configs.Parse("test.toml", []byte(p.config))
	if err != nil {
		t.Fatal(err)
	}
	old := p.daemon.current.Load()
	next, err := old.next(cfg, p.daemon.index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.daemon.prepare(t.Context(), old, next); err != nil {
		t.Fatal(err)
	}
	id := p.run("late", "isolated")
	p.daemon.replace(t.Context(), old, next)
	p.restart()
	if got := p.handlerOf(id); got != "isolated" {
		t.Errorf("after a restart the pod of isolated is one of %s", got)
	}
}

// TestReloadReplacesHandler: the pods of a handler that drains stay its own, also
// after a restart of their backend, though another handler has its runtime now.
func TestReloadReplacesHandler(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	id := p.run("old", "isolated")
	p.restart()
	if err := p.reload("[handlers.isolated]", "[handlers.first]\nruntime = \"isolated\""); err != nil {
		t.Fatal(err)
	}
	p.relisted(beta)
	if got := p.handlerOf(id); got != "isolated" {
		t.Errorf("a pod of isolated, which drains, is one of %s", got)
	}
	if h := p.handlerReport("isolated"); !h.Draining || h.Sandboxes != 1 {
		t.Errorf("the status says %+v", h)
	}
}

// TestReloadSharesRuntimeUnseen: as long as nobody knows which pods are there,
// a runtime is not shared.
func TestReloadSharesRuntimeUnseen(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	id := p.run("there", "isolated")
	p.stop()
	beta.Stop()
	p.start()
	err := p.reloadText(p.config + first)
	if err == nil || !strings.Contains(err.Error(), `handlers.isolated: shares the runtime "isolated" with another handler by now, but backend "beta" was not reached yet`) {
		t.Errorf("reloaded while beta was away: %v", err)
	}
	beta.Restart()
	eventually(t, "beta is up", p.daemon.backends().Get("beta").Up)
	if err := p.reloadText(p.config + first); err != nil {
		t.Fatal(err)
	}
	if got := p.handlerOf(id); got != "isolated" {
		t.Errorf("the pod is one of %s", got)
	}
}

// TestReloadMovesHandlerMeanwhile: a handler of which a pod is being made does not
// become another runtime's.
func TestReloadMovesHandlerMeanwhile(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	beta.Configure(func(o *fakeruntime.Options) { o.Runtimes = append(slices.Clone(o.Runtimes), "other") })
	hold := make(chan struct{})
	beta.Inject("RunPodSandbox", fakeruntime.Fault{Until: hold, Times: 1})
	made := async(func() error {
		_, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("slow"), RuntimeHandler: "isolated"})
		return err
	})
	if _, err := beta.WaitCalls(t.Context(), "RunPodSandbox", 1); err != nil {
		t.Fatal(err)
	}
	move := []string{`backend = "beta"`, "backend = \"beta\"\nruntime = \"other\""}
	want := `handlers.isolated: was runtime "isolated" of backend "beta" and pod sandboxes are being made there (1), which may be its own; reload again later`
	if err := p.reload(move...); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("reloaded: %v, want %s", err, want)
	}
	close(hold)
	if err := <-made; err != nil {
		t.Error(err)
	}
	if err := p.reload(move...); err == nil || !strings.Contains(err.Error(), "has 1 pod sandbox of isolated (default/slow)") {
		t.Errorf("reloaded with the pod: %v", err)
	}
	if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: beta.Sandboxes()[0].GetId()}); err != nil {
		t.Error(err)
	}
	if err := p.reload(move...); err != nil {
		t.Errorf("without pods: %v", err)
	}
}
