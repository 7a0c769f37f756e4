package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestGrowth: pods that come and go leave nothing, whether somebody lists or
// not. A list that nobody renews is what would have to be corrected for ever.
//
//nolint:paralleltest // It measures the memory of the whole process.
func TestGrowth(t *testing.T) {
	cycles := 300
	if os.Getenv("FAULTS_TABLE") != "" && !testing.Short() {
		cycles = 3000 // Too many for every day, with the race detector.
	}
	for name, listEvery := range map[string]int{"listed": 10, "never listed": cycles + 1} {
		t.Run(name, func(t *testing.T) {
			before := usage(t)
			saw := ""
			record(t, fmt.Sprintf("%d pod cycles, %s", cycles, name), func() string { return saw }, "heap after GC, maps, goroutines and descriptors do not grow")
			t.Cleanup(func() { wantUsage(t, before) })
			n := newFaultNode(t)
			for _, r := range n.fakes() {
				r.Configure(func(o *fakeruntime.Options) { o.NoJournal = true })
				r.ClearJournal()
			}
			n.churn(cycles/3, listEvery)
			first := n.heap()
			n.churn(cycles-cycles/3, listEvery)
			grown := int64(n.heap()) - int64(first)
			saw = fmt.Sprintf("heap %+d KiB over the last two thirds", grown/1024)
			// 300 bytes a cycle would be 30 MB a day at a pod a second.
			if limit := int64(512<<10) + 300*int64(cycles); grown > limit {
				t.Errorf("the heap grew by %d bytes over %d cycles, allowed are %d", grown, cycles-cycles/3, limit)
			}
			if problem := n.indexProblem(); problem != "" {
				t.Error(problem)
			}
			for _, b := range n.daemon.backends().All() {
				frame, sandboxes, _ := b.Sandboxes.Snapshot()
				frame.Free()
				frame, containers, _ := b.Containers.Snapshot()
				frame.Free()
				if kept := len(sandboxes) + len(containers); kept > cycles {
					t.Errorf("%d changes are kept beside the last lists of %s", kept, b.Name)
				}
			}
		})
	}
}

// churn runs and removes pods on both backends in turn.
func (n *faultNode) churn(cycles, listEvery int) {
	n.t.Helper()
	for i := range cycles {
		n.cycle("creates", n.fakes()[i%2], true)
		clear(n.owner)
		clear(n.removed)
		if i%listEvery == listEvery-1 {
			n.lists()
		}
	}
	if others := n.othersThanOK(); others != nil {
		n.t.Errorf("callers saw %s", n.tally.String())
	}
}

// heap is what is reachable.
func (n *faultNode) heap() uint64 {
	n.t.Helper()
	for _, r := range n.fakes() { // Whose events nobody fetched.
		if err := n.drainEvents(r); err != nil {
			n.t.Fatal(err)
		}
	}
	var stats runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// drainEvents fetches a fake's events past the proxy.
func (n *faultNode) drainEvents(r *fakeruntime.Runtime) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), callTime)
	defer cancel()
	up, err := runtimeOf(n.t, r).GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
	if err != nil {
		return err
	}
	const last = "the last"
	r.Emit(&runtimeapi.ContainerEventResponse{ContainerId: last})
	for {
		if event, err := up.Recv(); err != nil || event.GetContainerId() == last {
			return err
		}
	}
}
