package containerd

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sourceLabel begins the labels that say which repository of which registry a
// blob is from.
const sourceLabel = "containerd.io/distribution.source."

// copyRef begins the names of the blobs that are being copied. They are not those
// of a pull, which may hang on a registry.
const copyRef = "cri-proxy-copy-"

// nameTimeout is how long it may take to give a complete copy its names.
const nameTimeout = 30 * time.Second

// CopyOptions say how an image is copied.
type CopyOptions struct {
	// Snapshotter is where the target unpacks the image; "" leaves it to the
	// image's first container.
	Snapshotter string
	// Progress, if not nil, is told how far the copy is, many times a second. It
	// must be quick.
	Progress func(Progress)
}

// Copy brings an image from one store to another, with the platforms that are
// there, and returns its id. What the target has already is not sent. The copy
// bears the name that was asked for (for an id: all names), also if another
// image there bore it; CRI shows it a moment later. The source stays as it is;
// a copy that fails or is cancelled leaves nothing at the target. NotFound and
// FailedPrecondition are as for [Store.Unpack].
func Copy(ctx context.Context, from, to *Store, image string, o CopyOptions) (id string, err error) {
	id, err = transfer(inNamespace(ctx), from, to, image, o)
	return id, asStatus(err)
}

func transfer(ctx context.Context, from, to *Store, image string, o CopyOptions) (id string, err error) {
	u, err := from.unpackable(ctx, image)
	if err != nil {
		return "", err
	}
	if err := from.requireLayers(ctx, u); err != nil {
		return "", err
	}
	names, err := from.names(ctx, u.image)
	if err != nil {
		return "", err
	}
	c := copying{from: from, to: to, report: o.Progress}
	if err := c.plan(ctx, u.image.Target); err != nil {
		return "", err
	}
	id = u.config.Digest.String()
	err = to.leased(ctx, func(ctx context.Context) error {
		if err := c.run(ctx, u.image.Target); err != nil {
			return fmt.Errorf("copy %q: %w", image, from.explain(ctx, u, err))
		}
		// A platform that the source lost meanwhile was not copied.
		if err := to.requireLayers(ctx, u); err != nil {
			return err
		}
		if o.Snapshotter != "" {
			if err := to.unpack(ctx, u, o.Snapshotter); err != nil {
				return err
			}
		}
		// The id first: CRI takes it for granted where a name bears its label.
		return to.name(ctx, u.image.Target, append([]string{id}, names...))
	})
	if err != nil {
		return "", err
	}
	return id, nil
}

// name gives a complete image its names, all or none: whoever leaves meanwhile
// does not stop it.
func (s *Store) name(ctx context.Context, target ocispec.Descriptor, names []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), nameTimeout)
	defer cancel()
	for _, name := range names {
		if err := s.put(ctx, name, target); err != nil {
			return err
		}
	}
	return nil
}

// copying is one copy under way.
type copying struct {
	from, to *Store
	report   func(Progress)
	progress Progress
}

// plan adds up what there is to copy.
func (c *copying) plan(ctx context.Context, target ocispec.Descriptor) error {
	return images.Walk(ctx, c.each(func(_ context.Context, blob ocispec.Descriptor) error {
		c.progress.Total += blob.Size
		return nil
	}), target)
}

// run copies the blobs, and labels each at the target with what it refers to.
func (c *copying) run(ctx context.Context, target ocispec.Descriptor) error {
	return images.Walk(ctx, images.SetChildrenLabels(c.to.content, c.each(c.blob)), target)
}

// each goes over the blobs of the source's image and does something for each
// once, however often it is referred to.
func (c *copying) each(do func(context.Context, ocispec.Descriptor) error) images.HandlerFunc {
	seen := map[digest.Digest]bool{}
	return func(ctx context.Context, blob ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if !seen[blob.Digest] {
			seen[blob.Digest] = true
			if err := do(ctx, blob); err != nil {
				return nil, err
			}
		}
		return c.from.present(ctx, blob)
	}
}

// blob copies a blob, unless the target has it, and says so.
func (c *copying) blob(ctx context.Context, blob ocispec.Descriptor) error {
	info, err := c.from.content.Info(ctx, blob.Digest)
	if err != nil {
		return err
	}
	maps.DeleteFunc(info.Labels, func(key, _ string) bool { return !strings.HasPrefix(key, sourceLabel) })
	data, err := c.from.content.ReaderAt(ctx, blob)
	if err != nil {
		return err
	}
	defer data.Close() //nolint:errcheck // It was only read.
	before := c.progress.Done
	counted := &countingReader{Reader: content.NewReader(data), read: func(n int64) { c.done(before + n) }}
	if err := content.WriteBlob(ctx, c.to.content, copyRef+blob.Digest.String(), counted, blob, content.WithLabels(info.Labels)); err != nil {
		return err
	}
	c.done(before + blob.Size)
	return nil
}

func (c *copying) done(n int64) {
	if n == c.progress.Done {
		return
	}
	c.progress.Done = n
	if c.report != nil {
		c.report(c.progress)
	}
}

// countingReader tells how much was read of it.
type countingReader struct {
	io.Reader
	count int64
	read  func(count int64)
}

// Read implements io.Reader.
func (r *countingReader) Read(p []byte) (n int, err error) {
	n, err = r.Reader.Read(p)
	r.count += int64(n)
	r.read(r.count)
	return n, err
}

// present returns the blobs that a blob refers to; of an index only the
// manifests that are there with all that belongs to them, because nobody pulls
// the others.
func (s *Store) present(ctx context.Context, blob ocispec.Descriptor) (found []ocispec.Descriptor, err error) {
	children, err := images.Children(ctx, s.content, blob)
	if err != nil || !images.IsIndexType(blob.MediaType) {
		return children, err
	}
	for _, child := range children {
		err := images.Walk(ctx, images.HandlerFunc(s.existing), child)
		if err == nil {
			found = append(found, child)
		} else if !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	return found, nil
}

// existing is like images.Children, but not found if the blob itself is not.
func (s *Store) existing(ctx context.Context, blob ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if _, err := s.content.Info(ctx, blob.Digest); err != nil {
		return nil, err
	}
	return images.Children(ctx, s.content, blob)
}
