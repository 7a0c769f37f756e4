package real_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	ensuredHooks  = "[handlers.ensured.hooks]\npod_pre_stop = \"ensure\"\n"
	preStopAsTold = "io.kubernetes.container.preStopHandler"
	execPreStop   = `{"exec":{"command":["/bin/append","/hooks/log","drained"]}}`
	httpPreStop   = `{"httpGet":{"path":"/drain","port":PORT,"scheme":"HTTP"}}`
	sleepPreStop  = `{"sleep":{"seconds":20}}`
)

// ensuredPod is a pod whose handler runs the PreStop of pods' own specs where the
// kubelet did not, and crictl to stop its containers with.
type ensuredPod struct {
	*hookPod

	crictl func(ctx context.Context, arguments ...string) (string, error)
}

// testEnsured: the PreStop that the kubelet tells of in an annotation.
func testEnsured(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	h.serve(ctx, t, "ensured", "", map[string]string{"ensured": ensuredHooks})
	p := &ensuredPod{h.runPod(ctx, t, "ensured", "ensured", nil), crictl(t, h.node, h.proxy.Endpoint()).Run}
	for i, c := range []struct {
		name, handler string
		before        func(ctx context.Context, id string) error // the stop
		grace         string
		seen          int // that it is run in all
	}{
		{name: "exec", handler: execPreStop, grace: "10", seen: 1},
		{name: "exec-by-kubelet", handler: execPreStop, before: p.execAs(0), grace: "10", seen: 1},
		{name: "exec-by-somebody", handler: execPreStop, before: p.execAs(10), grace: "10", seen: 2},
		{name: "exec-at-once", handler: execPreStop, grace: "0"},
		{name: "http-long", handler: httpPreStop, grace: "10"},
		{name: "http-short", handler: httpPreStop, grace: "2", seen: 1},
		{name: "sleep", handler: sleepPreStop, grace: "2"},
		{name: "sleep-long", handler: sleepPreStop, grace: "30"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := p.startWith(ctx, t, c.name, strconv.Itoa(8001+i), c.handler)
			if c.before != nil {
				if err := c.before(ctx, id); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			if _, err := p.crictl(ctx, "stop", "--timeout", c.grace, id); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			p.wantRuns(ctx, t, c.name, id, c.seen)
		})
	}
	t.Run("http-with-its-pod", func(t *testing.T) { p.testWithPod(ctx, t) })
}

// execAs runs the command of the PreStop. The kubelet gives its own no time-out.
func (p *ensuredPod) execAs(timeout int64) func(context.Context, string) error {
	return func(ctx context.Context, id string) error {
		_, err := p.front.ExecSync(ctx, &runtimeapi.ExecSyncRequest{
			ContainerId: id, Cmd: []string{"/bin/append", "/hooks/log", "drained"}, Timeout: timeout,
		})
		return err
	}
}

// startWith starts a container with a PreStop. All of a pod's have their own port.
func (p *ensuredPod) startWith(ctx context.Context, t *testing.T, name, port, handler string) string {
	t.Helper()
	handler = strings.ReplaceAll(handler, "PORT", port)
	id, err := p.start(ctx, name, map[string]string{preStopAsTold: handler}, "/bin/serve", port)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// wantRuns counts what the PreStop wrote, or what the server saw of it.
func (p *ensuredPod) wantRuns(ctx context.Context, t *testing.T, name, id string, wanted int) {
	t.Helper()
	status, err := p.awaitEnd(ctx, id)
	if err != nil {
		t.Error(err)
	}
	got := strings.Count(p.written(name), "drained\n") + strings.Count(p.printed(name), "GET /drain ")
	if got != wanted {
		t.Errorf("its PreStop ran %d times, want %d; it ended with %d", got, wanted, status.GetExitCode())
	}
}

// testWithPod: the kubelet's own StopPodSandbox is a stop of two seconds.
func (p *ensuredPod) testWithPod(ctx context.Context, t *testing.T) {
	t.Helper()
	id := p.startWith(ctx, t, "http-pod", "8000", httpPreStop)
	if _, err := p.crictl(ctx, "stopp", p.id); err != nil {
		t.Error(err)
	}
	p.wantRuns(ctx, t, "http-pod", id, 1)
	p.remove(ctx, t)
}
