package containerd

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// multiPlatform puts an image into a store whose index names three platforms:
// this one; one that is there too; one of whose blobs are some missing.
func multiPlatform(t *testing.T, s *Store) (all blobs, index ocispec.Descriptor, id string) {
	t.Helper()
	all, incomplete := blobs{}, blobs{}
	layer := all.layer(t, "file", []byte("here"))
	mine := all.manifest(t, here(), layer, all.layer(t, "second", []byte("one more")))
	other := all.manifest(t, elsewhere(), layer)
	lacking := incomplete.manifest(t, ocispec.Platform{OS: "plan9", Architecture: "386"}, layer, incomplete.layer(t, "missing", nil))
	index = all.index(t, mine, other, lacking)
	there := blobs{lacking.Digest: incomplete[lacking.Digest]}
	maps.Copy(there, all)
	return all, index, pull(t, s, there, index, app, "docker.io/library/app@"+index.Digest.String(), "docker.io/library/app:other")
}

// TestCopy: the copy has the platforms that are there, the name that was asked
// for with its digest, CRI's labels, and is not garbage; the source stays as it
// is; what is there is not copied again.
func TestCopy(t *testing.T) {
	t.Parallel()
	const byTag, byID = "by tag", "by id"
	byDigest := func(index ocispec.Descriptor) string { return "docker.io/library/app@" + index.Digest.String() }
	for _, by := range []string{byTag, byID, "by digest"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			from, to := newContainerd(t), newContainerd(t)
			all, index, id := multiPlatform(t, from)
			before := inventoryOf(t, from)
			ref, names := byDigest(index), []string{id, byDigest(index)}
			switch by {
			case byTag:
				ref, names = app, append(names, app)
			case byID:
				ref, names = id, append(names, app, "docker.io/library/app:other")
			}
			var seen []Progress
			got, err := Copy(t.Context(), from, to, ref, CopyOptions{Progress: func(p Progress) { seen = append(seen, p) }})
			if err != nil || got != id {
				t.Fatalf("copied %q, %v, want %q", got, err, id)
			}
			want := inventory{Images: map[string]string{}, Labels: map[string]map[string]string{}, Blobs: all.digests()}
			for _, name := range names {
				want.Images[name], want.Labels[name] = index.Digest.String(), map[string]string{"io.cri-containerd.image": "managed"}
			}
			if diff := cmp.Diff(want, inventoryOf(t, to)); diff != "" {
				t.Errorf("the target (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, inventoryOf(t, from)); diff != "" {
				t.Errorf("the source (-before +after):\n%s", diff)
			}
			checkProgress(t, seen, all)
		})
	}
}

// checkProgress: it only grows, and ends with the size of all.
func checkProgress(t *testing.T, seen []Progress, all blobs) {
	t.Helper()
	var total int64
	for _, data := range all {
		total += int64(len(data))
	}
	for _, p := range seen {
		if p.Total != total {
			t.Errorf("%+v, want a total of %d", p, total)
		}
	}
	grows := slices.IsSortedFunc(seen, func(a, b Progress) int { return int(a.Done - b.Done) })
	if !grows || seen[len(seen)-1].Done != total {
		t.Errorf("progress %v, want it to grow to %d", seen, total)
	}
}

// TestCopyAgain: a second copy sends nothing, moves the name, unpacks the image
// and keeps the registry that its blobs are from.
func TestCopyAgain(t *testing.T) {
	t.Parallel()
	from, to := newContainerd(t), newContainerd(t)
	all, index, id := multiPlatform(t, from)
	older := blobs{}
	pull(t, to, older, older.manifest(t, here(), older.layer(t, "old", nil)), app)
	for range 2 {
		if _, err := Copy(t.Context(), from, to, app, CopyOptions{Snapshotter: one}); err != nil {
			t.Fatal(err)
		}
	}
	if target := imagesOf(t, to)[app].Target.Digest; target != index.Digest {
		t.Errorf("the name is that of %s, want %s", target, index.Digest)
	}
	collect(t, to)
	for _, name := range []string{app, id} {
		if ok, err := to.Unpacked(t.Context(), name, one); err != nil || !ok {
			t.Errorf("%s is unpacked: %v, %v", name, ok, err)
		}
	}
	for d := range all {
		info, err := to.content.Info(inNamespace(t.Context()), d)
		must(t, err)
		if got := info.Labels[sourceLabel+"docker.io"]; got != "library/app" {
			t.Errorf("%s is from %q", d, got)
		}
	}
}

// TestCopyUntagged: an image without a name but its id can be copied.
func TestCopyUntagged(t *testing.T) {
	t.Parallel()
	from, to, b := newContainerd(t), newContainerd(t), blobs{}
	id := pull(t, from, b, b.manifest(t, here(), b.layer(t, "file", nil)))
	if _, err := Copy(t.Context(), from, to, id, CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if found := imagesOf(t, to); len(found) != 1 || found[id].Name != id {
		t.Errorf("the target has %v", found)
	}
}

// TestCopyRefused: a copy that is not possible says why, and one that fails late
// or is cancelled leaves nothing.
func TestCopyRefused(t *testing.T) {
	t.Parallel()
	from, to, b := newContainerd(t), newContainerd(t), blobs{}
	large := make([]byte, 24<<20)
	_, _ = rand.Read(large)
	pull(t, from, b, b.manifest(t, here(), b.layer(t, "large", large), b.layer(t, "small", nil)), app)
	pull(t, from, b, b.manifest(t, here(), blobs{}.layer(t, "gone", nil)), "docker.io/library/app:discarded")
	pull(t, from, b, b.manifestSaying(t, here(), []digest.Digest{digest.FromString("other")}, []ocispec.Descriptor{b.layer(t, "file", nil)}), "docker.io/library/app:wrong")
	tests := []struct {
		name, image string
		options     CopyOptions
		cancelAt    int64
		code        codes.Code
	}{
		{"no such image", "docker.io/library/none:v1", CopyOptions{}, 0, codes.NotFound},
		{"layers thrown away", "docker.io/library/app:discarded", CopyOptions{}, 0, codes.FailedPrecondition},
		{"no such snapshotter", app, CopyOptions{Snapshotter: "three"}, 0, codes.InvalidArgument},
		{"does not unpack", "docker.io/library/app:wrong", CopyOptions{Snapshotter: one}, 0, codes.Unknown},
		{"cancelled at the start", app, CopyOptions{}, 1, codes.Canceled},
		{"cancelled in a layer", app, CopyOptions{}, 9 << 20, codes.Canceled},
		{"cancelled at the end", app, CopyOptions{}, 24<<20 + 1000, codes.Canceled},
	}
	for _, tt := range tests {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if tt.cancelAt > 0 {
			tt.options.Progress = func(p Progress) {
				if p.Done >= tt.cancelAt {
					cancel()
				}
			}
		}
		id, err := Copy(ctx, from, to, tt.image, tt.options)
		if id != "" || status.Code(err) != tt.code {
			t.Errorf("%s: copied %q, %v, want %s", tt.name, id, err, tt.code)
		}
		if diff := cmp.Diff(inventory{Images: map[string]string{}, Labels: map[string]map[string]string{}}, inventoryOf(t, to)); diff != "" {
			t.Errorf("%s: left behind (+):\n%s", tt.name, diff)
		}
	}
}

// TestCopyGoesOn: what an earlier proxy left half-written is no obstacle.
func TestCopyGoesOn(t *testing.T) {
	t.Parallel()
	from, to, b := newContainerd(t), newContainerd(t), blobs{}
	layer := b.layer(t, "file", []byte("data"))
	pull(t, from, b, b.manifest(t, here(), layer), app)
	write(inNamespace(t.Context()), t, to, copyRef+layer.Digest.String(), b[layer.Digest][:100])
	if _, err := Copy(t.Context(), from, to, app, CopyOptions{}); err != nil {
		t.Error(err)
	}
	if found := inventoryOf(t, to); len(found.Blobs) != len(b) || len(found.Ingests) > 0 {
		t.Errorf("the target has %v", found)
	}
}
