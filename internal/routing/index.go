package routing

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Pod names one attempt at a pod's sandbox. A runtime makes at most one
// sandbox of it: containerd reserves this very name.
type Pod struct {
	Namespace string
	Name      string
	UID       string
	Attempt   uint32
}

// Key returns the pod as a string, for maps that outlive the process.
func (p Pod) Key() string {
	return p.Namespace + "/" + p.Name + "/" + p.UID + "/" + strconv.FormatUint(uint64(p.Attempt), 10)
}

// ParsePod reads what Key wrote; false when it did not write it.
func ParsePod(key string) (Pod, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 4 {
		return Pod{}, false
	}
	n, err := strconv.ParseUint(parts[3], 10, 32)
	return Pod{Namespace: parts[0], Name: parts[1], UID: parts[2], Attempt: uint32(n)}, err == nil
}

// Sandbox is what is known of a pod sandbox.
type Sandbox struct {
	ID          string
	Backend     string
	Handler     string // The public name; "" when the runtime named none that is configured.
	Pod         Pod
	Ready       bool
	Annotations map[string]string // The newest seen; not to be changed.
	Images      []string          // References, normalised, of which it had a container.
}

// Container is what is known of a container.
type Container struct {
	ID      string
	Backend string
	Sandbox string // Its sandbox's id.
	Image   string // The normalised reference that its pod names; "" unknown.
}

type entry[T any] struct {
	record T
	seq    uint64 // When it was learnt.
}

// Index holds the records by id. Records are values: what is returned is a
// copy that nobody changes.
type Index struct {
	mu         sync.RWMutex
	seq        uint64
	sandboxes  map[string]entry[Sandbox]
	containers map[string]entry[Container]
	pods       map[Pod]string    // → sandbox id.
	pins       map[Pod]pin       // From before the create on.
	kept       map[string]bool   // Handlers whose pins are to be on disk.
	removed    map[string]uint64 // Ids removed while a list is on its way.
	rebuilds   map[*Rebuild]bool // The lists on their way.
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		sandboxes:  map[string]entry[Sandbox]{},
		containers: map[string]entry[Container]{},
		pods:       map[Pod]string{},
		pins:       map[Pod]pin{},
		removed:    map[string]uint64{},
		rebuilds:   map[*Rebuild]bool{},
	}
}

// SandboxOwner returns the backend of a sandbox.
func (x *Index) SandboxOwner(id []byte) (string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.sandboxes[string(id)]
	return e.record.Backend, ok
}

// ContainerOwner returns the backend of a container.
func (x *Index) ContainerOwner(id []byte) (string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.containers[string(id)]
	return e.record.Backend, ok
}

// Sandbox returns the record of a sandbox.
func (x *Index) Sandbox(id string) (Sandbox, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.sandboxes[id]
	return e.record, ok
}

// Container returns the record of a container and its sandbox's public handler
// name; false when one of the two is not known.
func (x *Index) Container(id []byte) (c Container, handler string, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.containers[string(id)]
	if !ok {
		return Container{}, "", false
	}
	s, ok := x.sandboxes[e.record.Sandbox]
	return e.record, s.record.Handler, ok
}

// SandboxHandler returns a sandbox's public handler name.
func (x *Index) SandboxHandler(id []byte) (string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.sandboxes[string(id)]
	return e.record.Handler, ok
}

// FullSandboxID returns the id that a short one means on a backend, or the
// short one when that is not known.
func (x *Index) FullSandboxID(backend, id string) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return full(x.sandboxes, id, func(s Sandbox) bool { return s.Backend == backend })
}

// FullContainerID is FullSandboxID for containers.
func (x *Index) FullContainerID(backend, id string) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return full(x.containers, id, func(c Container) bool { return c.Backend == backend })
}

func full[T any](records map[string]entry[T], id string, of func(T) bool) string {
	if _, ok := records[id]; ok || id == "" {
		return id
	}
	found := id
	for known, e := range records {
		if strings.HasPrefix(known, id) && of(e.record) {
			if found != id {
				return id // Two of them: the runtime will have refused it.
			}
			found = known
		}
	}
	return found
}

// PodSandbox returns the sandbox of one attempt at a pod.
func (x *Index) PodSandbox(p Pod) (Sandbox, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	id, ok := x.pods[p]
	if !ok {
		return Sandbox{}, false
	}
	e, ok := x.sandboxes[id]
	return e.record, ok
}

// Ready returns the READY sandboxes that keep says yes to.
func (x *Index) Ready(keep func(Sandbox) bool) []Sandbox {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found []Sandbox
	for _, e := range x.sandboxes {
		if e.record.Ready && keep(e.record) {
			found = append(found, e.record)
		}
	}
	return found
}

// Holds reports whether the backend is known to have a sandbox.
func (x *Index) Holds(backend string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, e := range x.sandboxes {
		if e.record.Backend == backend {
			return true
		}
	}
	return false
}

// Sandboxes returns the sandboxes that keep says yes to.
func (x *Index) Sandboxes(keep func(Sandbox) bool) []Sandbox {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var found []Sandbox
	for _, e := range x.sandboxes {
		if keep(e.record) {
			found = append(found, e.record)
		}
	}
	return found
}

// Count returns the number of sandboxes and of containers.
func (x *Index) Count() (sandboxes, containers int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.sandboxes), len(x.containers)
}

// PutSandbox records a sandbox. It returns the backend that the id belonged to
// until now when that is another one: two runtimes claim one id.
func (x *Index) PutSandbox(s Sandbox) (clash string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.putSandbox(s)
}

func (x *Index) putSandbox(s Sandbox) (clash string) {
	if old, ok := x.sandboxes[s.ID]; ok {
		if old.record.Backend != s.Backend {
			clash = old.record.Backend
		} else if len(s.Images) == 0 {
			s.Images = old.record.Images
		}
	}
	x.seq++
	x.sandboxes[s.ID] = entry[Sandbox]{s, x.seq}
	if s.Pod.UID != "" {
		x.pods[s.Pod] = s.ID
	}
	return clash
}

// PutContainer records a container and that its sandbox had its image. It
// returns a clash as PutSandbox does.
func (x *Index) PutContainer(c Container) (clash string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.putContainer(c)
}

func (x *Index) putContainer(c Container) (clash string) {
	if old, ok := x.containers[c.ID]; ok && old.record.Backend != c.Backend {
		clash = old.record.Backend
	}
	x.seq++
	x.containers[c.ID] = entry[Container]{c, x.seq}
	x.addImage(c.Sandbox, c.Image)
	return clash
}

func (x *Index) addImage(sandbox, image string) {
	e, ok := x.sandboxes[sandbox]
	if !ok || image == "" {
		return
	}
	if slices.Contains(e.record.Images, image) {
		return
	}
	// A new slice: copies of the record share the old one.
	e.record.Images = append(slices.Clip(e.record.Images), image)
	x.sandboxes[sandbox] = e
}

// SetAnnotations records a sandbox's newest annotations: the kubelet takes
// over edits of a running pod.
func (x *Index) SetAnnotations(sandbox string, annotations map[string]string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.sandboxes[sandbox]; ok && !maps.Equal(e.record.Annotations, annotations) {
		x.seq++
		e.record.Annotations, e.seq = annotations, x.seq
		x.sandboxes[sandbox] = e
	}
}

// SetHandler records the public name of a sandbox's handler, which no
// configuration had before.
func (x *Index) SetHandler(sandbox, handler string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.sandboxes[sandbox]; ok {
		x.seq++
		e.record.Handler, e.seq = handler, x.seq
		x.sandboxes[sandbox] = e
	}
}

// SetNotReady records that a sandbox was stopped.
func (x *Index) SetNotReady(sandbox string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.sandboxes[sandbox]; ok {
		x.seq++
		e.record.Ready, e.seq = false, x.seq
		x.sandboxes[sandbox] = e
	}
}

// RemoveSandbox forgets a sandbox and its containers, and returns what was
// known of it. Its containers may be known without it: the two lists of a
// rebuild are not of one moment.
func (x *Index) RemoveSandbox(id string) (Sandbox, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bury(id)
	e, ok := x.sandboxes[id]
	if ok {
		x.dropSandbox(e.record)
	}
	maps.DeleteFunc(x.containers, func(_ string, c entry[Container]) bool {
		return c.record.Sandbox == id && (!ok || c.record.Backend == e.record.Backend)
	})
	return e.record, ok
}

// RemoveContainer forgets a container.
func (x *Index) RemoveContainer(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bury(id)
	delete(x.containers, id)
}

// bury remembers a removal that a list under way may not have seen.
func (x *Index) bury(id string) {
	x.seq++
	if len(x.rebuilds) > 0 {
		x.removed[id] = x.seq
	}
}

func (x *Index) dropSandbox(s Sandbox) {
	delete(x.sandboxes, s.ID)
	if x.pods[s.Pod] == s.ID {
		delete(x.pods, s.Pod)
	}
}
