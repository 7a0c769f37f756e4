package imageservice

import (
	"context"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// Prepare sees to it that a container's image is in the store of b, the backend
// of its sandbox, before the container is created there. The kubelet believes
// that it is: it may have seen it in another store, and crictl pulls into the
// default one. It reports whether the request's reference had to become the id
// that the image has here.
func (s *Service) Prepare(ctx context.Context, b *backend.Backend, request *runtimeapi.CreateContainerRequest) (changed bool, err error) {
	spec := request.GetConfig().GetImage()
	if s.single() || spec.GetImage() == "" {
		return false, nil
	}
	s.learn(b, request)
	store, name := s.storeOf[b.Name], pullable(spec)
	id, err := held(ctx, store, spec.GetImage())
	if err != nil || id != "" || name == "" {
		return false, err // Without a name to pull, the runtime will say that it is not there.
	}
	if name == spec.GetImage() {
		_, err = s.pullFor(ctx, b, name, request)
		return false, err
	}
	// An id of another store: this one may have the same name with another id.
	if id, err = held(ctx, store, name); err == nil && id == "" {
		id, err = s.pullFor(ctx, b, name, request)
	}
	if err != nil || id == "" || id == spec.GetImage() {
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
	for _, image := range []string{spec.GetImage(), spec.GetUserSpecifiedImage()} {
		if image != "" && !isID(image) {
			return image
		}
	}
	return ""
}

// isID reports whether image is an image id: a digest without its algorithm, or
// what begins as one with it. The beginning of a digest could be a name too.
func isID(image string) bool {
	return strings.HasPrefix(image, "sha256:") || (len(image) == 64 && strings.Trim(image, "0123456789abcdef") == "")
}
