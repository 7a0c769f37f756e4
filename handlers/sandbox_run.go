package handlers

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// runPodSandbox sends a new sandbox to the runtime that its handler names, and
// learns its id.
func (r *Runtime) runPodSandbox(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.RunPodSandboxRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	return r.start(ctx, call, newPod{
		message: &request, config: request.GetConfig(), handler: &request.RuntimeHandler,
	})
}

// restorePod does the same for a sandbox that comes from a checkpoint; its
// containers are learnt when they are first asked for.
func (r *Runtime) restorePod(ctx context.Context, call *rawcri.Call) error {
	var request runtimeapi.RestorePodRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	return r.start(ctx, call, newPod{
		message: &request, config: request.GetConfig(), handler: &request.RuntimeHandler, containers: request.GetContainerConfigs(),
	})
}

// newPod is a request that makes a sandbox, whose id is field 1 of the answer.
type newPod struct {
	message proto.Message
	config  *runtimeapi.PodSandboxConfig
	handler *string // In message.

	containers []*runtimeapi.ContainerConfig // In message.
}

func (r *Runtime) start(ctx context.Context, call *rawcri.Call, p newPod) error {
	pod := backend.PodOf(p.config.GetMetadata())
	handler, b, err := r.choose(*p.handler, pod)
	if err != nil {
		return err
	}
	if err := b.BeginCreate(); err != nil {
		return err
	}
	defer b.EndCreate()
	frame, err := r.frameFor(call, p, handler)
	if err != nil {
		return err
	}
	r.dropOldPins(ctx)
	_, retried := r.Index.Pinned(pod)
	if err := r.pin(pod, handler); err != nil {
		if !retried {
			r.Index.Unpin(pod)
		}
		return err
	}
	answer, err := r.Backends.Invoke(ctx, call, b, frame)
	if err != nil {
		if !retried { // Else the first try may have made it: "name is reserved" says so.
			r.unpinAfter(pod, err)
		}
		return err
	}
	if err := r.learnSandbox(answer, b, handler, p.config); err != nil {
		return err
	}
	return call.Send(answer)
}

// frameFor returns the frame to send: the one that came, unless the backend has
// other names for the handlers in it.
func (r *Runtime) frameFor(call *rawcri.Call, p newPod, handler routing.Handler) (*rawcri.Frame, error) {
	changed := handler.Runtime != *p.handler
	*p.handler = handler.Runtime
	for _, c := range p.containers {
		named, err := r.toRuntimeNames(c)
		if err != nil {
			return nil, err
		}
		changed = changed || named
	}
	if !changed {
		return call.Request, nil
	}
	return rawcri.Encode(p.message)
}

// choose finds the handler and backend of a new sandbox. An attempt at a pod
// that went to one backend before goes there again, whatever the configuration
// says by now: there its name is reserved, elsewhere it would be a second pod.
func (r *Runtime) choose(name string, pod routing.Pod) (routing.Handler, *backend.Backend, error) {
	handler, err := r.Table.Resolve(name)
	if before, ok := r.before(pod); ok && err == nil {
		handler, err = r.Table.Resolve(before)
	}
	if err != nil {
		return handler, nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if s, ok := r.Index.PodSandbox(pod); ok && pod.UID != "" && s.Backend != handler.Backend {
		return handler, nil, status.Errorf(codes.InvalidArgument,
			"pod sandbox %s of this attempt is on backend %q, and handler %q is backend %q's by now: remove the sandbox first", s.ID, s.Backend, handler.Name, handler.Backend)
	}
	b := r.Backends.Get(handler.Backend)
	return handler, b, r.Backends.Usable(b)
}

func (r *Runtime) before(pod routing.Pod) (string, bool) {
	if pod.UID == "" {
		return "", false
	}
	if name, ok := r.Index.Pinned(pod); ok {
		return name, true
	}
	s, ok := r.Index.PodSandbox(pod)
	return s.Handler, ok && s.Handler != ""
}

func (r *Runtime) learnSandbox(answer *rawcri.Frame, b *backend.Backend, handler routing.Handler, config *runtimeapi.PodSandboxConfig) error {
	idBytes, err := answer.ID()
	if err != nil || len(idBytes) == 0 {
		answer.Free()
		return status.Errorf(codes.Internal, "backend %q made a pod sandbox and answered without its id", b.Name)
	}
	id := string(idBytes)
	record := routing.Sandbox{
		ID: id, Backend: b.Name, Handler: handler.Name, Pod: backend.PodOf(config.GetMetadata()), Ready: true, Annotations: config.GetAnnotations(),
	}
	if before := r.Index.PutSandbox(record); before != "" {
		r.Log.WithFields(logrus.Fields{"sandbox": id, "backend": b.Name, "other": before}).Error("two backends claim one sandbox id")
	}
	b.Sandboxes.Created(id, &runtimeapi.PodSandbox{
		Id: id, Metadata: config.GetMetadata(), State: runtimeapi.PodSandboxState_SANDBOX_READY, CreatedAt: time.Now().UnixNano(),
		Labels: config.GetLabels(), Annotations: config.GetAnnotations(), RuntimeHandler: handler.Name,
	})
	r.Log.WithFields(logrus.Fields{
		"sandbox": id, "backend": b.Name, "handler": handler.Name,
		"pod": config.GetMetadata().GetName(), "namespace": config.GetMetadata().GetNamespace(),
	}).Info("pod sandbox runs")
	return nil
}
