package fakeruntime

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Sandbox is a sandbox for AddSandbox.
type Sandbox struct {
	// ID is its id; "" makes a new one.
	ID string
	// Config is copied; what is missing in its metadata is made from the id.
	Config *runtimeapi.PodSandboxConfig
	// Handler is not checked against Options.Runtimes.
	Handler string
	// State is ready by default.
	State runtimeapi.PodSandboxState
}

// Container is a container for AddContainer.
type Container struct {
	// ID is its id; "" makes a new one.
	ID string
	// SandboxID is the id of its sandbox, which must exist.
	SandboxID string
	// Config is copied; a missing name is made from the id, a missing image is "busybox". The image is put into the store.
	Config *runtimeapi.ContainerConfig
	// State is created by default.
	State runtimeapi.ContainerState
	// ExitCode is the exit code of an exited one.
	ExitCode int32
}

// AddSandbox puts a sandbox into the state, without an event and without a name reservation check, and returns its id.
func (r *Runtime) AddSandbox(s Sandbox) string {
	mark := r.current().itemMark()
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	b := &sandbox{id: s.ID, handler: s.Handler, mark: mark, config: proto.CloneOf(s.Config)}
	if b.id == "" {
		b.id = newID()
	}
	if b.config == nil {
		b.config = &runtimeapi.PodSandboxConfig{}
	}
	if b.config.GetMetadata() == nil {
		b.config.Metadata = &runtimeapi.PodSandboxMetadata{Name: "pod-" + b.id, Namespace: "default", Uid: "uid-" + b.id}
	}
	b.name = sandboxName(b.config.GetMetadata())
	r.state.reserved[b.name] = b.id
	r.state.addSandbox(b, s.State)
	return b.id
}

// AddContainer puts a container into the state, without an event, and returns its id. It panics if there is no such sandbox.
func (r *Runtime) AddContainer(c Container) string {
	mark := r.current().itemMark()
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	b := r.state.mustSandbox(c.SandboxID)
	added := &container{id: c.ID, sandbox: b, mark: mark, config: proto.CloneOf(c.Config)}
	if added.id == "" {
		added.id = newID()
	}
	if added.config == nil {
		added.config = &runtimeapi.ContainerConfig{}
	}
	if added.config.GetMetadata() == nil {
		added.config.Metadata = &runtimeapi.ContainerMetadata{Name: "c-" + added.id}
	}
	if added.config.GetImage().GetImage() == "" {
		added.config.Image = &runtimeapi.ImageSpec{Image: "busybox"}
	}
	added.imageID = r.state.mustImage(added.config.GetImage().GetImage(), mark)
	added.name = containerName(added.config.GetMetadata(), b.config.GetMetadata())
	r.state.reserved[added.name] = added.id
	r.state.addContainer(added)
	added.enter(c.State, c.ExitCode, r.state.now())
	return added.id
}

// enter gives a new container its state with the times that belong to it.
func (c *container) enter(state runtimeapi.ContainerState, exitCode int32, now int64) {
	if state == runtimeapi.ContainerState_CONTAINER_RUNNING || state == runtimeapi.ContainerState_CONTAINER_EXITED {
		c.startedAt = now
	}
	if state == runtimeapi.ContainerState_CONTAINER_EXITED {
		c.finishedAt, c.exitCode = now, exitCode
		close(c.exited)
	}
	c.set(state)
}

// mustImage returns the id of an image that is in the store afterwards.
func (s *state) mustImage(name string, mark []byte) string {
	if image, err := s.image(name); err == nil {
		return image.GetId()
	}
	image := s.imageFor(parseReference(name))
	s.store(image, mark)
	return image.GetId()
}

// SetSandboxState changes a sandbox's state without an event. It panics if there is no such sandbox.
func (r *Runtime) SetSandboxState(id string, state runtimeapi.PodSandboxState) {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	r.state.mustSandbox(id).set(state)
}

// mustSandbox is for tests, which name only sandboxes that exist.
func (s *state) mustSandbox(id string) *sandbox {
	b, err := s.sandboxes.get(id)
	if err != nil {
		panic(fmt.Sprintf("sandbox %q of the fake runtime: %v", id, err))
	}
	return b
}

// AddImage puts an image with the name ref into the store and returns its id. Its other fields are those of image, which
// is copied; those it leaves empty, and all if it is nil, are as after a pull.
func (r *Runtime) AddImage(ref string, image *runtimeapi.Image) string {
	mark := r.current().itemMark()
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	parsed := parseReference(ref)
	added := r.state.imageFor(parsed)
	if image != nil {
		added = complete(proto.CloneOf(image), parsed)
	}
	r.state.store(added, mark)
	return added.GetId()
}

// Publish says what a pull of ref gives from now on: image, which is copied; the fields it leaves empty are made up.
// Several names may have one id.
func (r *Runtime) Publish(ref string, image *runtimeapi.Image) {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	r.state.registry[parseReference(ref).String()] = proto.CloneOf(image)
}

// SetUser changes the user of an image in the store, by id or name: a numeric one, a name, or none at all. It panics if
// there is no such image.
func (r *Runtime) SetUser(ref string, uid *int64, username string) {
	r.state.mu.Lock()
	defer r.state.mu.Unlock()
	image, err := r.state.image(ref)
	if err != nil {
		panic(fmt.Sprintf("image %q of the fake runtime: %v", ref, err))
	}
	changed := proto.CloneOf(image)
	changed.Uid, changed.Username = nil, username
	if uid != nil {
		changed.Uid = &runtimeapi.Int64Value{Value: *uid}
	}
	r.state.images.put(changed.GetId(), changed)
}
