package containerd

import (
	"testing"

	"github.com/containerd/containerd/v2/core/leases"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestProgress goes through a pull as containerd does it: index, manifest and
// config, then the layers at once, of which one is there already.
func TestProgress(t *testing.T) {
	t.Parallel()
	s, b := newContainerd(t), blobs{}
	old, first, second := b.layer(t, "old", make([]byte, 5000)), b.layer(t, "first", make([]byte, 9000)), b.layer(t, "second", []byte("2"))
	pull(t, s, b, b.manifest(t, here(), old), "docker.io/library/app:old")
	manifest := b.manifest(t, here(), old, first, second)
	index := b.index(t, manifest, blobs{}.manifest(t, elsewhere()))
	only := func(parts ...ocispec.Descriptor) blobs {
		some := blobs{}
		for _, p := range parts {
			some[p.Digest] = b[p.Digest]
		}
		return some
	}
	lease, err := s.leases.Create(inNamespace(t.Context()), leases.WithRandomID())
	must(t, err)
	ctx := leases.WithLease(inNamespace(t.Context()), lease.ID) // As a pull has one.
	config := configOf(t, b, manifest)
	total := config.Size + old.Size + first.Size + second.Size

	d, err := s.Download(app)
	must(t, err)
	progress := func(d *Download, step string, want Progress) {
		t.Helper()
		if got, err := d.Progress(t.Context()); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", step, got, err, want)
		}
	}
	progress(d, "before", Progress{})
	must(t, s.fetch(ctx, only(index), index))
	progress(d, "with the index", Progress{})
	must(t, s.fetch(ctx, only(manifest), manifest))
	progress(d, "with the manifest", Progress{Done: old.Size, Total: total})
	must(t, s.fetch(ctx, only(config), config))
	write(ctx, t, s, "layer-"+first.Digest.String(), b[first.Digest][:4000])
	write(ctx, t, s, "layer-docker.io/library/app:v1@"+second.Digest.String(), b[second.Digest][:7])
	progress(d, "with halves of layers", Progress{Done: config.Size + old.Size + 4007, Total: total})

	joined, err := s.Download(app)
	must(t, err)
	progress(joined, "asked by somebody who came later", Progress{Done: config.Size + old.Size + 4007, Total: total})
	elsewhere, err := s.Download("docker.io/library/other:v1")
	must(t, err)
	progress(elsewhere, "of another repository", Progress{})

	must(t, s.fetch(ctx, only(first), first))
	write(ctx, t, s, "layer-docker.io/library/app:v1@"+second.Digest.String(), b[second.Digest][7:])
	progress(d, "nearly done", Progress{Done: total, Total: total})
}

// TestProgressRefused: a name that is none, and a runtime that cannot tell.
func TestProgressRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, grpc.NewServer())
	if _, err := s.Download("UPPER"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("download: %v, want InvalidArgument", err)
	}
	d, err := s.Download(app)
	must(t, err)
	if _, err := d.Progress(t.Context()); status.Code(err) != codes.Unimplemented {
		t.Errorf("progress: %v, want Unimplemented", err)
	}
}
