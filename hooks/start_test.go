package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

const created = runtimeapi.ContainerState_CONTAINER_CREATED

func postStarts(hooks ...configs.PostStartHook) configs.Hooks { return configs.Hooks{PostStart: hooks} }

// start is the StartContainer of a container.
func (r *rig) startContainer(ctx context.Context, d *double, id string) error {
	return r.Start(ctx, container(id), func(ctx context.Context) error { return d.start(ctx, id) })
}

func grace(seconds string) map[string]string { return map[string]string{graceAnnotation: seconds} }

func TestStart(t *testing.T) {
	t.Parallel()
	const kill, ignore = configs.OnFailureKill, configs.OnFailureIgnore
	twice := exec("register", "exit 3")
	twice.Attempts = 3
	tests := []struct {
		name  string
		hooks configs.Hooks
		limit time.Duration // Of the caller.
		err   string        // It begins so.
		took  time.Duration
		notes []string // A minute later.
		want  map[string]journal.State
	}{
		{
			"one that is waited for", postStarts(postStart(exec("register", "sleep 3s"), true, kill)), 2 * time.Minute, "", 3 * time.Second,
			[]string{"0s start", "0s exec sleep 3s"},
			map[string]journal.State{"register": journal.Delivered},
		},
		{
			"one that is not waited for", postStarts(postStart(exec("register", "sleep 3s"), false, kill)), 2 * time.Minute, "", 0,
			[]string{"0s start", "0s exec sleep 3s"},
			map[string]journal.State{"register": journal.Delivered},
		},
		{
			"one after another", postStarts(postStart(exec("a", "sleep 1s"), false, kill), postStart(exec("b", "sleep 2s"), true, kill), postStart(exec("c", "sleep 4s"), false, kill)),
			2 * time.Minute, "", 3 * time.Second,
			[]string{"0s start", "0s exec sleep 1s", "1s exec sleep 2s", "3s exec sleep 4s"},
			map[string]journal.State{"a": journal.Delivered, "b": journal.Delivered, "c": journal.Delivered},
		},
		{
			"longer than its caller waits", postStarts(postStart(exec("register", "sleep 20s"), true, kill)), 15 * time.Second, "", 10 * time.Second,
			[]string{"0s start", "0s exec sleep 20s"},
			map[string]journal.State{"register": journal.Delivered},
		},
		{
			"three attempts, then a kill with its PreStop",
			configs.Hooks{
				PostStart: []configs.PostStartHook{postStart(twice, true, kill), postStart(exec("next", "true"), true, kill)},
				PreStop:   []configs.Hook{exec("drain", "sleep 2s")},
			},
			2 * time.Minute, `rpc error: code = Unknown desc = FailedPostStartHook: hook "register" of container "app": exit code 3`, 2300 * time.Millisecond,
			[]string{"0s start", "0s exec exit 3", "100ms exec exit 3", "300ms exec exit 3", "300ms exec sleep 2s", "2.3s TERM", "2.3s end"},
			map[string]journal.State{"register": journal.Failed, "next": journal.Moot, "drain": journal.Delivered},
		},
		{
			"a kill that takes longer than the caller waits",
			configs.Hooks{
				PostStart: []configs.PostStartHook{postStart(exec("register", "exit 3"), true, kill)},
				PreStop:   []configs.Hook{exec("drain", "sleep 6s")},
			},
			8 * time.Second, "rpc error: code = Unknown desc = FailedPostStartHook: ", 3 * time.Second,
			[]string{"0s start", "0s exec exit 3", "0s exec sleep 6s", "6s TERM", "6s end"},
			map[string]journal.State{"register": journal.Failed, "drain": journal.Delivered},
		},
		{
			"a failure that is ignored", postStarts(postStart(exec("register", "exit 3"), true, ignore), postStart(exec("next", "true"), true, kill)), 2 * time.Minute, "", 0,
			[]string{"0s start", "0s exec exit 3", "0s exec true"},
			map[string]journal.State{"register": journal.Failed, "next": journal.Delivered},
		},
		{
			"a failure that kills, not waited for", postStarts(postStart(exec("register", "exit 3"), false, kill)), 2 * time.Minute, "", 0,
			[]string{"0s start", "0s exec exit 3", "0s TERM", "0s end"},
			map[string]journal.State{"register": journal.Failed},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timed(t, tt.hooks, func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", created, grace("10"))
				ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
				defer cancel()
				err := r.startContainer(ctx, d, "c")
				if took := time.Since(r.began); took != tt.took || !strings.HasPrefix(fmt.Sprint(err), tt.err) || (err == nil) != (tt.err == "") {
					t.Errorf("after %s: %v, want %q after %s", took, err, tt.err, tt.took)
				}
				after(t, time.Minute)
				wantNotes(t, d, tt.notes...)
				r.wantStates(tt.want)
				r.clean()
				if len(r.launches)+len(r.stops) > 0 {
					t.Errorf("left over: %v %v", r.launches, r.stops)
				}
			})
		})
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	slow := exec("register", "sleep 20s")
	slow.Timeout, slow.Attempts = configs.Duration{Duration: 2 * time.Second}, 2
	timed(t, postStarts(postStart(slow, true, configs.OnFailureIgnore)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		if err := r.startContainer(t.Context(), d, "c"); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s start", "0s exec sleep 20s", "2.1s exec sleep 20s")
		all, _, err := r.Journal.Records()
		if err != nil || len(all) != 1 || all[0].Error != "it took longer than 2s" || all[0].Attempts != 2 {
			t.Errorf("the journal says %+v (%v)", all, err)
		}
	})
}

// A caller that has gone does not take the hook with it.
func TestStartOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	timed(t, postStarts(postStart(exec("register", "sleep 3s"), true, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := r.startContainer(ctx, d, "c"); status.Code(err) != codes.Canceled {
			t.Errorf("Start: %v, want Canceled", err)
		}
		after(t, 5*time.Second)
		r.wantStates(map[string]journal.State{"register": journal.Delivered})
	})
}

// A hook that cannot be recorded: no start.
func TestNoStartWithoutADisk(t *testing.T) {
	t.Parallel()
	for _, point := range []state.Point{state.BeforeCommit, state.AfterCommit} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			timed(t, postStarts(postStart(exec("register", "true"), true, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", created, nil)
				r.setFault(func(p state.Point) error {
					if p == point {
						return errors.New("the disk says no")
					}
					return nil
				})
				err := r.startContainer(t.Context(), d, "c")
				if err == nil || !strings.Contains(err.Error(), "is not started") || !strings.Contains(err.Error(), "the disk says no") {
					t.Errorf("Start: %v, want a clear refusal", err)
				}
				wantNotes(t, d)
				r.setFault(nil)
				if err := r.startContainer(t.Context(), d, "c"); err != nil {
					t.Error(err)
				}
				wantNotes(t, d, "0s start", "0s exec true")
				r.wantStates(map[string]journal.State{"register": journal.Delivered})
			})
		})
	}
}

// The disk fails once the container runs: the hook is delivered, and its outcome
// is written when the disk is well.
func TestOutcomeIsWrittenLater(t *testing.T) {
	t.Parallel()
	timed(t, postStarts(postStart(exec("register", "sleep 1s"), true, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		err := r.Start(t.Context(), container("c"), func(ctx context.Context) error {
			r.setFault(func(state.Point) error { return errors.New("the disk says no") })
			return d.start(ctx, "c")
		})
		if err != nil || d.ran("sleep 1s") != 1 {
			t.Errorf("Start: %v, the hook ran %d times", err, d.ran("sleep 1s"))
		}
		r.wantStates(map[string]journal.State{"register": journal.Pending})
		r.setFault(nil)
		after(t, 2*flushPause)
		r.wantStates(map[string]journal.State{"register": journal.Delivered})
	})
}

// The answer to a start was lost; the container runs, and gets its hooks.
func TestStartThatFailsAndSucceeds(t *testing.T) {
	t.Parallel()
	timed(t, postStarts(postStart(exec("register", "true"), true, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		lost := status.Error(codes.Unavailable, "the answer was lost")
		start := func(id string, too bool) error {
			return r.Start(t.Context(), container(id), func(ctx context.Context) error {
				if too {
					return errors.Join(d.start(ctx, id), lost)
				}
				return lost
			})
		}
		d.add("runs", created, nil)
		if err := start("runs", true); !errors.Is(err, lost) {
			t.Errorf("Start: %v, want the runtime's error", err)
		}
		after(t, time.Second)
		if n := d.ran("true"); n != 1 {
			t.Errorf("the hook of the container that runs ran %d times", n)
		}

		d.add("never", created, nil)
		if err := start("never", false); !errors.Is(err, lost) {
			t.Errorf("Start: %v, want the runtime's error", err)
		}
		after(t, time.Hour)
		if open, err := r.Journal.Unfinished(); len(open) != 1 || err != nil {
			t.Errorf("%d hooks are pending, want that of the container that may still be started (%v)", len(open), err)
		}
		if err := r.startContainer(t.Context(), d, "never"); err != nil || d.ran("true") != 2 {
			t.Errorf("the second start: %v, the hooks ran %d times", err, d.ran("true"))
		}

		d.add("gone", created, nil)
		if err := start("gone", false); !errors.Is(err, lost) {
			t.Errorf("Start: %v, want the runtime's error", err)
		}
		d.mu.Lock()
		delete(d.containers, "gone")
		d.mu.Unlock()
		after(t, time.Minute)
		r.clean()
	})
}

func TestContainerThatEndsDuringItsPostStart(t *testing.T) {
	t.Parallel()
	hooks := postStarts(postStart(exec("register", "sleep 20s"), true, configs.OnFailureKill), postStart(exec("next", "true"), true, configs.OnFailureKill))
	timed(t, hooks, func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		time.AfterFunc(3*time.Second, func() { d.exitNow() })
		if err := r.startContainer(t.Context(), d, "c"); err != nil {
			t.Errorf("Start: %v; that the container has ended is no failure of the hook", err)
		}
		wantNotes(t, d, "0s start", "0s exec sleep 20s", "3s exit")
		r.wantStates(map[string]journal.State{"register": journal.Moot, "next": journal.Moot})
	})
}

func TestStopEndsPostStart(t *testing.T) {
	t.Parallel()
	hooks := postStarts(postStart(exec("register", "sleep 20s"), true, configs.OnFailureKill), postStart(exec("next", "true"), true, configs.OnFailureKill))
	hooks.PreStop = []configs.Hook{exec("drain", "true")}
	timed(t, hooks, func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		started := begin(func() error { return r.startContainer(t.Context(), d, "c") })
		after(t, 3*time.Second)
		if err := errors.Join(r.Stop(t.Context(), container("c"), 10*time.Second), started()); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s start", "0s exec sleep 20s", "3s exec true", "3s TERM", "3s end")
		r.wantStates(map[string]journal.State{"register": journal.Moot, "next": journal.Moot, "drain": journal.Delivered})
		r.clean()
	})
}

// The pod's own hooks, in its annotation as of the container's creation, live
// through a restart; so does its refusal of the node's.
func TestPodHooksLiveThroughARestart(t *testing.T) {
	t.Parallel()
	hooks := preStop(exec("node", "node"))
	hooks.AllowPodHooks, hooks.AllowOptOut = true, true
	timed(t, hooks, func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		request := &runtimeapi.CreateContainerRequest{
			Config: &runtimeapi.ContainerConfig{Metadata: &runtimeapi.ContainerMetadata{Name: "app"}},
			SandboxConfig: &runtimeapi.PodSandboxConfig{Annotations: map[string]string{
				Annotation:       `{"app":{"postStart":[{"exec":{"command":["up"]}}],"preStop":[{"exec":{"command":["down"]}}]},"other":{"preStop":[{"sleep":{"seconds":5}}]}}`,
				OptOutAnnotation: "true",
			}},
		}
		if err := r.Check(handlerName, request); err != nil {
			t.Fatal(err)
		}
		r.Created(t.Context(), container("c"), request)
		if err := r.startContainer(t.Context(), d, "c"); err != nil {
			t.Error(err)
		}
		r.restart()
		synctest.Wait()
		if err := r.Stop(t.Context(), container("c"), time.Second); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s start", "0s exec up", "0s exec down", "0s TERM", "0s end")
		r.clean()
	})
}
