package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// reload gives the daemon its configuration with some text replaced, pairs of
// old and new, and returns why it did not take it over.
func (p *proxy) reload(replace ...string) error {
	p.t.Helper()
	return p.reloadText(strings.NewReplacer(replace...).Replace(p.config))
}

func (p *proxy) reloadText(config string) error {
	p.t.Helper()
	if err := os.WriteFile(p.daemon.reloads.path, []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
	before := p.daemon.reloads.last.Load()
	p.hangups <- syscall.SIGHUP
	eventually(p.t, "the configuration was read", func() bool { return p.daemon.reloads.last.Load() != before })
	if now := p.daemon.reloads.last.Load(); !now.Success {
		return errors.New(now.Error)
	}
	return nil
}

// third is the configuration of a further backend gamma with the handler third.
func third(t *testing.T) (config string, gamma *fakeruntime.Runtime) {
	t.Helper()
	gamma = fakeruntime.Start(t, fakeruntime.Options{Name: "gamma", Runtimes: []string{"third"}})
	gamma.AddImage("app", nil)
	return fmt.Sprintf(`
[backends.gamma]
endpoint = %q
list_timeout = "1s"
[handlers.third]
backend = "gamma"
`, gamma.Endpoint()), gamma
}

// TestReloadAddsAndRemoves: pods of a backend that was there before are listed
// from the first answer on, and one that is removed leaves nothing behind.
func TestReloadAddsAndRemoves(t *testing.T) {
	t.Parallel()
	p, _, _ := twoBackends(t)
	added, gamma := third(t)
	gamma.FillHandler("third", 3, 1)
	connections := func() int { return len(gamma.Calls("Version")) }
	for range 3 {
		if err := p.reloadText(p.config + added); err != nil {
			t.Fatal(err)
		}
		if ids, err := unarySandboxes(t.Context(), p.runtime); err != nil || len(ids) != 3 {
			t.Errorf("right after the reload: %d sandboxes, %v, want gamma's 3", len(ids), err)
		}
		id := p.run("pod", "third")
		if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
		err := p.reload()
		if err == nil || !strings.Contains(err.Error(), `backends.gamma: was removed, but it has 3 pod sandboxes of third (`) {
			t.Fatalf("removed with pods: %v", err)
		}
		p.run("pod", "third") // It was closed for a moment.
		gamma.Reset()
		p.daemon.index.Forget("gamma")
		if err := p.reload(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("x"), RuntimeHandler: "third"}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a pod of a handler that is gone: %v", err)
		}
		if p.daemon.backends().Get("gamma") != nil {
			t.Error("gamma is still there")
		}
		gamma.FillHandler("third", 3, 1)
	}
	if connections() == 0 {
		t.Error("gamma was never asked")
	}
}

// TestReloadDrains: the pods of a handler that was removed live on by its rules,
// and no new ones are made, until the last is gone.
func TestReloadDrains(t *testing.T) {
	t.Parallel()
	server := receive(t, nil)
	alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc", "old"}})
	alpha.AddImage("app", nil)
	handler := `
[handlers.old]
backend = "alpha"
[[handlers.old.hooks.pre_stop]]
name = "drain"
` + server.action() + "\n"
	p := startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.runc]
backend = "alpha"
`+handler)
	sandbox := p.run("lives", "old")
	container := p.create(sandbox, "lives", "c")
	if err := p.startContainer(container); err != nil {
		t.Fatal(err)
	}
	if err := p.reload(handler, ""); err != nil {
		t.Fatal(err)
	}
	_, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("new"), RuntimeHandler: "old"})
	if want := `handler "old" was taken out of the configuration and takes no new pods; known: runc`; status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != want {
		t.Errorf("a new pod: %v, want %s", err, want)
	}
	p.create(sandbox, "lives", "another") // A container of a pod that lives is not a new pod.
	if h := p.handlerReport("old"); !h.Draining || h.Sandboxes != 1 || h.Containers != 2 {
		t.Errorf("the status says %+v", h)
	}
	if err := p.reload(handler, ""); err != nil { // Once more: it is still needed.
		t.Fatal(err)
	}
	if err := p.reload(handler, "", `backend = "alpha"`, `backend = "beta"`, "[backends.alpha]", "[backends.beta]"); err == nil || !strings.Contains(err.Error(), "backends.alpha: was removed, but it has 1 pod sandbox of old (default/lives)") {
		t.Errorf("the backend of a handler that drains was removed: %v", err)
	}
	if err := p.stopContainer(container, 10); err != nil {
		t.Error(err)
	}
	server.next() // The PreStop hook of the handler that drains.
	if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(p.daemon.report(t.Context()).Handlers, func(h handlerReport) bool { return h.Name == "old" }) {
		t.Error("it is still shown, and has no pods")
	}
}

// handlerReport is what the status says of a handler.
func (p *proxy) handlerReport(name string) handlerReport {
	p.t.Helper()
	for _, h := range p.daemon.report(p.t.Context()).Handlers {
		if h.Name == name {
			return h
		}
	}
	p.t.Errorf("the status has no handler %q", name)
	return handlerReport{}
}

// TestReloadRefused: a configuration that cannot be taken over changes nothing,
// and all that is wrong with it is said.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	p, alpha, _ := twoBackends(t)
	alpha.AddImage("app", nil)
	p.run("there", "isolated")
	added, _ := third(t)
	generation := p.daemon.current.Load()
	for name, c := range map[string]struct {
		replace []string
		want    []string
	}{
		"a mistake": {
			[]string{"list_timeout = \"1s\"", "list_timeout = 1\nunknown = 2"},
			[]string{":6:1: backends.alpha.list_timeout: ", ":7:1: backends.alpha.unknown: ", ":10:1: backends.beta.list_timeout: "},
		},
		"what needs a restart": {
			[]string{"[server]", "[tracing]\nendpoint = \"\"\n[server]\nsocket_mode = \"0600\"", "/a\"", "/b\""},
			[]string{": server.socket_mode: has changed, and only a restart takes that over", ": admin.listen: has changed, "},
		},
		"a backend with pods": {
			[]string{"[backends.beta]", "[backends.delta]", `backend = "beta"`, `backend = "delta"`},
			[]string{"backends.beta: was removed, but it has 1 pod sandbox of isolated (default/there)", `handlers.isolated: was runtime "isolated" of backend "beta" and has 1 pod`},
		},
		"another runtime of a handler with pods": {
			[]string{`backend = "beta"`, "backend = \"beta\"\nruntime = \"other\""},
			[]string{`handlers.isolated: was runtime "isolated" of backend "beta" and has 1 pod sandbox of isolated (default/there); remove them first, or give the new handler another name`},
		},
		"a backend that does not answer": {
			[]string{"[server]", strings.ReplaceAll(added, ".sock", ".nobody") + "[server]"},
			[]string{": backends.gamma: does not answer, start it first: "},
		},
	} {
		before, err := p.daemon.report(t.Context()), p.reload(c.replace...)
		if err == nil {
			t.Fatalf("%s: taken over", name)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: said %q, want %q", name, err, want)
			}
		}
		if p.daemon.current.Load() != generation {
			t.Errorf("%s: something was replaced", name)
		}
		if after := p.daemon.report(t.Context()); len(after.Backends) != len(before.Backends) || after.Sandboxes != before.Sandboxes || after.LastReload == nil || after.LastReload.Error != err.Error() {
			t.Errorf("%s: the status was %+v and is %+v", name, before, after)
		}
		if got := scrape(t, p.dir+"/a"); got["cri_proxy_config_last_reload_successful"] != 0 {
			t.Errorf("%s: the metric says that it was taken over", name)
		}
		id := p.run("another", "isolated")
		if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	if err := p.reload(); err != nil {
		t.Error(err)
	}
	got := scrape(t, p.dir+"/a")
	if got["cri_proxy_config_last_reload_successful"] != 1 || got["cri_proxy_config_last_reload_success_timestamp_seconds"] < float64(began.Unix()) {
		t.Errorf("after a good one: %v", got)
	}
}
