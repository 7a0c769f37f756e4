package imageservice

import (
	"maps"
	"slices"

	"github.com/cri-proxy/cri-proxy/internal/backend"
	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// configSeen is when this kubelet process first saw the pod
// (k8s.io/kubernetes, pkg/kubelet/types): the one annotation that differs after a
// restart of the kubelet.
const configSeen = "kubernetes.io/config.seen"

// meantBy returns the sandboxes that an ImageStatus with these annotations, a
// pod's, can be about: those with the same annotations; else those that differ
// in the kubelet's time stamp alone, and of them rather those that had a
// container of this image; else, the pod's annotations having been edited, any
// that is READY.
func (s *Service) meantBy(annotations map[string]string, image string) []routing.Sandbox {
	same := s.Index.Ready(func(p routing.Sandbox) bool { return maps.Equal(p.Annotations, annotations) })
	if len(same) > 0 {
		return same
	}
	alike := s.Index.Ready(func(p routing.Sandbox) bool { return equalButSeen(p.Annotations, annotations) })
	if used := slices.DeleteFunc(slices.Clone(alike), func(p routing.Sandbox) bool { return !slices.Contains(p.Images, image) }); len(used) > 0 {
		return used
	}
	if len(alike) > 0 {
		return alike
	}
	return s.Index.Ready(func(routing.Sandbox) bool { return true })
}

func equalButSeen(a, b map[string]string) bool {
	return covers(a, b) && covers(b, a)
}

// covers reports whether b has all that a has, time stamps aside.
func covers(a, b map[string]string) bool {
	for key, value := range a {
		if other, ok := b[key]; key != configSeen && (!ok || other != value) {
			return false
		}
	}
	return true
}

// waiting returns the stores of the sandboxes that an image was asked about or
// pulled for without a container of it being created since; all stores when
// there is none.
func (s *Service) waiting(image string) []*backend.Backend {
	stores := s.storesOf(s.Index.Ready(func(p routing.Sandbox) bool { return s.pending.has(image, p.ID) }))
	if len(stores) == 0 {
		return s.stores
	}
	return stores
}

// within returns those of the sandboxes that have this store.
func (s *Service) within(store *backend.Backend, sandboxes []routing.Sandbox) []routing.Sandbox {
	return slices.DeleteFunc(sandboxes, func(p routing.Sandbox) bool { return s.storeOf[p.Backend] != store })
}

// mark remembers that the image was asked about or pulled for sandboxes.
func (s *Service) mark(image string, sandboxes []routing.Sandbox) {
	s.pending.add(image, sandboxes, func(id string) bool {
		p, ok := s.Index.Sandbox(id)
		return ok && p.Ready
	})
}
