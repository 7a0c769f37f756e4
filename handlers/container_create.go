package handlers

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/hooks"
	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/rawcri"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// createContainer sends a new container to the backend of its sandbox, its
// image made sure of, and learns its id.
func (r *Runtime) createContainer(ctx context.Context, call *rawcri.Call) error {
	b, err := r.owner(ctx, call)
	if err != nil {
		return err
	}
	var request runtimeapi.CreateContainerRequest
	if err := call.Request.Decode(&request); err != nil {
		return malformed(call, err)
	}
	sandbox, handler, err := r.sandboxHandler(ctx, b, request.GetPodSandboxId()) // crictl's users type short ids.
	if err != nil {
		return err
	}
	if r.Hooks != nil {
		if err := r.Hooks.Check(handler, &request); err != nil {
			return err
		}
	}
	listed := listedAs(&request)
	added, err := r.addServiceEnv(handler, &request)
	if err != nil {
		return err
	}
	frame, err := r.prepare(ctx, call, b, &request, added)
	if err != nil {
		return err
	}
	answer, err := r.Backends.Invoke(ctx, call, b, frame)
	if err != nil {
		return err
	}
	listed.PodSandboxId = sandbox
	if err := r.learnContainer(answer, b, &request, listed); err != nil {
		return err
	}
	if r.Hooks != nil {
		r.Hooks.Created(ctx, hooks.Container{ID: listed.GetId(), Sandbox: sandbox, Handler: handler}, &request)
	}
	return call.Send(answer)
}

// prepare returns the frame to send: the one that came, unless something in
// it was changed before or must be another for this backend.
func (r *Runtime) prepare(ctx context.Context, call *rawcri.Call, b *backend.Backend, request *runtimeapi.CreateContainerRequest, changed bool) (*rawcri.Frame, error) {
	pulled, err := r.PrepareImage(ctx, b, request)
	if err != nil {
		return nil, err
	}
	named, err := r.toRuntimeNames(request.GetConfig())
	if err != nil {
		return nil, err
	}
	if !pulled && !named && !changed {
		return call.Request, nil
	}
	return rawcri.Encode(request)
}

// toRuntimeNames puts the backend's names for handlers in the container's
// image specs, its mounts' included, and reports whether one differed.
func (r *Runtime) toRuntimeNames(config *runtimeapi.ContainerConfig) (changed bool, err error) {
	specs := []*runtimeapi.ImageSpec{config.GetImage()}
	for _, m := range config.GetMounts() {
		specs = append(specs, m.GetImage())
	}
	for _, spec := range specs {
		if spec.GetRuntimeHandler() == "" {
			continue
		}
		h, err := r.Table.Find(spec.GetRuntimeHandler())
		if err != nil {
			return false, status.Error(codes.InvalidArgument, err.Error())
		}
		changed = changed || h.Runtime != spec.GetRuntimeHandler()
		spec.RuntimeHandler = h.Runtime
	}
	return changed, nil
}

// listedAs returns the new container as it would be listed, its ids aside. It
// is taken before the request is changed for the backend.
func listedAs(request *runtimeapi.CreateContainerRequest) *runtimeapi.Container {
	config := request.GetConfig()
	image := config.GetImage()
	if image.GetRuntimeHandler() != "" {
		image = proto.CloneOf(image)
	}
	return &runtimeapi.Container{
		Metadata: config.GetMetadata(), Image: image, ImageRef: image.GetImage(),
		State: runtimeapi.ContainerState_CONTAINER_CREATED, CreatedAt: time.Now().UnixNano(),
		Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
	}
}

// learnContainer records a new container, whose id it puts into listed.
func (r *Runtime) learnContainer(answer *rawcri.Frame, b *backend.Backend, request *runtimeapi.CreateContainerRequest, listed *runtimeapi.Container) error {
	idBytes, err := answer.ID()
	if err != nil || len(idBytes) == 0 {
		answer.Free()
		return status.Errorf(codes.Internal, "backend %q answered CreateContainer without an id", b.Name)
	}
	id, config := string(idBytes), request.GetConfig()
	record := routing.Container{ID: id, Backend: b.Name, Sandbox: listed.GetPodSandboxId(), Image: routing.Reference(backend.PodImage(config.GetImage()))}
	if before := r.Index.PutContainer(record); before != "" {
		r.Log.WithFields(logrus.Fields{"container": id, "backend": b.Name, "other": before}).Error("two backends claim one container id")
	}
	listed.Id = id
	b.Containers.Created(id, listed)
	r.Log.WithFields(logrus.Fields{
		"container": id, "name": config.GetMetadata().GetName(), "sandbox": listed.GetPodSandboxId(), "backend": b.Name,
	}).Info("container created")
	return nil
}
