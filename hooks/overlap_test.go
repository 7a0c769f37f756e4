package hooks

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// A stop that is refused, since its runtime is away, takes no hook from a
// container that goes on.
func TestRefusedStopLeavesPostStart(t *testing.T) {
	t.Parallel()
	timed(t, postStarts(postStart(exec("register", "sleep 20s"), false, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		if err := r.startContainer(t.Context(), d, "c"); err != nil {
			t.Fatal(err)
		}
		after(t, time.Second)
		d.setAway(true)
		if err := r.Stop(t.Context(), container("c"), 10*time.Second); status.Code(err) != codes.Unavailable {
			t.Errorf("the stop: %v, want Unavailable", err)
		}
		d.setAway(false)
		after(t, 25*time.Second)
		if r.wantStates(map[string]journal.State{"register": journal.Delivered}); d.state() != running {
			t.Errorf("the container is %s", d.state())
		}
	})
}

// A hook that has failed when a stop comes, and is about to call for one itself,
// is recorded and told as every other that fails.
func TestStopAtTheFailureOfAPostStart(t *testing.T) {
	t.Parallel()
	timed(t, postStarts(postStart(exec("register", "killed"), false, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		d.exec = func(context.Context, []string) (int32, error) { return 137, nil }
		if err := r.startContainer(t.Context(), d, "c"); err != nil {
			t.Fatal(err)
		}
		after(t, endTime/2) // It looks whether the container has ended, too.
		if err := r.Stop(t.Context(), container("c"), 10*time.Second); err != nil {
			t.Error(err)
		}
		after(t, endTime)
		r.wantStates(map[string]journal.State{"register": journal.Failed})
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.events) != 1 {
			t.Errorf("the Events are %q, want one", r.events)
		}
	})
}

// Of a handler that only allows to refuse hooks it does not have, nothing is kept.
func TestCreatedWithoutHooks(t *testing.T) {
	t.Parallel()
	timed(t, configs.Hooks{AllowOptOut: true}, func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		pod := &runtimeapi.PodSandboxConfig{Annotations: map[string]string{OptOutAnnotation: "true"}}
		r.Created(t.Context(), container("c"), &runtimeapi.CreateContainerRequest{SandboxConfig: pod})
		if kept, err := r.Journal.Containers(); err != nil || len(kept) > 0 || len(r.annotations) > 0 {
			t.Errorf("on disk are %v (%v), in memory %v", kept, err, r.annotations)
		}
	})
}

// A hook that was dropped spoils nothing of the others at the end of the stop.
func TestDroppedBeforeTheDeadline(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "sleep 1h"), exec("second", "true"), exec("third", "true")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		stopped := begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) })
		after(t, time.Second)
		for _, e := range r.entries() {
			if e.Hook != "second" {
				continue
			}
			if err := r.Drop(e.ID); err != nil {
				t.Error(err)
			}
		}
		if err := stopped(); err != nil {
			t.Error(err)
		}
		r.wantStates(map[string]journal.State{"drain": journal.Failed, "second": journal.Moot, "third": journal.Skipped})
		r.Engine.mu.Lock()
		defer r.Engine.mu.Unlock()
		if len(r.unsaved) > 0 {
			t.Errorf("the disk has not: %v", r.unsaved)
		}
	})
}
