package imageservice

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// streamChunk is how many images go into one message of StreamImages: an image
// is well below 1 KiB, so a message stays far from every limit.
const streamChunk = 1000

// listImages answers the images of all stores, each id once.
func (s *Service) listImages(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.ListImagesRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	store, changed, err := s.listTarget(request.GetFilter())
	if err != nil {
		return err
	}
	if store != nil && !s.pins(store) {
		return s.forward(ctx, call, store, &request, changed)
	}
	images, err := s.imagesIn(ctx, call, store, &request, changed)
	if err != nil {
		return err
	}
	return call.Reply(&runtimeapi.ListImagesResponse{Images: images})
}

// streamImages does the same in several messages.
func (s *Service) streamImages(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.StreamImagesRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	store, changed, err := s.listTarget(request.GetFilter())
	if err != nil {
		return err
	}
	if store != nil && !s.pins(store) {
		return s.forwardStream(ctx, call, store, &request, changed)
	}
	unary := *call
	unary.Method = s.Backends.Catalog.Lookup("/" + rawcri.ImageService + "/ListImages")
	images, err := s.imagesIn(ctx, &unary, store, &request, changed)
	call.Backend = unary.Backend
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(images, streamChunk) {
		if err := call.Reply(&runtimeapi.StreamImagesResponse{Images: chunk}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) forwardStream(ctx context.Context, call *rawcri.Call, store *backend.Backend, request *runtimeapi.StreamImagesRequest, changed bool) error {
	if changed {
		frame, err := rawcri.Encode(request)
		if err != nil {
			return err
		}
		call.Request.Free()
		call.Request = frame
	}
	return s.Backends.Forward(ctx, call, store)
}

// listTarget returns the one store that a list is about, nil for all, and
// whether the filter was changed.
func (s *Service) listTarget(filter *runtimeapi.ImageFilter) (store *backend.Backend, changed bool, err error) {
	spec := filter.GetImage()
	handler := spec.GetRuntimeHandler()
	of, err := s.named(spec)
	switch {
	case of != nil:
		store = s.storeOf[of.Backend]
	case s.single():
		store = s.stores[0]
	}
	return store, spec.GetRuntimeHandler() != handler, err
}

// union fetches all stores' images and merges them. A store that is away is
// left out only if no pods can need its images.
func (s *Service) union(ctx context.Context, call *rawcri.Call) ([]*runtimeapi.Image, error) {
	lists := make([]runtimeapi.ListImagesResponse, len(s.stores))
	errs := make([]error, len(s.stores))
	var wg sync.WaitGroup
	for i, b := range s.stores {
		wg.Go(func() {
			frame, err := s.fetch(ctx, call, b)
			switch {
			case err == nil:
				errs[i] = decode(frame, &lists[i])
				s.pin(b, lists[i].GetImages()...)
			case status.Code(err) != codes.Unavailable || s.inUse(b):
				errs[i] = err
			}
		})
	}
	wg.Wait()
	merged := union{byID: map[string]*runtimeapi.Image{}}
	for i := range lists {
		if errs[i] != nil {
			return nil, errs[i]
		}
		merged.add(lists[i].GetImages())
	}
	return merged.images, nil
}

// inUse reports whether pods may need the images of a store.
func (s *Service) inUse(store *backend.Backend) bool {
	return slices.ContainsFunc(s.Backends.All(), func(b *backend.Backend) bool {
		return s.storeOf[b.Name] == store && (!b.State().Listed || s.Index.Holds(b.Name))
	})
}

// union is a list of images in which each id stands once.
type union struct {
	images []*runtimeapi.Image
	byID   map[string]*runtimeapi.Image
}

// add merges a store's images: an image is pinned if some store pins it, has
// every name that it has somewhere, and the larger of its sizes.
func (u *union) add(images []*runtimeapi.Image) {
	for _, i := range images {
		known, ok := u.byID[i.GetId()]
		if !ok {
			u.byID[i.GetId()] = i
			u.images = append(u.images, i)
			continue
		}
		known.RepoTags = addMissing(known.GetRepoTags(), i.GetRepoTags())
		known.RepoDigests = addMissing(known.GetRepoDigests(), i.GetRepoDigests())
		known.Pinned = known.GetPinned() || i.GetPinned()
		known.Size = max(known.GetSize(), i.GetSize())
	}
}

func addMissing(to, from []string) []string {
	for _, name := range from {
		if !slices.Contains(to, name) {
			to = append(to, name)
		}
	}
	return to
}
