package routing

import "maps"

// Rebuild is a list of one backend on its way into the index. What is learnt
// between its beginning and its end is newer than the list and stays.
type Rebuild struct {
	index   *Index
	backend string
	since   uint64
}

// Rebuild begins; to be called before the list is fetched. It is to be ended by
// Finish, Learn or Abort.
func (x *Index) Rebuild(backend string) *Rebuild {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := &Rebuild{index: x, backend: backend, since: x.seq}
	x.rebuilds[r] = true
	return r
}

// Abort ends a rebuild whose lists could not be had: all stays as it is.
func (r *Rebuild) Abort() {
	r.index.mu.Lock()
	defer r.index.mu.Unlock()
	r.end()
}

// Clash is an id that two backends claim.
type Clash struct {
	ID     string
	Before string // The backend that had it.
}

// Finish puts whole lists in place of what was known before.
func (r *Rebuild) Finish(sandboxes []Sandbox, containers []Container) []Clash {
	x := r.index
	x.mu.Lock()
	defer x.mu.Unlock()
	defer r.end()
	old := r.dropOld()
	clashes := r.put(sandboxes, containers)
	for _, pod := range old {
		if _, still := x.pods[pod]; !still {
			delete(x.pins, pod)
		}
	}
	return clashes
}

// Learn adds filtered lists to what is known.
func (r *Rebuild) Learn(sandboxes []Sandbox, containers []Container) []Clash {
	r.index.mu.Lock()
	defer r.index.mu.Unlock()
	defer r.end()
	return r.put(sandboxes, containers)
}

func (r *Rebuild) put(sandboxes []Sandbox, containers []Container) (clashes []Clash) {
	x := r.index
	for _, s := range sandboxes {
		if e, ok := x.sandboxes[s.ID]; r.removedSince(s.ID) || (ok && e.record.Backend == r.backend && e.seq > r.since) {
			continue
		}
		if before := x.putSandbox(s); before != "" {
			clashes = append(clashes, Clash{s.ID, before})
		}
	}
	for _, c := range containers {
		if r.removedSince(c.ID) || r.removedSince(c.Sandbox) {
			continue
		}
		if before := x.putContainer(c); before != "" {
			clashes = append(clashes, Clash{c.ID, before})
		}
	}
	return clashes
}

// dropOld forgets what was learnt of the backend before the rebuild began, and
// returns the pods that it had.
func (r *Rebuild) dropOld() (pods []Pod) {
	x := r.index
	for _, e := range x.sandboxes {
		if e.record.Backend == r.backend && e.seq <= r.since {
			x.dropSandbox(e.record)
			pods = append(pods, e.record.Pod)
		}
	}
	for id, e := range x.containers {
		if e.record.Backend == r.backend && e.seq <= r.since {
			delete(x.containers, id)
		}
	}
	return pods
}

func (r *Rebuild) removedSince(id string) bool {
	seq, ok := r.index.removed[id]
	return ok && seq > r.since
}

// end forgets the removals that no list on its way can contradict any more.
func (r *Rebuild) end() {
	x := r.index
	delete(x.rebuilds, r)
	oldest := x.seq
	for other := range x.rebuilds {
		oldest = min(oldest, other.since)
	}
	maps.DeleteFunc(x.removed, func(_ string, seq uint64) bool { return seq <= oldest })
}
