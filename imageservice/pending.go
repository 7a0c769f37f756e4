package imageservice

import (
	"sync"

	"github.com/cri-proxy/cri-proxy/internal/routing"
)

// pending remembers which sandboxes an image was asked about or pulled for, and
// that no container of it was created in them since. It tells whom the kubelet
// means when it asks for an image's user, a call that names nothing but the
// image, between the pull and the create.
type pending struct {
	mu       sync.Mutex
	byImage  map[string]map[string]bool // Normalised reference → sandbox ids.
	size     int
	pruneTop int
}

// prunePending is how many entries may gather before those of sandboxes that
// are gone are looked for.
const prunePending = 256

// add marks sandboxes; alive says which of the marked ones still matter.
func (p *pending) add(image string, sandboxes []routing.Sandbox, alive func(sandbox string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byImage == nil {
		p.byImage, p.pruneTop = map[string]map[string]bool{}, prunePending
	}
	marked := p.byImage[image]
	if marked == nil {
		marked = map[string]bool{}
		p.byImage[image] = marked
	}
	for _, s := range sandboxes {
		if !marked[s.ID] {
			marked[s.ID] = true
			p.size++
		}
	}
	if p.size > p.pruneTop {
		p.prune(alive)
	}
}

func (p *pending) prune(alive func(sandbox string) bool) {
	for image, marked := range p.byImage {
		for id := range marked {
			if !alive(id) {
				delete(marked, id)
				p.size--
			}
		}
		if len(marked) == 0 {
			delete(p.byImage, image)
		}
	}
	p.pruneTop = 2*p.size + prunePending
}

// done unmarks a sandbox: a container of the image is being created in it.
func (p *pending) done(image, sandbox string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	marked := p.byImage[image]
	if !marked[sandbox] {
		return
	}
	delete(marked, sandbox)
	p.size--
	if len(marked) == 0 {
		delete(p.byImage, image)
	}
}

// has reports whether the sandbox is marked.
func (p *pending) has(image, sandbox string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byImage[image][sandbox]
}
