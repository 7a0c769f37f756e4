package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestStop: calls that never end do not keep the process, and whoever asks is
// told how it is until the end.
func TestStop(t *testing.T) {
	t.Parallel()
	fake := alpha(t)
	sandbox := fake.AddSandbox(fakeruntime.Sandbox{Handler: "runc"})
	fake.Inject("PodSandboxStatus", fakeruntime.Fault{Hang: true})
	n := newNode(t, fake)
	p := n.start()
	p.serving()
	conn, err := rawcri.Dial(n.path("s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { closeOf(t, conn.Close) }()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	events, err := client.GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	hung := make(chan error, 1)
	go func() {
		_, err := client.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: sandbox})
		hung <- err
	}()
	for _, method := range []string{"PodSandboxStatus", "GetContainerEvents"} {
		if _, err := fake.WaitCalls(t.Context(), method, 1); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan time.Duration, 1)
	go func() { ended <- p.stop() }()
	eventually(t, "it stops", func() bool { return strings.Contains(p.log.String(), "stopping") })
	if _, err := admin.Get(t.Context(), n.path("a"), "/livez"); err != nil {
		t.Errorf("while it stops: %v", err)
	}
	if _, err := admin.Get(t.Context(), n.path("a"), "/readyz"); err == nil || !strings.Contains(err.Error(), "not ready") {
		t.Errorf("readyz while it stops: %v, want not ready", err)
	}
	if took := <-ended; took > 3*time.Second {
		t.Errorf("it took %s to stop, want at most two seconds more than shutdown_timeout", took)
	}
	if err := <-hung; status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled {
		t.Errorf("the call in flight: %v, want Unavailable or Canceled", err)
	}
	if _, err := events.Recv(); err == nil {
		t.Error("the event stream goes on")
	}
	next := n.start()
	next.serving()
	next.stop()
}

// TestKilled: the next start finds sockets that nobody listens on.
func TestKilled(t *testing.T) {
	t.Parallel()
	n := newNode(t, alpha(t))
	for range 3 {
		p := n.start()
		p.serving()
		p.kill()
		for _, name := range []string{"s", "a"} {
			if _, err := os.Lstat(n.path(name)); err != nil {
				t.Fatal(err) // Or this test would show nothing.
			}
		}
	}
	p := n.start()
	p.serving()
	p.stop()
}

// TestServeErrors: a socket that fails ends the process with its error.
func TestServeErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fail func(*daemon) error
		want string
	}{
		"the CRI socket":   {func(d *daemon) error { return d.listener.Close() }, "serve CRI on "},
		"the admin socket": {func(d *daemon) error { return d.admin.Close() }, "/a: accept unix "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newTestDaemon(t, alpha(t))
			done := make(chan error, 1)
			go func() { done <- d.run(t.Context()) }()
			if err := d.waitServing(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the admin socket answers", func() bool {
				_, err := admin.Get(t.Context(), d.path(t, d.cfg.Admin.Listen), "/livez")
				return err == nil
			})
			if err := c.fail(d); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("run: %v, want one line with %q", err, c.want)
			}
			if err := d.close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// path is the file of a socket.
func (*daemon) path(t *testing.T, endpoint string) string {
	t.Helper()
	path, err := configs.SocketPath(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newTestDaemon makes a daemon in this process, which the test runs and closes.
func newTestDaemon(t *testing.T, backend *fakeruntime.Runtime) *daemon {
	t.Helper()
	cfg, err := configs.Load(newNode(t, backend).path("c.toml"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDaemon(t.Context(), cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestStopWhileStarting: a stop does not wait for backends that do not answer.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	fake := alpha(t)
	fake.Inject("Version", fakeruntime.Fault{Hang: true})
	d := newTestDaemon(t, fake)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.run(ctx) }()
	if _, err := fake.WaitCalls(t.Context(), "Version", 1); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cancel()
	if err := errors.Join(<-done, d.close()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}

// TestStopAtAnyTime: whenever the stop comes, it is no failure, and the next
// start finds everything free.
func TestStopAtAnyTime(t *testing.T) {
	t.Parallel()
	n := newNode(t, alpha(t))
	cfg, err := configs.Load(n.path("c.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		d, err := newDaemon(t.Context(), cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.run(ctx) }()
		limit := time.Now().Add(10 * time.Second)
		for i >= 10 && !d.backends().Default().Up() && time.Now().Before(limit) { // Then it begins to serve.
			runtime.Gosched()
		}
		timer := time.AfterFunc(time.Duration(i%10)*200*time.Microsecond, cancel)
		if err := errors.Join(<-done, d.close()); err != nil {
			t.Errorf("stopped in round %d: %v", i, err)
		}
		timer.Stop()
		cancel()
	}
}
