package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// messageOf is an error's text as the kubelet gets it, "" for none.
func messageOf(err error) string { return status.Convert(err).Message() }

// TestPreStopGrace: hooks and runtime share the grace period, whose time-outs a
// runtime gets in whole seconds.
func TestPreStopGrace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		grace     int64
		sleep     string // Of the hook, in seconds.
		state     journal.State
		least     int64 // Of the runtime's time-out: a machine may be slow.
		stop      int64 // The runtime's time-out.
		min, most time.Duration
	}{
		{30, "1", journal.Delivered, 27, 29, time.Second, 4500 * time.Millisecond},
		{2, "60", journal.Failed, 2, 2, 2 * time.Second, 5500 * time.Millisecond},
		{2, "0", journal.Delivered, 2, 2, 2 * time.Second, 5500 * time.Millisecond},
		{0, "60", journal.Skipped, 0, 0, 0, 1500 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("hook of %s in %d", tt.sleep, tt.grace), func(t *testing.T) {
			t.Parallel()
			p, alpha := hooked(t, hook("pre_stop", command("sleep", tt.sleep), `timeout = "2m"`))
			_, container := p.started("runc")
			if tt.grace == 2 {
				alpha.SetStopDelay(container, -1) // It has to be killed.
			}
			began := time.Now()
			if err := p.stopContainer(container, tt.grace); err != nil {
				t.Error(err)
			}
			took := time.Since(began)
			if took < tt.min || took > tt.most {
				t.Errorf("it took %s, want %s to %s", took, tt.min, tt.most)
			}
			if isRunning(t, alpha, container) {
				t.Error("the container still runs")
			}
			if got := stops(alpha); len(got) == 0 || got[0] > tt.stop || got[0] < tt.least {
				t.Errorf("the runtime was asked to stop in %v, want %d first, or what is left of it", got, tt.stop)
			}
			d := p.delivery(journal.PreStop, tt.state)
			if n := len(alpha.Calls("ExecSync")); n != min(1, d.Attempts) {
				t.Errorf("%d commands ran, recorded are %d attempts", n, d.Attempts)
			}
		})
	}
}

// TestTearDownBounded: a call that takes down the whole gives hooks two seconds,
// and passes on once the container has ended.
func TestTearDownBounded(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(p *proxy, sandbox, container string) error{
		"StopPodSandbox": func(p *proxy, sandbox, _ string) error {
			_, err := p.runtime.StopPodSandbox(p.t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox})
			return err
		},
		"RemovePodSandbox": func(p *proxy, sandbox, _ string) error {
			_, err := p.runtime.RemovePodSandbox(p.t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox[:13]})
			return err
		},
		"RemoveContainer": func(p *proxy, _, container string) error {
			_, err := p.runtime.RemoveContainer(p.t.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: container})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha := hooked(t, hook("pre_stop", command("sleep", "60"), `timeout = "2m"`))
			sandbox, container := p.started("runc")
			alpha.SetStopDelay(container, -1)
			began := time.Now()
			if err := call(p, sandbox, container); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < 2*time.Second || took > 5500*time.Millisecond {
				t.Errorf("it took %s, want 2s for the hooks, as much for the runtime, and little more", took)
			}
			p.delivery(journal.PreStop, journal.Failed)
			calls := alpha.Journal()
			if last := calls[len(calls)-1].Short(); last != name || isRunning(t, alpha, container) {
				t.Errorf("the last call is %s, want %s; the container runs: %v", last, name, isRunning(t, alpha, container))
			}
			if n := len(alpha.Calls("ExecSync")); n != 1 {
				t.Errorf("the hook ran %d times", n)
			}
		})
	}
}

// TestStopsJoined: two stops at once are one, and the shorter one counts.
func TestStopsJoined(t *testing.T) {
	t.Parallel()
	r := receive(t, make(chan struct{}))
	p, alpha := hooked(t, hook("pre_stop", r.action(), `timeout = "2m"`))
	_, container := p.started("runc")
	first := async(func() error { return p.stopContainer(container, 60) })
	r.next()
	began := time.Now()
	second := async(func() error { return p.stopContainer(container, 1) })
	for _, done := range []<-chan error{second, first} {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s after the shorter stop", took)
	}
	if got := stops(alpha); len(got) != 1 || got[0] != 1 {
		t.Errorf("the runtime was asked to stop in %v, want once in 1", got)
	}
	r.none()
}

// TestStopOutlivesCaller: an accepted stop is finished though its caller has gone,
// and the next caller joins it.
func TestStopOutlivesCaller(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := receive(t, hold)
	p, alpha := hooked(t, hook("pre_stop", r.action(), `timeout = "2m"`))
	_, container := p.started("runc")
	ctx, cancel := context.WithCancel(t.Context())
	first := async(func() error {
		_, err := p.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: container, Timeout: 60})
		return err
	})
	r.next()
	cancel()
	if err := <-first; status.Code(err) != codes.Canceled {
		t.Errorf("the caller that left got %v", err)
	}
	second := async(func() error { return p.stopContainer(container, 60) })
	close(hold)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if isRunning(t, alpha, container) || len(stops(alpha)) != 1 {
		t.Errorf("running: %v, stops: %v", isRunning(t, alpha, container), stops(alpha))
	}
	p.delivery(journal.PreStop, journal.Delivered)
	r.none()
}

// TestEnsuredPreStop: the pod's own PreStop runs unless the kubelet was seen to
// run it, also if that was before a restart.
func TestEnsuredPreStop(t *testing.T) {
	t.Parallel()
	for name, seen := range map[string]bool{"not run": false, "run by the kubelet": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, alpha := hooked(t, "hooks.pod_pre_stop = \"ensure\"\n")
			request := createRequest(p.run("a", "runc"), "a", "c", "app")
			request.Config.Annotations = map[string]string{"io.kubernetes.container.preStopHandler": `{"exec":{"command":["bye"]}}`}
			created, err := p.runtime.CreateContainer(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			container := created.GetContainerId()
			if err := p.startContainer(container); err != nil {
				t.Fatal(err)
			}
			// A probe with the same command is not the hook, one without a time-out is.
			timeout := map[bool]int64{true: 0, false: 5}[seen]
			answer, err := p.runtime.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{ContainerId: container, Cmd: []string{"bye"}, Timeout: timeout})
			if err != nil || string(answer.GetStdout()) != "bye" {
				t.Errorf("the kubelet's command: %v, %v", answer, err)
			}
			p.restart()
			alpha.ClearJournal()
			if err := p.stopContainer(container, 30); err != nil {
				t.Error(err)
			}
			if n := len(alpha.Calls("ExecSync")); n != map[bool]int{true: 0, false: 1}[seen] {
				t.Errorf("the stop ran it %d times", n)
			}
		})
	}
}

// TestStopOfEnded: a container that ended by itself gets no PreStop.
func TestStopOfEnded(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("pre_stop", command("drain")))
	_, container := p.started("runc")
	alpha.Exit(container, 0)
	if err := p.stopContainer(container, 30); err != nil {
		t.Error(err)
	}
	if n := len(alpha.Calls("ExecSync")); n != 0 || len(p.deliveries()) != 0 {
		t.Errorf("%d commands ran; recorded: %v", n, p.deliveries())
	}
}

// TestTearDownRefused: a runtime that cannot stop a container does not keep a
// pod from being torn down.
func TestTearDownRefused(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("pre_stop", command("drain")))
	sandbox, container := p.started("runc")
	alpha.Inject("StopContainer", fakeruntime.Fault{Err: status.Error(codes.Unknown, "the shim is gone")})
	if _, err := p.runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Errorf("the teardown fails with %v", err)
	}
	if isRunning(t, alpha, container) {
		t.Error("the container still runs")
	}
}
