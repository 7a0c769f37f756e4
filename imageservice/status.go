package imageservice

import (
	"context"
	"strconv"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// imageStatus finds out which stores a call means, and asks them.
func (s *Service) imageStatus(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.ImageStatusRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	spec := request.GetImage()
	handler := spec.GetRuntimeHandler()
	of, err := s.named(spec)
	if err != nil {
		return err
	}
	changed := spec.GetRuntimeHandler() != handler
	if s.plain {
		return s.statusIn(ctx, call, s.stores[0], &request, changed)
	}
	image, annotations := routing.Reference(spec.GetImage()), spec.GetAnnotations()
	if of == nil && len(annotations) == 0 {
		return s.anywhere(ctx, call, spec.GetImage(), s.waiting(image))
	}
	pods, certain := s.meantBy(annotations, image, of)
	s.mark(image, annotations, pods)
	if len(annotations) > 0 && s.unproven(image, of, pods) {
		return call.Reply(&runtimeapi.ImageStatusResponse{})
	}
	if unpacked, err := s.unpackedForPods(ctx, image, of, pods); err != nil {
		return err
	} else if !unpacked {
		return call.Reply(&runtimeapi.ImageStatusResponse{})
	}
	if of != nil {
		return s.statusIn(ctx, call, s.storeOf[of.Backend], &request, changed)
	}
	return s.everywhere(ctx, call, s.storesOf(pods, certain))
}

// forward passes a call on to one store, as it came unless it was changed.
func (s *Service) forward(ctx context.Context, call *rawcri.Call, store *backend.Backend, request proto.Message, changed bool) error {
	frame := call.Request
	if changed {
		var err error
		if frame, err = rawcri.Encode(request); err != nil {
			return err
		}
	}
	answer, err := s.Backends.Invoke(ctx, call, store, frame)
	if err != nil {
		return err
	}
	return call.Send(answer)
}

// everywhere answers for pods that may be several: present is present in every
// store, since a container of any of them may be created next.
func (s *Service) everywhere(ctx context.Context, call *rawcri.Call, stores []*backend.Backend) error {
	if len(stores) == 0 {
		stores = s.stores[:1] // No pod at all: the default handler's store.
	}
	if len(stores) == 1 {
		return s.statusIn(ctx, call, stores[0], nil, false)
	}
	answers := s.ask(ctx, call, stores)
	defer free(answers)
	for _, a := range answers {
		if a.err != nil {
			return a.err
		}
	}
	for _, a := range answers {
		if a.image == nil {
			return a.send(call)
		}
	}
	return answers[0].send(call)
}

// anywhere answers a call that names no pod, the kubelet's question for the
// image's user above all: present is present in some store. The answer decides
// as whom a container runs, and "absent" makes it root, so that stores which
// disagree, or one that is away while the others have nothing, are an error.
func (s *Service) anywhere(ctx context.Context, call *rawcri.Call, image string, stores []*backend.Backend) error {
	if len(stores) == 1 {
		return s.statusIn(ctx, call, stores[0], nil, false)
	}
	answers := s.ask(ctx, call, stores)
	defer free(answers)
	var found *answer
	for i := range answers {
		a := &answers[i]
		switch {
		case a.image == nil:
		case found == nil:
			found = a
		case !sameUser(found.image, a.image):
			return status.Errorf(codes.Unavailable,
				"image %q has the user %s on backend %q and %s on backend %q, and it cannot be told which is meant; pull it again or remove it from one",
				image, user(found.image), found.store.Name, user(a.image), a.store.Name)
		}
	}
	if found != nil {
		return found.send(call)
	}
	for _, a := range answers {
		if a.err != nil {
			return a.err
		}
	}
	return answers[0].send(call)
}

func sameUser(a, b *runtimeapi.Image) bool {
	return proto.Equal(a.GetUid(), b.GetUid()) && a.GetUsername() == b.GetUsername()
}

func user(i *runtimeapi.Image) string {
	if i.GetUid() != nil {
		return strconv.FormatInt(i.GetUid().GetValue(), 10)
	}
	return strconv.Quote(i.GetUsername())
}

// answer is one store's answer to ImageStatus.
type answer struct {
	store *backend.Backend
	frame *rawcri.Frame
	image *runtimeapi.Image // nil: not there.
	err   error
}

func (a *answer) send(call *rawcri.Call) error {
	frame := a.frame
	a.frame = nil
	call.Backend = a.store.Name
	return call.Send(frame)
}

func free(answers []answer) {
	for _, a := range answers {
		a.frame.Free()
	}
}

// ask asks several stores side by side, each for at most its list_timeout.
func (s *Service) ask(ctx context.Context, call *rawcri.Call, stores []*backend.Backend) []answer {
	answers := make([]answer, len(stores))
	var wg sync.WaitGroup
	for i, b := range stores {
		wg.Go(func() { answers[i] = s.askOne(ctx, call, b) })
	}
	wg.Wait()
	return answers
}

func (s *Service) askOne(ctx context.Context, call *rawcri.Call, b *backend.Backend) answer {
	a := answer{store: b}
	if a.frame, a.err = s.fetch(ctx, call, b); a.err != nil {
		return a
	}
	var decoded runtimeapi.ImageStatusResponse
	if a.err = a.frame.Decode(&decoded); a.err != nil {
		return a
	}
	a.image = decoded.GetImage()
	if s.pins(b) {
		s.pin(b, a.image)
		a.frame.Free()
		a.frame, a.err = rawcri.Encode(&decoded)
	}
	return a
}

// fetch gets one store's part of an answer. One that is away, or does not
// answer within its list_timeout, is Unavailable. It is not suspected: new pods
// can start on a backend that is slow with its images.
func (s *Service) fetch(ctx context.Context, call *rawcri.Call, b *backend.Backend) (*rawcri.Frame, error) {
	// A socket of its own is up or away on its own account.
	if shared := b.Config.Images() == b.Config.Endpoint; shared && !b.Up() {
		return nil, b.Away()
	}
	limited, cancel := context.WithTimeout(ctx, b.Config.ListTimeout.Duration)
	defer cancel()
	frame, err := s.Backends.Fetch(limited, call.Method, b, call.Request)
	if err == nil || !backend.IsAway(ctx, err) {
		return frame, err
	}
	return nil, status.Errorf(codes.Unavailable, "the image service of backend %q (%s) does not answer: %s",
		b.Name, b.Config.Images(), status.Convert(err).Message())
}
