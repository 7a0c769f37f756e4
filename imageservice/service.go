package imageservice

import (
	"context"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/flight"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// Options are what the ImageService front needs.
type Options struct {
	// Backends are also where the configuration of each handler's images is from.
	Backends *backend.Set
	Table    *routing.Table
	Index    *routing.Index
	Log      *logrus.Entry
	// Metrics is where pulls are counted: the daemon's registry. nil counts them
	// where nobody sees it.
	Metrics prometheus.Registerer
	// Span, if not nil, begins the span of a pull; attributes are names and values
	// by turns.
	Span func(ctx context.Context, name string, attributes ...string) (_ context.Context, end func(err error, attributes ...string))
}

// Service is the ImageService front of one configuration. It is made by [New]
// or [Service.Next].
type Service struct {
	Options
	*memory
	calls   map[string]rawcri.Handler
	stores  []*backend.Backend          // One for each store, the default one first.
	storeOf map[string]*backend.Backend // By backend.

	settings map[string]*settings // By handler.
	plain    bool                 // One store, and no handler asks for anything: calls just pass.
	preloads []*preload
	// native gives the part of a store that CRI does not have.
	native func(*backend.Backend) snapshots

	replaced chan struct{} // Closed by Replace, after next was set.
	next     *Service
}

// memory is what outlives a configuration.
type memory struct {
	pending pending
	flights flight.Group[flightKey, pulled]
	proofs  proofs
	metrics *metrics
	pulling atomic.Int64 // Pulls that callers wait for.
}

// New returns the front. A handler whose credentials cannot be read does not
// stop the others: its own pulls fail, with the reason, until they can.
func New(o Options) *Service {
	s := newService(o, &Service{
		memory: &memory{metrics: newMetrics(o.Metrics)},
		native: func(b *backend.Backend) snapshots { return b.Containerd() },
	})
	s.expectPulls()
	return s
}

func (s *Service) expectPulls() {
	for handler := range s.settings {
		s.metrics.expect(handler)
	}
}

// Next returns the front of another configuration. Credentials are read anew.
// This one goes on until [Service.Replace], and after it for the calls that it has
// begun.
func (s *Service) Next(backends *backend.Set, table *routing.Table) *Service {
	o := s.Options
	o.Backends, o.Table = backends, table
	return newService(o, s)
}

// newService makes a service that remembers what before does.
func newService(o Options, before *Service) *Service {
	s := &Service{
		Options: o, memory: before.memory, native: before.native,
		storeOf: map[string]*backend.Backend{}, settings: map[string]*settings{}, replaced: make(chan struct{}),
	}
	byEndpoint := map[string]*backend.Backend{}
	for _, b := range o.Backends.All() {
		first, ok := byEndpoint[b.Config.Images()]
		if !ok {
			first = b
			byEndpoint[b.Config.Images()] = b
			s.stores = append(s.stores, b)
		}
		s.storeOf[b.Name] = first
	}
	s.plain = s.single()
	for name, h := range o.Backends.Config.Handlers {
		s.settings[name] = newSettings(name, h.Images, o.Log.WithField("handler", name))
		s.settings[name].takeTurnsWith(before.settings[name])
		s.plain = s.plain && s.settings[name].plain()
	}
	s.preloads = s.newPreloads(before.preloads)
	s.addCalls()
	return s
}

func (s *Service) addCalls() {
	s.calls = map[string]rawcri.Handler{
		"ImageStatus":  s.imageStatus,
		"PullImage":    s.pullImage,
		"RemoveImage":  s.removeImage,
		"ListImages":   s.listImages,
		"StreamImages": s.streamImages,
		"ImageFsInfo":  s.imageFsInfo,
	}
}

// Handle is the ImageService's [rawcri.Handler].
func (s *Service) Handle(ctx context.Context, call *rawcri.Call) error {
	if own, ok := s.calls[call.Method.Name]; ok {
		return own(ctx, call)
	}
	if s.single() {
		return s.Backends.Forward(ctx, call, s.stores[0])
	}
	return status.Errorf(codes.Unimplemented, "%s is not known to this cri-proxy: with several image stores it cannot be routed", call.Method.Name)
}

// Pulling returns how many pulls there are that somebody waits for.
func (s *Service) Pulling() int { return int(s.pulling.Load()) }

// single reports whether there is one store only, so that every call is its.
func (s *Service) single() bool { return len(s.stores) == 1 }

// named returns the handler that a spec names, and puts the backend's name for
// it in the spec; nil when it names none.
func (s *Service) named(spec *runtimeapi.ImageSpec) (*routing.Handler, error) {
	if spec.GetRuntimeHandler() == "" {
		return nil, nil //nolint:nilnil // "None" is an answer here, and the callers' most usual one.
	}
	h, err := s.Table.Find(spec.GetRuntimeHandler())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	spec.RuntimeHandler = h.Runtime
	return &h, nil
}

// malformed is the error for bytes that are not the request they should be.
func malformed(call *rawcri.Call, err error) error {
	return status.Errorf(codes.InvalidArgument, "the request of %s cannot be read: %v", call.Method.Name, err)
}

// decode fills m from a frame that nobody else needs.
func decode(f *rawcri.Frame, m proto.Message) error {
	defer f.Free()
	return f.Decode(m)
}
