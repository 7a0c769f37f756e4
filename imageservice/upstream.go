package imageservice

import (
	"context"
	"runtime/debug"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// pull is one caller's wish for an image.
type pull struct {
	settings *settings
	store    *backend.Backend
	request  *runtimeapi.PullImageRequest // In the backend's words.

	byHand  bool // Somebody who looks after the node wants it: pull_policy is about pods.
	bounded bool // The caller's deadline is the runtime's.
}

func (p pull) image() string { return p.request.GetImage().GetImage() }

// do is the one way of every pull: the handler's rules, its credentials one
// after another, and for each an upstream pull that equal ones share. The error
// of the last is the runtime's own, since the kubelet reads its first words.
func (s *Service) do(ctx context.Context, p pull) (answer pulled, err error) {
	result := pullRefused
	defer func() { s.count(ctx, p.settings.handler, result, err) }()
	if err := p.settings.permit(p.image()); err != nil {
		return pulled{}, err
	}
	if p.settings.never() && !p.byHand {
		answer, result, err = s.present(ctx, p)
		return answer, err
	}
	var shared bool
	if answer, shared, err = s.tryAll(ctx, p); shared {
		result = pullShared
	} else {
		result = pullPulled
	}
	return answer, err
}

// tryAll pulls with one credential after another until one is good.
func (s *Service) tryAll(ctx context.Context, p pull) (answer pulled, shared bool, err error) {
	brought := proto.Size(p.request.GetAuth()) > 0
	accounts, err := p.settings.accounts(ctx, p.request)
	if err != nil {
		return answer, false, err
	}
	for _, auth := range accounts {
		p.request.Auth = auth // The one before is not used any more.
		answer, shared, err = s.share(ctx, p.key(), p.bounded, func(ctx context.Context) (pulled, error) { return s.upstream(ctx, p) })
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil && !brought {
		err = withoutPassword(err, p.request.GetAuth())
	}
	return answer, shared, err
}

// key is what makes pulls equal. The pods that they are for do not: a runtime
// reads no more of them than what stands here.
func (p pull) key() flightKey {
	auth := p.request.GetAuth()
	key := flightKey{
		store: p.store.Name, snapshotter: p.settings.Snapshotter, image: p.image(),
		auth: account{
			auth.GetUsername(), auth.GetPassword(), auth.GetAuth(), auth.GetServerAddress(), auth.GetIdentityToken(), auth.GetRegistryToken(),
			string(auth.ProtoReflect().GetUnknown()),
		},
	}
	if p.request.GetSandboxConfig() != nil {
		key.runtime = p.request.GetImage().GetRuntimeHandler()
	}
	return key
}

// upstream pulls when it is its turn. It runs beside the calls, and so has to
// see to it by itself that one bad image does not end the node's runtime.
func (s *Service) upstream(ctx context.Context, p pull) (answer pulled, err error) {
	if s.Span != nil {
		var end func(error, ...string)
		ctx, end = s.Span(ctx, "pull", "image", p.image(), "handler", p.settings.handler, "backend", p.store.Name)
		defer func() { end(err) }()
	}
	defer func() {
		if r := recover(); r != nil {
			s.Log.WithFields(logrus.Fields{"image": p.image(), "panic": r}).Errorf("pull panicked\n%s", debug.Stack())
			err = status.Errorf(codes.Internal, "cri-proxy panicked in the pull of %q: see its log", p.image())
		}
	}()
	done, err := p.settings.turn(ctx)
	if err != nil {
		return answer, err
	}
	defer done()
	if err := s.canUnpack(ctx, p.store, p.image(), p.settings); err != nil {
		return answer, err
	}
	before, known := look(ctx, p.store, p.image())
	answer.response, err = p.store.Images().PullImage(ctx, p.request, grpc.Header(&answer.header), grpc.Trailer(&answer.trailer))
	if err != nil {
		return answer, p.store.ExplainImages(err)
	}
	if after, ok := look(ctx, p.store, p.image()); ok && known && after.GetId() != before.GetId() {
		s.metrics.bytes.WithLabelValues(p.settings.handler).Add(float64(after.GetSize()))
	}
	return answer, s.unpack(ctx, p.store, answer.response.GetImageRef(), p.settings)
}

// look returns what a store has by a name, nil when that is nothing; not ok
// when it does not say.
func look(ctx context.Context, store *backend.Backend, image string) (found *runtimeapi.Image, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, store.Config.ListTimeout.Duration)
	defer cancel()
	answer, err := store.Images().ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return answer.GetImage(), err == nil
}

// present answers a pull where nothing is pulled for pods.
func (s *Service) present(ctx context.Context, p pull) (answer pulled, result string, err error) {
	id, err := held(ctx, p.store, p.image())
	if err == nil && id == "" {
		return answer, pullRefused, p.settings.absent(p.image(), p.store)
	}
	if err == nil {
		err = s.unpack(ctx, p.store, id, p.settings)
	}
	return pulled{response: &runtimeapi.PullImageResponse{ImageRef: id}}, pullPresent, err
}

// pass gives the caller the header and the trailer that the runtime sent.
func (p pulled) pass(ctx context.Context) error {
	if err := grpc.SetTrailer(ctx, p.trailer); err != nil {
		return err
	}
	return grpc.SetHeader(ctx, p.header)
}

// count counts a pull that ended with err, or with this result.
func (s *Service) count(ctx context.Context, handler, result string, err error) {
	switch {
	case err != nil && ctx.Err() != nil:
		result = pullCancelled
	case err != nil && result != pullRefused:
		result = pullFailed
	}
	s.metrics.pulls.WithLabelValues(handler, result).Inc()
}

// of returns a handler's settings; those of one that the configuration no longer
// has are the defaults.
func (s *Service) of(h routing.Handler) *settings {
	if known, ok := s.settings[h.Name]; ok {
		return known
	}
	return &settings{}
}
