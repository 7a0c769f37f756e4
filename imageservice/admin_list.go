package imageservice

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
)

// listParallel is how many questions a containerd is asked at a time about the
// images that it listed.
const listParallel = 8

// Listing is the body of GET /v1/images.
type Listing struct {
	Stores []Store `json:"stores"` // The default handler's first.
}

// Store is one backend's image store and what is in it at the moment.
type Store struct {
	Backend  string   `json:"backend"`
	Handlers []string `json:"handlers"`        // Those whose images are kept there, sorted.
	Error    string   `json:"error,omitempty"` // Why not all is known.
	Images   []Image  `json:"images"`          // By name.
}

// Image is an image in one store.
type Image struct {
	ID      string   `json:"id"`
	Tags    []string `json:"tags"`
	Digests []string `json:"digests"`
	Size    int64    `json:"size"` // In bytes, as the runtime has it.
	Pinned  bool     `json:"pinned"`
	// Handlers are those whose pods can start from it as it is: of those with a
	// snapshotter, the ones for which it is unpacked.
	Handlers []string `json:"handlers"`
}

// list asks all stores side by side for their images, or one for those that a
// handler has. Nothing is remembered, so that what came into a store from
// outside is seen. A store that does not answer is in the list with its error.
func (s *Service) list(ctx context.Context, handler string) Listing {
	all := make([]Store, len(s.stores))
	var wg sync.WaitGroup
	for i, b := range s.stores {
		wg.Go(func() { all[i] = s.listStore(ctx, b) })
	}
	wg.Wait()
	if handler != "" {
		all = slices.DeleteFunc(all, func(store Store) bool { return !slices.Contains(store.Handlers, handler) })
		for i := range all {
			all[i].Images = slices.DeleteFunc(all[i].Images, func(i Image) bool { return !slices.Contains(i.Handlers, handler) })
		}
	}
	return Listing{Stores: all}
}

func (s *Service) listStore(ctx context.Context, b *backend.Backend) Store {
	store := Store{Backend: b.Name, Handlers: s.handlersOf(b), Images: []Image{}}
	ctx, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	answer, err := b.Images().ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		store.Error = status.Convert(b.ExplainImages(err)).Message()
		return store
	}
	images := answer.GetImages()
	s.pin(b, images...)
	for _, i := range images {
		store.Images = append(store.Images, Image{
			ID: i.GetId(), Tags: orEmpty(i.GetRepoTags()), Digests: orEmpty(i.GetRepoDigests()),
			Size: int64(min(i.GetSize(), 1<<62)), Pinned: i.GetPinned(), //nolint:gosec // No store holds so much.
		})
	}
	slices.SortFunc(store.Images, func(a, b Image) int {
		return cmp.Or(slices.Compare(a.Tags, b.Tags), slices.Compare(a.Digests, b.Digests), cmp.Compare(a.ID, b.ID))
	})
	if err := s.findHandlers(ctx, b, &store); err != nil {
		store.Error = status.Convert(err).Message()
	}
	return store
}

// orEmpty is a list that is [] in JSON, and not null, when it is empty.
func orEmpty(names []string) []string { return append([]string{}, names...) }

// handlersOf returns the handlers whose images are in a store, sorted.
func (s *Service) handlersOf(store *backend.Backend) []string {
	return slices.DeleteFunc(slices.Clone(s.Table.Names()), func(name string) bool {
		h, err := s.Table.Resolve(name)
		return err != nil || s.storeOf[h.Backend] != store
	})
}

// findHandlers fills in which handlers have each image, as far as it can be
// known, and returns the first reason why not.
func (s *Service) findHandlers(ctx context.Context, b *backend.Backend, store *Store) error {
	var group errgroup.Group
	group.SetLimit(listParallel)
	for n := range store.Images {
		i := &store.Images[n]
		group.Go(func() (err error) {
			i.Handlers, err = s.havers(ctx, b, store.Handlers, i.ID)
			return err
		})
	}
	return group.Wait()
}

// havers returns those of a store's handlers that have an image which is there.
func (s *Service) havers(ctx context.Context, b *backend.Backend, handlers []string, id string) ([]string, error) {
	having := []string{}
	var failed error
	for _, name := range handlers {
		usable, err := s.usableBy(ctx, b, name, id)
		if err != nil {
			failed = err
		} else if usable {
			having = append(having, name)
		}
	}
	return having, failed
}
