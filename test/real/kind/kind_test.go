package kind_test

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cri-proxy/cri-proxy/test/real/kind"
	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// TestKind is one test with many parts, so that the daemon and the base image
// are made once.
func TestKind(t *testing.T) { //nolint:paralleltest // It has the machine for itself.
	if os.Getenv("E2E_KIND") == "" {
		t.Skip("LEFT OUT: a kind cluster; it builds Kubernetes and a node image: sudo make e2e-kind")
	}
	ctx := interruptible(t)
	docker, root, made := newDocker(ctx, t)
	if err := docker.BuildBase(ctx, made, root, t.Output()); err != nil {
		t.Fatal(err)
	}
	t.Run("cluster", func(t *testing.T) { testCluster(ctx, t, docker, root, made) }) //nolint:paralleltest // The same.
	t.Run("journey", func(t *testing.T) { testJourney(ctx, t, docker, root, made) }) //nolint:paralleltest // The same.
}

// testCluster is about a cluster whose nodes have had cri-proxy from the start.
func testCluster(ctx context.Context, t *testing.T, docker *kind.Docker, root string, made rig.Parts) {
	t.Helper()
	c := newCluster(ctx, t, docker, root, made)
	for _, part := range parts() {
		t.Run(part.name, func(t *testing.T) { part.run(ctx, t, c) })
	}
}

// part is one part of the test.
type part struct {
	name string
	run  func(context.Context, *testing.T, *cluster)
}

func parts() []part {
	return []part{
		{"nodes", testNodes},
		{"page", testPage},
		{"kind-load", testLoad},
		{"deployments", testDeployments},
		{"hooks", testHooks},
		{"private-registry", testPrivate},
		{"unit", testUnit},
		{"docker-restart", testRestarted},
		{"graceful-shutdown", testShutdown},
		{"taken-name", testTakenName},
		{"kind-down", testDown},
		{"by-hand", testPageByHand},
		{"page-to-its-end", testPageRead},
	}
}

// testTakenName: a second cluster of that name is refused, with what to do.
func testTakenName(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	var said strings.Builder
	if _, err := c.Up(ctx, c.root, c.Parts(), c.Name, &said); err == nil {
		t.Error("a second cluster was made over the first one")
	}
	wantContains(t, said.String(), "make kind-down CLUSTER="+c.Name)
}

// testDown: "make kind-down" leaves no node, no volume of one and no image.
func testDown(ctx context.Context, t *testing.T, c *cluster) {
	t.Helper()
	if err := c.Down(ctx, t.Output()); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]string{
		{"ps", "--all", "--quiet", "--filter", "label=io.x-k8s.kind.cluster=" + c.Name},
		{"volume", "ls", "--quiet"},
		{"image", "ls", "--quiet", "cri-proxy/node"},
	} {
		if left, err := c.Run(ctx, nil, list...); err != nil || left != "" {
			t.Errorf("docker %q after kind-down: %q (%v), want nothing", list, left, err)
		}
	}
}

// cleaningTime is what a test that runs out of time leaves for the cleaning.
const cleaningTime = time.Minute

// interruptible is a context that ends with Ctrl-C as well as with the test, and
// early enough for the cleaning.
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

// newCluster makes the cluster as a user does.
func newCluster(ctx context.Context, t *testing.T, docker *kind.Docker, root string, parts rig.Parts) *cluster {
	t.Helper()
	c, err := docker.Up(ctx, root, parts, "cri-proxy", t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() { // The context of a test has ended when it cleans up.
			c.Logs(context.WithoutCancel(ctx), t.Output())
		}
	})
	return &cluster{c, root, blocksOf(t, root, page, "kind"), map[int]bool{}}
}

// newDocker builds what is missing and starts a daemon.
func newDocker(ctx context.Context, t *testing.T) (docker *kind.Docker, root string, parts rig.Parts) {
	t.Helper()
	if err := kind.Missing(); err != nil {
		t.Fatal(err)
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	if parts, err = rig.Build(ctx, root, t.Output()); err != nil {
		t.Fatal(err)
	}
	if err := parts.BuildCluster(ctx, root, t.Output()); err != nil {
		t.Fatal(err)
	}
	if docker, err = kind.StartDocker(ctx, parts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := docker.Close(ctx); err != nil {
			t.Error(err)
		}
		if left, err := docker.Leftovers(); err != nil || len(left) > 0 {
			t.Errorf("this is left: %q %v", left, err)
		}
	})
	return docker, root, parts
}
