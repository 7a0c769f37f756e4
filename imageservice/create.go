package imageservice

import (
	"context"
	"strings"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/status"
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
	s.pending.done(routing.Reference(backend.PodImage(spec)), request.GetPodSandboxId())
	if s.single() || spec.GetImage() == "" {
		return false, nil
	}
	store := s.storeOf[b.Name]
	held, err := store.Images().ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: spec.GetImage()}})
	if err != nil {
		return false, store.ExplainImages(err)
	}
	image := pullable(spec)
	if held.GetImage() != nil || image == "" {
		return false, nil // It is there, or the runtime will say that it is not.
	}
	log := s.Log.WithFields(logrus.Fields{"image": image, "backend": store.Name, "sandbox": request.GetPodSandboxId()})
	log.Info("image is not in the store of its container's backend: pulling it there")
	id, err := s.pullFor(ctx, b, image, request)
	if err != nil {
		st := status.Convert(store.ExplainImages(err))
		return false, status.Errorf(st.Code(), "image %q is not on backend %q and cannot be pulled there: %s", image, store.Name, st.Message())
	}
	if image == spec.GetImage() || id == "" || id == spec.GetImage() {
		return false, nil
	}
	spec.Image = id
	return true, nil
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

// isID reports whether image is an image id: a digest, with or without its
// algorithm, or the beginning of one.
func isID(image string) bool {
	return strings.HasPrefix(image, "sha256:") || (len(image) == 64 && strings.Trim(image, "0123456789abcdef") == "")
}
