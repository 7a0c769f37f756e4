package handlers

import (
	"context"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/handlers/serviceenv"
	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// Options are what the RuntimeService front needs.
type Options struct {
	Backends     *backend.Set
	Table        *routing.Table
	Index        *routing.Index
	Log          *logrus.Entry
	PrepareImage PrepareImage
	// Hooks deliver the handlers' hooks and stop the containers that have some;
	// nil means that none has.
	Hooks *hooks.Engine
	// ServiceEnv makes the Service variables of containers; nil means none.
	ServiceEnv *serviceenv.Variables
	// Pins are the handlers of sandboxes on disk, for those that a backend
	// cannot tell apart.
	Pins Pins
}

// PrepareImage sees to it that a container's image is in the store of its
// sandbox's backend, and may change the reference in the request; it reports
// whether it did.
type PrepareImage func(ctx context.Context, b *backend.Backend, request *runtimeapi.CreateContainerRequest) (changed bool, err error)

// Pins keeps the handler of an attempt at a pod on disk.
type Pins struct {
	Put    func(pod, handler string) error
	Delete func(pods ...string) error
}

// Runtime is the RuntimeService front of one configuration. It is made by [New]
// or [Runtime.Next].
type Runtime struct {
	Options
	calls    map[string]rawcri.Handler
	features *featureCache

	replaced chan struct{} // Closed by Replace, after next was set.
	next     *Runtime
}

// New returns the front.
func New(o Options) *Runtime { return newRuntime(o, &featureCache{}) }

// Next returns the front of another configuration. This one goes on until
// [Runtime.Replace], and after it for the calls that it has begun.
func (r *Runtime) Next(backends *backend.Set, table *routing.Table, prepare PrepareImage) *Runtime {
	o := r.Options
	o.Backends, o.Table, o.PrepareImage = backends, table, prepare
	return newRuntime(o, r.features)
}

// Replace tells the calls that do not end by themselves to follow next.
func (r *Runtime) Replace(next *Runtime) {
	r.next = next
	close(r.replaced)
}

func newRuntime(o Options, features *featureCache) *Runtime {
	r := &Runtime{Options: o, features: features, replaced: make(chan struct{})}
	r.calls = map[string]rawcri.Handler{
		"Version":             r.toDefault,
		"RuntimeConfig":       r.toDefault,
		"Status":              r.statusOf,
		"UpdateRuntimeConfig": r.updateRuntimeConfig,

		"RunPodSandbox":    r.runPodSandbox,
		"StopPodSandbox":   r.stopPodSandbox,
		"RemovePodSandbox": r.removePodSandbox,
		"RestorePod":       r.restorePod,
		"CreateContainer":  r.createContainer,
		"StartContainer":   r.startContainer,
		"StopContainer":    r.stopContainer,
		"RemoveContainer":  r.removeContainer,
		"ExecSync":         r.execSync,

		"ListPodSandbox":        r.list,
		"ListContainers":        r.list,
		"ListContainerStats":    r.list,
		"ListPodSandboxStats":   r.list,
		"ListPodSandboxMetrics": r.list,
		"ListMetricDescriptors": r.listMetricDescriptors,

		"StreamPodSandboxes":      r.stream,
		"StreamContainers":        r.stream,
		"StreamContainerStats":    r.stream,
		"StreamPodSandboxStats":   r.stream,
		"StreamPodSandboxMetrics": r.stream,

		"GetContainerEvents": r.getContainerEvents,
	}
	return r
}

// Handle is the RuntimeService's [rawcri.Handler].
func (r *Runtime) Handle(ctx context.Context, call *rawcri.Call) error {
	if own, ok := r.calls[call.Method.Name]; ok {
		return own(ctx, call)
	}
	return r.pass(ctx, call)
}

// pass sends a call to the owner of the id in field 1.
func (r *Runtime) pass(ctx context.Context, call *rawcri.Call) error {
	b, err := r.owner(ctx, call)
	if err != nil {
		return err
	}
	return r.Backends.Forward(ctx, call, b)
}

func (r *Runtime) owner(ctx context.Context, call *rawcri.Call) (*backend.Backend, error) {
	if r.Backends.Single() {
		return r.Backends.Default(), nil
	}
	id, err := call.Request.ID()
	if call.Method.ID == rawcri.NoID {
		return r.guess(call, id)
	}
	if err != nil {
		return nil, malformed(call, err)
	}
	return r.Backends.Owner(ctx, call.Method.ID, id)
}

// guess finds the backend for a method that this program does not know: what
// is said of one sandbox or container goes to its owner. Anything else may be a
// list, of which one backend's part would be a wrong answer; Unimplemented
// makes the kubelet fall back to a call that is known.
func (r *Runtime) guess(call *rawcri.Call, id []byte) (*backend.Backend, error) {
	if b := r.Backends.Exactly(id); b != nil {
		return b, nil
	}
	return nil, status.Errorf(codes.Unimplemented,
		"%s is not known to this cri-proxy, and its request names no sandbox or container that is: with several backends it cannot be routed", call.Method.Name)
}

// toDefault passes a call on to the default backend.
func (r *Runtime) toDefault(ctx context.Context, call *rawcri.Call) error {
	return r.Backends.Forward(ctx, call, r.Backends.Default())
}

// malformed is the error for bytes that are not the request they should be.
func malformed(call *rawcri.Call, err error) error {
	return status.Errorf(codes.InvalidArgument, "the request of %s cannot be read: %v", call.Method.Name, err)
}
