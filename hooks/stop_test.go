package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

func preStop(hooks ...configs.Hook) configs.Hooks { return configs.Hooks{PreStop: hooks} }

// Hooks of all lengths against grace periods of all lengths, of a container that
// ignores its signal.
func TestGrace(t *testing.T) {
	t.Parallel()
	for _, hook := range []time.Duration{0, time.Second, 5 * time.Second, 60 * time.Second} {
		for _, grace := range []time.Duration{0, time.Second, 2 * time.Second, 10 * time.Second, 30 * time.Second} {
			t.Run(fmt.Sprintf("a hook of %s within %s", hook, grace), func(t *testing.T) {
				t.Parallel()
				timed(t, preStop(exec("drain", "sleep "+hook.String())), func(t *testing.T, r *rig, d *double) {
					t.Helper()
					d.add("c", running, nil).stubborn = true
					if err := r.Stop(t.Context(), container("c"), grace); err != nil {
						t.Error(err)
					}
					want, result := []string{"0s KILL"}, journal.Skipped
					if grace > 0 {
						term := min(hook, grace)
						kill := max(grace, term+min(2*time.Second, grace))
						want = []string{"0s exec sleep " + hook.String(), term.String() + " TERM", kill.String() + " KILL"}
						result = map[bool]journal.State{true: journal.Delivered, false: journal.Failed}[hook < grace]
					}
					wantNotes(t, d, want...)
					if got := r.states()["drain"]; got != result && (hook != grace || grace == 0) {
						t.Errorf("the hook is %s, want %s", got, result)
					}
					r.clean()
				})
			})
		}
	}
}

func TestStopIsJoinedAndShortened(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		hook string
		join func(ctx context.Context, r *rig) error
		want []string
	}{
		{
			"by a shorter stop", "sleep 1m",
			func(ctx context.Context, r *rig) error { return r.Stop(ctx, container("c"), 5*time.Second) },
			[]string{"0s exec sleep 1m", "8s TERM", "10s KILL"},
		},
		{
			"by a longer stop, which changes nothing", "sleep 1m",
			func(ctx context.Context, r *rig) error { return r.Stop(ctx, container("c"), time.Hour) },
			[]string{"0s exec sleep 1m", "30s TERM", "32s KILL"},
		},
		{
			"by a kill", "sleep 1m",
			func(ctx context.Context, r *rig) error { return r.Stop(ctx, container("c"), 0) },
			[]string{"0s exec sleep 1m", "3s KILL"},
		},
		{
			"by the end of its sandbox", "sleep 1m",
			func(ctx context.Context, r *rig) error {
				return r.EndSandbox(ctx, Container{Sandbox: sandboxID, Handler: handlerName})
			},
			[]string{"0s exec sleep 1m", "5s TERM", "7s KILL"},
		},
		{
			"by its removal", "sleep 1m",
			func(ctx context.Context, r *rig) error { return r.EndContainer(ctx, container("c")) },
			[]string{"0s exec sleep 1m", "5s TERM", "7s KILL"},
		},
		{
			"by a shorter stop while the runtime waits", "true",
			func(ctx context.Context, r *rig) error { return r.Stop(ctx, container("c"), 5*time.Second) },
			[]string{"0s exec true", "0s TERM", "8s KILL"},
		},
		{
			"by a kill while the runtime waits", "true",
			func(ctx context.Context, r *rig) error { return r.Stop(ctx, container("c"), 0) },
			[]string{"0s exec true", "0s TERM", "3s KILL"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timed(t, preStop(exec("drain", tt.hook)), func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", running, nil).stubborn = true
				first := begin(func() error { return r.Stop(t.Context(), container("c"), 30*time.Second) })
				after(t, 3*time.Second)
				if err := errors.Join(tt.join(t.Context(), r), first()); err != nil {
					t.Error(err)
				}
				wantNotes(t, d, tt.want...)
				r.clean()
			})
		})
	}
}

// Each hook has its turn, one that fails does not keep the next, and what the
// container is left with is what is left.
func TestHooksRunInOrder(t *testing.T) {
	t.Parallel()
	hooks := preStop(exec("first", "sleep 2s"), exec("broken", "exit 3"), exec("second", "sleep 1s"), exec("late", "sleep 9s"), exec("never", "true"))
	timed(t, hooks, func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		if err := r.Stop(t.Context(), container("c"), 5*time.Second); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s exec sleep 2s", "2s exec exit 3", "2s exec sleep 1s", "3s exec sleep 9s", "5s TERM", "5s end")
		r.wantStates(map[string]journal.State{
			"first": journal.Delivered, "broken": journal.Failed, "second": journal.Delivered, "late": journal.Failed, "never": journal.Skipped,
		})
		events := r.warnings()
		if len(events) != 2 || !strings.HasPrefix(events[0], `FailedPreStopHook: PreStop hook "broken" of container "app" failed: exit code 3`) {
			t.Errorf("events: %q", events)
		}
		r.clean()
	})
}

// The stop goes on when its caller has gone.
func TestStopOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "sleep 4s")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Stop(ctx, container("c"), 10*time.Second); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("Stop: %v, want DeadlineExceeded", err)
		}
		after(t, 10*time.Second)
		wantNotes(t, d, "0s exec sleep 4s", "4s TERM", "4s end")
		r.wantStates(map[string]journal.State{"drain": journal.Delivered})
		r.clean()
	})
}

func TestNoHooksForWhatDoesNotRun(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("ended", exited, nil)
		for _, id := range []string{"ended", "unknown"} {
			if err := errors.Join(r.Stop(t.Context(), container(id), time.Second), r.EndContainer(t.Context(), container(id))); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
		wantNotes(t, d)
		r.wantStates(map[string]journal.State{})
	})
}

// A container that no hook matches is stopped as asked, and leaves nothing on disk.
func TestContainerWithoutHooks(t *testing.T) {
	t.Parallel()
	hook := exec("drain", "true")
	hook.Match = configs.Match{Labels: map[string]string{"app": "other"}}
	timed(t, preStop(hook), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		r.setFault(func(state.Point) error { return errors.New("nothing is to be written") })
		d.add("c", running, nil).stubborn = true
		if err := r.Stop(t.Context(), container("c"), 10*time.Second); err != nil {
			t.Error(err)
		}
		d.add("left to the sandbox", running, nil)
		if err := r.EndSandbox(t.Context(), Container{Sandbox: sandboxID, Handler: handlerName}); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s TERM", "10s KILL")
		r.clean()
	})
}

func TestContainerThatEndsDuringItsHooks(t *testing.T) {
	t.Parallel()
	sleepy := configs.Hook{Name: "sleep", Sleep: &configs.SleepHook{Seconds: 20}, Timeout: configs.Duration{Duration: time.Minute}, Attempts: 1}
	tests := []struct {
		name  string
		hooks []configs.Hook
		want  map[string]journal.State
		took  time.Duration
	}{
		{"in a sleep", []configs.Hook{sleepy, exec("next", "true")}, map[string]journal.State{"sleep": journal.Moot, "next": journal.Moot}, 4 * time.Second},
		{"in a command", []configs.Hook{exec("drain", "sleep 20s"), exec("next", "true")}, map[string]journal.State{"drain": journal.Moot, "next": journal.Moot}, 3500 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timed(t, preStop(tt.hooks...), func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", running, nil)
				stopped := begin(func() error { return r.Stop(t.Context(), container("c"), 30*time.Second) })
				after(t, 3500*time.Millisecond)
				d.exitNow()
				err := stopped()
				if took := time.Since(r.began); err != nil || took != tt.took {
					t.Errorf("it took %s, want %s (%v)", took, tt.took, err)
				}
				r.wantStates(tt.want)
				r.clean()
			})
		})
	}
}

// The disk may fail in any way: a stop still stops, hooks included.
func TestStopWithoutADisk(t *testing.T) {
	t.Parallel()
	for _, point := range []state.Point{state.BeforeCommit, state.AfterCommit} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			timed(t, preStop(exec("drain", "sleep 4s")), func(t *testing.T, r *rig, d *double) {
				t.Helper()
				r.setFault(func(p state.Point) error {
					if p == point {
						return errors.New("the disk says no")
					}
					return nil
				})
				d.add("c", running, nil)
				if err := r.Stop(t.Context(), container("c"), 10*time.Second); err != nil {
					t.Error(err)
				}
				wantNotes(t, d, "0s exec sleep 4s", "4s TERM", "4s end")
				r.setFault(nil)
				after(t, 2*flushPause)
				r.wantStates(map[string]journal.State{"drain": journal.Delivered})
				r.restart()
				synctest.Wait()
				if n := d.ran("sleep 4s"); n != 1 {
					t.Errorf("the hook ran %d times", n)
				}
				r.clean()
			})
		})
	}
}

// A runtime that cannot stop the container is asked again, and callers are told.
func TestRuntimeThatFailsToStop(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		failures := 2
		d.stopError = func() error {
			if failures == 0 {
				return nil
			}
			failures--
			return status.Error(codes.Unknown, "the shim is stuck")
		}
		if err := r.Stop(t.Context(), container("c"), 10*time.Second); status.Convert(err).Message() != "the shim is stuck" {
			t.Errorf("Stop: %v, want the runtime's error", err)
		}
		if err := r.Stop(t.Context(), container("c"), 10*time.Second); status.Convert(err).Message() != "the shim is stuck" {
			t.Errorf("second Stop: %v, want the runtime's error", err)
		}
		after(t, time.Minute)
		if d.state() != exited || d.ran("true") != 1 {
			t.Errorf("the container is %s, its hook ran %d times", d.state(), d.ran("true"))
		}
		r.clean()
	})
}

// Nothing is accepted of a stop that cannot begin; the kubelet asks again.
func TestStopWhileTheRuntimeIsAway(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		d.setAway(true)
		if err := r.Stop(t.Context(), container("c"), 10*time.Second); status.Code(err) != codes.Unavailable {
			t.Errorf("Stop: %v, want Unavailable", err)
		}
		r.wantStates(map[string]journal.State{})
		d.setAway(false)
		if err := r.Stop(t.Context(), container("c"), 10*time.Second); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s exec true", "0s TERM", "0s end")
	})
}

func TestHas(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "sleep 5s")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		if !r.Has(handlerName) || r.Has("plain") || r.Has("unknown") {
			t.Error("Has does not tell who has hooks")
		}
		d.add("c", running, nil)
		stopped := begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) })
		after(t, time.Second)
		r.Configure(map[string]configs.Handler{handlerName: {}})
		if !r.Has(handlerName) {
			t.Error("a handler that lost its hooks has a stop under way, and Has does not know")
		}
		if err := stopped(); err != nil || r.Has(handlerName) {
			t.Errorf("after the stop: %v, Has %v", err, r.Has(handlerName))
		}
	})
}

// Eight callers at once make one stop.
func TestOneStopForAll(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "sleep 2s")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		var waits []func() error
		for range 8 {
			waits = append(waits, begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) }))
		}
		for _, wait := range waits {
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
		if got := d.all(); !slices.Equal(got, []string{"0s exec sleep 2s", "2s TERM", "2s end"}) {
			t.Errorf("what happened: %q", got)
		}
	})
}
