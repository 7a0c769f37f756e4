package imageservice

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/test/fakeruntime"
)

// unpackings stands for containerd's own API, which the fake runtime does not
// have.
type unpackings struct {
	mu       sync.Mutex
	unpacked []string // Snapshotter and image.
	id       string   // Of the image app.
	made     int
	err      error
}

func (u *unpackings) Unpacked(_ context.Context, image, snapshotter string) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Contains(u.unpacked, snapshotter+" "+u.name(image)), u.err
}

func (u *unpackings) Unpack(_ context.Context, image, snapshotter string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unpacked = append(u.unpacked, snapshotter+" "+u.name(image))
	u.made++
	return u.err
}

func (u *unpackings) name(image string) string {
	if image == u.id {
		return "docker.io/library/app:latest"
	}
	return image
}

func (u *unpackings) set(err error, unpacked ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unpacked, u.made, u.err = unpacked, 0, err
}

func (u *unpackings) wantMade(t *testing.T, want int) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.made != want {
		t.Errorf("unpacked %d times, want %d", u.made, want)
	}
}

// erofs is a node whose handler tenant has a snapshotter, and more settings.
func erofs(t *testing.T, more string, way func(t *testing.T, images string) (k kubeletOf, open, tenant *fakeruntime.Runtime)) (k kubeletOf, u *unpackings, tenant *fakeruntime.Runtime) {
	t.Helper()
	k, _, tenant = way(t, "snapshotter = \"erofs\"\n"+more)
	u = &unpackings{id: tenant.AddImage("app", nil)}
	k.service.native = func(*backend.Backend) snapshots { return u }
	return k, u, tenant
}

const erofsApp = "erofs docker.io/library/app:latest"

// TestSnapshotter: an image is there when it is unpacked where the handler
// wants it, asked anew each time, and a pull brings it there.
func TestSnapshotter(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, u, _ := erofs(t, "", way)
			a, free := k.run("a", "tenant"), k.run("free", "open")
			k.wantStart(a, "unpacked by the pull", "app", "IfNotPresent", 1)
			u.wantMade(t, 1)
			k.wantStart(a, "is there", "app", "IfNotPresent", 0)
			u.wantMade(t, 1)
			u.set(nil) // Somebody removed the snapshot.
			k.wantStart(a, "anew", "app", "IfNotPresent", 1)
			u.wantMade(t, 1)
			u.set(nil, "overlayfs docker.io/library/app:latest")
			k.wantStart(a, "in another one", "app", "IfNotPresent", 1)
			u.set(nil)
			k.wantStart(free, "a handler without one", "free", "IfNotPresent", 1)
			k.wantStart(free, "once more", "free", "IfNotPresent", 0)
			u.wantMade(t, 0)
		})
	}
}

// TestSnapshotterAtCreate: a container whose image is content only gets it
// unpacked first, also where nothing may be pulled.
func TestSnapshotterAtCreate(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"", `pull_policy = "never"`} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			for name, way := range ways() {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					k, u, tenant := erofs(t, policy, way)
					a := k.run("a", "tenant")
					for _, ref := range []string{"app", u.id} {
						u.set(nil)
						if err := k.create(a, "c"+ref, "app", ref); err != nil {
							t.Error(err)
						}
						u.wantMade(t, 1)
					}
					u.set(status.Error(codes.Unavailable, "down"))
					wantCode(t, k.create(a, "d", "app", u.id), codes.Unavailable, `"erofs"`, "down")
					wantPulls(t, map[*fakeruntime.Runtime]int{tenant: 0})
					u.set(nil)
					err := k.create(a, "e", "missing", "missing")
					if policy != "" {
						wantCode(t, err, codes.FailedPrecondition, policy)
					} else if err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// TestSnapshotterErrors: what containerd says comes back; a backend that is
// none fails the handler's pulls alone.
func TestSnapshotterErrors(t *testing.T) {
	t.Parallel()
	for name, way := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, u, tenant := erofs(t, "", way)
			a, free := k.run("a", "tenant"), k.run("free", "open")
			u.set(status.Error(codes.Unavailable, "down"))
			_, err := k.status(k.spec(a, "app"))
			wantCode(t, err, codes.Unavailable, "down", `"erofs"`, "app:latest")
			u.set(status.Error(codes.Unimplemented, "unknown service"))
			_, err = k.start(a, "c", "app", "IfNotPresent")
			wantCode(t, err, codes.FailedPrecondition, `images.snapshotter = "erofs" needs a containerd`)
			wantPulls(t, map[*fakeruntime.Runtime]int{tenant: 0})
			u.set(status.Error(codes.InvalidArgument, "no such snapshotter"))
			_, err = k.start(a, "c", "app", "IfNotPresent")
			wantCode(t, err, codes.InvalidArgument, "no such snapshotter")
			k.wantStart(free, "c", "free", "IfNotPresent", 1)
		})
	}
}

// TestUnpackedForEverybody: a question that may be about pods of several
// handlers is answered for all of them.
func TestUnpackedForEverybody(t *testing.T) {
	t.Parallel()
	n, _, store := oneStore(t, `snapshotter = "erofs"`)
	u := &unpackings{}
	n.service.native = func(*backend.Backend) snapshots { return u }
	k := kubeletOf{node: n}
	store.AddImage("app", nil)
	n.run("a", "tenant")
	free := n.run("free", "open")
	for _, c := range []struct {
		pod      *podOf
		unpacked []string
		want     bool
	}{
		{free, nil, true},
		{free.with("note", "edited"), nil, false},
		{free.with("note", "edited"), []string{erofsApp}, true},
	} {
		u.set(nil, c.unpacked...)
		if found, err := k.status(k.spec(c.pod, "app")); err != nil || (found != nil) != c.want {
			t.Errorf("%v unpacked: found %t, %v; want %t", c.unpacked, found != nil, err, c.want)
		}
	}
	if id, err := n.service.Pull(t.Context(), "tenant", "new"); err != nil || id == "" || !slices.Contains(u.unpacked, "erofs "+id) {
		t.Errorf("by hand: %q, %v, unpacked %v", id, err, u.unpacked)
	}
}

// TestPullPanics: a pull that panics is an error, and gives its turn back.
func TestPullPanics(t *testing.T) {
	t.Parallel()
	n, _, _ := oneStore(t, "snapshotter = \"erofs\"\nmax_parallel_pulls = 1")
	for range 2 {
		n.service.native = func(*backend.Backend) snapshots { panic("odd manifest") }
		_, err := n.service.Pull(t.Context(), "tenant", "app")
		wantCode(t, err, codes.Internal, `"app"`)
	}
	if log := n.log.String(); !strings.Contains(log, "odd manifest") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	n.service.native = func(*backend.Backend) snapshots { return &unpackings{} }
	if _, err := n.service.Pull(t.Context(), "tenant", "app"); err != nil {
		t.Error(err)
	}
}
