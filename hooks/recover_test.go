package hooks

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// The proxy is away from 3s on, in the middle of a hook within a grace period of 10s.
func TestStopGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		away   time.Duration
		change func(r *rig, d *double)
		notes  []string // After those of before.
		want   map[string]journal.State
	}{
		{
			"with time left", 2 * time.Second, nil,
			[]string{"5s exec sleep 4s", "9s exec true", "9s TERM", "11s KILL"},
			map[string]journal.State{"drain": journal.Delivered, "next": journal.Delivered},
		},
		{
			"with too little time left", 5 * time.Second, nil,
			[]string{"8s exec sleep 4s", "10s TERM", "12s KILL"},
			map[string]journal.State{"drain": journal.Failed, "next": journal.Skipped},
		},
		{
			"with no time left", 20 * time.Second, nil,
			[]string{"23s TERM", "25s KILL"},
			map[string]journal.State{"drain": journal.Failed, "next": journal.Skipped},
		},
		{
			"after a reboot that the container lived through", 2 * time.Second, func(r *rig, _ *double) { r.bootID = "boot-2" },
			[]string{"5s TERM", "7s KILL"},
			map[string]journal.State{"drain": journal.Failed, "next": journal.Skipped},
		},
		{
			"when the container has ended", 2 * time.Second, func(_ *rig, d *double) { d.exitNow() },
			[]string{"5s exit"},
			map[string]journal.State{"drain": journal.Moot, "next": journal.Moot},
		},
		{
			"when the container is gone", 2 * time.Second, func(_ *rig, d *double) { delete(d.containers, "c") },
			nil,
			map[string]journal.State{"drain": journal.Moot, "next": journal.Moot},
		},
		{
			"under a configuration without hooks", 2 * time.Second, func(r *rig, _ *double) { r.hooks = configs.Hooks{} },
			[]string{"5s exec sleep 4s", "9s exec true", "9s TERM", "11s KILL"},
			map[string]journal.State{"drain": journal.Delivered, "next": journal.Delivered},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timed(t, preStop(exec("drain", "sleep 4s"), exec("next", "true")), func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", running, nil).stubborn = true
				stopped := begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) })
				after(t, 3*time.Second)
				r.crash()
				if err := stopped(); !errors.Is(err, errShutdown) {
					t.Errorf("Stop: %v, want %v", err, errShutdown)
				}
				after(t, tt.away)
				if tt.change != nil {
					tt.change(r, d)
				}
				r.restart()
				after(t, time.Minute)
				wantNotes(t, d, append([]string{"0s exec sleep 4s"}, tt.notes...)...)
				r.wantStates(tt.want)
				r.clean()
			})
		})
	}
}

// What a caller shortened before the crash holds after it, and a new caller joins.
func TestRecoveredStopIsJoined(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "sleep 1m")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil).stubborn = true
		first := begin(func() error { return r.Stop(t.Context(), container("c"), time.Hour) })
		after(t, time.Second)
		second := begin(func() error { return r.Stop(t.Context(), container("c"), 30*time.Second) })
		after(t, time.Second)
		r.crash()
		if errors.Join(first(), second()) == nil {
			t.Error("both stops succeeded before they were done")
		}
		r.restart()
		if err := r.Stop(t.Context(), container("c"), time.Hour); err != nil {
			t.Error(err)
		}
		wantNotes(t, d, "0s exec sleep 1m", "2s exec sleep 1m", "31s TERM", "33s KILL")
		r.clean()
	})
}

// The runtime is away when the proxy comes back: the stop waits for it.
func TestRecoveredStopWaitsForItsRuntime(t *testing.T) {
	t.Parallel()
	timed(t, preStop(exec("drain", "sleep 1m")), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		stopped := begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) })
		after(t, time.Second)
		r.crash()
		if stopped() == nil {
			t.Error("the stop succeeded before it was done")
		}
		d.setAway(true)
		r.restart()
		after(t, time.Minute)
		d.setAway(false)
		after(t, time.Minute)
		if d.state() != exited {
			t.Errorf("the container is %s", d.state())
		}
		r.clean()
	})
}

func TestPostStartGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	hooks := postStarts(postStart(exec("register", "sleep 4s"), true, configs.OnFailureKill), postStart(exec("next", "true"), false, configs.OnFailureKill))
	tests := []struct {
		name   string
		change func(d *double)
		notes  []string
		want   journal.State
	}{
		{"while the container runs", func(*double) {}, []string{"6s exec sleep 4s", "10s exec true"}, journal.Delivered},
		{"when it has ended", func(d *double) { d.exitNow() }, []string{"6s exit"}, journal.Moot},
		{"when it is gone", func(d *double) { delete(d.containers, "c") }, nil, journal.Moot},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			timed(t, hooks, func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", created, nil)
				ctx, leave := context.WithCancel(t.Context()) // A deadline would be answered five seconds early.
				defer time.AfterFunc(3*time.Second, leave).Stop()
				if err := r.startContainer(ctx, d, "c"); err == nil {
					t.Error("the start succeeded before its hook")
				}
				r.crash()
				after(t, 3*time.Second)
				tt.change(d)
				r.restart()
				after(t, time.Minute)
				wantNotes(t, d, append([]string{"0s start", "0s exec sleep 4s"}, tt.notes...)...)
				r.wantStates(map[string]journal.State{"register": tt.want, "next": tt.want})
				r.clean()
			})
		})
	}
}

// Killed between the failure of a hook and the stop that it calls for.
func TestKillGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	timed(t, postStarts(postStart(exec("register", "false"), true, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", running, nil)
		c, hook := container("c"), journal.Hook{Name: "register", Source: journal.FromNode, Exec: []string{"false"}, Attempts: 1, Kill: true}
		err := r.Journal.Update(func(tx *journal.Tx) error {
			return errors.Join(tx.Put(journal.Record{
				ID: journal.DeliveryID("c", journal.PostStart, hook), Container: c.ID, Sandbox: c.Sandbox, Handler: c.Handler,
				Event: journal.PostStart, Hook: hook, State: journal.Failed, Error: "exit code 1",
			}), tx.PutContainer(journal.Container{
				ID: c.ID, Sandbox: c.Sandbox, Handler: c.Handler,
				Stop: &journal.Stop{Asked: 30 * time.Second, Deadline: r.Clock.deadline(30 * time.Second)},
			}))
		})
		if err != nil {
			t.Fatal(err)
		}
		d.setAway(true)
		r.restart()
		after(t, 10*time.Second)
		d.setAway(false)
		after(t, time.Minute)
		if d.state() != exited {
			t.Errorf("the container is %s, and its hook has failed", d.state())
		}
		r.clean()
	})
}

// Killed between the promise and the start: the hooks wait for the start.
func TestPendingPostStartWaitsForTheStart(t *testing.T) {
	t.Parallel()
	timed(t, postStarts(postStart(exec("register", "true"), true, configs.OnFailureKill)), func(t *testing.T, r *rig, d *double) {
		t.Helper()
		d.add("c", created, nil)
		err := r.Start(t.Context(), container("c"), func(context.Context) error {
			r.end()
			r.ended.Wait()
			return errShutdown
		})
		if !errors.Is(err, errShutdown) {
			t.Errorf("Start: %v", err)
		}
		r.restart()
		after(t, time.Hour)
		r.wantStates(map[string]journal.State{"register": journal.Pending})
		if err := r.startContainer(t.Context(), d, "c"); err != nil || d.ran("true") != 1 {
			t.Errorf("Start: %v, the hook ran %d times", err, d.ran("true"))
		}
		r.wantStates(map[string]journal.State{"register": journal.Delivered})
	})
}
