package hooks

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
)

// asked is a runtime that calls looked before it answers the question after which
// a stop that has nothing to do is over.
type asked struct {
	*double

	looked func()
}

func (a asked) PodSandboxStatus(ctx context.Context, req *runtimeapi.PodSandboxStatusRequest, o ...grpc.CallOption) (*runtimeapi.PodSandboxStatusResponse, error) {
	a.looked()
	return a.double.PodSandboxStatus(ctx, req, o...)
}

// A call that comes in the last moment of a stop gets what it asked for: the
// container ends, with its hooks once.
func TestStopIsJoinedAtItsEnd(t *testing.T) {
	t.Parallel()
	stopFor := func(d time.Duration) func(context.Context, *rig) error {
		return func(ctx context.Context, r *rig) error { return r.Stop(ctx, container("c"), d) }
	}
	end := func(ctx context.Context, r *rig) error { return r.EndContainer(ctx, container("c")) }
	elsewhere := exec("drain", "true")
	elsewhere.Match = configs.Match{Labels: map[string]string{"app": "other"}}
	tests := []struct {
		name        string
		hook        configs.Hook
		first, late func(context.Context, *rig) error
		atLook      bool // Else it is late to the end of the container.
		want        []string
	}{
		{"a removal without hooks by a stop", elsewhere, end, stopFor(10 * time.Second), true, []string{"0s TERM", "2s KILL"}},
		{"a removal without hooks by a kill", elsewhere, end, stopFor(0), true, []string{"0s KILL"}},
		{"a removal without hooks by another one", elsewhere, end, end, true, nil},
		{"a stop without hooks by a removal", elsewhere, stopFor(10 * time.Second), end, true, []string{"0s TERM", "2s KILL"}},
		{"a removal by a stop", exec("drain", "true"), end, stopFor(10 * time.Second), true, []string{"0s exec true", "0s TERM", "2s KILL"}},
		{"a stop that is over by a stop", exec("drain", "true"), stopFor(10 * time.Second), stopFor(10 * time.Second), false, []string{"0s exec true", "0s TERM", "0s end"}},
		{"a stop that is over by a removal", exec("drain", "true"), stopFor(10 * time.Second), end, false, []string{"0s exec true", "0s TERM", "0s end"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDouble()
				d.add("c", running, nil).stubborn = tt.atLook
				var r *rig
				late := make(chan error, 1)
				join := sync.OnceFunc(func() {
					go func() { late <- tt.late(t.Context(), r) }()
					synctest.Wait() // It has joined.
				})
				client := asked{double: d, looked: func() {}}
				if tt.atLook {
					client.looked = join
				} else {
					d.effect = func(what string) {
						if what == "stop" {
							join()
						}
					}
				}
				r = newRig(t, preStop(tt.hook), client)
				if err := errors.Join(tt.first(t.Context(), r), <-late); err != nil {
					t.Error(err)
				}
				wantNotes(t, d, tt.want...)
				r.clean()
			})
		})
	}
}

// Whoever comes as a stop is left either keeps it from being left, or begins one
// of its own: never does he wait for one that nobody brings to its end.
func TestLeaveAndJoinAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, preStop(exec("drain", "true")), newDouble())
	const tries = 2000
	left := 0
	for i := range tries {
		s, _, _ := r.claim(container("c"), time.Second, false)
		var isLeft, fresh bool
		var round *round
		var both sync.WaitGroup
		r.Engine.mu.Lock() // Both come as near to it as they may.
		calls := []func(){
			func() { isLeft = r.leave(s) },
			func() { _, round, fresh = r.claim(container("c"), time.Second, true) },
		}
		both.Go(calls[i%2])
		both.Go(calls[1-i%2])
		for range 10 {
			runtime.Gosched()
		}
		r.Engine.mu.Unlock()
		both.Wait()
		if isLeft != fresh {
			t.Fatalf("the stop was left: %t, and a fresh one begun: %t", isLeft, fresh)
		}
		if fresh {
			left++
		}
		r.release(r.stopOf("c"), nil)
		<-round.done
	}
	t.Logf("of %d stops %d were left before the other came", tries, left)
}

func (r *rig) stopOf(id string) *stop {
	r.Engine.mu.Lock()
	defer r.Engine.mu.Unlock()
	return r.stops[id]
}

// The caller who has begun a stop, and gone before the engine runs, takes nothing
// from the one who has joined it.
func TestJoinedStopOfACallerThatHasGone(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		o := r.Options
		o.Registerer = prometheus.NewRegistry()
		e, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		hasty, leave := context.WithCancel(t.Context())
		first := begin(func() error { return e.Stop(hasty, container("c"), 10*time.Second) })
		synctest.Wait()
		second := begin(func() error { return e.Stop(t.Context(), container("c"), 10*time.Second) })
		synctest.Wait()
		leave()
		synctest.Wait()
		ctx, stop := context.WithCancel(t.Context())
		ended := begin(func() error { return e.Run(ctx) })
		if err := second(); err != nil {
			t.Errorf("the one who waits: %v", err)
		}
		if err := first(); status.Code(err) != codes.Canceled {
			t.Errorf("the one who has gone: %v, want Canceled", err)
		}
		stop()
		if err := ended(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(d.all(), []string{"0s exec true", "0s TERM", "0s end"}) {
			t.Errorf("what happened: %q", d.all())
		}
	})
}
