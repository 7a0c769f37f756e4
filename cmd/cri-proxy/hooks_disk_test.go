package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// TestHookThatCannotBeRecorded: it keeps its container from being started, and
// leaves nothing behind that would keep the next try from it.
func TestHookThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	const restarted = "restarted before the next try"
	overDisks(t, []string{"healed", restarted}, func(t *testing.T, d *disk, name string) {
		t.Helper()
		r := receive(t, nil)
		p, alpha := hookedOn(t, d, r, "post_start")
		_, container := p.container("runc")
		d.strike(t)
		for range 3 {
			err := p.startContainer(container)
			if status.Code(err) != codes.Internal || !strings.Contains(messageOf(err), "is not started: its hooks cannot be recorded: write the state file") {
				t.Errorf("the start fails with %v", err)
			}
		}
		if n := len(alpha.Calls("StartContainer")); n > 0 {
			t.Errorf("the runtime was asked to start it %d times", n)
		}
		r.none()
		d.heal(t)
		if name == restarted {
			p.restart()
		}
		if err := p.startContainer(container); err != nil {
			t.Error(err)
		}
		r.next()
		p.delivery(journal.PostStart, journal.Delivered)
		p.settled()
		r.none()
	})
}

// TestAcceptedHookOnBrokenDisk: a hook that was accepted is delivered and its
// outcome recorded, though the disk fails in the middle of it.
func TestAcceptedHookOnBrokenDisk(t *testing.T) {
	t.Parallel()
	fields := map[string]string{"PostStart": "post_start", "PreStop": "pre_stop"}
	overDisks(t, []string{"PostStart", "PreStop"}, func(t *testing.T, d *disk, event string) {
		t.Helper()
		hold := make(chan struct{})
		r := receive(t, hold)
		p, alpha := hookedOn(t, d, r, fields[event])
		container, done := p.underWay(event)
		r.next()
		d.strike(t)
		close(hold)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if isRunning(t, alpha, container) != (event == "PostStart") {
			t.Error("the container runs, and should not, or the other way round")
		}
		d.felt(t)
		d.heal(t)
		p.delivery(journal.Event(event), journal.Delivered)
		p.restart() // What could not be forgotten of a stop is forgotten now.
		p.settled()
		r.none()
	})
}

// underWay begins the start or the stop of a container.
func (p *proxy) underWay(event string) (container string, done <-chan error) {
	p.t.Helper()
	_, container = p.container("runc")
	if event == "PostStart" {
		return container, async(func() error { return p.startContainer(container) })
	}
	if err := p.startContainer(container); err != nil {
		p.t.Fatal(err)
	}
	return container, async(func() error { return p.stopContainer(container, 60) })
}

// TestRestartOnBrokenDisk: the same when the proxy ends meanwhile, and the next
// one finds the disk as it is.
func TestRestartOnBrokenDisk(t *testing.T) {
	t.Parallel()
	fields := map[string]string{"PostStart": "post_start", "PreStop": "pre_stop"}
	overDisks(t, []string{"PostStart", "PreStop"}, func(t *testing.T, d *disk, event string) {
		t.Helper()
		hold := make(chan struct{})
		r := receive(t, hold)
		p, alpha := hookedOn(t, d, r, fields[event])
		container, done := p.underWay(event)
		before := r.next()
		d.strike(t)
		p.stop()
		if err := <-done; err == nil {
			t.Error("the proxy ended, and the call was answered well")
		}
		close(hold)
		p.start()
		if a, b := before.Get("X-Cri-Proxy-Delivery-Id"), r.next().Get("X-Cri-Proxy-Delivery-Id"); a != b || a == "" {
			t.Errorf("delivery %q, then %q", a, b)
		}
		if event == "PreStop" {
			eventually(t, "the container is stopped", func() bool { return !isRunning(t, alpha, container) })
			d.felt(t)
			d.heal(t)
			p.restart() // The container has ended: nothing is to come again.
		} else {
			d.heal(t)
			p.delivery(journal.PostStart, journal.Delivered)
			d.felt(t)
		}
		p.settled()
		r.none()
	})
}

// TestStopOnBrokenDisk: a stop that cannot be recorded stops all the same, after
// its hooks, and is joined.
func TestStopOnBrokenDisk(t *testing.T) {
	t.Parallel()
	const sandboxStop = "StopPodSandbox"
	overDisks(t, []string{"StopContainer", sandboxStop}, func(t *testing.T, d *disk, call string) {
		t.Helper()
		hold := make(chan struct{})
		r := receive(t, hold)
		p, alpha := hookedOn(t, d, r, "pre_stop")
		sandbox, container := p.started("runc")
		d.strike(t)
		first := async(func() error { return p.stopContainer(container, 60) })
		r.next()
		second := async(func() error {
			if call != sandboxStop {
				return p.stopContainer(container, 30)
			}
			_, err := p.runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox})
			return err
		})
		want := map[string]float64{"StopContainer": 2, sandboxStop: 1}[call]
		eventually(t, "the second call has come in", func() bool {
			return p.scrape()[fmt.Sprintf("cri_proxy_requests_in_flight{method=%q}", call)] == want
		})
		pending(t, "the stop", first)
		pending(t, "the second stop", second)
		if len(stops(alpha)) > 0 {
			t.Error("the runtime was asked to stop the container before its hook was answered")
		}
		close(hold)
		for _, done := range []<-chan error{first, second} {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if isRunning(t, alpha, container) || len(stops(alpha)) == 0 {
			t.Error("the container still runs, or the runtime was not asked to stop it")
		}
		d.felt(t)
		d.heal(t)
		p.restart() // Before it has written what it could not.
		p.settled()
		r.none()
	})
}

// TestReadOnlyDiskBetweenRuns: a proxy that cannot write does not start and says
// why; an accepted stop goes on once that is mended.
func TestReadOnlyDiskBetweenRuns(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("left out: only root can make a file system read-only")
	}
	hold := make(chan struct{})
	r := receive(t, hold)
	alpha := alpha(t)
	alpha.AddImage("app", nil)
	n := newNode(t, alpha, fmt.Sprintf("handlers.runc.hooks.pre_stop = [{ name = \"x\", timeout = \"1m\", %s }]", r.action()))
	if err := os.Mkdir(n.path("state"), 0o700); err != nil {
		t.Fatal(err)
	}
	mountSmall(t, n.path("state"), func() {})
	conn, err := rawcri.Dial(n.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeOf(t, conn.Close) })
	p := &proxy{t: t, dir: n.dir, conn: conn, runtime: runtimeapi.NewRuntimeServiceClient(conn)}
	process := n.start()
	process.serving()
	_, container := p.started("runc")
	done := async(func() error { return p.stopContainer(container, 60) })
	before := r.next()
	process.kill()
	if err := <-done; err == nil {
		t.Error("the proxy was killed, and the call was answered well")
	}
	remount(t, n.path("state"), syscall.MS_RDONLY)
	if said := n.start().refused(); !strings.Contains(said, "the file system is read-only: remount it") {
		t.Errorf("on a read-only disk it says %s", said)
	}
	remount(t, n.path("state"), 0)
	close(hold)
	process = n.start()
	process.serving()
	if a, b := before.Get("X-Cri-Proxy-Delivery-Id"), r.next().Get("X-Cri-Proxy-Delivery-Id"); a != b || a == "" {
		t.Errorf("delivery %q, then %q", a, b)
	}
	p.delivery(journal.PreStop, journal.Delivered)
	eventually(t, "the container is stopped", func() bool { return !isRunning(t, alpha, container) })
	process.stop()
	r.none()
}
