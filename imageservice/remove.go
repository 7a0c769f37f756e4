package imageservice

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/rawcri"
)

// removeImage removes an image from all stores: the kubelet names no handler
// here, and its image collection works on ids that are the same everywhere. It
// fails when one store could not be asked, so that the kubelet tries again.
func (s *Service) removeImage(ctx context.Context, call *rawcri.Call) error {
	if s.single() {
		return s.removeFromOne(ctx, call)
	}
	request, err := s.withoutHandler(call)
	if err != nil {
		return err
	}
	others := s.stores[1:]
	errs := make([]error, len(others))
	var wg sync.WaitGroup
	for i, b := range others {
		wg.Go(func() {
			answer, err := s.Backends.Fetch(ctx, call.Method, b, request)
			answer.Free()
			errs[i] = err
		})
	}
	answer, err := s.Backends.Invoke(ctx, call, s.stores[0], request)
	wg.Wait()
	for _, e := range append([]error{err}, errs...) {
		if e != nil && status.Code(e) != codes.NotFound {
			answer.Free()
			return e
		}
	}
	if answer == nil { // Not found in the default store, and that is fine.
		return call.Reply(&runtimeapi.RemoveImageResponse{})
	}
	return call.Send(answer)
}

func (s *Service) removeFromOne(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.RemoveImageRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	handler := request.GetImage().GetRuntimeHandler()
	if _, err := s.named(request.GetImage()); err != nil {
		return err
	}
	return s.forward(ctx, call, s.stores[0], &request, request.GetImage().GetRuntimeHandler() != handler)
}

// withoutHandler returns the request without the handler it may name, which
// must be one that is configured: no store but its own would know it.
func (s *Service) withoutHandler(call *rawcri.Call) (*rawcri.Frame, error) {
	var request runtimeapi.RemoveImageRequest
	if err := call.Request.Decode(&request); err != nil {
		return nil, malformed(call, err)
	}
	if request.GetImage().GetRuntimeHandler() == "" {
		return call.Request, nil
	}
	if _, err := s.named(request.GetImage()); err != nil {
		return nil, err
	}
	request.Image.RuntimeHandler = ""
	return rawcri.Encode(&request)
}
