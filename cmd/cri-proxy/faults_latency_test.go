package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// latencyFloor is what the machine's own noise may cost a call in a hundred.
const latencyFloor = 40 * time.Millisecond

// TestHangingDoesNotSlow: while one backend hangs, and callers wait for it, the
// other's calls by id and creates take at most twice as long as before.
//
//nolint:paralleltest // It measures time, beside nobody.
func TestHangingDoesNotSlow(t *testing.T) {
	n := newFaultNode(t)
	saw := ""
	record(t, "a backend hangs, and 8 callers wait for it", func() string { return saw }, "p99 of the other's ids and creates ≤ 2 × that without the fault")
	idsBefore, createsBefore := n.measure("before")
	n.beta.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true})
	ids, creates := n.measure("hanging")
	saw = fmt.Sprintf("p99 ids %s → %s, creates %s → %s", round(idsBefore), round(ids), round(createsBefore), round(creates))
	if ids > 2*idsBefore+latencyFloor || creates > 2*createsBefore+latencyFloor {
		t.Error(saw)
	}
	n.check()
}

func round(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// measure returns the p99 of calls to alpha, beside callers that want something
// of both.
func (n *faultNode) measure(name string) (ids, creates time.Duration) {
	ctx, cancel := context.WithCancel(n.t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	beta := n.beta.Containers()[0].GetId()
	for i := range 8 {
		others.Go(func() {
			for ctx.Err() == nil {
				limited, cancel := context.WithTimeout(ctx, callTime)
				var err error
				if i%2 == 0 {
					_, err = n.runtime.ContainerStatus(limited, &runtimeapi.ContainerStatusRequest{ContainerId: beta})
				} else {
					_, err = objectsOf(limited, n.runtime, i%4 == 1)
				}
				n.tally.add(name, err)
				cancel()
				pauseFor(ctx, 20*time.Millisecond)
			}
		})
	}
	alpha := n.alpha.Containers()[0].GetId()
	ids = p99(400, func(int) {
		_, err := n.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: alpha})
		if err != nil {
			n.t.Error(err)
		}
	})
	creates = p99(200, func(int) { n.cycle("alpha's creates", n.alpha, true) })
	return ids, creates
}

func p99(times int, call func(int)) time.Duration {
	took := make([]time.Duration, times)
	for i := range took {
		began := time.Now()
		call(i)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[times*99/100]
}
