package real_test

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// second is the handler that only the second containerd has.
const second = "isolated"

// node is what all tests share: two containerds, and the registry of the rig.
type node struct {
	*rig.Rig
	alpha *rig.Containerd // runs handler "runc"
	beta  *rig.Containerd // runs handlers "runc" and "isolated"
}

// target is a CRI socket and a handler behind it.
type target struct {
	name     string
	endpoint string
	handler  string
	mark     string // RIG_HANDLER of the handler's containers, "" for plain runc
}

// TestNode is one test with many parts, so that the node is started once and
// the parts can run side by side.
func TestNode(t *testing.T) {
	t.Parallel()
	ctx := interruptible(t)
	n := newNode(ctx, t)
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		testTargets(ctx, t, n, []target{
			{name: "alpha", endpoint: n.alpha.Endpoint(), handler: "runc"},
			{name: "beta", endpoint: n.beta.Endpoint(), handler: second, mark: "beta/" + second},
		})
	})
	t.Run("proxy", func(t *testing.T) {
		t.Parallel()
		testProxy(ctx, t, n)
	})
}

// testTargets is what every runtime must do, and the proxy for each handler.
func testTargets(ctx context.Context, t *testing.T, n *node, targets []target) {
	t.Helper()
	for _, target := range targets {
		t.Run("journey/"+target.name, func(t *testing.T) {
			t.Parallel()
			testJourney(ctx, t, n, target)
		})
		t.Run("user/"+target.name, func(t *testing.T) {
			t.Parallel()
			testUser(ctx, t, n, target)
		})
	}
}

// cleaningTime is what a test that runs out of time leaves for the cleaning.
const cleaningTime = 45 * time.Second

// interruptible is a context that ends with Ctrl-C as well as with the test, and
// early enough before the test binary's own end, which nothing survives to
// clean up.
func interruptible(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-cleaningTime))
		t.Cleanup(cancel)
	}
	return ctx
}

func newNode(ctx context.Context, t *testing.T) *node {
	t.Helper()
	n := &node{Rig: newRig(ctx, t)}
	var err error
	if n.alpha, err = n.Containerd(ctx, rig.ContainerdOptions{Name: "alpha"}); err != nil {
		t.Fatal(err)
	}
	if n.beta, err = n.Containerd(ctx, rig.ContainerdOptions{Name: "beta", Handlers: []string{second}}); err != nil {
		t.Fatal(err)
	}
	return n
}

// newRig builds what is not built yet, and closes the rig after the test. Where
// the test failed it shows the ends of all logs first.
func newRig(ctx context.Context, t *testing.T) *rig.Rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests start containerd: run them as root")
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := rig.Build(ctx, root, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rig.New(ctx, rig.Options{Root: root, Parts: parts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			r.Logs(t.Output())
		}
		wantNoLeaks(context.WithoutCancel(ctx), t, r)
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
		if found := leftovers(t, r); len(found) > 0 {
			t.Errorf("the rig left behind:\n%s", strings.Join(found, "\n"))
		}
	})
	return r
}
