package real_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// hooksOf are the hooks of a handler, each for the containers of one name. What
// a hook did stands in /hooks/log, a file of the node.
const hooksOf = `[backends.alpha]
endpoint = %q
[handlers.runc]
backend = "alpha"

[[handlers.runc.hooks.post_start]]
name = "served"
http_get = { port = 8080, path = "/" }
match = { containers = ["app"] }
[[handlers.runc.hooks.post_start]]
name = "register"
exec = { command = ["/bin/append", "/hooks/log", "registered"] }
match = { containers = ["app"] }
[[handlers.runc.hooks.pre_stop]]
name = "drain"
exec = { command = ["/bin/append", "/hooks/log", "drained"] }
match = { containers = ["app"] }

[[handlers.runc.hooks.post_start]]
name = "refused"
exec = { command = ["/bin/exit", "3"] }
match = { containers = ["bad"] }

[[handlers.runc.hooks.pre_stop]]
name = "endless"
exec = { command = ["/bin/sleep", "60"] }
timeout = "60s"
match = { containers = ["slow"] }

[[handlers.runc.hooks.pre_stop]]
name = "pause"
exec = { command = ["/bin/sleep", "3"] }
match = { containers = ["kept"] }
[[handlers.runc.hooks.pre_stop]]
name = "after"
exec = { command = ["/bin/append", "/hooks/log", "after"] }
match = { containers = ["kept"] }
`

// hooked is a pod whose containers have hooks.
type hooked struct {
	*node

	proxy *rig.Proxy
	front rig.Crictl
	image image
	pod   *runtimeapi.PodSandboxConfig
	podID string
	dir   string // What the containers see as /hooks.
}

// testHooks delivers hooks in a real containerd: after the start, before the
// stop, never past the grace period, and across a kill of the proxy.
func testHooks(ctx context.Context, t *testing.T, n *node, _ *rig.Proxy) {
	t.Helper()
	proxy, err := n.Proxy(ctx, rig.ProxyOptions{Name: "hooks", DefaultHandler: "runc", Config: fmt.Sprintf(hooksOf, n.alpha.Endpoint())})
	if err != nil {
		t.Fatal(err)
	}
	h := &hooked{node: n, proxy: proxy, front: crictl(t, n, proxy.Endpoint()), image: pushImage(ctx, t, n), pod: newPod(t, n, "hooks"), dir: t.TempDir()}
	run(ctx, t, h.front, "pull", h.image.name)
	if h.podID, err = h.front.RunPod(ctx, "runc", h.pod); err != nil {
		t.Fatal(err)
	}
	t.Run("delivered", func(t *testing.T) { h.testDelivered(ctx, t) })
	t.Run("failed", func(t *testing.T) { h.testFailed(ctx, t) })
	t.Run("bounded", func(t *testing.T) { h.testBounded(ctx, t) })
	t.Run("killed", func(t *testing.T) { h.testKilledInPreStop(ctx, t) })
	run(ctx, t, h.front, "rmp", "--force", h.podID)
}

func (h *hooked) container(name string) *runtimeapi.ContainerConfig {
	c := rig.Container(h.pod, name, h.image.name)
	c.Mounts = []*runtimeapi.Mount{{HostPath: h.dir, ContainerPath: "/hooks"}}
	return c
}

func (h *hooked) start(ctx context.Context, t *testing.T, name string) string {
	t.Helper()
	id, err := h.front.Start(ctx, h.podID, h.pod, h.container(name))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// log returns what hooks wrote since the last look.
func (h *hooked) log(t *testing.T) string {
	t.Helper()
	file := filepath.Join(h.dir, "log")
	written, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	return string(written)
}

func (h *hooked) wantExited(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	if got := inspect(ctx, t, h.front, id); got.State != "CONTAINER_EXITED" {
		t.Errorf("the container is %s", got.State)
	}
}

func (h *hooked) testDelivered(ctx context.Context, t *testing.T) {
	t.Helper()
	id := h.start(ctx, t, "app")
	if got := h.log(t); got != "registered\n" {
		t.Errorf("when the start was answered its hooks had written %q", got)
	}
	run(ctx, t, h.front, "stop", "--timeout", "30", id)
	if got := h.log(t); got != "drained\n" {
		t.Errorf("when the stop was answered its hooks had written %q", got)
	}
	h.wantExited(ctx, t, id)
	listed, err := h.proxy.Command(ctx, "hooks", "list").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, listed)
	}
	for _, hook := range []string{"served", "register", "drain"} {
		wantContains(t, string(listed), hook)
	}
	if got := strings.Count(string(listed), "delivered"); got != 3 {
		t.Errorf("%d hooks are listed as delivered, want 3:\n%s", got, listed)
	}
}

// testFailed: a PostStart that fails ends its container, and the start says so.
func (h *hooked) testFailed(ctx context.Context, t *testing.T) {
	t.Helper()
	id, err := h.front.Create(ctx, h.podID, h.pod, h.container("bad"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.front.Run(ctx, "start", id); err == nil || !strings.Contains(err.Error(), "FailedPostStartHook") {
		t.Errorf("the start: %v, want FailedPostStartHook", err)
	}
	waitFor(ctx, t, func() error {
		if state := inspect(ctx, t, h.front, id).State; state != "CONTAINER_EXITED" {
			return fmt.Errorf("the container is %s", state)
		}
		return nil
	})
}

// testBounded: a hook that takes longer than the grace period ends with it, and
// the runtime gets two seconds more at most.
func (h *hooked) testBounded(ctx context.Context, t *testing.T) {
	t.Helper()
	id := h.start(ctx, t, "slow")
	began := time.Now()
	run(ctx, t, h.front, "stop", "--timeout", "3", id)
	if took := time.Since(began); took < 3*time.Second || took > 9*time.Second {
		t.Errorf("a stop within 3s took %s", took)
	}
	h.wantExited(ctx, t, id)
}

// testKilledInPreStop: the proxy is killed in the middle of a stop, and the next
// one brings it to its end.
func (h *hooked) testKilledInPreStop(ctx context.Context, t *testing.T) {
	t.Helper()
	id := h.start(ctx, t, "kept")
	stopped := make(chan error, 1)
	go func() {
		_, err := h.front.Run(ctx, "stop", "--timeout", "25", id)
		stopped <- err
	}()
	waitFor(ctx, t, func() error {
		listed, err := h.proxy.Command(ctx, "hooks", "list").CombinedOutput()
		return errorOr(err, contains(string(listed), "pause", "running"))
	})
	if err := h.proxy.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped; err == nil {
		t.Error("the stop succeeded though the proxy was killed")
	}
	began := time.Now()
	if err := h.proxy.Start(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, func() error {
		if state := inspect(ctx, t, h.front, id).State; state != "CONTAINER_EXITED" {
			return fmt.Errorf("the container is %s", state)
		}
		return nil
	})
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("the stop ended %s after the restart, past its grace period", took)
	}
	if got := h.log(t); got != "after\n" {
		t.Errorf("the hooks wrote %q", got)
	}
}
