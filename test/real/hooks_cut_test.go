package real_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// cutHooks are two PreStops, of which the second is not begun while the first runs.
const cutHooks = `[[handlers.runc.hooks.pre_stop]]
name = "pause"
exec = { command = ["/bin/sleep", "%d"] }
timeout = "60s"
[[handlers.runc.hooks.pre_stop]]
name = "after"
exec = { command = ["/bin/append", "/hooks/log", "after"] }
`

// testCutOff: the proxy is killed in the middle of a PreStop, and the next one
// brings the stop to its end.
func testCutOff(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	h.serve(ctx, t, "cut", "", map[string]string{"runc": fmt.Sprintf(cutHooks, 3)})
	pod := h.runPod(ctx, t, "runc", "cut", nil)
	id, began := pod.killInPreStop(ctx, t, 25, 0)
	s, err := h.awaitEnd(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Unix(0, s.GetFinishedAt()).Sub(began); took > 25*time.Second {
		t.Errorf("the stop ended after %s, past its grace period", took)
	}
	if got := pod.written("app"); got != "after\n" || s.GetExitCode() != 0 {
		t.Errorf("the hooks wrote %q, and the container ended with %d", got, s.GetExitCode())
	}
	pod.remove(ctx, t)
}

// testCutOffForLong: the same, and the next proxy comes when the grace period is
// over. Nothing is delivered then.
func testCutOffForLong(ctx context.Context, t *testing.T, h *hooked) {
	t.Helper()
	h.serve(ctx, t, "cutlong", "", map[string]string{"runc": fmt.Sprintf(cutHooks, 30)})
	pod := h.runPod(ctx, t, "runc", "cutlong", nil)
	const grace = 3
	id, _ := pod.killInPreStop(ctx, t, grace, (grace+1)*time.Second)
	restarted := time.Now()
	s, err := h.awaitEnd(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Unix(0, s.GetFinishedAt()).Sub(restarted); took > runtimeTime+tolerance {
		t.Errorf("the container ended %s after the proxy was back", took)
	}
	if err := h.awaitRecord(ctx, id, "after", "skipped"); err != nil {
		t.Error(err)
	}
	if got := pod.written("app"); strings.Contains(got, "after\n") {
		t.Errorf("a hook was delivered past the grace period: %q", got)
	}
	pod.remove(ctx, t)
}

// killInPreStop stops a container, kills the proxy while the first hook runs, and
// starts it again after so long.
func (p *hookPod) killInPreStop(ctx context.Context, t *testing.T, grace int64, away time.Duration) (id string, began time.Time) {
	t.Helper()
	id, err := p.start(ctx, "app", nil)
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	began = time.Now()
	go func() { stopped <- p.stop(ctx, id, grace) }()
	if err := p.awaitRecord(ctx, id, "pause", "running"); err != nil {
		t.Fatal(err)
	}
	if err := p.proxy.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err == nil {
		t.Error("the stop succeeded though the proxy was killed")
	}
	select {
	case <-time.After(away):
	case <-ctx.Done():
	}
	if err := p.proxy.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return id, began
}
