package hooks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/state"
)

// crasher kills the engine at the n-th moment that counts: before and after each
// commit, and after each effect on the runtime. Nothing reaches the disk or the
// runtime from then on.
type crasher struct {
	r      *rig
	left   int
	dead   bool
	cancel context.CancelFunc
}

func (c *crasher) moment() error {
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.left--
	if c.left == 0 {
		c.dead = true
		c.r.end()
		c.cancel()
	}
	if c.dead {
		return errors.New("killed")
	}
	return nil
}

func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	hooks := postStarts(postStart(exec("register", "up 1"), true, configs.OnFailureKill), postStart(exec("warm", "up 2"), false, configs.OnFailureKill))
	hooks.PreStop = []configs.Hook{exec("drain", "down 1"), exec("leave", "down 2")}
	const enough = 60
	for n := 1; n <= enough; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			timed(t, hooks, func(t *testing.T, r *rig, d *double) {
				t.Helper()
				killAt(t, r, d, n)
			})
		})
	}
}

func killAt(t *testing.T, r *rig, d *double, n int) {
	t.Helper()
	d.add("c", created, grace("10")).stubborn = true
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &crasher{r: r, left: n, cancel: cancel}
	r.setFault(func(state.Point) error { return c.moment() })
	d.effect = func(string) { _ = c.moment() } //nolint:errcheck // What was done is done.
	err := r.startContainer(ctx, d, "c")
	after(t, time.Second)
	if err == nil {
		err = r.Stop(ctx, container("c"), 10*time.Second)
	}
	r.mu.Lock()
	killed := c.dead
	r.mu.Unlock()
	if !killed {
		if err != nil {
			t.Fatalf("it failed without being killed: %v", err)
		}
		t.Logf("moment %d does not come", n)
	}
	r.crash()
	after(t, 2*time.Second)
	d.effect = nil
	r.restart()
	after(t, time.Second)
	if d.state() == created { // The kubelet asks again.
		if err := r.startContainer(t.Context(), d, "c"); err != nil {
			t.Error(err)
		}
	}
	after(t, time.Second)
	if err := r.Stop(t.Context(), container("c"), 10*time.Second); err != nil {
		t.Error(err)
	}
	for _, hook := range []string{"up 1", "up 2", "down 1", "down 2"} {
		if ran := d.ran(hook); ran < 1 || ran > 2 {
			t.Errorf("hook %q ran %d times", hook, ran)
		}
	}
	if d.state() != exited {
		t.Errorf("the container is %s", d.state())
	}
	checkDeadline(t, d)
	r.clean()
}

// A container whose hook failed is stopped, PreStop included, whenever the proxy is
// killed on the way.
func TestKilledBeforeTheKill(t *testing.T) {
	t.Parallel()
	hooks := postStarts(postStart(exec("register", "exit 3"), true, configs.OnFailureKill), postStart(exec("next", "up 2"), true, configs.OnFailureKill))
	for name, preStops := range map[string][]configs.Hook{"with a PreStop": {exec("drain", "down 1")}, "without": nil} {
		hooks.PreStop = preStops
		for n := 1; n <= 20; n++ {
			t.Run(name+" "+strconv.Itoa(n), func(t *testing.T) {
				t.Parallel()
				timed(t, hooks, func(t *testing.T, r *rig, d *double) {
					t.Helper()
					killAtFailure(t, r, d, n)
				})
			})
		}
	}
}

func killAtFailure(t *testing.T, r *rig, d *double, n int) {
	t.Helper()
	d.add("c", created, grace("10"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &crasher{r: r, left: n, cancel: cancel}
	r.setFault(func(state.Point) error { return c.moment() })
	d.effect = func(string) { _ = c.moment() } //nolint:errcheck // What was done is done.
	first := r.startContainer(ctx, d, "c")
	after(t, time.Second)
	r.crash()
	d.effect = nil
	r.restart()
	after(t, 5*time.Second)
	if d.state() == created && (first == nil || r.startContainer(t.Context(), d, "c") == nil) {
		t.Error("the start succeeded")
	}
	after(t, 15*time.Second)
	if d.state() != exited {
		t.Errorf("the container is %s: %q", d.state(), d.all())
	}
	if wanted := len(r.hooks.PreStop); d.ran("down 1") < wanted || d.ran("exit 3") < 1 || d.ran("up 2") > 0 {
		t.Errorf("what happened: %q", d.all())
	}
	r.clean()
}

// checkDeadline fails if a container lived longer than ten seconds, and two for
// its runtime, from its first PreStop on.
func checkDeadline(t *testing.T, d *double) {
	t.Helper()
	var first, end time.Duration
	for _, note := range d.all() {
		var at, what string
		if _, err := fmt.Sscan(note, &at, &what); err != nil {
			t.Fatal(err)
		}
		when, err := time.ParseDuration(at)
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 && what == "exec" && note[len(note)-6:len(note)-2] == "down" {
			first = when
		}
		if what == "KILL" {
			end = when
		}
	}
	if end == 0 || end-first > 12*time.Second {
		t.Errorf("the stop began at %s and ended at %s: %q", first, end, d.all())
	}
}

// The kill moves through a plain stop as well: a second crash in the recovery of the first.
func TestKilledTwice(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 12; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			timed(t, preStop(exec("drain", "sleep 2s"), exec("leave", "down 2")), func(t *testing.T, r *rig, d *double) {
				t.Helper()
				d.add("c", running, nil).stubborn = true
				first := begin(func() error { return r.Stop(t.Context(), container("c"), 10*time.Second) })
				after(t, time.Second)
				r.crash()
				if first() == nil {
					t.Error("the stop succeeded before it was done")
				}
				r.start()
				_, cancel := context.WithCancel(t.Context())
				c := &crasher{r: r, left: n, cancel: cancel}
				r.setFault(func(state.Point) error { return c.moment() })
				after(t, 3*time.Second)
				r.restart()
				synctest.Wait()
				after(t, 10*time.Second)
				if d.state() != exited || d.ran("sleep 2s") > 3 || d.ran("sleep 2s") < 2 || d.ran("down 2") < 1 {
					t.Errorf("the container is %s, what happened: %q", d.state(), d.all())
				}
				r.clean()
			})
		})
	}
}
