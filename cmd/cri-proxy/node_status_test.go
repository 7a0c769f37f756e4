package main

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

func (p *proxy) status() *runtimeapi.StatusResponse {
	p.t.Helper()
	s, err := p.runtime.Status(p.t.Context(), &runtimeapi.StatusRequest{Verbose: true})
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func condition(s *runtimeapi.StatusResponse, kind string) *runtimeapi.RuntimeCondition {
	for _, c := range s.GetStatus().GetConditions() {
		if c.GetType() == kind {
			return c
		}
	}
	return nil
}

// wantHandlers checks the handlers of the two backends, the default one, and their features.
func wantHandlers(t *testing.T, s *runtimeapi.StatusResponse) {
	t.Helper()
	got := map[string]*runtimeapi.RuntimeHandlerFeatures{}
	for _, h := range s.GetRuntimeHandlers() {
		if _, twice := got[h.GetName()]; twice {
			t.Errorf("handler %q twice", h.GetName())
		}
		got[h.GetName()] = h.GetFeatures()
	}
	if len(got) != 3 || !got[""].GetUserNamespaces() || !got["runc"].GetUserNamespaces() || !got["isolated"].GetRecursiveReadOnlyMounts() {
		t.Errorf("handlers: %v", got)
	}
}

// TestNodeStatus: the default backend's conditions, one for each other backend,
// the handlers by their public names, what all can do, and everybody's info.
func TestNodeStatus(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	users := &runtimeapi.RuntimeHandlerFeatures{UserNamespaces: true}
	mounts := &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}
	alpha.Configure(func(o *fakeruntime.Options) {
		o.Features = map[string]*runtimeapi.RuntimeHandlerFeatures{"": users, "runc": users}
		o.NodeFeatures = &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true, MountOptions: true}
		o.Info = map[string]string{"config": "{}"}
	})
	beta.Configure(func(o *fakeruntime.Options) {
		o.Features = map[string]*runtimeapi.RuntimeHandlerFeatures{"isolated": mounts}
		o.NodeFeatures = &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true}
		o.Info = map[string]string{"config": "{beta}"}
	})
	s := p.status()
	wantHandlers(t, s)
	for _, kind := range []string{runtimeapi.RuntimeReady, runtimeapi.NetworkReady, "BackendReady.beta"} {
		if c := condition(s, kind); !c.GetStatus() {
			t.Errorf("%s: %v", kind, c)
		}
	}
	if f := s.GetFeatures(); !f.GetSupplementalGroupsPolicy() || f.GetMountOptions() {
		t.Errorf("features: %v, want what both have", f)
	}
	if s.GetInfo()["config"] != "{}" || s.GetInfo()["beta/config"] != "{beta}" {
		t.Errorf("info: %v", s.GetInfo())
	}

	beta.Configure(func(o *fakeruntime.Options) {
		o.Conditions = []*runtimeapi.RuntimeCondition{{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Message: "no CNI"}}
	})
	if c := condition(p.status(), "BackendReady.beta"); c.GetStatus() || !strings.Contains(c.GetMessage(), "no CNI") {
		t.Errorf("beta's network is not ready: %v", c)
	}
	beta.Stop()
	eventually(t, "beta is away", func() bool { return !p.daemon.backends().Get("beta").Up() })
	s = p.status()
	wantHandlers(t, s) // With the features last seen.
	if c := condition(s, "BackendReady.beta"); c.GetStatus() || c.GetReason() != "BackendAway" {
		t.Errorf("beta is away: %v", c)
	}
	if c := condition(s, runtimeapi.RuntimeReady); !c.GetStatus() {
		t.Errorf("the node is no longer ready: %v", c)
	}

	alpha.Inject("Status", fakeruntime.Fault{Err: status.Error(codes.Unavailable, "server is not initialized yet")})
	if _, err := p.runtime.Status(t.Context(), &runtimeapi.StatusRequest{}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "initialized") {
		t.Errorf("the default backend's error: %v", err)
	}
}

// TestEvents: those of all backends in one stream, which outlives a backend;
// what it did meanwhile is told afterwards.
func TestEvents(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	b := p.run("b", "isolated")
	stays, ends, goes := p.create(b, "b", "stays"), p.create(b, "b", "ends"), p.create(b, "b", "goes")
	start := func(id string) {
		t.Helper()
		if _, err := p.runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{stays, ends, goes} {
		start(id)
	}
	stream, err := p.runtime.GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*fakeruntime.Runtime{alpha, beta} {
		if err := r.WaitSubscribers(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	caughtUp := false // Before, events come that waited for the first subscriber.
	expect := func(id string, kind runtimeapi.ContainerEventType) *runtimeapi.ContainerEventResponse {
		t.Helper()
		for {
			e, err := stream.Recv()
			if err != nil {
				t.Fatalf("while waiting for %s of %s: %v", kind, id, err)
			}
			if caughtUp && e.GetContainerId() == stays {
				t.Errorf("a container that did not change: %v", e.GetContainerEventType())
			}
			if e.GetContainerId() == id && e.GetContainerEventType() == kind {
				return e
			}
		}
	}
	a := p.run("a", "runc")
	expect(a, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	late := p.create(b, "b", "late")
	expect(late, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)

	caughtUp = true
	beta.Stop()
	beta.Exit(ends, 3)
	beta.Restart()
	e := expect(ends, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	if e.GetPodSandboxStatus().GetRuntimeHandler() != "isolated" || len(e.GetContainersStatuses()) != 4 {
		t.Errorf("the event told afterwards: %v", e)
	}
	eventually(t, "beta is up", p.daemon.backends().Get("beta").Up)
	if _, err := p.runtime.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: goes}); err != nil {
		t.Fatal(err)
	}
	expect(goes, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
}

// TestEventsFirstCatchUp: what happens while a new subscriber's first lists
// fail is told it all the same.
func TestEventsFirstCatchUp(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	sandbox := p.run("b", "isolated")
	gate := make(chan struct{})
	beta.Inject("ListPodSandbox", fakeruntime.Fault{Until: gate, Err: status.Error(codes.Internal, "no"), Times: 1})
	beta.ClearJournal()
	stream, err := p.runtime.GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := beta.WaitCalls(t.Context(), "ListPodSandbox", 1); err != nil {
		t.Fatal(err)
	}
	beta.SetSandboxState(sandbox, runtimeapi.PodSandboxState_SANDBOX_NOTREADY) // Without an event.
	close(gate)
	for {
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.GetContainerId() == sandbox && e.GetContainerEventType() == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
			return
		}
	}
}

// TestEventsUnimplemented: the stream ends when no backend has events.
func TestEventsUnimplemented(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	for _, r := range []*fakeruntime.Runtime{alpha, beta} {
		r.Configure(func(o *fakeruntime.Options) { o.Unimplemented = []string{"GetContainerEvents"} })
	}
	stream, err := p.runtime.GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := stream.Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v, %v, want Unimplemented", e, err)
	}
}
