package imageservice

import (
	"context"

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
}

// Service is the ImageService front. It is made by [New].
type Service struct {
	Options
	calls   map[string]rawcri.Handler
	stores  []*backend.Backend          // One for each store, the default one first.
	storeOf map[string]*backend.Backend // By backend.
	pending pending

	settings map[string]*settings // By handler.
	plain    bool                 // One store, and no handler asks for anything: calls just pass.
	flights  flight.Group[flightKey, pulled]
	proofs   proofs
	metrics  *metrics
	preloads []*preload
	// native gives the part of a store that CRI does not have.
	native func(*backend.Backend) snapshots
}

// New returns the front. A handler whose credentials cannot be read does not
// stop the others: its own pulls fail, with the reason, until they can.
func New(o Options) *Service {
	s := &Service{
		Options: o, storeOf: map[string]*backend.Backend{}, settings: map[string]*settings{}, metrics: newMetrics(o.Metrics),
		native: func(b *backend.Backend) snapshots { return b.Containerd() },
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
	for _, name := range o.Table.Names() {
		s.settings[name] = newSettings(name, o.Backends.Config.Handlers[name].Images, o.Log.WithField("handler", name))
		s.plain = s.plain && s.settings[name].plain()
	}
	s.preloads = s.newPreloads()
	s.calls = map[string]rawcri.Handler{
		"ImageStatus":  s.imageStatus,
		"PullImage":    s.pullImage,
		"RemoveImage":  s.removeImage,
		"ListImages":   s.listImages,
		"StreamImages": s.streamImages,
		"ImageFsInfo":  s.imageFsInfo,
	}
	return s
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

// single reports whether there is one store only, so that every call is its.
func (s *Service) single() bool { return len(s.stores) == 1 }

// named returns the handler that a spec names, and puts the backend's name for
// it in the spec; nil when it names none.
func (s *Service) named(spec *runtimeapi.ImageSpec) (*routing.Handler, error) {
	if spec.GetRuntimeHandler() == "" {
		return nil, nil //nolint:nilnil // "None" is an answer here, and the callers' most usual one.
	}
	h, err := s.Table.Resolve(spec.GetRuntimeHandler())
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
