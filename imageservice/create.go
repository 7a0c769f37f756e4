package imageservice

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// Prepare sees to it that a container's image is in the store of b, the backend
// of its sandbox, before the container is created there, and that the handler's
// rules allow it. The kubelet believes that it is there: it may have seen it in
// another store, and crictl pulls into the default one. It reports whether the
// request's reference had to become the id that the image has here.
func (s *Service) Prepare(ctx context.Context, b *backend.Backend, request *runtimeapi.CreateContainerRequest) (changed bool, err error) {
	spec := request.GetConfig().GetImage()
	if s.plain || spec.GetImage() == "" {
		return false, nil
	}
	s.learn(b, request) // Also if it is refused: the next question is recognised then.
	o, err := s.ownerOf(ctx, b, request)
	if err != nil {
		return false, err
	}
	if err := s.admit(o, request); err != nil {
		return false, err
	}
	if s.single() && o.settings.Snapshotter == "" {
		return false, nil // It is where the kubelet saw it, or the runtime will say that it is not.
	}
	return s.ensure(ctx, o, request)
}

// owner is for whom a container is created.
type owner struct {
	sandbox  string // Its id.
	pod      string // Namespace and name.
	handler  routing.Handler
	settings *settings
	store    *backend.Backend
}

// ownerOf finds out the sandbox's handler.
func (s *Service) ownerOf(ctx context.Context, b *backend.Backend, request *runtimeapi.CreateContainerRequest) (owner, error) {
	m := request.GetSandboxConfig().GetMetadata()
	o := owner{
		sandbox: s.Index.FullSandboxID(b.Name, request.GetPodSandboxId()), pod: m.GetNamespace() + "/" + m.GetName(), store: s.storeOf[b.Name],
	}
	sandbox, ok := s.Index.Sandbox(o.sandbox)
	if !ok {
		var err error
		if sandbox, err = s.askFor(ctx, b, o.sandbox); err != nil {
			return o, err
		}
		o.sandbox = sandbox.ID
	}
	o.handler = s.handlerOf(sandbox)
	o.settings = s.of(o.handler)
	return o, nil
}

// askFor asks the runtime for a sandbox that is not known, the answer to its
// create having been lost: no rule would hold for its containers. One that the
// runtime does not know either has no handler, and the create will fail.
func (s *Service) askFor(ctx context.Context, b *backend.Backend, id string) (routing.Sandbox, error) {
	answer, err := b.Runtime().PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	if ctx.Err() != nil {
		return routing.Sandbox{}, status.FromContextError(ctx.Err()).Err()
	}
	if backend.IsAway(ctx, err) {
		return routing.Sandbox{}, b.NoAnswer("PodSandboxStatus", err)
	}
	if err != nil {
		s.Log.WithField("sandbox", id).WithError(err).Debug("the sandbox of a new container is not known")
		return routing.Sandbox{ID: id, Backend: b.Name}, nil
	}
	found := routing.Sandbox{ID: answer.GetStatus().GetId(), Backend: b.Name}
	var pinned bool
	if found.Handler, pinned = s.Index.Pinned(backend.PodOf(answer.GetStatus().GetMetadata())); !pinned {
		found.Handler = s.Table.HandlerOf(b.Name, answer.GetStatus().GetRuntimeHandler())
	}
	return found, nil
}

// admit holds the handler's rules against a container's image and those of its
// volumes: that they are there says nothing, since another handler of the store
// may have pulled them.
func (s *Service) admit(o owner, request *runtimeapi.CreateContainerRequest) error {
	if err := s.admitImage(o, request.GetConfig().GetImage(), false); err != nil {
		return err
	}
	for _, m := range request.GetConfig().GetMounts() {
		if volume := m.GetImage(); volume.GetImage() != "" {
			if err := s.admitImage(o, volume, true); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) admitImage(o owner, spec *runtimeapi.ImageSpec, volume bool) error {
	for _, image := range names(spec) {
		if err := o.settings.permit(image); err != nil {
			return err
		}
	}
	image := backend.PodImage(spec)
	if o.settings.always() && !s.proofs.use(proofKey{o.sandbox, routing.Reference(image)}, spec.GetImage(), volume) {
		return o.settings.unprovenCreate(image, o.pod)
	}
	return nil
}

// ensure brings the image into its store, and where the handler has a
// snapshotter unpacks it there.
func (s *Service) ensure(ctx context.Context, o owner, request *runtimeapi.CreateContainerRequest) (changed bool, err error) {
	spec := request.GetConfig().GetImage()
	name := pullable(spec)
	id, err := held(ctx, o.store, spec.GetImage())
	if err != nil || (id == "" && name == "") {
		return false, err // Without a name to pull, the runtime will say that it is not there.
	}
	if id != "" {
		return false, s.unpack(ctx, o.store, id, o.settings)
	}
	// An id of another store: this one may have the same name with another id.
	if name != spec.GetImage() {
		id, err = held(ctx, o.store, name)
	}
	if err == nil && id == "" {
		id, err = s.pullFor(ctx, o, name, request)
	} else if err == nil {
		err = s.unpack(ctx, o.store, id, o.settings)
	}
	if err != nil || name == spec.GetImage() || id == "" || id == spec.GetImage() {
		return false, err
	}
	spec.Image = id
	return true, nil
}

// learn takes from a create what it says of the pod: its newest annotations,
// and that the questions for its images are over.
func (s *Service) learn(b *backend.Backend, request *runtimeapi.CreateContainerRequest) {
	sandbox := s.Index.FullSandboxID(b.Name, request.GetPodSandboxId())
	annotations := request.GetSandboxConfig().GetAnnotations()
	if len(annotations) > 0 {
		s.Index.SetAnnotations(sandbox, annotations)
	}
	s.pending.done(routing.Reference(backend.PodImage(request.GetConfig().GetImage())), sandbox, annotations)
	for _, m := range request.GetConfig().GetMounts() {
		if volume := m.GetImage(); volume != nil {
			s.pending.done(routing.Reference(backend.PodImage(volume)), sandbox, annotations)
		}
	}
}

// held returns the id that an image has in a store, "" when it is not there.
func held(ctx context.Context, store *backend.Backend, image string) (id string, err error) {
	answer, err := store.Images().ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image}})
	return answer.GetImage().GetId(), store.ExplainImages(err)
}

// pullable returns the reference by which a container's image can be pulled:
// the one to create from, or, where that is an id of some store, the one in the
// pod; "" when neither is a reference.
func pullable(spec *runtimeapi.ImageSpec) string {
	if all := names(spec); len(all) > 0 && !isID(all[0]) {
		return all[0]
	}
	return ""
}

// names returns the references that an image spec holds, the one to create from
// first; the id when there is no other name.
func names(spec *runtimeapi.ImageSpec) []string {
	all := slices.DeleteFunc([]string{spec.GetImage(), spec.GetUserSpecifiedImage()}, func(image string) bool { return image == "" || isID(image) })
	if len(all) == 0 && spec.GetImage() != "" {
		return []string{spec.GetImage()}
	}
	return slices.Compact(all)
}

// isID reports whether image is an image id: a digest without its algorithm, or
// what begins as one with it. The beginning of a digest could be a name too.
func isID(image string) bool {
	return strings.HasPrefix(image, "sha256:") || (len(image) == 64 && strings.Trim(image, "0123456789abcdef") == "")
}
