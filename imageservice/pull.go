package imageservice

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// handlerAnnotation tells containerd up to 2.2.1 which runtime an image is
// pulled for, and so which snapshotter unpacks it; newer ones read the image
// spec's runtime_handler first.
const handlerAnnotation = "io.containerd.cri.runtime-handler"

// pullImage pulls into the store of the pod that the call is for. It has no
// time limit but the caller's: the kubelet sets none, and the runtime ends a pull
// that makes no progress.
func (s *Service) pullImage(ctx context.Context, call *rawcri.Call) (err error) {
	var request runtimeapi.PullImageRequest
	defer func() { call.Private = mayQuote(err, request.GetAuth()) }()
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	sandbox, err := s.sandboxOf(ctx, &request)
	if err != nil {
		return err
	}
	target, err := s.pullTarget(request.GetImage(), sandbox)
	if err != nil {
		return err
	}
	if sandbox != nil {
		image := routing.Reference(request.GetImage().GetImage())
		s.mark(image, request.GetSandboxConfig().GetAnnotations(), []routing.Sandbox{*sandbox})
	}
	changed := setRuntime(&request, target)
	s.pulling.Add(1)
	defer s.pulling.Add(-1)
	if s.plain {
		err = s.forward(ctx, call, s.stores[0], &request, changed)
		s.count(ctx, target.Name, pullPulled, err)
		return err
	}
	p := pull{settings: s.of(target), store: s.storeOf[target.Backend], request: &request}
	call.Backend = p.store.Name
	answer, err := s.do(ctx, p)
	if e := answer.pass(ctx); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	s.prove(sandbox, target, &request, answer)
	return call.Reply(answer.response)
}

// Pull pulls an image by its reference for a handler, "" being the default one:
// by the handler's rules, with its credentials and in turn with its other pulls.
// There is no pod, so pull_policy does not count: this is how images get where
// it is "never", and it proves nothing where it is "always". It returns what the
// runtime calls the image, its id. Errors are gRPC's: InvalidArgument for a
// handler that is not configured, PermissionDenied for an image that its rules
// refuse, or the runtime's own.
func (s *Service) Pull(ctx context.Context, handler, ref string) (id string, err error) {
	target, err := s.Table.Resolve(handler)
	if err != nil {
		return "", status.Error(codes.InvalidArgument, err.Error())
	}
	request := &runtimeapi.PullImageRequest{
		Image:         &runtimeapi.ImageSpec{Image: ref},
		SandboxConfig: &runtimeapi.PodSandboxConfig{}, // Without one containerd does not look at the runtime.
	}
	setRuntime(request, target)
	s.pulling.Add(1)
	defer s.pulling.Add(-1)
	answer, err := s.do(ctx, pull{settings: s.of(target), store: s.storeOf[target.Backend], request: request, byHand: true})
	return answer.response.GetImageRef(), err
}

// sandboxOf returns the sandbox that a pull is for; nil when it names no pod.
// The kubelet pulls for a pod only after its sandbox was made, so one that is
// not known is looked for: the answer to its create may have been lost. Where
// the image spec names the handler, it is needed only to remember the pull.
func (s *Service) sandboxOf(ctx context.Context, request *runtimeapi.PullImageRequest) (*routing.Sandbox, error) {
	config := request.GetSandboxConfig()
	pod := backend.PodOf(config.GetMetadata())
	if pod.UID == "" {
		return nil, nil //nolint:nilnil // "No pod" is an answer here.
	}
	sandbox, ok := s.Index.PodSandbox(pod)
	var err error
	named := request.GetImage().GetRuntimeHandler() != ""
	if !ok && s.looksForPods(named) {
		err = s.Backends.FindPod(ctx, pod.UID)
		sandbox, ok = s.Index.PodSandbox(pod)
	}
	switch {
	case ok:
		if annotations := config.GetAnnotations(); len(annotations) > 0 {
			s.Index.SetAnnotations(sandbox.ID, annotations)
		}
		return &sandbox, nil
	case err != nil && !named:
		return nil, status.Errorf(codes.Unavailable, "the sandbox of pod %s is not known, and it may be where nobody answers: %s", pod.UID, status.Convert(err).Message())
	default:
		return nil, nil //nolint:nilnil // Its sandbox is nowhere: as good as no pod.
	}
}

func (s *Service) looksForPods(named bool) bool {
	if named {
		return slices.ContainsFunc(s.Table.Names(), func(name string) bool { return s.settings[name].always() })
	}
	return !s.plain && (!s.Backends.Single() || len(s.Table.Names()) > 1 || s.looksForPods(true))
}

// pullTarget returns the handler to pull for: the one that the spec names, else
// the pod's, else the default one.
func (s *Service) pullTarget(spec *runtimeapi.ImageSpec, sandbox *routing.Sandbox) (routing.Handler, error) {
	if name := spec.GetRuntimeHandler(); name != "" || sandbox == nil {
		h, err := s.Table.Find(name)
		if err != nil {
			return h, status.Error(codes.InvalidArgument, err.Error())
		}
		return h, nil
	}
	return s.handlerOf(*sandbox), nil
}

// handlerOf returns a sandbox's handler. One that the configuration no longer
// has still has its backend.
func (s *Service) handlerOf(sandbox routing.Sandbox) routing.Handler {
	if sandbox.Handler != "" {
		if h, err := s.Table.Find(sandbox.Handler); err == nil && h.Backend == sandbox.Backend {
			return h
		}
	}
	return routing.Handler{Backend: sandbox.Backend}
}

// setRuntime names the runtime in a pull wherever containerd, old or new, looks
// for it, and reports whether the request changed.
func setRuntime(request *runtimeapi.PullImageRequest, h routing.Handler) (changed bool) {
	if spec := request.GetImage(); spec != nil && spec.GetRuntimeHandler() != h.Runtime {
		spec.RuntimeHandler = h.Runtime
		changed = true
	}
	config := request.GetSandboxConfig()
	if config == nil || h.Runtime == "" || config.GetAnnotations()[handlerAnnotation] == h.Runtime {
		return changed
	}
	// A copy: the request's own map is what the index has learnt.
	annotations := maps.Clone(config.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[handlerAnnotation] = h.Runtime
	config.Annotations = annotations
	return true
}

// pullFor pulls an image for a container that is about to be created, without
// the pod's credentials: the kubelet's went with its own pull.
func (s *Service) pullFor(ctx context.Context, o owner, image string, request *runtimeapi.CreateContainerRequest) (id string, err error) {
	if !o.settings.asRequested() {
		return "", o.settings.absent(image, o.store)
	}
	s.Log.WithFields(logrus.Fields{"image": image, "backend": o.store.Name, "sandbox": o.sandbox}).
		Info("image is not in the store of its container's backend: pulling it there")
	config := request.GetSandboxConfig()
	call := &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: image, Annotations: request.GetConfig().GetImage().GetAnnotations()},
		// Without one containerd does not look at the runtime.
		SandboxConfig: &runtimeapi.PodSandboxConfig{
			Metadata: config.GetMetadata(), Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		},
	}
	setRuntime(call, o.handler)
	s.pulling.Add(1)
	defer s.pulling.Add(-1)
	answer, err := s.do(ctx, pull{settings: o.settings, store: o.store, request: call, bounded: true})
	if err != nil {
		return "", notPulled(image, o.store, err)
	}
	return answer.response.GetImageRef(), nil
}

// notPulled says what was to be pulled and where, and keeps the code and the
// details of the runtime's error.
func notPulled(image string, store *backend.Backend, err error) error {
	s := status.Convert(err).Proto()
	s.Message = fmt.Sprintf("image %q is not on backend %q and cannot be pulled there: %s", image, store.Name, s.GetMessage())
	return status.FromProto(s).Err()
}
