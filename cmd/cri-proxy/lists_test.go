package main

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// sandboxIDs lists sandboxes and returns their ids, sorted.
func (p *proxy) sandboxIDs(filter *runtimeapi.PodSandboxFilter) ([]string, error) {
	list, err := p.runtime.ListPodSandbox(p.t.Context(), &runtimeapi.ListPodSandboxRequest{Filter: filter})
	var ids []string
	for _, s := range list.GetItems() {
		ids = append(ids, s.GetId())
	}
	slices.Sort(ids)
	return ids, err
}

func (p *proxy) containerIDs(filter *runtimeapi.ContainerFilter) ([]string, error) {
	list, err := p.runtime.ListContainers(p.t.Context(), &runtimeapi.ListContainersRequest{Filter: filter})
	var ids []string
	for _, c := range list.GetContainers() {
		ids = append(ids, c.GetId())
	}
	slices.Sort(ids)
	return ids, err
}

// streamedSandboxIDs is the same by the streamed list.
func (p *proxy) streamedSandboxIDs() ([]string, error) {
	up, err := p.runtime.StreamPodSandboxes(p.t.Context(), &runtimeapi.StreamPodSandboxesRequest{})
	if err != nil {
		return nil, err
	}
	var ids []string
	for {
		part, err := up.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			slices.Sort(ids)
			return ids, err
		}
		for _, s := range part.GetPodSandboxes() {
			ids = append(ids, s.GetId())
		}
	}
}

func sorted(ids ...string) []string {
	slices.Sort(ids)
	return ids
}

// TestMergedLists: all, filtered, and by an id that has an owner.
func TestMergedLists(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	a, b1, b2 := p.run("a", "runc"), p.run("b1", "isolated"), p.run("b2", "isolated")
	ca, cb := p.create(a, "a", "c"), p.create(b1, "b1", "c")
	tests := []struct {
		name   string
		filter *runtimeapi.PodSandboxFilter
		want   []string
		asked  int // How many backends.
	}{
		{"no filter", nil, sorted(a, b1, b2), 2},
		{"empty filter", &runtimeapi.PodSandboxFilter{}, sorted(a, b1, b2), 2},
		{"label", &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": "uid-b1"}}, []string{b1}, 2},
		{"id", &runtimeapi.PodSandboxFilter{Id: b2}, []string{b2}, 1},
		{"short id", &runtimeapi.PodSandboxFilter{Id: b2[:12]}, []string{b2}, 2},
		{"unknown id", &runtimeapi.PodSandboxFilter{Id: strings.Repeat("ef", 32)}, nil, 2},
	}
	for _, tt := range tests {
		alpha.ClearJournal()
		beta.ClearJournal()
		got, err := p.sandboxIDs(tt.filter)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
		if asked := len(alpha.Calls("ListPodSandbox")) + len(beta.Calls("ListPodSandbox")); asked != tt.asked {
			t.Errorf("%s: %d backends were asked, want %d", tt.name, asked, tt.asked)
		}
	}
	for want, filter := range map[string]*runtimeapi.ContainerFilter{ca: {PodSandboxId: a}, cb: {Id: cb[:10]}} {
		if got, err := p.containerIDs(filter); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("containers by %v: %v, %v, want %s", filter, got, err, want)
		}
	}
	if got, err := p.streamedSandboxIDs(); err != nil || !slices.Equal(got, sorted(a, b1, b2)) {
		t.Errorf("streamed: %v, %v", got, err)
	}
}

// TestListsWhileAway: what a list says of a backend that is away or hangs. It
// is never the rest of the node alone.
func TestListsWhileAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*fakeruntime.Runtime){
		"stopped": (*fakeruntime.Runtime).Stop,
		"hanging": func(r *fakeruntime.Runtime) { r.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha, beta := twoBackends(t)
			alpha.AddImage("app", nil)
			beta.AddImage("app", nil)
			a, b := p.run("a", "runc"), p.run("b", "isolated")
			cb := p.create(b, "b", "c")
			if _, err := p.sandboxIDs(nil); err != nil {
				t.Fatal(err)
			}
			// What is answered after the list belongs to it.
			later, gone := p.run("later", "isolated"), p.run("gone", "isolated")
			if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: gone}); err != nil {
				t.Fatal(err)
			}
			away(beta)
			for range 2 {
				if got, err := p.sandboxIDs(nil); err != nil || !slices.Equal(got, sorted(a, b, later)) {
					t.Errorf("sandboxes: %v, %v, want a, b and later", got, err)
				}
				if got, err := p.containerIDs(&runtimeapi.ContainerFilter{PodSandboxId: b}); err != nil || !slices.Equal(got, []string{cb}) {
					t.Errorf("containers: %v, %v, want %s", got, err, cb)
				}
				if got, err := p.streamedSandboxIDs(); err != nil || !slices.Equal(got, sorted(a, b, later)) {
					t.Errorf("streamed: %v, %v, want a, b and later", got, err)
				}
			}
			label := &runtimeapi.PodSandboxFilter{LabelSelector: map[string]string{"io.kubernetes.pod.uid": "uid-b"}}
			if got, err := p.sandboxIDs(label); err != nil || !slices.Equal(got, []string{b}) {
				t.Errorf("by label: %v, %v, want b", got, err)
			}
			if _, err := p.runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"beta"`) {
				t.Errorf("statistics: %v, want Unavailable naming beta", err)
			}
			if _, err := p.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig("n"), RuntimeHandler: "isolated"}); status.Code(err) != codes.Unavailable {
				t.Errorf("new sandbox on the backend that is away: %v, want Unavailable", err)
			}
			p.run("n", "runc")
		})
	}
}

// TestListsNothingKnown: before the first answer of a backend there is no list.
func TestListsNothingKnown(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	beta.Stop()
	p.restart()
	if got, err := p.sandboxIDs(nil); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, %v, want Unavailable", got, err)
	}
	beta.Restart()
	eventually(t, "the list is whole", func() bool { _, err := p.sandboxIDs(nil); return err == nil })
}

// TestListOptions: when_down = "fail", and a backend without pods.
func TestListOptions(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	p.config = strings.ReplaceAll(p.config, `[backends.beta]`, "[backends.beta]\nwhen_down = \"fail\"")
	p.restart()
	a := p.run("a", "runc")
	beta.Stop()
	eventually(t, "beta is away", func() bool { return !p.daemon.backends().Get("beta").Up() })
	if _, err := p.sandboxIDs(nil); status.Code(err) != codes.Unavailable {
		t.Errorf("list: %v, want Unavailable", err)
	}
	// It has no pods, so that it can be missing from every other list.
	if _, err := p.runtime.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{}); err != nil {
		t.Errorf("statistics: %v", err)
	}
	if _, err := p.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: a}); err != nil {
		t.Error(err)
	}
}

// TestStreamFaults: a stream is whole, Unimplemented from its first message
// on, or an error.
func TestStreamFaults(t *testing.T) {
	t.Parallel()
	p, _, beta := twoBackends(t)
	for i := range 6 {
		name := "p" + strings.Repeat("x", i)
		p.run("a"+name, "runc")
		p.run("b"+name, "isolated")
	}
	beta.Inject("StreamPodSandboxes", fakeruntime.Fault{Err: status.Error(codes.Unimplemented, "old")})
	if got, err := p.streamedSandboxIDs(); status.Code(err) != codes.Unimplemented || len(got) > 0 {
		t.Errorf("one backend lacks the method: %d sandboxes, %v, want Unimplemented first", len(got), err)
	}
	beta.ClearFaults()
	beta.Inject("StreamPodSandboxes", fakeruntime.Fault{AfterFrames: 1, Err: status.Error(codes.Unavailable, "dying")})
	if got, err := p.streamedSandboxIDs(); err == nil {
		t.Errorf("a backend lost in the middle: success with %d sandboxes", len(got))
	}
	beta.ClearFaults()
	eventually(t, "beta is up", p.daemon.backends().Get("beta").Up)
	if got, err := p.streamedSandboxIDs(); err != nil || len(got) != 12 {
		t.Errorf("%d sandboxes, %v, want 12", len(got), err)
	}
}

// TestBigList: more than gRPC's default of 4 MiB passes, and more than the
// kubelet takes is an error that says so.
func TestBigList(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t)
	p.patient()
	fill := func() {
		for _, r := range []*fakeruntime.Runtime{alpha, beta} {
			sandbox := r.AddSandbox(fakeruntime.Sandbox{Config: sandboxConfig("big")})
			for range 5 {
				request := createRequest(sandbox, "big", "c", "app")
				request.Config.Annotations = map[string]string{"big": strings.Repeat("x", 1<<20)}
				r.AddContainer(fakeruntime.Container{SandboxID: sandbox, Config: request.GetConfig()})
			}
		}
	}
	fill()
	if got, err := p.containerIDs(nil); err != nil || len(got) != 10 {
		t.Errorf("10 MiB: %d containers, %v, want 10", len(got), err)
	}
	fill()
	if _, err := p.containerIDs(nil); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("20 MiB: %v, want ResourceExhausted naming the limit", err)
	}
}
