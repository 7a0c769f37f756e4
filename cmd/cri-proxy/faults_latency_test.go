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

const (
	latencyRounds = 3 // Of two windows each.
	latencyTries  = 5
	mostSlower    = 2.0
	windowCalls   = 100
	// windowPause makes a window longer than the list_timeout: in its first part
	// nobody knows yet that the backend hangs, in its last it is away.
	windowPause = 8 * time.Millisecond
)

// TestHangingDoesNotSlow: while one backend hangs, and callers wait for it, the
// other's calls by id and creates take at most twice as long as without. A window
// with the fault is compared with one without it beside it, since the machine is
// not as fast in one second as in the next, and the middle ratio of all windows
// counts. Where that is too high more windows follow: what makes calls slow
// makes them slow in those as well, and bad luck does not last.
//
//nolint:paralleltest // It measures time, beside nobody.
func TestHangingDoesNotSlow(t *testing.T) {
	n := newFaultNode(t)
	saw := ""
	record(t, "a backend hangs, and 8 callers wait for it", func() string { return saw }, "p99 of the other's ids and creates ≤ 2 × that without the fault")
	var ids, creates []float64
	for range latencyTries {
		for round := range latencyRounds {
			idsRatio, createsRatio := n.slower(round%2 == 1)
			ids, creates = append(ids, idsRatio), append(creates, createsRatio)
		}
		saw = fmt.Sprintf("p99 with the fault ÷ without, the median of %d windows: ids %.2f, creates %.2f", len(ids), middle(ids), middle(creates))
		if middle(ids) <= mostSlower && middle(creates) <= mostSlower {
			t.Log(saw)
			n.check()
			return
		}
	}
	t.Errorf("%s; ids %.2f, creates %.2f", saw, ids, creates)
}

func middle(ratios []float64) float64 { return slices.Sorted(slices.Values(ratios))[len(ratios)/2] }

// slower measures a window with the fault and one without it, and returns how
// many times as long as without it the p99 is.
func (n *faultNode) slower(faultFirst bool) (ids, creates float64) {
	n.t.Helper()
	var took [2]struct{ ids, creates time.Duration }
	for i := range took {
		fault := (i == 0) == faultFirst
		if fault {
			n.beta.Inject(fakeruntime.AllMethods, fakeruntime.Fault{Hang: true})
		}
		which := map[bool]int{false: 0, true: 1}[fault]
		took[which].ids, took[which].creates = n.measure(map[bool]string{false: "before", true: "hanging"}[fault])
		n.heal()
	}
	return float64(took[1].ids) / float64(took[0].ids), float64(took[1].creates) / float64(took[0].creates)
}

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
				pauseFor(ctx, 100*time.Millisecond)
			}
		})
	}
	alpha := n.alpha.Containers()[0].GetId()
	tookIDs, tookCreates := make([]time.Duration, windowCalls), make([]time.Duration, windowCalls)
	for i := range windowCalls {
		began := time.Now()
		_, err := n.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: alpha})
		tookIDs[i] = time.Since(began)
		if err != nil {
			n.t.Error(err)
		}
		n.cycle("alpha's creates", n.alpha, true)
		tookCreates[i] = time.Since(began) - tookIDs[i]
		pauseFor(ctx, windowPause)
	}
	return p99(tookIDs), p99(tookCreates)
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100-1]
}
