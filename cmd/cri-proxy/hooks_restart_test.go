package main

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestRestartInPostStart: what was not delivered when the proxy ended in order is
// delivered by the next one, under the same id.
func TestRestartInPostStart(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := receive(t, hold)
	p, _ := hooked(t, hook("post_start", r.action(), `timeout = "1m"`))
	_, container := p.container("runc")
	done := async(func() error { return p.startContainer(container) })
	first := r.next()
	p.stop()
	if err := <-done; err == nil {
		t.Error("the start of a container whose hook was not delivered is answered well")
	}
	close(hold)
	p.start()
	second := r.next()
	if a, b := first.Get("X-Cri-Proxy-Delivery-Id"), second.Get("X-Cri-Proxy-Delivery-Id"); a != b || a == "" {
		t.Errorf("delivery %q, then %q", a, b)
	}
	if got := second.Get("X-Cri-Proxy-Attempt"); got != "2" {
		t.Errorf("attempt %s, want 2", got)
	}
	p.delivery(journal.PostStart, journal.Delivered)
	r.none()
}

// TestRestartInPreStop: the same for a stop, which is brought to its end though
// its caller has gone.
func TestRestartInPreStop(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := receive(t, hold)
	p, alpha := hooked(t, hook("pre_stop", r.action(), `timeout = "1m"`))
	_, container := p.started("runc")
	done := async(func() error { return p.stopContainer(container, 30) })
	first := r.next()
	deadline := p.delivery(journal.PreStop, journal.Running).Deadline
	p.stop()
	if err := <-done; err == nil {
		t.Error("a stop that is not finished is answered well")
	}
	if !isRunning(t, alpha, container) {
		t.Fatal("the end of the proxy stopped the container")
	}
	close(hold)
	p.start()
	if a, b := first.Get("X-Cri-Proxy-Delivery-Id"), r.next().Get("X-Cri-Proxy-Delivery-Id"); a != b || a == "" {
		t.Errorf("delivery %q, then %q", a, b)
	}
	eventually(t, "the container is stopped", func() bool { return !isRunning(t, alpha, container) })
	d := p.delivery(journal.PreStop, journal.Delivered)
	if shift := d.Deadline.Sub(deadline).Abs(); shift > time.Second {
		t.Errorf("the deadline moved by %s", shift)
	}
	if got := stops(alpha); len(got) != 1 || got[0] > 30 {
		t.Errorf("the runtime was asked to stop in %v", got)
	}
	r.none()
}

// TestShutdownWaitsForHooks: a start whose hook ends while the proxy drains is
// answered well.
func TestShutdownWaitsForHooks(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := receive(t, hold)
	p, _ := hooked(t, hook("post_start", r.action(), `timeout = "1m"`))
	_, container := p.container("runc")
	done := async(func() error { return p.startContainer(container) })
	r.next()
	stopped := async(func() error {
		p.stop()
		return nil
	})
	eventually(t, "the proxy takes no more calls", func() bool {
		_, err := p.runtime.Version(t.Context(), &runtimeapi.VersionRequest{})
		return err != nil
	})
	close(hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestKilledInHooks: kill -9 in the middle of both hooks.
func TestKilledInHooks(t *testing.T) {
	t.Parallel()
	for event, field := range map[journal.Event]string{journal.PostStart: "post_start", journal.PreStop: "pre_stop"} {
		t.Run(string(event), func(t *testing.T) {
			t.Parallel()
			hold := make(chan struct{})
			r := receive(t, hold)
			alpha := alpha(t)
			alpha.AddImage("app", nil)
			n := newNode(t, alpha, fmt.Sprintf("handlers.runc.hooks.%s = [{ name = \"x\", timeout = \"1m\", %s }]", field, r.action()))
			first := n.start()
			first.serving()
			conn, err := rawcri.Dial(n.path("s"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeOf(t, conn.Close) })
			p := &proxy{t: t, dir: n.dir, conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn)}
			_, container := p.container("runc")
			done := async(func() error {
				if err := p.startContainer(container); err != nil || event == journal.PostStart {
					return err
				}
				return p.stopContainer(container, 30)
			})
			before := r.next()
			first.kill()
			if err := <-done; err == nil {
				t.Error("the proxy was killed, and the call was answered well")
			}
			close(hold)
			second := n.start()
			second.serving()
			if a, b := before.Get("X-Cri-Proxy-Delivery-Id"), r.next().Get("X-Cri-Proxy-Delivery-Id"); a != b || a == "" {
				t.Errorf("delivery %q, then %q", a, b)
			}
			p.delivery(event, journal.Delivered)
			if event == journal.PreStop {
				eventually(t, "the container is stopped", func() bool { return !isRunning(t, alpha, container) })
			}
			second.stop()
			r.none()
		})
	}
}

// TestBackendAwayAtStart: what is owed waits for its runtime.
func TestBackendAwayAtStart(t *testing.T) {
	t.Parallel()
	for event, field := range map[journal.Event]string{journal.PostStart: "post_start", journal.PreStop: "pre_stop"} {
		t.Run(string(event), func(t *testing.T) {
			t.Parallel()
			hold := make(chan struct{})
			r := receive(t, hold)
			p, alpha := hooked(t, hook(field, r.action(), `timeout = "1m"`))
			_, container := p.container("runc")
			done := async(func() error {
				if err := p.startContainer(container); err != nil || event == journal.PostStart {
					return err
				}
				return p.stopContainer(container, 60)
			})
			r.next()
			p.stop()
			if err := <-done; err == nil {
				t.Error("the proxy ended, and the call was answered well")
			}
			close(hold)
			alpha.Stop()
			p.start()
			if d := p.deliveries(); len(d) != 1 || d[0].State.Finished() {
				t.Errorf("while its runtime is away: %+v", d)
			}
			if err := p.stopContainer(container, 60); status.Code(err) != codes.Unavailable {
				t.Errorf("a stop while the runtime is away: %v, want Unavailable", err)
			}
			r.none()
			alpha.Restart()
			r.next()
			p.delivery(event, journal.Delivered)
			if event == journal.PreStop {
				eventually(t, "the container is stopped", func() bool { return !isRunning(t, alpha, container) })
			}
			r.none()
		})
	}
}

// TestHooksOfOneBackend: the hooks of a handler go to its backend, and stops of
// the other one's containers pass while that is away.
func TestHooksOfOneBackend(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t, "[[handlers.isolated.hooks.pre_stop]]\nname = \"x\"\n"+command("drain"))
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	_, a := p.started("runc")
	_, b := p.started("isolated")
	if err := p.stopContainer(b, 30); err != nil {
		t.Error(err)
	}
	for r, want := range map[*fakeruntime.Runtime]int{alpha: 0, beta: 1} {
		if n := len(r.Calls("ExecSync")); n != want {
			t.Errorf("%s ran %d hooks, want %d", r.Endpoint(), n, want)
		}
	}
	beta.Stop()
	eventually(t, "beta is away", func() bool { return !p.daemon.backends().Get("beta").Up() })
	if err := p.stopContainer(a, 30); err != nil {
		t.Errorf("stop on the other backend: %v", err)
	}
	if err := p.stopContainer(b, 30); err == nil {
		t.Error("a stop on a backend that is away is answered well")
	}
}
