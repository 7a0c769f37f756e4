package imageservice

import (
	"context"
	"fmt"
	"maps"

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
func (s *Service) pullImage(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.PullImageRequest
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
	return s.forward(ctx, call, s.storeOf[target.Backend], &request, changed)
}

// sandboxOf returns the sandbox that a pull is for; nil when it names no pod.
// The kubelet pulls for a pod only after its sandbox was made, so one that is
// not known is looked for: the answer to its create may have been lost. Where
// the image spec names the handler, it is not needed.
func (s *Service) sandboxOf(ctx context.Context, request *runtimeapi.PullImageRequest) (*routing.Sandbox, error) {
	config := request.GetSandboxConfig()
	pod := backend.PodOf(config.GetMetadata())
	if pod.UID == "" {
		return nil, nil //nolint:nilnil // "No pod" is an answer here.
	}
	sandbox, ok := s.Index.PodSandbox(pod)
	var err error
	if !ok && !s.Backends.Single() && request.GetImage().GetRuntimeHandler() == "" {
		err = s.Backends.FindPod(ctx, pod.UID)
		sandbox, ok = s.Index.PodSandbox(pod)
	}
	switch {
	case ok:
		if annotations := config.GetAnnotations(); len(annotations) > 0 {
			s.Index.SetAnnotations(sandbox.ID, annotations)
		}
		return &sandbox, nil
	case err != nil:
		return nil, status.Errorf(codes.Unavailable, "the sandbox of pod %s is not known, and it may be where nobody answers: %s", pod.UID, status.Convert(err).Message())
	default:
		return nil, nil //nolint:nilnil // Its sandbox is nowhere: as good as no pod.
	}
}

// pullTarget returns the handler to pull for: the one that the spec names, else
// the pod's, else the default one.
func (s *Service) pullTarget(spec *runtimeapi.ImageSpec, sandbox *routing.Sandbox) (routing.Handler, error) {
	if name := spec.GetRuntimeHandler(); name != "" || sandbox == nil {
		h, err := s.Table.Resolve(name)
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
		if h, err := s.Table.Resolve(sandbox.Handler); err == nil {
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
// credentials: the kubelet's went with its own pull.
func (s *Service) pullFor(ctx context.Context, b *backend.Backend, image string, request *runtimeapi.CreateContainerRequest) (id string, err error) {
	store, id := s.storeOf[b.Name], s.Index.FullSandboxID(b.Name, request.GetPodSandboxId())
	s.Log.WithFields(logrus.Fields{"image": image, "backend": store.Name, "sandbox": id}).
		Info("image is not in the store of its container's backend: pulling it there")
	h := routing.Handler{Backend: b.Name}
	if sandbox, ok := s.Index.Sandbox(id); ok {
		h = s.handlerOf(sandbox)
	}
	config := request.GetSandboxConfig()
	pull := &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: image, Annotations: request.GetConfig().GetImage().GetAnnotations()},
		// Without one containerd does not look at the runtime.
		SandboxConfig: &runtimeapi.PodSandboxConfig{
			Metadata: config.GetMetadata(), Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		},
	}
	setRuntime(pull, h)
	answer, err := store.Images().PullImage(ctx, pull)
	if err != nil {
		return "", notPulled(image, store, err)
	}
	return answer.GetImageRef(), nil
}

// notPulled says what was to be pulled and where, and keeps the code and the
// details of the runtime's error.
func notPulled(image string, store *backend.Backend, err error) error {
	s := status.Convert(store.ExplainImages(err)).Proto()
	s.Message = fmt.Sprintf("image %q is not on backend %q and cannot be pulled there: %s", image, store.Name, s.GetMessage())
	return status.FromProto(s).Err()
}
