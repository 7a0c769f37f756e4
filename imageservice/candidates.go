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
// that is READY. Only the first are certain. A handler, if not nil, is known to
// be the pod's.
func (s *Service) meantBy(annotations map[string]string, image string, of *routing.Handler) (pods []routing.Sandbox, certain bool) {
	ready := func(fits func(routing.Sandbox) bool) []routing.Sandbox {
		return s.Index.Ready(func(p routing.Sandbox) bool {
			return s.storeOf[p.Backend] != nil && (of == nil || s.has(of, p)) && fits(p)
		})
	}
	if same := ready(func(p routing.Sandbox) bool { return maps.Equal(p.Annotations, annotations) }); len(same) > 0 {
		return same, true
	}
	alike := ready(func(p routing.Sandbox) bool { return equalButSeen(p.Annotations, annotations) })
	if used := slices.DeleteFunc(slices.Clone(alike), func(p routing.Sandbox) bool { return !slices.Contains(p.Images, image) }); len(used) > 0 {
		return used, false
	}
	if len(alike) > 0 {
		return alike, false
	}
	return ready(func(routing.Sandbox) bool { return true }), false
}

// has reports whether a sandbox may be one of a handler's.
func (s *Service) has(h *routing.Handler, p routing.Sandbox) bool {
	return s.storeOf[p.Backend] == s.storeOf[h.Backend] && (p.Handler == h.Name || p.Handler == "")
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
	var pods []routing.Sandbox
	for _, id := range s.pending.sandboxes(image) {
		if p, ok := s.Index.Sandbox(id); ok && p.Ready && s.storeOf[p.Backend] != nil {
			pods = append(pods, p)
		}
	}
	if len(pods) == 0 {
		return s.stores
	}
	return s.storesOf(pods, true)
}

// mark remembers that the image was asked about or pulled for one of the
// sandboxes, a pod with these annotations.
func (s *Service) mark(image string, annotations map[string]string, sandboxes []routing.Sandbox) {
	if s.single() || (len(annotations) == 0 && len(sandboxes) > 1) {
		return // There is nothing to tell apart, or the call told of no pod.
	}
	a := ask{annotations: annotations}
	for _, p := range sandboxes {
		a.sandboxes = append(a.sandboxes, p.ID)
	}
	s.pending.add(image, a, func(id string) bool {
		p, ok := s.Index.Sandbox(id)
		return ok && p.Ready
	})
}

// storesOf returns the stores of some sandboxes, each once, the default first.
// Unless the sandboxes are certain, those of backends that were never listed are
// among them: what is meant may be there.
func (s *Service) storesOf(sandboxes []routing.Sandbox, certain bool) []*backend.Backend {
	meant := map[*backend.Backend]bool{}
	for _, p := range sandboxes {
		meant[s.storeOf[p.Backend]] = true
	}
	for _, b := range s.Backends.All() {
		if !certain && !b.State().Listed {
			meant[s.storeOf[b.Name]] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(s.stores), func(b *backend.Backend) bool { return !meant[b] })
}
