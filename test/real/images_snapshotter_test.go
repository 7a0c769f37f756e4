package real_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// native is a handler whose containers have the snapshotter of that name.
const native = "native"

// snapshots is one containerd with two snapshotters behind a proxy.
type snapshots struct {
	*stores

	containerd *rig.Containerd
	k          *rig.Kubelet
}

// testSnapshotters: two handlers of one containerd that differ in their
// snapshotters both get their images, in either order, and get them again when
// they are lost; with a containerd that keeps the layers of its images, and with
// one that has no more than the snapshots.
func testSnapshotters(ctx context.Context, t *testing.T, s *stores) {
	t.Helper()
	for name, discard := range map[string]bool{"keeps": false, "discards": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			containerd, err := s.Containerd(ctx, rig.ContainerdOptions{
				Name: name, Handlers: []string{native}, Snapshotters: map[string]string{native: native}, DiscardLayers: discard,
			})
			if err != nil {
				t.Fatal(err)
			}
			testTwoSnapshotters(ctx, t, s, containerd)
		})
	}
}

func testTwoSnapshotters(ctx context.Context, t *testing.T, s *stores, containerd *rig.Containerd) {
	t.Helper()
	proxy, err := s.Proxy(ctx, rig.ProxyOptions{Name: containerd.Name + "-p", DefaultHandler: "runc", Config: fmt.Sprintf(`[backends.snap]
endpoint = %q

[handlers.runc]
backend = "snap"

[handlers.runc.images]
snapshotter = "overlayfs"

[handlers.native]
backend = "snap"

[handlers.native.images]
snapshotter = "native"
`, containerd.Endpoint())})
	if err != nil {
		t.Fatal(err)
	}
	n := &snapshots{s, containerd, kubelet(t, s.node, proxy.Endpoint())}
	for _, handler := range []string{"runc", native} {
		// Containerd pulls the image of its sandboxes once, for the first handler
		// that has one, and cannot unpack it again without its layers.
		if output, err := proxy.Command(ctx, "images", "pull", "--handler", handler, rig.PauseImage).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	}
	for name, order := range map[string][2]string{"overlayfs-first": {"runc", native}, "native-first": {native, "runc"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n.test(ctx, t, order)
		})
	}
}

func (n *snapshots) test(ctx context.Context, t *testing.T, order [2]string) {
	t.Helper()
	image := push(ctx, t, n.stores, imageName(t), rig.Image{Ballast: 1})
	app := rig.KubeletContainer{Image: image.name}
	first, other := n.pod(ctx, t, order[0]), n.pod(ctx, t, order[1])
	start(ctx, t, n.k, first, app, true)
	n.want(ctx, t, order[0], image, true)
	n.want(ctx, t, order[1], image, false)
	start(ctx, t, n.k, other, app, true)
	n.want(ctx, t, order[1], image, true)

	// What is used by one is not garbage, and the other can lose its snapshot.
	n.remove(ctx, t, first)
	n.collect(ctx, t, image, 0)
	start(ctx, t, n.k, other, app, false)
	if _, err := n.containerd.Ctr(ctx, "snapshots", "--snapshotter", snapshotter(order[0]), "rm", image.Top); err != nil {
		t.Fatal(err)
	}
	start(ctx, t, n.k, other, app, false)
	again := n.pod(ctx, t, order[0])
	start(ctx, t, n.k, again, app, true)

	n.remove(ctx, t, again, other)
	n.collect(ctx, t, image, 1)
	for _, handler := range []string{order[1], order[0]} {
		pod := n.pod(ctx, t, handler)
		start(ctx, t, n.k, pod, app, true)
		n.want(ctx, t, handler, image, true)
		n.remove(ctx, t, pod)
	}
}

func (n *snapshots) pod(ctx context.Context, t *testing.T, handler string) *rig.KubeletPod {
	t.Helper()
	return sandbox(ctx, t, n.k, handler)
}

func (n *snapshots) remove(ctx context.Context, t *testing.T, pods ...*rig.KubeletPod) {
	t.Helper()
	if err := n.k.Remove(ctx, pods...); err != nil {
		t.Fatal(err)
	}
}

// collect collects the image, if it is garbage.
func (n *snapshots) collect(ctx context.Context, t *testing.T, image image, removed int) {
	t.Helper()
	got, err := n.k.CollectImages(ctx, func(i *runtimeapi.Image) bool { return i.GetId() == image.ID })
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != removed {
		t.Errorf("%d images were collected, want %d", len(got), removed)
	}
}

// want asks containerd whether the image is unpacked for a handler.
func (n *snapshots) want(ctx context.Context, t *testing.T, handler string, image image, wanted bool) {
	t.Helper()
	listed, err := n.containerd.Ctr(ctx, "snapshots", "--snapshotter", snapshotter(handler), "ls")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Contains(listed, image.Top); got != wanted {
		t.Errorf("unpacked for handler %s: %t, want %t", handler, got, wanted)
	}
}

func snapshotter(handler string) string {
	if handler == native {
		return native
	}
	return "overlayfs"
}
