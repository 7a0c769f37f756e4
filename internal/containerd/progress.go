package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Progress is how far a pull or a copy is, in bytes as they come over the wire.
type Progress struct {
	Done, Total int64
}

// Download is a pull that runs in containerd, to be asked how far it is by one
// caller at a time. It is made by [Store.Download].
type Download struct {
	store     *Store
	filter    string // Of the blobs of the image's repository.
	since     time.Time
	manifests map[digest.Digest]ocispec.Manifest // Of the repository.
	found     []ocispec.Descriptor               // The image's parts, nil as long as they are not known.
}

// Download returns what tells how far a pull of image is that is about to
// begin, or that runs.
func (s *Store) Download(image string) (*Download, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, asStatus(fmt.Errorf("image %q: %w: %w", image, err, errdefs.ErrInvalidArgument))
	}
	// Containerd labels each blob with the repositories that it was fetched from,
	// a list with commas.
	label := sourceLabel + reference.Domain(named)
	value := "(^|,)" + regexp.QuoteMeta(reference.Path(named)) + "(,|$)"
	return &Download{
		store:     s,
		filter:    "labels." + strconv.Quote(label) + "~=" + strconv.Quote(value),
		since:     time.Now(),
		manifests: map[digest.Digest]ocispec.Manifest{},
	}, nil
}

// Progress returns how far the pull is; zero as long as containerd has not
// fetched the image's manifest. Layers that it does not fetch because they are
// unpacked already are not done either. Where two images of one repository are
// pulled at once, it may be that of both.
func (d *Download) Progress(ctx context.Context) (Progress, error) {
	ctx = inNamespace(ctx)
	p, err := d.progress(ctx)
	return p, asStatus(err)
}

func (d *Download) progress(ctx context.Context) (p Progress, err error) {
	running, err := d.running(ctx)
	if err != nil {
		return p, err
	}
	if d.found == nil {
		if err := d.find(ctx, running); err != nil {
			return p, err
		}
	}
	for _, part := range d.found {
		p.Total += part.Size
		if offset, ok := running[part.Digest]; ok {
			p.Done += offset
			continue
		}
		_, err := d.store.content.Info(ctx, part.Digest)
		if err == nil {
			p.Done += part.Size
		} else if !errdefs.IsNotFound(err) {
			return Progress{}, err
		}
	}
	return p, nil
}

// running returns how much there is of each blob that is being fetched.
func (d *Download) running(ctx context.Context) (map[digest.Digest]int64, error) {
	statuses, err := d.store.content.ListStatuses(ctx)
	if err != nil {
		return nil, err
	}
	running := map[digest.Digest]int64{}
	for _, s := range statuses {
		// "layer-sha256:…", "layer-name@sha256:…" and the like: MakeRefKey in
		// containerd's core/remotes.
		if at := strings.LastIndexAny(s.Ref, "-@"); at >= 0 {
			running[digest.Digest(s.Ref[at+1:])] = s.Offset
		}
	}
	return running, nil
}

// find finds the manifest of the pull: one of this repository that was fetched,
// or gone over again, since it began, or whose layers are being fetched.
func (d *Download) find(ctx context.Context, running map[digest.Digest]int64) error {
	return d.store.content.Walk(ctx, func(info content.Info) error {
		manifest, err := d.manifest(ctx, info)
		if err != nil {
			return err
		}
		parts := append(manifest.Layers, manifest.Config)
		fresh := !info.UpdatedAt.Before(d.since)
		for _, part := range parts {
			_, fetching := running[part.Digest]
			fresh = fresh || fetching
		}
		if fresh && len(manifest.Layers) > 0 {
			d.found = append(d.found, parts...)
		}
		return nil
	}, d.filter)
}

// manifest returns the manifest in a blob, an empty one if it is something else.
func (d *Download) manifest(ctx context.Context, info content.Info) (m ocispec.Manifest, err error) {
	if known, ok := d.manifests[info.Digest]; ok || !refers(info) {
		return known, nil
	}
	data, err := content.ReadBlob(ctx, d.store.content, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
	if errdefs.IsNotFound(err) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if json.Unmarshal(data, &m) != nil {
		m = ocispec.Manifest{} // Then it is none.
	}
	d.manifests[info.Digest] = m
	return m, nil
}

// refers reports whether a blob refers to others, as manifests and indexes do.
func refers(info content.Info) bool {
	for label := range info.Labels {
		if strings.HasPrefix(label, "containerd.io/gc.ref.content.") {
			return true
		}
	}
	return false
}
