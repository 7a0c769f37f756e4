package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
)

// snapshotLabel, with a snapshotter's name added and put on an image's config,
// keeps the image's snapshot there: the garbage collector's labelGCSnapRef in
// containerd's core/metadata.
const snapshotLabel = "containerd.io/gc.ref.snapshot."

// Unpacked reports whether an image, named by its normal reference or its id as
// CRI has it, is there and unpacked in a snapshotter: its topmost layer is a
// committed snapshot. An image that is there for other platforms only is not
// there. A snapshotter that containerd does not have is InvalidArgument.
func (s *Store) Unpacked(ctx context.Context, image, snapshotter string) (bool, error) {
	ctx = inNamespace(ctx)
	u, err := s.unpackable(ctx, image)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, asStatus(err)
	}
	unpacked, err := s.isUnpacked(ctx, u, snapshotter)
	return unpacked, asStatus(err)
}

func (s *Store) isUnpacked(ctx context.Context, u unpackable, snapshotter string) (bool, error) {
	_, err := s.snapshotter(snapshotter).Stat(ctx, u.chainID())
	switch {
	case errdefs.IsNotFound(err):
		return false, nil
	case errdefs.IsInvalidArgument(err):
		return false, fmt.Errorf("this containerd has no snapshotter %q ('ctr plugins ls' shows those it has): %w", snapshotter, err)
	default:
		return err == nil, err
	}
}

// Unpack unpacks an image whose content is there in a snapshotter. NotFound
// means that there is no such image, FailedPrecondition that containerd has
// thrown away layers that are needed now.
func (s *Store) Unpack(ctx context.Context, image, snapshotter string) error {
	ctx = inNamespace(ctx)
	u, err := s.unpackable(ctx, image)
	if err == nil {
		err = s.leased(ctx, func(ctx context.Context) error { return s.unpack(ctx, u, snapshotter) })
	}
	return asStatus(err)
}

// unpack needs a lease.
func (s *Store) unpack(ctx context.Context, u unpackable, snapshotter string) error {
	unpacked, err := s.isUnpacked(ctx, u, snapshotter)
	if err != nil {
		return err
	}
	if !unpacked {
		if _, err := rootfs.ApplyLayers(ctx, u.layers, s.snapshotter(snapshotter), s.applier); err != nil {
			return fmt.Errorf("unpack %q in snapshotter %q: %w", u.image.Name, snapshotter, s.explain(ctx, u, err))
		}
	}
	// Also if another image with the same layers brought them: it may go first.
	label := snapshotLabel + snapshotter
	info := content.Info{Digest: u.config.Digest, Labels: map[string]string{label: u.chainID()}}
	if _, err := s.content.Update(ctx, info, "labels."+label); err != nil {
		return fmt.Errorf("keep the snapshot of %q: %w", u.image.Name, err)
	}
	return nil
}

// explain says why something of an image was not found. Layers may go at any
// time, not only before they are looked for.
func (s *Store) explain(ctx context.Context, u unpackable, err error) error {
	if errdefs.IsNotFound(err) {
		if lost := s.requireLayers(ctx, u); lost != nil {
			return lost
		}
	}
	return err
}

// requireLayers says what to do when the layers of an image are not there.
func (s *Store) requireLayers(ctx context.Context, u unpackable) error {
	for _, layer := range u.layers {
		_, err := s.content.Info(ctx, layer.Blob.Digest)
		if errdefs.IsNotFound(err) {
			return fmt.Errorf("layer %s of image %q is not in containerd's content store, because discard_unpacked_layers is set in its configuration or the pull was not completed; "+
				"set it to false, remove the image and pull it again: %w", layer.Blob.Digest, u.image.Name, errdefs.ErrFailedPrecondition)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
