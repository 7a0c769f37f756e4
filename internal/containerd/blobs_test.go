package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// blobs are contents, to be put into a store.
type blobs map[digest.Digest][]byte

func (b blobs) add(mediaType string, data []byte) ocispec.Descriptor {
	d := describe(mediaType, data)
	b[d.Digest] = data
	return d
}

func (b blobs) addJSON(t *testing.T, mediaType string, value any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return b.add(mediaType, data)
}

// layer adds a layer with one file.
func (b blobs) layer(t *testing.T, name string, data []byte) ocispec.Descriptor {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.add(ocispec.MediaTypeImageLayer, layer.Bytes())
}

// manifest adds the config and the manifest of an image with these layers.
func (b blobs) manifest(t *testing.T, platform ocispec.Platform, layers ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	var diffs []digest.Digest
	for _, l := range layers {
		diffs = append(diffs, l.Digest)
	}
	return b.manifestSaying(t, platform, diffs, layers)
}

// manifestSaying adds one whose config may say something else of the layers.
func (b blobs) manifestSaying(t *testing.T, platform ocispec.Platform, diffs []digest.Digest, layers []ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	config := b.addJSON(t, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: platform, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffs}})
	m := b.addJSON(t, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers,
	})
	m.Platform = &platform
	return m
}

// index adds an index of manifests.
func (b blobs) index(t *testing.T, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	return b.addJSON(t, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests,
	})
}

func here() ocispec.Platform { return platforms.DefaultSpec() }

func elsewhere() ocispec.Platform { return ocispec.Platform{OS: "plan9", Architecture: "mips"} }

// fetched is the label of what was fetched from docker.io/library/app.
func fetched() map[string]string { return map[string]string{sourceLabel + "docker.io": "library/app"} }

// pull puts an image with those of its blobs that are there into a store, as a
// pull does, and returns its id.
func pull(t *testing.T, s *Store, b blobs, target ocispec.Descriptor, names ...string) (id string) {
	t.Helper()
	ctx := inNamespace(t.Context())
	err := s.leased(ctx, func(ctx context.Context) error {
		if err := s.fetch(ctx, b, target); err != nil {
			return err
		}
		config, err := images.Config(ctx, s.content, target, s.platform)
		if err == nil {
			id = config.Digest.String()
			names = append([]string{id}, names...)
		} else if !errdefs.IsNotFound(err) {
			return err
		}
		return s.name(ctx, target, names)
	})
	if err != nil {
		t.Fatalf("pull: %v", err)
	}
	return id
}

// fetch puts blobs into a store, with the labels that a pull gives them.
func (s *Store) fetch(ctx context.Context, b blobs, target ocispec.Descriptor) error {
	handler := images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		data, ok := b[d.Digest]
		if !ok {
			return nil, nil
		}
		if err := content.WriteBlob(ctx, s.content, "layer-"+d.Digest.String(), bytes.NewReader(data), d, content.WithLabels(fetched())); err != nil {
			return nil, err
		}
		return images.Children(ctx, s.content, d)
	})
	return images.Walk(ctx, images.SetChildrenLabels(s.content, handler), target)
}

// configOf returns the config that a manifest names.
func configOf(t *testing.T, b blobs, manifest ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	var m ocispec.Manifest
	must(t, json.Unmarshal(b[manifest.Digest], &m))
	return m.Config
}

// write begins to write a blob.
func write(ctx context.Context, t *testing.T, s *Store, ref string, data []byte) {
	t.Helper()
	w, err := content.OpenWriter(ctx, s.content, content.WithRef(ref)) // Waits for the end of an earlier one.
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
}

func (b blobs) digests() []string {
	var all []string
	for d := range maps.Keys(b) {
		all = append(all, d.String())
	}
	slices.Sort(all)
	return all
}
