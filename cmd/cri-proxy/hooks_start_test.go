package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// TestPostStartExec: the command runs in the container once it was started, and
// the reply waits for it.
func TestPostStartExec(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("post_start", command("register", "me")))
	_, container := p.started("runc")
	var order []string
	for _, c := range alpha.Journal() {
		if m := c.Short(); m == "StartContainer" || m == "ExecSync" {
			order = append(order, m)
		}
	}
	if got := strings.Join(order, " "); got != "StartContainer ExecSync" {
		t.Errorf("the runtime got %q", got)
	}
	request, ok := alpha.Calls("ExecSync")[0].Request.(*runtimeapi.ExecSyncRequest)
	if !ok || request.GetContainerId() != container || strings.Join(request.GetCmd(), " ") != "register me" {
		t.Errorf("executed: %v", request)
	}
	if d := p.delivery(journal.PostStart, journal.Delivered); d.Container != container || d.Attempts != 1 || d.Pod != "runc" || d.ContainerName != "c" {
		t.Errorf("recorded: %+v", d)
	}
}

// TestPostStartHTTP: with wait the reply is held until the receiver has answered,
// without it is not; what the receiver is told.
func TestPostStartHTTP(t *testing.T) {
	t.Parallel()
	for _, wait := range []bool{true, false} {
		t.Run(fmt.Sprintf("wait=%v", wait), func(t *testing.T) {
			t.Parallel()
			hold := make(chan struct{})
			r := receive(t, hold)
			p, _ := hooked(t, hook("post_start", r.action(), fmt.Sprintf("wait = %v", wait), `timeout = "20s"`))
			_, container := p.container("runc")
			done := async(func() error { return p.startContainer(container) })
			header := r.next()
			if wait {
				pending(t, "StartContainer", done)
			} else if err := <-done; err != nil {
				t.Error(err)
			}
			d := p.delivery(journal.PostStart, journal.Running)
			close(hold)
			if wait {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			p.delivery(journal.PostStart, journal.Delivered)
			for key, want := range map[string]string{
				"X-Cri-Proxy-Delivery-Id": d.ID, "X-Cri-Proxy-Attempt": "1", "X-Cri-Proxy-Event": "PostStart", "X-Cri-Proxy-Container-Id": container,
			} {
				if got := header.Get(key); got != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			r.none()
		})
	}
}

// TestPostStartLateListener: a server that does not listen yet is waited for,
// within the one attempt.
func TestPostStartLateListener(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	closeOf(t, listener.Close)
	p, _ := hooked(t, hook("post_start", `http_get = { host = "127.0.0.1", port = `+port+` }`, `timeout = "20s"`, `backoff = "10ms"`))
	_, container := p.container("runc")
	done := async(func() error { return p.startContainer(container) })
	p.delivery(journal.PostStart, journal.Running)
	pending(t, "StartContainer", done)
	if listener, err = new(net.ListenConfig).Listen(t.Context(), "tcp", address); err != nil {
		t.Fatal(err)
	}
	r := receiveOn(t, listener, nil)
	if got := r.next().Get("X-Cri-Proxy-Attempt"); got != "1" {
		t.Errorf("attempt %s, want 1", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPostStartKill: the container is stopped as the kubelet would, PreStop and
// the pod's grace period included, and the kubelet learns why.
func TestPostStartKill(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("post_start", command("exit", "3"))+hook("pre_stop", command("drain")))
	sandbox := p.run("a", "runc")
	request := createRequest(sandbox, "a", "c", "app")
	request.Config.Annotations = map[string]string{"io.kubernetes.pod.terminationGracePeriod": "7"}
	created, err := p.runtime.CreateContainer(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.runtime.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: created.GetContainerId()})
	if text := messageOf(err); !strings.HasPrefix(text, "FailedPostStartHook") || !strings.Contains(text, "exit code 3") {
		t.Errorf("got %v, want an error that begins FailedPostStartHook and names the exit code", err)
	}
	eventually(t, "the container is stopped", func() bool { return !isRunning(t, alpha, created.GetContainerId()) })
	p.delivery(journal.PreStop, journal.Delivered)
	if n := len(alpha.Calls("ExecSync")); n != 2 {
		t.Errorf("%d commands ran, want the PostStart and the PreStop", n)
	}
	if got := stops(alpha); len(got) != 1 || got[0] > 7 || got[0] < 5 {
		t.Errorf("stops with the time-outs %v, want one of what is left of 7s", got)
	}
	if d := p.delivery(journal.PostStart, journal.Failed); !strings.Contains(d.Error, "exit code 3") {
		t.Errorf("recorded: %+v", d)
	}
}

// TestPostStartIgnore: the failure is recorded, and that is all.
func TestPostStartIgnore(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("post_start", command("exit", "1"), `on_failure = "ignore"`, "attempts = 2", `backoff = "1ms"`))
	_, container := p.started("runc")
	if d := p.delivery(journal.PostStart, journal.Failed); d.Attempts != 2 {
		t.Errorf("%d attempts, want 2", d.Attempts)
	}
	if !isRunning(t, alpha, container) || len(stops(alpha)) != 0 {
		t.Errorf("running: %v, stops: %v", isRunning(t, alpha, container), stops(alpha))
	}
}

// TestPostStartRefused: a start that the runtime refuses is answered in its own
// words, its hooks are not run, and nothing is owed once the pod is gone.
func TestPostStartRefused(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("post_start", command("register")))
	sandbox, container := p.container("runc")
	alpha.SetSandboxState(sandbox, runtimeapi.PodSandboxState_SANDBOX_NOTREADY)
	_, want := runtimeOf(t, alpha).StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: container})
	if got := p.startContainer(container); messageOf(got) != messageOf(want) || want == nil {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := len(alpha.Calls("ExecSync")); n != 0 {
		t.Errorf("%d commands ran in a container that never started", n)
	}
	if _, err := p.runtime.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
		t.Error(err)
	}
	p.delivery(journal.PostStart, journal.Moot)
}

// TestPostStartKillInBackground: nobody waits, and the container is stopped all
// the same.
func TestPostStartKillInBackground(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("post_start", command("exit", "3"), "wait = false"))
	_, container := p.started("runc")
	eventually(t, "the container is stopped", func() bool { return !isRunning(t, alpha, container) })
	p.delivery(journal.PostStart, journal.Failed)
}

// TestStartAnsweredInTime: five seconds before its caller gives up the start is
// answered, and the hook goes on.
func TestStartAnsweredInTime(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	r := receive(t, hold)
	p, _ := hooked(t, hook("post_start", r.action(), `timeout = "1m"`))
	_, container := p.container("runc")
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	began := time.Now()
	if _, err := p.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: container}); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < 500*time.Millisecond || took > 2500*time.Millisecond {
		t.Errorf("it took %s, want 1s", took)
	}
	cancel()
	p.delivery(journal.PostStart, journal.Running)
	close(hold)
	p.delivery(journal.PostStart, journal.Delivered)
	r.next()
	r.none()
}

// TestStopDuringPostStart: the stop ends the PostStart and does not wait for it,
// and the start that waits is answered.
func TestStopDuringPostStart(t *testing.T) {
	t.Parallel()
	r := receive(t, make(chan struct{}))
	p, alpha := hooked(t, hook("post_start", r.action(), `timeout = "1m"`)+hook("pre_stop", command("drain")))
	_, container := p.container("runc")
	done := async(func() error { return p.startContainer(container) })
	r.next()
	if err := p.stopContainer(container, 30); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the start: %v", err)
	}
	p.delivery(journal.PostStart, journal.Moot)
	p.delivery(journal.PreStop, journal.Delivered)
	if isRunning(t, alpha, container) {
		t.Error("the container still runs")
	}
}

// TestHookedIDs: short ids, ids that routing never saw and ids that nobody has.
func TestHookedIDs(t *testing.T) {
	t.Parallel()
	p, alpha := hooked(t, hook("post_start", command("register"))+hook("pre_stop", command("drain")))
	_, container := p.container("runc")
	if err := p.startContainer(container[:13]); err != nil {
		t.Error(err)
	}
	executed(t, alpha, 1)
	if err := p.stopContainer(container[:13], 30); err != nil {
		t.Error(err)
	}
	executed(t, alpha, 2)

	unseen := alpha.AddSandbox(fakeruntime.Sandbox{Handler: "runc"})
	past := alpha.AddContainer(fakeruntime.Container{SandboxID: unseen, State: runtimeapi.ContainerState_CONTAINER_RUNNING})
	if err := p.stopContainer(past, 30); err != nil {
		t.Error(err)
	}
	executed(t, alpha, 3)

	direct, none := runtimeOf(t, alpha), strings.Repeat("ab", 32)
	_, want := direct.StartContainer(t.Context(), &runtimeapi.StartContainerRequest{ContainerId: none})
	if got := p.startContainer(none); messageOf(got) != messageOf(want) || want == nil {
		t.Errorf("start of an unknown container: %v, want %v", got, want)
	}
	_, want = direct.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: none})
	if got := p.stopContainer(none, 30); messageOf(got) != messageOf(want) {
		t.Errorf("stop of an unknown container: %v, want %v", got, want)
	}
	if _, err := p.runtime.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: unseen[:13]}); err != nil {
		t.Error(err)
	}
}
