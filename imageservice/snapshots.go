package imageservice

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// snapshots are what a containerd says of its images beyond CRI. Images are
// named by normalised reference or by id.
type snapshots interface {
	// Unpacked reports whether an image is there and unpacked in a snapshotter.
	Unpacked(ctx context.Context, image, snapshotter string) (bool, error)
	// Unpack unpacks an image whose content is there.
	Unpack(ctx context.Context, image, snapshotter string) error
}

// place is a snapshotter of a store.
type place struct {
	store       *backend.Backend
	snapshotter string
}

// unpacked asks each time: images come and go behind our back.
func (s *Service) unpacked(ctx context.Context, p place, image string) (bool, error) {
	unpacked, err := s.native(p.store).Unpacked(ctx, routing.Reference(image), p.snapshotter)
	return unpacked, p.explain(image, err)
}

// unpack sees to it that an image of the store is unpacked where the handler
// wants it to be.
func (s *Service) unpack(ctx context.Context, store *backend.Backend, image string, of *settings) error {
	if of.Snapshotter == "" {
		return nil
	}
	p := place{store, of.Snapshotter}
	if unpacked, err := s.unpacked(ctx, p, image); err != nil || unpacked {
		return err
	}
	return p.explain(image, s.native(store).Unpack(ctx, routing.Reference(image), p.snapshotter))
}

// canUnpack returns why a handler's images can never be unpacked where it wants
// them to be, so that they need not be fetched before.
func (s *Service) canUnpack(ctx context.Context, store *backend.Backend, image string, of *settings) error {
	if of.Snapshotter == "" {
		return nil
	}
	if _, err := s.unpacked(ctx, place{store, of.Snapshotter}, image); status.Code(err) == codes.FailedPrecondition {
		return err
	}
	return nil
}

// explain says what could not be done, and what to do where the backend cannot
// do it at all.
func (p place) explain(image string, err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unimplemented:
		return status.Errorf(codes.FailedPrecondition,
			"images.snapshotter = %q needs a containerd, and backend %q is none; remove it from the handler", p.snapshotter, p.store.Name)
	default:
		s := status.Convert(err).Proto()
		s.Message = fmt.Sprintf("image %q on backend %q, snapshotter %q: %s", image, p.store.Name, p.snapshotter, s.GetMessage())
		return status.FromProto(s).Err()
	}
}

// unpackedForPods reports whether an image is unpacked in the snapshotters of
// all pods that a question may be about; those of handlers without one do not
// count. Where a backend cannot say it for other reasons than that it is away,
// nothing is unpacked: the pull that follows says why, and to that handler's
// pods alone.
func (s *Service) unpackedForPods(ctx context.Context, image string, of *routing.Handler, pods []routing.Sandbox) (bool, error) {
	for p := range s.places(of, pods) {
		unpacked, err := s.unpacked(ctx, p, image)
		if err != nil && (ctx.Err() != nil || backend.IsAway(ctx, err)) {
			return false, err
		}
		if err != nil || !unpacked {
			return false, nil //nolint:nilerr // See above.
		}
	}
	return true, nil
}

// places returns where an image must be unpacked for a handler, or else for pods.
func (s *Service) places(of *routing.Handler, pods []routing.Sandbox) map[place]bool {
	found := map[place]bool{}
	add := func(h routing.Handler) {
		if wanted := s.of(h).Snapshotter; wanted != "" {
			found[place{s.storeOf[h.Backend], wanted}] = true
		}
	}
	if of != nil {
		add(*of)
		return found
	}
	for _, p := range pods {
		add(s.handlerOf(p))
	}
	return found
}
