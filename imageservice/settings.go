package imageservice

import (
	"context"
	"regexp"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/configs"
	"github.com/cri-proxy/cri-proxy/imageservice/credentials"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// settings are what the configuration says of one handler's images, and what
// its pulls have in common. The zero value is a handler without any.
type settings struct {
	configs.Images

	handler string
	allowed []*regexp.Regexp    // Of Allow.
	limit   *semaphore.Weighted // First come, first served; nil is no limit.
	keys    *keys               // nil: there are no credentials.
}

func newSettings(handler string, images configs.Images, log *logrus.Entry) *settings {
	s := &settings{Images: images, handler: handler}
	for _, pattern := range images.Allow {
		s.allowed = append(s.allowed, compile(pattern))
	}
	if images.MaxParallelPulls > 0 {
		s.limit = semaphore.NewWeighted(int64(images.MaxParallelPulls))
	}
	if len(images.AuthFiles) > 0 || images.CredentialProviders != "" {
		s.keys = newKeys(credentials.Options{
			AuthFiles: images.AuthFiles, Providers: images.CredentialProviders, BinDir: images.CredentialProviderBinDir, Log: log,
		})
	}
	return s
}

// takeTurnsWith makes the pulls wait for those of the configuration before, if
// the limit is still the same.
func (s *settings) takeTurnsWith(before *settings) {
	if before != nil && before.MaxParallelPulls == s.MaxParallelPulls {
		s.limit = before.limit
	}
}

// compile makes a pattern of the configuration one that can be matched.
func compile(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `\z`)
}

// plain reports whether the handler asks for nothing that a call which just
// passes would not have.
func (s *settings) plain() bool {
	return s.asRequested() && s.limit == nil && s.Snapshotter == "" && s.keys == nil && len(s.allowed) == 0 && !s.RequireDigest
}

func (s *settings) asRequested() bool { return !s.always() && !s.never() }

func (s *settings) always() bool { return s.PullPolicy == configs.PullAlways }

func (s *settings) never() bool { return s.PullPolicy == configs.PullNever }

// permit returns why an image may not be used, nil if it may. The kubelet shows
// code and message in the pod's events; PermissionDenied says that a repetition
// will not help.
func (s *settings) permit(image string) error {
	normal := routing.Reference(image)
	if s.RequireDigest && !strings.Contains(normal, "@") && !isID(normal) {
		return status.Errorf(codes.PermissionDenied,
			"handler %q has images.require_digest: image %q has no digest; name it as repository@sha256:…", s.handler, image)
	}
	if len(s.allowed) == 0 {
		return nil
	}
	for _, pattern := range s.allowed {
		if pattern.MatchString(normal) {
			return nil
		}
	}
	return status.Errorf(codes.PermissionDenied, "handler %q has images.allow: image %q, in full %q, matches none of its patterns: %s",
		s.handler, image, normal, strings.Join(s.Allow, ", "))
}

// absent is the error for an image that is not there and must not be pulled.
func (s *settings) absent(image string, store *backend.Backend) error {
	if s.always() {
		return status.Errorf(codes.FailedPrecondition,
			"image %q is no longer on backend %q, and by images.pull_policy = %q of handler %q only the pod's own pull brings it back: the kubelet pulls it when it tries again",
			image, store.Name, s.PullPolicy, s.handler)
	}
	return status.Errorf(codes.FailedPrecondition,
		"handler %q has images.pull_policy = %q, and image %q is not on backend %q; bring it there with: cri-proxy images pull --handler %s %s",
		s.handler, s.PullPolicy, image, store.Name, s.handler, image)
}

// accounts returns with what an image is to be pulled, in the order to be
// tried: with what the request brought, else with what the handler has for the
// image, else, nil, as nobody. Nobody is not tried after somebody.
func (s *settings) accounts(ctx context.Context, request *runtimeapi.PullImageRequest) ([]*runtimeapi.AuthConfig, error) {
	if auth := request.GetAuth(); proto.Size(auth) > 0 || s.keys == nil {
		return []*runtimeapi.AuthConfig{auth}, nil
	}
	if _, err := reference.ParseNormalizedNamed(request.GetImage().GetImage()); err != nil {
		return []*runtimeapi.AuthConfig{nil}, nil //nolint:nilerr // The runtime says what is wrong with it.
	}
	found, err := s.keys.lookup(ctx, request.GetImage().GetImage())
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if err != nil {
		// Not as nobody instead: what is public under that name may be another image.
		return nil, status.Errorf(codes.FailedPrecondition, "the credentials of handler %q cannot be used: %v", s.handler, err)
	}
	if len(found) == 0 {
		return []*runtimeapi.AuthConfig{nil}, nil
	}
	var all []*runtimeapi.AuthConfig
	for _, c := range found {
		all = append(all, &runtimeapi.AuthConfig{Username: c.Username, Password: c.Password})
	}
	return all, nil
}

// turn waits until one more of the handler's pulls may run, which lasts until
// done is called.
func (s *settings) turn(ctx context.Context) (done func(), err error) {
	if s.limit == nil {
		return func() {}, nil
	}
	if err := s.limit.Acquire(ctx, 1); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return func() { s.limit.Release(1) }, nil
}

// keys are a handler's credentials. Sources that are broken are tried again at
// each use, so that mending them is enough.
type keys struct {
	options credentials.Options

	mu   sync.Mutex
	ring *credentials.Keyring // nil until the sources could be read.
}

func newKeys(o credentials.Options) *keys {
	k := &keys{options: o}
	if _, err := k.open(); err != nil {
		o.Log.WithError(err).Error("credentials cannot be read: until they are mended, this handler's pulls without credentials of their own fail")
	}
	return k
}

func (k *keys) lookup(ctx context.Context, image string) ([]credentials.Credential, error) {
	ring, err := k.open()
	if err != nil {
		return nil, err
	}
	return ring.Lookup(ctx, image)
}

func (k *keys) open() (*credentials.Keyring, error) {
	if ring := k.known(); ring != nil {
		return ring, nil
	}
	ring, err := credentials.New(k.options)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil { // Else another call was faster, and its answers are cached there.
		k.ring = ring
	}
	return k.ring, nil
}

func (k *keys) known() *credentials.Keyring {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring
}
