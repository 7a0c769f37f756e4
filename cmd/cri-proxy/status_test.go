package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/admin"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// statusOf is the status as JSON, keys and all, without what differs each time.
func (p *proxy) statusOf() map[string]any {
	p.t.Helper()
	body, err := admin.Get(p.t.Context(), p.dir+"/a", "/v1/status")
	var all map[string]any
	if err := errors.Join(err, json.Unmarshal(body, &all)); err != nil {
		p.t.Fatal(err)
	}
	return all
}

// TestStatusTells: pods and containers by handler, hooks, pulls, and a backend
// that was away.
func TestStatusTells(t *testing.T) {
	t.Parallel()
	p, alpha, beta := twoBackends(t, hook("pre_stop", command("false")))
	alpha.AddImage("app", nil)
	beta.AddImage("app", nil)
	alpha.Inject("ExecSync", fakeruntime.Fault{Err: status.Error(codes.Internal, "it is broken")})
	sandbox, container := p.started("runc")
	p.create(sandbox, "runc", "second")
	p.run("else", "isolated")
	if err := p.stopContainer(container, 10); err != nil {
		t.Fatal(err)
	}
	beta.Restart()
	eventually(t, "beta is up again", func() bool {
		s := p.daemon.backends().Get("beta").State()
		return s.Up && s.LastErr != nil
	})
	hold := make(chan struct{})
	beta.Inject("PullImage", fakeruntime.Fault{Until: hold, Times: 1})
	pulled := async(func() error {
		_, err := p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app", RuntimeHandler: "isolated"}})
		return err
	})
	if _, err := beta.WaitCalls(t.Context(), "PullImage", 1); err != nil {
		t.Fatal(err)
	}
	s := p.statusOf()
	want := []any{
		map[string]any{"name": "isolated", "backend": "beta", "runtime": "isolated", "sandboxes": 1.0, "containers": 0.0},
		map[string]any{"name": "runc", "backend": "alpha", "runtime": "runc", "sandboxes": 1.0, "containers": 2.0},
	}
	if diff := cmp.Diff(want, s["handlers"]); diff != "" {
		t.Errorf("handlers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"pending": 0.0, "failed": 1.0}, s["hooks"]); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	if got := s["pullsInFlight"]; got != 1.0 {
		t.Errorf("%v pulls in flight, want 1", got)
	}
	close(hold)
	if err := <-pulled; err != nil {
		t.Error(err)
	}
	if got := p.statusOf()["pullsInFlight"]; got != 0.0 {
		t.Errorf("%v pulls in flight, want none", got)
	}
	for _, b := range p.daemon.report(t.Context()).Backends {
		if b.LatencySeconds <= 0 || b.LatencySeconds > 1 {
			t.Errorf("%s answered in %v s", b.Name, b.LatencySeconds)
		}
		if (b.Name == "beta") != (b.LastError != "" && time.Since(b.LastErrorTime) < time.Minute) {
			t.Errorf("%s: last error %q at %s", b.Name, b.LastError, b.LastErrorTime)
		}
	}
	var table bytes.Buffer
	if err := p.daemon.report(t.Context()).writeTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"HOOKS    0 pending, 1 failed in the last day", "PULLS    0 in flight", "beta was away at "} {
		if !strings.Contains(table.String(), "\n"+line) {
			t.Errorf("the table lacks %q:\n%s", line, &table)
		}
	}
}

// TestWatch: the status is shown every two seconds until it is interrupted, also
// while the proxy is away.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		var out bytes.Buffer
		shown := 0
		err := watch(ctx, &out, func() error {
			if shown++; shown == 3 {
				return errors.New("it is away")
			}
			_, err := fmt.Fprintf(&out, "table %d\n", shown)
			return err
		})
		if want := "table 1\n\ntable 2\n\nit is away\n\ntable 4\n"; err != nil || out.String() != want {
			t.Errorf("showed %q, %v, want %q", out.String(), err, want)
		}
		if err := watch(ctx, &out, func() error { return context.Canceled }); !errors.Is(err, context.Canceled) {
			t.Errorf("the first try failed: %v", err)
		}
	})
}
