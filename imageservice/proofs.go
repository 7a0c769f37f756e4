package imageservice

import (
	"maps"
	"sync"
)

// proofKey is a pod's sandbox and the normalised reference of an image.
type proofKey struct{ sandbox, image string }

// proof is a pull that succeeded for a pod.
type proof struct {
	id   string // What the reference meant.
	used bool   // A container was created from it since.
}

// proofs remember for handlers that always pull which pods pulled what. One is
// good for one container; further ones of the pod may only mount the image as
// a volume, which the kubelet pulls once for all containers that it starts in
// one go. They are in memory alone: without them the kubelet pulls again.
type proofs struct {
	mu       sync.Mutex
	all      map[proofKey]proof
	pruneTop int
}

// add remembers a pull; alive says which sandboxes still matter.
func (p *proofs) add(key proofKey, id string, alive func(sandbox string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all, p.pruneTop = map[proofKey]proof{}, prunePending
	}
	p.all[key] = proof{id: id}
	if len(p.all) > p.pruneTop {
		maps.DeleteFunc(p.all, func(k proofKey, _ proof) bool { return !alive(k.sandbox) })
		p.pruneTop = 2*len(p.all) + prunePending
	}
}

// fresh reports whether a container may be created.
func (p *proofs) fresh(key proofKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.all[key]
	return ok && !found.used
}

// use reports whether a container may be created from, or with a volume of,
// what the create names: an id must be that which was pulled. Whatever the
// answer, a container is to be created from it no more.
func (p *proofs) use(key proofKey, image string, volume bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.all[key]
	if !ok {
		return false
	}
	good := (volume || !found.used) && (!isID(image) || !isID(found.id) || image == found.id)
	found.used = true
	p.all[key] = found
	return good
}
