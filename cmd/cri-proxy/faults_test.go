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

// allInvariants is what check and the test around it look at.
const allInvariants = "lists whole or errors, nothing removed is listed, ids at their owners, creates once, index = backends, no goroutine or descriptor more"

// fault is one thing that goes wrong with the backend beta. While it lasts all
// kinds of calls are made.
type fault struct {
	name string
	come func(n *faultNode)
	end  func(n *faultNode) // nil: the faults of the fake are cleared.
}

// faultsOfOne are those that one node survives one after the other, and that
// leave everything as it was.
func faultsOfOne() []fault {
	lost := status.Error(codes.Unavailable, "the fake is dying")
	inject := func(f fakeruntime.Fault, methods ...string) func(*faultNode) {
		return func(n *faultNode) {
			for _, m := range methods {
				n.beta.Inject(m, f)
			}
		}
	}
	stopped := func(n *faultNode) { n.beta.Stop() }
	lists := []string{"ListPodSandbox", "ListContainers"}
	streams := []string{"StreamPodSandboxes", "StreamContainers"}
	return []fault{
		{name: "down", come: stopped, end: func(n *faultNode) { n.beta.Restart() }},
		{name: "hanging", come: inject(fakeruntime.Fault{Hang: true}, fakeruntime.AllMethods)},
		{name: "hanging in creates after their effect", come: inject(fakeruntime.Fault{Hang: true, AfterEffect: true}, "RunPodSandbox")},
		{name: "hanging in the middle of a streamed list", come: inject(fakeruntime.Fault{Hang: true, AfterFrames: 1, Times: 1}, streams...)},
		{name: "slow: each call takes 100 ms", come: inject(fakeruntime.Fault{Delay: 100 * time.Millisecond}, fakeruntime.AllMethods)},
		{name: "slow: lists take longer than list_timeout", come: inject(fakeruntime.Fault{Delay: 800 * time.Millisecond}, lists...)},
		{name: "dying before a list", come: inject(fakeruntime.Fault{Drop: true, Times: 1}, lists...)},
		{name: "dying in the middle of a streamed list", come: inject(fakeruntime.Fault{Delay: 50 * time.Millisecond, Drop: true, AfterFrames: 1, Times: 1}, streams...)},
		{name: "an error in the middle of a streamed list", come: inject(fakeruntime.Fault{Err: lost, AfterFrames: 2}, streams...)},
		{name: "dying in a create before its effect", come: inject(fakeruntime.Fault{Drop: true, Times: 1}, "RunPodSandbox", "CreateContainer")},
		{name: "dying in a create after its effect", come: inject(fakeruntime.Fault{Drop: true, AfterEffect: true, Times: 1}, "RunPodSandbox", "CreateContainer")},
		{name: "dying in a removal after its effect", come: inject(fakeruntime.Fault{Drop: true, AfterEffect: true, Times: 1}, "RemovePodSandbox")},
		{name: "creates fail after their effect", come: inject(fakeruntime.Fault{Err: lost, AfterEffect: true}, "RunPodSandbox")},
		{name: "restarted with the same state", come: func(n *faultNode) { n.beta.Restart() }},
		{name: "restarted again and again", come: func(n *faultNode) {
			for range 20 {
				n.beta.Restart()
			}
		}},
		{name: "the proxy restarted while it is down", come: func(n *faultNode) { n.beta.Stop(); n.restart() }, end: func(n *faultNode) { n.beta.Restart() }},
		{name: "the proxy restarted while it hangs", come: func(n *faultNode) {
			n.beta.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true})
			n.restart()
		}},
		{name: "restarted with an empty state", come: emptied, end: func(n *faultNode) { n.beta.AddImage("app", nil) }},
	}
}

// emptied starts beta anew without any of its objects, as after a wiped disk.
func emptied(n *faultNode) {
	n.beta.Stop()
	n.beta.Reset()
	n.beta.Restart()
	n.probe()
	eventually(n.t, "the empty backend is up", n.daemon.backends().AllUp)
	n.before = n.truth()
}

// TestFaults: one fault after the other, and what must hold after each.
//
//nolint:paralleltest // It counts the goroutines and descriptors of the whole process.
func TestFaults(t *testing.T) {
	for _, f := range faultsOfOne() {
		t.Run(f.name, func(t *testing.T) {
			before := usage(t)
			var saw string
			record(t, "backend: "+f.name, func() string { return saw }, allInvariants)
			t.Cleanup(func() { wantUsage(t, before) }) // The last: the node is gone.
			n := newFaultNode(t)
			f.come(n)
			began := time.Now()
			n.probe()
			if time.Since(began) < time.Second { // Else callers wait, and would again.
				n.probe()
			}
			saw = n.tally.String()
			if f.end != nil {
				f.end(n)
			}
			n.check()
			n.tally = tally{}
			n.probe()
			if n.othersThanOK() != nil {
				t.Errorf("all is healed, and callers see: %s", n.tally.String())
			}
		})
	}
}

// othersThanOK returns the codes that callers saw beside OK.
func (n *faultNode) othersThanOK() []codes.Code {
	var others []codes.Code
	for _, seen := range n.tally.seen {
		for code := range seen {
			if code != codes.OK {
				others = append(others, code)
			}
		}
	}
	return others
}

// TestBothClaim: calls for an id that two backends have go to one of them, and
// to the other when that one has it no more.
func TestBothClaim(t *testing.T) {
	t.Parallel()
	n := newFaultNode(t)
	record(t, "two backends claim one id", n.tally.String, "each call reaches one of the two; what one removed is found on the other")
	id := n.run("twin", "runc")
	n.beta.AddSandbox(fakeruntime.Sandbox{ID: id, Config: sandboxConfig("twin"), Handler: "isolated"})
	n.restart()
	for range 2 {
		n.alpha.ClearJournal()
		n.beta.ClearJournal()
		got, err := n.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		if n.tally.add("ids", err) != codes.OK || got.GetStatus().GetId() != id {
			t.Errorf("status: %v, %v", got, err)
		}
		if calls := len(n.alpha.Calls("PodSandboxStatus")) + len(n.beta.Calls("PodSandboxStatus")); calls != 1 {
			t.Errorf("%d backends were asked, want one", calls)
		}
		if _, err := n.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}); err != nil {
			t.Error(err)
		}
	}
	n.removed[id] = true
	if slices.Contains(n.truth(), id) {
		t.Errorf("after two removals %s is still there", id)
	}
	n.check()
}

// TestHugeList: more than a message holds is an error and never a part, the
// other calls go on, and streamed lists are whole.
func TestHugeList(t *testing.T) {
	t.Parallel()
	n := newFaultNode(t)
	record(t, "a backend lists 17 MiB", n.tally.String, "the list is ResourceExhausted, the streamed one whole; events and ids go on")
	n.config = strings.ReplaceAll(n.config, `list_timeout = "500ms"`, `list_timeout = "5s"`) // They take their time.
	sandbox := n.beta.AddSandbox(fakeruntime.Sandbox{Config: sandboxConfig("big"), Handler: "isolated"})
	for range 17 {
		request := createRequest(sandbox, "big", "c", "app")
		request.Config.Annotations = map[string]string{"big": strings.Repeat("x", 1<<20)}
		n.beta.AddContainer(fakeruntime.Container{SandboxID: sandbox, Config: request.GetConfig()})
	}
	n.restart()
	if _, err := n.containerIDs(nil); n.tally.add("lists", err) != codes.ResourceExhausted {
		t.Errorf("17 MiB: %v, want ResourceExhausted", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ids, err := streamedContainers(ctx, n.runtime)
	if n.tally.add("streamed lists", err) != codes.OK || len(ids) != 6+17 {
		t.Errorf("streamed: %d containers, %v, want 23", len(ids), err)
	}
	n.byID()
	if err := n.eventOf(n.beta); n.tally.add("events", err) != codes.OK {
		t.Errorf("events of a backend with a huge list: %v", err)
	}
	if problem := n.indexProblem(); problem != "" {
		t.Error(problem)
	}
}

// eventOf subscribes to events, runs a pod on a backend, and waits for its
// first event.
func (n *faultNode) eventOf(r *fakeruntime.Runtime) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	events, err := n.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	if err := r.WaitSubscribers(ctx, 1); err != nil {
		return err
	}
	n.cycle("creates", r, false)
	for {
		event, err := events.Recv()
		if err != nil || n.owner[event.GetContainerId()] == r {
			return err
		}
	}
}

// TestEventsGoOn: a call that hangs while missed events are told does not end
// the backend's events for ever.
func TestEventsGoOn(t *testing.T) {
	t.Parallel()
	n := newFaultNode(t)
	record(t, "a backend dies in an event stream, and hangs when it is asked for what was missed", n.tally.String, "no event is lost, the stream goes on")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events, err := n.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.beta.WaitSubscribers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := n.beta.WaitCalls(ctx, "GetContainerEvents", 1); err != nil {
		t.Fatal(err)
	}
	n.beta.Stop()
	id := n.beta.AddSandbox(fakeruntime.Sandbox{Config: sandboxConfig("missed"), Handler: "isolated"})
	n.beta.Inject("PodSandboxStatus", fakeruntime.Fault{Hang: true, Times: 1})
	n.beta.Restart()
	for {
		event, err := events.Recv()
		if n.tally.add("events", err) != codes.OK {
			t.Fatalf("the missed event never came: %v", err)
		}
		if event.GetContainerId() == id {
			return
		}
	}
}
