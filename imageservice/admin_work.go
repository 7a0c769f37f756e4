package imageservice

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// job is what a request asks for, found possible.
type job struct {
	what string                                // For people: "pull … to …".
	do   func(context.Context) (string, error) // Returns the image's id.
	far  gauge
}

// adminPull answers a pull that is not a kubelet's.
func (s *Service) adminPull(ctx context.Context, w *stepWriter, h routing.Handler, request PullRequest) {
	store, image := s.storeOf[h.Backend], routing.Reference(request.Image)
	if request.DryRun {
		w.end(s.wouldPull(ctx, h, store, image))
		return
	}
	w.send(Step{Started: &Started{Image: image, Handler: h.Name, Backend: store.Name}})
	pull := func(ctx context.Context) (Result, error) {
		id, err := s.Pull(ctx, h.Name, request.Image)
		return Result{ID: id, Message: fmt.Sprintf("pulled %s for handler %s: %s is on backend %s", image, h.Name, id, store.Name)}, err
	}
	w.run(ctx, pull, pullGauge(store, image))
}

// wouldPull says what a pull would do.
func (s *Service) wouldPull(ctx context.Context, h routing.Handler, store *backend.Backend, image string) (Result, error) {
	if err := s.of(h).permit(image); err != nil {
		return Result{}, err
	}
	id, err := s.presentFor(ctx, h, image)
	if err != nil {
		return Result{}, err
	}
	now := "does not have it"
	if id != "" {
		now = "has it as " + id
	}
	return Result{ID: id, Message: fmt.Sprintf("would pull %s for handler %s to backend %s, which %s", image, h.Name, store.Name, now)}, nil
}

// adminCopy answers a copy. What comes without a registry came by the hand of
// somebody who looks after the node, so that the target's pull_policy does not
// count: with "never" this is how images get there, and with "always" a pod has
// to pull it nevertheless, only that there is nothing left to download. Which
// images its pods may have does count.
func (s *Service) adminCopy(ctx context.Context, w *stepWriter, from, to routing.Handler, request CopyRequest) {
	image := routing.Reference(request.Image)
	id, plan, err := s.planCopy(ctx, from, to, image)
	if err != nil || plan.do == nil {
		w.end(Result{ID: id, Message: plan.what}, err)
		return
	}
	if request.DryRun {
		w.end(Result{ID: id, Message: "would " + plan.what}, nil)
		return
	}
	w.send(Step{Started: &Started{Image: image, Handler: to.Name, Backend: s.storeOf[to.Backend].Name, From: from.Name}})
	w.run(ctx, func(ctx context.Context) (Result, error) {
		id, err := plan.do(ctx)
		return Result{ID: id, Message: "done: " + plan.what}, err
	}, plan.far)
}

// planCopy returns what brings an image of one handler to another one, and the
// id that it has at the first. A plan without anything to do says why.
func (s *Service) planCopy(ctx context.Context, from, to routing.Handler, image string) (id string, plan job, err error) {
	if err := s.of(to).permit(image); err != nil {
		return "", job{}, err
	}
	source, target := s.storeOf[from.Backend], s.storeOf[to.Backend]
	if id, err = held(ctx, source, image); err != nil {
		return "", job{}, err
	}
	if id == "" {
		return "", job{}, status.Errorf(codes.NotFound, "image %q is not on backend %q, the store of handler %q: 'cri-proxy images list' shows what is", image, source.Name, from.Name)
	}
	known, err := s.presentFor(ctx, to, image)
	switch {
	case err != nil:
		return id, job{}, err
	case known == id:
		return id, job{what: fmt.Sprintf("nothing to do: handler %s has %s on backend %s, with the same id", to.Name, image, target.Name)}, nil
	case source == target:
		what := fmt.Sprintf("unpack %s on backend %s for the snapshotter of handler %s", image, target.Name, to.Name)
		unpack := func(ctx context.Context) (string, error) { return id, s.unpack(ctx, target, image, s.of(to)) }
		return id, job{what: what, do: unpack, far: noGauge}, nil
	default:
		plan, err := s.copyBetween(ctx, source, target, to, image)
		return id, plan, err
	}
}

// presentFor returns the id of an image that a handler's pods could start from;
// "" when there is none.
func (s *Service) presentFor(ctx context.Context, h routing.Handler, image string) (id string, err error) {
	store := s.storeOf[h.Backend]
	if id, err = held(ctx, store, image); err != nil || id == "" {
		return "", err
	}
	usable, err := s.usableBy(ctx, store, h.Name, image)
	if err != nil || !usable {
		return "", err
	}
	return id, nil
}

// usableBy reports whether a handler's pods can start from an image that is in
// its store, as it is there.
func (s *Service) usableBy(ctx context.Context, store *backend.Backend, handler, image string) (bool, error) {
	snapshotter := s.settings[handler].Snapshotter
	if snapshotter == "" {
		return true, nil
	}
	return s.unpacked(ctx, place{store, snapshotter}, image)
}
