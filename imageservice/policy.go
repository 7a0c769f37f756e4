package imageservice

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// prove remembers that a pod has pulled an image, where that matters.
func (s *Service) prove(sandbox *routing.Sandbox, target routing.Handler, request *runtimeapi.PullImageRequest, answer pulled) {
	if sandbox == nil || !s.of(target).always() || s.handlerOf(*sandbox).Name != target.Name {
		return
	}
	key := proofKey{sandbox.ID, routing.Reference(request.GetImage().GetImage())}
	s.proofs.add(key, answer.response.GetImageRef(), func(id string) bool {
		_, ok := s.Index.Sandbox(id)
		return ok
	})
}

// unproven reports whether an image is to be absent for pods that a question
// may be about, so that the kubelet pulls it with the pod's credentials. If some
// of them may be of another policy it is not: their kubelet may not pull at all,
// and a create without the pull is refused anyway, after which it is known whose
// question the next one is. A handler, if not nil, is known to be the pod's.
func (s *Service) unproven(image string, of *routing.Handler, pods []routing.Sandbox) bool {
	always := of != nil && s.of(*of).always()
	if !always && (of != nil || len(pods) == 0) {
		return false
	}
	missing := len(pods) == 0
	for _, p := range pods {
		if !always && !s.of(s.handlerOf(p)).always() {
			return false
		}
		missing = missing || !s.proofs.fresh(proofKey{p.ID, image})
	}
	return missing
}

// unprovenCreate is the error for a container of an image that its pod did not
// pull. The kubelet comes again and pulls, also after a restart of the proxy,
// which forgets the pulls.
func (s *settings) unprovenCreate(image, pod string) error {
	return status.Errorf(codes.FailedPrecondition,
		"handler %q has images.pull_policy = %q: pod %s must pull image %q with its own credentials for each container, and has not; "+
			"the kubelet does when it tries again, unless the pod has imagePullPolicy Never, with which it cannot run here",
		s.handler, s.PullPolicy, pod, image)
}
