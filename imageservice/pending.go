package imageservice

import (
	"maps"
	"slices"
	"sync"
)

// ask is a call about a pod's image, made before a container of it is created.
type ask struct {
	annotations map[string]string // The pod's, as the call gave them; not to be changed.
	sandboxes   []string          // The pod's sandbox is one of these.
}

// same reports whether b repeats a: it is for the same pod.
func (a ask) same(b ask) bool {
	return maps.Equal(a.annotations, b.annotations) && (len(a.annotations) > 0 || slices.Equal(a.sandboxes, b.sandboxes))
}

// pending remembers which sandboxes an image was asked about or pulled for, and
// that no container of it was created in them since. It tells whom the kubelet
// means when it asks for an image's user, a call that names nothing but the
// image, between the pull and the create.
type pending struct {
	mu       sync.Mutex
	byImage  map[string][]ask // By normalised reference.
	size     int              // Sandboxes in all of them.
	pruneTop int
}

// prunePending is how many entries may gather before those of sandboxes that
// are gone are looked for.
const prunePending = 256

// add remembers an ask in place of an earlier one for the same pod, which knew
// less; alive says which sandboxes still matter.
func (p *pending) add(image string, a ask, alive func(sandbox string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(image, func(known ask) []string {
		if known.same(a) {
			return nil
		}
		return known.sandboxes
	})
	if len(a.sandboxes) == 0 {
		return
	}
	if p.byImage == nil {
		p.byImage, p.pruneTop = map[string][]ask{}, prunePending
	}
	p.byImage[image] = append(p.byImage[image], a)
	p.size += len(a.sandboxes)
	if p.size > p.pruneTop {
		p.prune(alive)
	}
}

func (p *pending) prune(alive func(sandbox string) bool) {
	for image := range p.byImage {
		p.change(image, func(a ask) []string {
			return slices.DeleteFunc(a.sandboxes, func(id string) bool { return !alive(id) })
		})
	}
	p.pruneTop = 2*p.size + prunePending
}

// done forgets what was for a sandbox, in which a container of the image is
// being created. An ask that could mean several is over when its annotations are
// those of this pod: it was for this one.
func (p *pending) done(image, sandbox string, annotations map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change(image, func(a ask) []string {
		if len(annotations) > 0 && maps.Equal(a.annotations, annotations) {
			return nil
		}
		return slices.DeleteFunc(a.sandboxes, func(id string) bool { return id == sandbox })
	})
}

// sandboxes returns those that an image is pending for, some perhaps twice.
func (p *pending) sandboxes(image string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	for _, a := range p.byImage[image] {
		found = append(found, a.sandboxes...)
	}
	return found
}

// change gives each ask of an image the sandboxes that left returns, and drops
// those without any.
func (p *pending) change(image string, left func(ask) []string) {
	asks := p.byImage[image]
	kept := asks[:0]
	for _, a := range asks {
		p.size -= len(a.sandboxes)
		if a.sandboxes = left(a); len(a.sandboxes) > 0 {
			p.size += len(a.sandboxes)
			kept = append(kept, a)
		}
	}
	clear(asks[len(kept):])
	if len(kept) == 0 {
		delete(p.byImage, image)
		return
	}
	p.byImage[image] = kept
}
