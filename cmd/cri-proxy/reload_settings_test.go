package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks/journal"
)

// TestReloadHooks: hooks that were promised come as they were promised, those
// that are new come from the next event on.
func TestReloadHooks(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	before, after := receive(t, hold), receive(t, nil)
	p, _ := hooked(t, "# hooks\n")
	if err := p.reload("# hooks", hook("post_start", before.action(), `timeout = "30s"`)); err != nil {
		t.Fatal(err)
	}
	_, container := p.container("runc")
	started := async(func() error { return p.startContainer(container) })
	before.next()
	if err := p.reload("# hooks", hook("pre_stop", after.action())); err != nil {
		t.Fatal(err)
	}
	pending(t, "the start", started)
	close(hold)
	if err := <-started; err != nil {
		t.Error(err)
	}
	p.delivery(journal.PostStart, journal.Delivered)
	if err := p.stopContainer(container, 10); err != nil {
		t.Error(err)
	}
	after.next()
	before.none()
}

// TestReloadImagesAndServices: a handler's settings for images and for Service
// variables count from the reload on.
func TestReloadImagesAndServices(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "services.yaml")
	if err := os.WriteFile(file, []byte(servicesAt("10.0.0.1")), 0o600); err != nil {
		t.Fatal(err)
	}
	p, alpha := hookedWith(t, fromFile(file), "# settings\n")
	pull := func() codes.Code {
		_, err := p.images.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: "app"}})
		return status.Code(err)
	}
	if got := pull(); got != codes.OK {
		t.Errorf("before: %v", got)
	}
	if err := p.reload("# settings", "images.require_digest = true\n"); err != nil {
		t.Fatal(err)
	}
	if got := pull(); got != codes.PermissionDenied {
		t.Errorf("with require_digest: %v", got)
	}
	if err := p.reload("# settings", "service_env.enabled = true\n"); err != nil {
		t.Fatal(err)
	}
	if got := pull(); got != codes.OK {
		t.Errorf("afterwards: %v", got)
	}
	request := createRequest(p.run("pod", "runc"), "pod", "c", "app")
	if got, err := added(t, p, alpha, request); err != nil || !slices.Contains(got, "MY_DB_SERVICE_HOST=10.0.0.1") {
		t.Errorf("after service_env.enabled was set: %v, %v", got, err)
	}
}
