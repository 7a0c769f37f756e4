package containerd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const app = "docker.io/library/app:v1"

// TestUnpack: an image whose content is there is unpacked in one snapshotter and
// then in another, whatever name it is asked by, and stays so when garbage is
// collected.
func TestUnpack(t *testing.T) {
	t.Parallel()
	s, b := newContainerd(t), blobs{}
	bottom, top := b.layer(t, "bottom", []byte("1")), b.layer(t, "top", []byte("2"))
	index := b.index(t, b.manifest(t, here(), bottom, top), blobs{}.manifest(t, elsewhere()))
	byDigest := "docker.io/library/app@" + index.Digest.String()
	id := pull(t, s, b, index, app, byDigest)
	unpacked := func(snapshotter string, want bool) {
		t.Helper()
		for _, name := range []string{app, byDigest, id} {
			if got, err := s.Unpacked(t.Context(), name, snapshotter); err != nil || got != want {
				t.Errorf("%s is unpacked in %s: %v, %v, want %v", name, snapshotter, got, err, want)
			}
		}
	}
	unpacked(one, false)
	must(t, s.Unpack(t.Context(), app, one))
	collect(t, s)
	unpacked(one, true)
	unpacked(two, false)
	must(t, s.Unpack(t.Context(), id, two))
	must(t, s.Unpack(t.Context(), byDigest, two)) // Once more does no harm.
	collect(t, s)
	unpacked(two, true)

	u, err := s.unpackable(inNamespace(t.Context()), app)
	must(t, err)
	mounts, err := s.snapshotter(two).View(inNamespace(t.Context()), "look", u.chainID())
	must(t, err)
	for _, name := range []string{"bottom", "top"} {
		if _, err := os.Stat(filepath.Join(mounts[0].Source, name)); err != nil {
			t.Error(err)
		}
	}
	if found := inventoryOf(t, s); len(found.Ingests)+len(found.Leases) > 0 || len(found.Blobs) != len(b) {
		t.Errorf("afterwards there are %v", found)
	}
}

// TestUnpackKeepsSharedSnapshots: the second of two images with equal layers has
// nothing to unpack, and keeps the snapshots when the first one goes.
func TestUnpackKeepsSharedSnapshots(t *testing.T) {
	t.Parallel()
	s, b := newContainerd(t), blobs{}
	layer := b.layer(t, "file", nil)
	first := b.manifest(t, here(), layer)
	platform := here()
	platform.OSVersion = "other"
	second := b.manifest(t, platform, layer)
	id := pull(t, s, b, first, app)
	pull(t, s, b, second, "docker.io/library/app:v2")
	must(t, s.Unpack(t.Context(), app, one))
	must(t, s.Unpack(t.Context(), "docker.io/library/app:v2", one))
	remove(t, s, app, id)
	collect(t, s)
	if got, err := s.Unpacked(t.Context(), "docker.io/library/app:v2", one); err != nil || !got {
		t.Errorf("unpacked: %v, %v", got, err)
	}
	if got, err := s.Unpacked(t.Context(), app, one); err != nil || got {
		t.Errorf("the removed one is unpacked: %v, %v", got, err)
	}
}

// TestUnpackRefused: what cannot be unpacked is explained and leaves nothing
// behind.
func TestUnpackRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, image, snapshotter string
		code                     codes.Code
		says                     string
		absent                   bool // Unpacked says no instead of an error.
	}{
		{"no such image", "docker.io/library/none:v1", one, codes.NotFound, "docker.io/library/none:v1", true},
		{"no such snapshotter", app, "three", codes.InvalidArgument, `no snapshotter "three"`, false},
		{"another platform's image", "docker.io/library/app:mips", one, codes.NotFound, "app:mips", true},
		{"layers thrown away", "docker.io/library/app:discarded", one, codes.FailedPrecondition, "discard_unpacked_layers", true},
		{"a layer that is not what the config says", "docker.io/library/app:wrong", one, codes.Unknown, "wrong diff id", true},
		{"more layers in the config", "docker.io/library/app:short", one, codes.InvalidArgument, "2 layers and its manifest 1", false},
	}
	s, b := newContainerd(t), blobs{}
	layer := b.layer(t, "file", []byte("data"))
	pull(t, s, b, b.manifest(t, here(), layer), app)
	pull(t, s, b, b.index(t, b.manifest(t, elsewhere(), b.layer(t, "mips", nil))), "docker.io/library/app:mips")
	pull(t, s, b, b.manifest(t, here(), layer, blobs{}.layer(t, "gone", nil)), "docker.io/library/app:discarded")
	pull(t, s, b, b.manifestSaying(t, here(), []digest.Digest{digest.FromString("other")}, []ocispec.Descriptor{layer}), "docker.io/library/app:wrong")
	pull(t, s, b, b.manifestSaying(t, here(), []digest.Digest{layer.Digest, layer.Digest}, []ocispec.Descriptor{layer}), "docker.io/library/app:short")
	before := inventoryOf(t, s)
	for _, tt := range tests {
		err := s.Unpack(t.Context(), tt.image, tt.snapshotter)
		if status.Code(err) != tt.code || !strings.Contains(status.Convert(err).Message(), tt.says) {
			t.Errorf("%s: unpack: %v, want %s with %q", tt.name, err, tt.code, tt.says)
		}
		unpacked, err := s.Unpacked(t.Context(), tt.image, tt.snapshotter)
		if unpacked || (err == nil) != tt.absent {
			t.Errorf("%s: unpacked: %v, %v", tt.name, unpacked, err)
		}
	}
	if diff := cmp.Diff(before, inventoryOf(t, s)); diff != "" {
		t.Errorf("what the store has changed (-before +after):\n%s", diff)
	}
}

// TestSupported: only a containerd has these services.
func TestSupported(t *testing.T) {
	t.Parallel()
	other := serve(t, grpc.NewServer())
	if ok, err := newContainerd(t).Supported(t.Context()); err != nil || !ok {
		t.Errorf("a containerd is supported: %v, %v", ok, err)
	}
	if ok, err := other.Supported(t.Context()); err != nil || ok {
		t.Errorf("another runtime is supported: %v, %v", ok, err)
	}
	if _, err := other.Unpacked(t.Context(), app, one); status.Code(err) != codes.Unimplemented {
		t.Errorf("unpacked: %v, want Unimplemented", err)
	}
	if err := other.Unpack(t.Context(), app, one); status.Code(err) != codes.Unimplemented {
		t.Errorf("unpack: %v, want Unimplemented", err)
	}
}

// TestAway: a containerd that does not answer is unavailable.
func TestAway(t *testing.T) {
	t.Parallel()
	server := grpc.NewServer()
	s := serve(t, server)
	server.Stop()
	if _, err := s.Unpacked(t.Context(), app, one); status.Code(err) != codes.Unavailable {
		t.Errorf("unpacked: %v, want Unavailable", err)
	}
	if _, err := s.Supported(t.Context()); status.Code(err) != codes.Unavailable {
		t.Errorf("supported: %v, want Unavailable", err)
	}
}
