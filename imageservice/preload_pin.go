package imageservice

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// pins reports whether some handler preloads images into a store, so that its
// answers cannot pass as they come.
func (s *Service) pins(store *backend.Backend) bool {
	return slices.ContainsFunc(s.preloads, func(p *preload) bool { return p.store == store })
}

// pin shows those of a store's images as pinned that a handler preloads there,
// so that the kubelet's image collection leaves them alone. They are told by
// their names and not by what was pulled: that is right from the first answer
// on, and for a tag that was moved.
func (s *Service) pin(store *backend.Backend, images ...*runtimeapi.Image) {
	for _, i := range images {
		if i != nil && !i.GetPinned() {
			i.Pinned = slices.ContainsFunc(s.preloads, func(p *preload) bool { return p.store == store && p.names(i) })
		}
	}
}

// names reports whether the image has the name, or the id, that is preloaded.
func (p *preload) names(i *runtimeapi.Image) bool {
	return slices.Contains(i.GetRepoTags(), p.name) || slices.Contains(i.GetRepoDigests(), p.name) || i.GetId() == p.name
}

// imagesIn returns the images of one store whose answer cannot pass as it comes,
// or, where that is nil, of all.
func (s *Service) imagesIn(ctx context.Context, call *rawcri.Call, store *backend.Backend, request proto.Message, changed bool) ([]*runtimeapi.Image, error) {
	if store == nil {
		return s.union(ctx, call)
	}
	var list runtimeapi.ListImagesResponse
	err := s.answer(ctx, call, store, request, changed, &list)
	s.pin(store, list.GetImages()...)
	return list.GetImages(), err
}

// statusIn passes an ImageStatus on to one store and its answer back, which it
// reads only if something is preloaded there.
func (s *Service) statusIn(ctx context.Context, call *rawcri.Call, store *backend.Backend, request proto.Message, changed bool) error {
	if !s.pins(store) {
		return s.forward(ctx, call, store, request, changed)
	}
	var found runtimeapi.ImageStatusResponse
	if err := s.answer(ctx, call, store, request, changed, &found); err != nil {
		return err
	}
	s.pin(store, found.GetImage())
	return call.Reply(&found)
}

// answer passes a call on to one store, as it came unless it was changed, and
// reads the answer into m.
func (s *Service) answer(ctx context.Context, call *rawcri.Call, store *backend.Backend, request proto.Message, changed bool, m proto.Message) error {
	frame := call.Request
	if changed {
		var err error
		if frame, err = rawcri.Encode(request); err != nil {
			return err
		}
	}
	found, err := s.Backends.Invoke(ctx, call, store, frame)
	if err != nil {
		return err
	}
	return decode(found, m)
}
