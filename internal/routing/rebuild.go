package routing

// Rebuild is the replacement of all that is known of one backend by what it
// lists. What is learnt between its beginning and its end is newer than the
// lists and stays.
type Rebuild struct {
	index   *Index
	backend string
	since   uint64
}

// Rebuild begins a replacement; to be called before the lists are fetched. It
// is to be ended by Finish or Abort.
func (x *Index) Rebuild(backend string) *Rebuild {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.rebuilds++
	return &Rebuild{index: x, backend: backend, since: x.seq}
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

// Finish puts the lists in place of what was known before.
func (r *Rebuild) Finish(sandboxes []Sandbox, containers []Container) []Clash {
	x := r.index
	x.mu.Lock()
	defer x.mu.Unlock()
	defer r.end()
	old := r.dropOld()
	var clashes []Clash
	for _, s := range sandboxes {
		if e, ok := x.sandboxes[s.ID]; r.removedSince(s.ID) || (ok && e.record.Backend == r.backend) {
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
	for _, pod := range old {
		if _, still := x.pods[pod]; !still {
			delete(x.pins, pod)
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

func (r *Rebuild) end() {
	r.index.rebuilds--
	if r.index.rebuilds == 0 {
		clear(r.index.removed)
	}
}
