package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// reconfigure restarts the proxy with one more key of beta, or another value.
func (p *proxy) reconfigure(line string) {
	p.t.Helper()
	before, after, found := strings.Cut(p.config, "[backends.beta]\n")
	if !found {
		p.t.Fatal("no beta")
	}
	key, _, _ := strings.Cut(line, " ")
	lines := strings.SplitAfter(after, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, key+" ") {
			lines[i] = ""
			break
		}
	}
	p.config = before + "[backends.beta]\n" + line + "\n" + strings.Join(lines, "")
	p.restart()
}

// patient restarts the proxy with a list_timeout that large lists under the race
// detector do not pass on a busy machine.
func (p *proxy) patient() {
	p.t.Helper()
	p.config = strings.ReplaceAll(p.config, `list_timeout = "1s"`, `list_timeout = "30s"`)
	p.restart()
}

// TestCallersDeadline: a caller in a hurry does not make a healthy backend
// count as away.
func TestCallersDeadline(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	beta.Inject("ListPodSandbox", fakeruntime.Fault{Delay: 8 * time.Millisecond})
	since := p.daemon.backends().Get("beta").State().Since
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Millisecond)
		_, err := p.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
		cancel()
		if c := status.Code(err); c != codes.OK && c != codes.DeadlineExceeded {
			t.Errorf("got %v, want an answer or DeadlineExceeded", err)
		}
	}
	if s := p.daemon.backends().Get("beta").State(); !s.Up || s.Since != since {
		t.Errorf("beta was taken for away: %+v", s)
	}
}

// TestSlowBackend: one that lists slowly comes up within its list_timeout, and
// stays away, without holding up each list, when it is slower than that.
func TestSlowBackend(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	beta.Inject("ListContainers", fakeruntime.Fault{Delay: 3500 * time.Millisecond})
	p.reconfigure(`list_timeout = "10s"`)
	if p.daemon.backends().Get("beta").Up() {
		t.Error("beta is up at once: the start waited for it")
	}
	eventually(t, "beta is up", p.daemon.backends().Get("beta").Up)

	beta.ClearFaults()
	p.reconfigure(`list_timeout = "500ms"`)
	beta.Inject("ListContainers", fakeruntime.Fault{Delay: 2 * time.Second})
	began := time.Now()
	for range 20 {
		if _, err := p.containerIDs(nil); err != nil {
			t.Fatal(err) // It was listed at start.
		}
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("20 lists took %s: each waited for the backend that is away", took)
	}
}

// TestStatisticsFail: they are not what tells whether a backend takes new pods.
func TestStatisticsFail(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]fakeruntime.Fault{
		"error": {Err: status.Error(codes.Unavailable, "ttrpc: closed")}, "slow": {Delay: 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _, beta := twoBackends(t)
			beta.Inject("ListContainerStats", fault)
			if _, err := p.runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{}); status.Code(err) != codes.Unavailable && p.daemon.index.Holds("beta") {
				t.Errorf("got %v, want Unavailable", err)
			}
			p.run("b", "isolated")
			_, err := p.runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{})
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"beta"`) {
				t.Errorf("got %v, want Unavailable naming beta", err)
			}
			if !p.daemon.backends().Get("beta").Up() {
				t.Error("beta is taken for away")
			}
		})
	}
}

// TestUnknownIDWhileHanging: one question waits for a hanging backend, not each.
func TestUnknownIDWhileHanging(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	beta.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true})
	began := time.Now()
	for range 4 {
		_, err := p.runtime.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "nobody"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want Unavailable", err)
		}
	}
	if took := time.Since(began); took > 2500*time.Millisecond {
		t.Errorf("four questions took %s, list_timeout is 1s", took)
	}
	_, err := rawcri.Fetch(t.Context(), p.conn, "/runtime.v1.RuntimeService/PodSandboxStatus", rawcri.NewFrame([]byte{0x0a, 0x02, 0xff, 0xfe}))
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("an id that is no UTF-8: %v, want InvalidArgument", err)
	}
}

// TestHugeBackend: one whose containers do not fit into a message comes up, and
// its ids route.
func TestHugeBackend(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	sandbox := beta.AddSandbox(fakeruntime.Sandbox{Config: sandboxConfig("big")})
	for range 18 {
		request := createRequest(sandbox, "big", "c", "app")
		request.Config.Annotations = map[string]string{"big": strings.Repeat("x", 1<<20)}
		beta.AddContainer(fakeruntime.Container{SandboxID: sandbox, Config: request.GetConfig()})
	}
	p.patient()
	eventually(t, "beta is up", p.daemon.backends().Get("beta").Up)
	if _, containers := p.daemon.index.Count(); containers != 18 {
		t.Errorf("%d containers are routed, want 18", containers)
	}
}

// TestStreamKeepsAge: a last known list that is streamed does not become younger.
func TestStreamKeepsAge(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	p.reconfigure(`last_known_ttl = "2s"`)
	p.run("b", "isolated")
	if _, err := p.sandboxIDs(nil); err != nil {
		t.Fatal(err)
	}
	beta.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true})
	if _, err := p.streamedSandboxIDs(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the list is too old", func() bool { _, err := p.streamedSandboxIDs(); return status.Code(err) == codes.Unavailable })
}

// TestNothingIsKept of pods that are gone, by a proxy with one backend and by
// one with two.
func TestNothingIsKept(t *testing.T) {
	t.Parallel()
	single := func(t *testing.T) *proxy {
		t.Helper()
		alpha := fakeruntime.Start(t, fakeruntime.Options{Name: "alpha", Runtimes: []string{"runc"}})
		alpha.AddImage("app", nil)
		return startProxy(t, `
default_handler = "runc"
[backends.alpha]
endpoint = "`+alpha.Endpoint()+`"
[handlers.runc]
backend = "alpha"
`)
	}
	two := func(t *testing.T) *proxy {
		t.Helper()
		p, alpha, _ := twoBackends(t)
		alpha.AddImage("app", nil)
		return p
	}
	for name, start := range map[string]func(*testing.T) *proxy{"one backend": single, "two": two} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t)
			for i := range 20 {
				pod := fmt.Sprintf("p%d", i)
				sandbox := p.run(pod, "runc")
				p.create(sandbox[:12], pod, "c") // A short id, as people type.
				if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
					t.Fatal(err)
				}
				if _, err := p.sandboxIDs(nil); err != nil {
					t.Fatal(err)
				}
				if _, err := p.containerIDs(nil); err != nil {
					t.Fatal(err)
				}
			}
			if s, c := p.daemon.index.Count(); s+c != 0 {
				t.Errorf("%d sandboxes and %d containers are routed", s, c)
			}
			b := p.daemon.backends().Default()
			_, sandboxes, _ := b.Sandboxes.Snapshot()
			_, containers, _ := b.Containers.Snapshot()
			if len(sandboxes)+len(containers) > 0 {
				t.Errorf("%d and %d changes beside lists that have them", len(sandboxes), len(containers))
			}
		})
	}
}

// TestLastKnownShortSandbox: a container made by a short sandbox id is found by
// the full one, and under its public handler name.
func TestLastKnownShortSandbox(t *testing.T) {
	t.Parallel()
	p, _, beta := renamed(t)
	beta.AddImage("app", nil)
	sandbox := p.run("v", "vm")
	if _, err := p.containerIDs(nil); err != nil {
		t.Fatal(err)
	}
	request := createRequest(sandbox[:12], "v", "c", "app")
	request.Config.Image.RuntimeHandler = "vm"
	created, err := p.runtime.CreateContainer(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if got := beta.Calls("CreateContainer")[0].Request.(*runtimeapi.CreateContainerRequest).GetConfig().GetImage().GetRuntimeHandler(); got != "kata-qemu" { //nolint:errcheck,forcetypeassert // A test may panic.
		t.Errorf("the backend was told the handler %q", got)
	}
	beta.Stop()
	eventually(t, "beta is away", func() bool { return !p.daemon.backends().Get("beta").Up() })
	if got, err := p.containerIDs(&runtimeapi.ContainerFilter{PodSandboxId: sandbox}); err != nil || !slices.Equal(got, []string{created.GetContainerId()}) {
		t.Errorf("by the full sandbox id: %v, %v", got, err)
	}
	list, err := p.runtime.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || list.GetContainers()[0].GetImage().GetRuntimeHandler() != "vm" {
		t.Errorf("listed as %v, %v, want its public handler", list.GetContainers(), err)
	}
}
