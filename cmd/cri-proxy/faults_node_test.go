package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// callTime is how long the callers of the fault suite wait.
const callTime = 1500 * time.Millisecond

// tally counts what callers saw: for each kind of call, its codes.
type tally struct {
	mu   sync.Mutex
	seen map[string]map[codes.Code]int
}

func (y *tally) add(kind string, err error) codes.Code {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.seen == nil {
		y.seen = map[string]map[codes.Code]int{}
	}
	if y.seen[kind] == nil {
		y.seen[kind] = map[codes.Code]int{}
	}
	y.seen[kind][status.Code(err)]++
	return status.Code(err)
}

// String is "ids 4 OK, 2 Unavailable; lists 8 OK".
func (y *tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(y.seen)) {
		var counts []string
		for _, code := range slices.Sorted(maps.Keys(y.seen[kind])) {
			counts = append(counts, fmt.Sprintf("%d %s", y.seen[kind][code], code))
		}
		kinds = append(kinds, kind+" "+strings.Join(counts, ", "))
	}
	return strings.Join(kinds, "; ")
}

// backendNames are what the configuration calls a fake and its one handler.
type backendNames struct{ backend, handler string }

// faultNode is a proxy before two or three fakes, and what is known to be true of
// them.
type faultNode struct {
	*proxy
	alpha, beta *fakeruntime.Runtime
	names       map[*fakeruntime.Runtime]backendNames
	all         []*fakeruntime.Runtime // The default first.
	tally       tally
	owner       map[string]*fakeruntime.Runtime // By each id that was ever seen.
	removed     map[string]bool                 // Ids whose removal was answered.
	before      []string                        // All objects when the fault came: what a list may still know.
	pods        int
}

// newFaultNode runs three pods with a container on each of two backends.
func newFaultNode(t *testing.T) *faultNode {
	t.Helper()
	return newFaultNodeWith(t, nil)
}

// newFaultNodeWith is newFaultNode with a third backend, called gamma, whose
// handler is sealed; nil is none.
func newFaultNodeWith(t *testing.T, gamma *fakeruntime.Runtime) *faultNode {
	t.Helper()
	n := &faultNode{owner: map[string]*fakeruntime.Runtime{}, removed: map[string]bool{}}
	extra := ""
	if gamma != nil {
		extra = "[backends.gamma]\nendpoint = \"" + gamma.Endpoint() + "\"\nlist_timeout = \"1s\"\n[handlers.sealed]\nbackend = \"gamma\""
	}
	n.proxy, n.alpha, n.beta = twoBackends(t, extra)
	n.all = []*fakeruntime.Runtime{n.alpha, n.beta}
	n.names = map[*fakeruntime.Runtime]backendNames{n.alpha: {"alpha", "runc"}, n.beta: {"beta", "isolated"}}
	if gamma != nil {
		n.all, n.names[gamma] = append(n.all, gamma), backendNames{"gamma", "sealed"}
	}
	n.config = strings.ReplaceAll(n.config, `list_timeout = "1s"`, `list_timeout = "500ms"`)
	n.restart()
	for _, r := range n.fakes() {
		r.AddImage("app", nil)
		for range 3 {
			n.cycle("setup", r, false)
		}
	}
	if saw, want := n.tally.String(), fmt.Sprintf("setup %d OK", 6*len(n.all)); saw != want {
		t.Fatalf("%s, want %s", saw, want)
	}
	n.tally = tally{}
	n.probe() // From here on there is a last known list.
	n.tally = tally{}
	n.before = n.truth()
	return n
}

func (n *faultNode) fakes() []*fakeruntime.Runtime { return n.all }

// fakeOf is the fake that has a handler.
func (n *faultNode) fakeOf(handler string) *fakeruntime.Runtime {
	for r, names := range n.names {
		if names.handler == handler {
			return r
		}
	}
	return nil
}

// truth are the ids of all sandboxes and containers that the fakes have.
func (n *faultNode) truth() []string {
	var ids []string
	for _, r := range n.fakes() {
		ids = append(ids, idsOf(r)...)
		for _, id := range idsOf(r) {
			n.owner[id] = r
		}
	}
	return sorted(ids...)
}

func idsOf(r *fakeruntime.Runtime) []string {
	var ids []string
	for _, s := range r.Sandboxes() {
		ids = append(ids, s.GetId())
	}
	for _, c := range r.Containers() {
		ids = append(ids, c.GetId())
	}
	return ids
}

// cycle creates a pod with a container on a backend and, if it is to, removes
// it. Each step is one call, whether the one before succeeded or not.
func (n *faultNode) cycle(kind string, r *fakeruntime.Runtime, remove bool) {
	handler := n.names[r].handler
	n.pods++
	name := fmt.Sprintf("pod%d", n.pods)
	ctx, cancel := context.WithTimeout(n.t.Context(), callTime)
	defer cancel()
	ran, err := n.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: sandboxConfig(name), RuntimeHandler: handler})
	if n.tally.add(kind, err) != codes.OK {
		return
	}
	id := ran.GetPodSandboxId()
	n.owner[id] = r
	created, err := n.runtime.CreateContainer(ctx, createRequest(id, name, "c", "app"))
	if n.tally.add(kind, err) == codes.OK {
		n.owner[created.GetContainerId()] = r
	}
	if !remove {
		return
	}
	_, err = n.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	if n.tally.add(strings.Replace(kind, "creates", "removes", 1), err) == codes.OK {
		n.removed[id], n.removed[created.GetContainerId()] = true, true
	}
}

// probe makes every kind of call once, and looks whether each answer is true.
func (n *faultNode) probe() {
	n.t.Helper()
	n.lists()
	n.byID()
	for _, r := range n.fakes() {
		n.cycle("creates", r, true)
	}
	n.lists()
}

// lists asks for all objects, unary and streamed. A success is all of them, as
// they are or as they were when the fault came; never fewer.
func (n *faultNode) lists() {
	n.t.Helper()
	for kind, streamed := range map[string]bool{"lists": false, "streamed lists": true} {
		got, err := n.objects(streamed)
		if n.tally.add(kind, err) != codes.OK {
			continue
		}
		if now := n.truth(); !n.isWhole(got, now) && !n.isWhole(got, n.before) {
			n.t.Errorf("%s: a success with %d objects, the backends have %d:\n%v\n%v", kind, len(got), len(now), got, now)
		}
	}
}

// isWhole reports whether a list has all of want, and beyond that only what was
// created meanwhile with an answer that was lost; nothing that was removed.
func (n *faultNode) isWhole(got, want []string) bool {
	has := make(map[string]bool, len(got))
	for _, id := range got {
		has[id] = true
	}
	for _, id := range want {
		if !has[id] && !n.removed[id] && !n.lostAnswer(id) {
			return false
		}
	}
	return !slices.ContainsFunc(got, func(id string) bool { return n.removed[id] })
}

// lostAnswer reports whether nobody was told of an object: the last known list
// of a backend that is away cannot have it.
func (n *faultNode) lostAnswer(id string) bool {
	return !slices.Contains(n.before, id) && !n.daemon.backends().AllUp()
}

// byID asks for the status of every object there is.
func (n *faultNode) byID() {
	n.t.Helper()
	var calls sync.WaitGroup
	for _, r := range n.fakes() {
		for _, s := range r.Sandboxes() {
			calls.Go(func() { n.sandboxByID(s.GetId()) })
		}
		for _, c := range r.Containers() {
			calls.Go(func() { n.containerByID(c.GetId()) })
		}
	}
	calls.Wait()
}

func (n *faultNode) sandboxByID(id string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), callTime)
	defer cancel()
	got, err := n.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	n.sawID(id, got.GetStatus().GetId(), err)
}

func (n *faultNode) containerByID(id string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), callTime)
	defer cancel()
	got, err := n.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	n.sawID(id, got.GetStatus().GetId(), err)
}

func (n *faultNode) sawID(id, got string, err error) {
	n.t.Helper()
	switch n.tally.add("ids", err) {
	case codes.OK:
		if got != id {
			n.t.Errorf("asked for %s, got %s", id, got)
		}
	case codes.NotFound:
		n.t.Errorf("%s exists, and the proxy says: %v", id, err)
	}
}

// heal waits until the proxy takes all backends for up.
func (n *faultNode) heal() {
	n.t.Helper()
	for _, r := range n.fakes() {
		r.ClearFaults()
	}
	eventually(n.t, "all backends are up", n.daemon.backends().AllUp)
}
