package fakeruntime

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// state are the objects of one runtime. API messages in it are never changed once they are stored, only replaced, so
// that answers can hold them without copies and without the lock.
type state struct {
	events *events

	mu         sync.Mutex
	sandboxes  index[*sandbox]
	containers index[*container]
	images     index[*runtimeapi.Image]
	registry   map[string]*runtimeapi.Image // what a pull of a normalised reference gives
	reserved   map[string]string            // names of sandboxes and containers to their ids
	last       int64                        // the newest time stamp
	addresses  int                          // pod addresses given out
}

// sandbox is one pod sandbox; state.mu guards it.
type sandbox struct {
	id         string
	name       string // reserved
	handler    string
	config     *runtimeapi.PodSandboxConfig
	ip         string
	createdAt  int64
	state      runtimeapi.PodSandboxState
	containers []*container
	item       *runtimeapi.PodSandbox // as listed
	mark       []byte                 // the unknown field of listed items
}

// container is one container; state.mu guards it, but for exited, which never changes.
type container struct {
	id         string
	name       string // reserved
	sandbox    *sandbox
	config     *runtimeapi.ContainerConfig
	imageID    string
	state      runtimeapi.ContainerState
	createdAt  int64
	startedAt  int64
	finishedAt int64
	exitCode   int32
	resources  *runtimeapi.LinuxContainerResources
	item       *runtimeapi.Container // as listed
	mark       []byte                // the unknown field of listed items

	stopDelay time.Duration // how long it takes to end after its stop signal; negative = it ignores it
	signalled bool          // the stop signal is sent once
	ending    *time.Timer   // its end after the stop signal
	exited    chan struct{} // closed when it has exited
}

func newState(e *events) *state {
	return &state{events: e, registry: map[string]*runtimeapi.Image{}, reserved: map[string]string{}}
}

func (s *state) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.containers.all {
		c.halt()
	}
	s.sandboxes = index[*sandbox]{}
	s.containers = index[*container]{}
	s.images = index[*runtimeapi.Image]{}
	s.reserved = map[string]string{}
}

// now are strictly growing nanoseconds.
func (s *state) now() int64 {
	s.last = max(s.last+1, time.Now().UnixNano())
	return s.last
}

// reserve takes a name for an id, with containerd's error.
func (s *state) reserve(name, id string) error {
	if owner, taken := s.reserved[name]; taken {
		return fmt.Errorf("name %q is reserved for %q", name, owner)
	}
	s.reserved[name] = id
	return nil
}

// newID is an id as containerd makes them: 64 hexadecimal digits.
func newID() string {
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		panic(err) // It is documented to return no error.
	}
	return hex.EncodeToString(raw[:])
}

func sandboxName(m *runtimeapi.PodSandboxMetadata) string {
	return strings.Join([]string{m.GetName(), m.GetNamespace(), m.GetUid(), attempt(m.GetAttempt())}, "_")
}

func containerName(m *runtimeapi.ContainerMetadata, pod *runtimeapi.PodSandboxMetadata) string {
	return strings.Join([]string{m.GetName(), pod.GetName(), pod.GetNamespace(), pod.GetUid(), attempt(m.GetAttempt())}, "_")
}

func attempt(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// set changes a sandbox's state and what lists show of it.
func (b *sandbox) set(state runtimeapi.PodSandboxState) {
	b.state = state
	b.item = &runtimeapi.PodSandbox{
		Id:             b.id,
		Metadata:       b.config.GetMetadata(),
		State:          state,
		CreatedAt:      b.createdAt,
		Labels:         b.config.GetLabels(),
		Annotations:    b.config.GetAnnotations(),
		RuntimeHandler: b.handler,
	}
	b.item.ProtoReflect().SetUnknown(b.mark)
}

// set changes a container's state and what lists show of it.
func (c *container) set(state runtimeapi.ContainerState) {
	c.state = state
	c.item = &runtimeapi.Container{
		Id:           c.id,
		PodSandboxId: c.sandbox.id,
		Metadata:     c.config.GetMetadata(),
		Image:        c.config.GetImage(),
		ImageRef:     c.imageID,
		ImageId:      c.imageID,
		State:        state,
		CreatedAt:    c.createdAt,
		Labels:       c.config.GetLabels(),
		Annotations:  c.config.GetAnnotations(),
	}
	c.item.ProtoReflect().SetUnknown(c.mark)
}

// halt stops what the container would still do by itself.
func (c *container) halt() {
	if c.ending != nil {
		c.ending.Stop()
	}
}

// emit publishes an event about a container, or about a sandbox under its own id, with the pod as it is now.
func (s *state) emit(id string, pod *sandbox, kind runtimeapi.ContainerEventType) {
	event := &runtimeapi.ContainerEventResponse{ContainerId: id, ContainerEventType: kind, CreatedAt: s.now()}
	if _, err := s.sandboxes.get(pod.id); err == nil {
		event.PodSandboxStatus = pod.status()
	}
	for _, c := range pod.containers {
		event.ContainersStatuses = append(event.ContainersStatuses, s.containerStatus(c))
	}
	s.events.publish(event)
}

// Sandboxes returns copies of all sandboxes as they are listed, sorted by id.
func (r *Runtime) Sandboxes() []*runtimeapi.PodSandbox {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	items := []*runtimeapi.PodSandbox{}
	for b := range r.state.sandboxes.all {
		items = append(items, proto.CloneOf(b.item))
	}
	return items
}

// Containers returns copies of all containers as they are listed, sorted by id.
func (r *Runtime) Containers() []*runtimeapi.Container {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	items := []*runtimeapi.Container{}
	for c := range r.state.containers.all {
		items = append(items, proto.CloneOf(c.item))
	}
	return items
}

// Images returns copies of all images, sorted by id.
func (r *Runtime) Images() []*runtimeapi.Image {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	items := []*runtimeapi.Image{}
	for image := range r.state.images.all {
		items = append(items, proto.CloneOf(image))
	}
	return items
}
