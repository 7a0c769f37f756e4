package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer makes a container of an image that is in the store. The request's messages are kept.
func (s *service) CreateContainer(_ context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	o := s.options()
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.sandboxes.get(req.GetPodSandboxId())
	if err != nil {
		return nil, fmt.Errorf("failed to find sandbox id %q: %w", req.GetPodSandboxId(), err)
	}
	c, err := s.state.createContainer(b, req.GetConfig(), req.GetSandboxConfig(), o)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.CreateContainerResponse{ContainerId: c.id}, nil
}

func (s *state) createContainer(b *sandbox, config *runtimeapi.ContainerConfig, pod *runtimeapi.PodSandboxConfig, o Options) (*container, error) {
	switch {
	case b.state != runtimeapi.PodSandboxState_SANDBOX_READY:
		return nil, fmt.Errorf("sandbox container %q is not running", b.id)
	case config.GetMetadata() == nil:
		return nil, errors.New("container config must include metadata")
	case pod.GetMetadata() == nil:
		return nil, errors.New("pod sandbox config must include metadata")
	}
	image, err := s.imagesOf(config)
	if err != nil {
		return nil, err
	}
	c := &container{id: newID(), name: containerName(config.GetMetadata(), pod.GetMetadata()), sandbox: b, config: config, imageID: image.GetId(), mark: o.itemMark()}
	if err := s.reserve(c.name, c.id); err != nil {
		return nil, fmt.Errorf("failed to reserve container name %q; check if another CreateContainer request is in progress: %w", c.name, err)
	}
	s.addContainer(c)
	s.emit(c.id, b, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return c, nil
}

// imagesOf finds the container's image, and looks whether those of its image mounts exist.
func (s *state) imagesOf(config *runtimeapi.ContainerConfig) (*runtimeapi.Image, error) {
	image, err := s.image(config.GetImage().GetImage())
	if err != nil {
		return nil, fmt.Errorf("failed to resolve image %q: %w", config.GetImage().GetImage(), err)
	}
	for _, m := range config.GetMounts() {
		if m.GetImage() == nil {
			continue
		}
		if _, err := s.image(m.GetImage().GetImage()); err != nil {
			return nil, fmt.Errorf("failed to mount image volume: failed to resolve image %q: %w", m.GetImage().GetImage(), err)
		}
	}
	return image, nil
}

func (s *state) addContainer(c *container) {
	c.createdAt = s.now()
	c.resources = c.config.GetLinux().GetResources()
	c.exited = make(chan struct{})
	c.set(runtimeapi.ContainerState_CONTAINER_CREATED)
	c.sandbox.containers = append(c.sandbox.containers, c)
	s.containers.put(c.id, c)
}

// StartContainer starts a created container in a ready sandbox.
func (s *service) StartContainer(_ context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	c, err := s.state.containers.get(req.GetContainerId())
	if err != nil {
		return nil, fmt.Errorf("an error occurred when try to find container %q: %w", req.GetContainerId(), err)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_CREATED {
		return nil, fmt.Errorf("failed to set starting state for container %q: container is in %s state", c.id, c.state)
	}
	if c.sandbox.state != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil, fmt.Errorf("sandbox container %q is not running", c.sandbox.id)
	}
	s.state.start(c)
	return &runtimeapi.StartContainerResponse{}, nil
}

func (s *state) start(c *container) {
	c.startedAt = s.now()
	c.set(runtimeapi.ContainerState_CONTAINER_RUNNING)
	s.emit(c.id, c.sandbox, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
}

// RemoveContainer kills the container if it runs and removes it. An unknown id is a success.
func (s *service) RemoveContainer(_ context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	c, err := s.state.containers.get(req.GetContainerId())
	switch {
	case errors.Is(err, errNotFound):
	case err != nil:
		return nil, fmt.Errorf("an error occurred when try to find container %q: %w", req.GetContainerId(), err)
	default:
		s.state.exit(c, exitKilled)
		s.state.removeContainer(c)
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (s *state) removeContainer(c *container) {
	c.halt()
	s.containers.remove(c.id)
	delete(s.reserved, c.name)
	c.sandbox.containers = slices.DeleteFunc(c.sandbox.containers, func(other *container) bool { return other == c })
	s.emit(c.id, c.sandbox, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
}

// ContainerStatus fills info only when the caller wants it verbose.
func (s *service) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	c, err := s.state.containers.get(req.GetContainerId())
	if err != nil {
		return nil, fmt.Errorf("an error occurred when try to find container %q: %w", req.GetContainerId(), err)
	}
	resp := &runtimeapi.ContainerStatusResponse{Status: s.state.containerStatus(c)}
	if req.GetVerbose() {
		resp.Info = map[string]string{"info": fmt.Sprintf(`{"sandboxID":%q,"pid":4711}`, c.sandbox.id)}
	}
	return resp, nil
}

// containerStatus shows, as containerd does, the image's first tag and digest instead of what the container was
// created with, as long as the image is in the store.
func (s *state) containerStatus(c *container) *runtimeapi.ContainerStatus {
	st := &runtimeapi.ContainerStatus{
		Id:          c.id,
		Metadata:    c.config.GetMetadata(),
		State:       c.state,
		CreatedAt:   c.createdAt,
		StartedAt:   c.startedAt,
		FinishedAt:  c.finishedAt,
		ExitCode:    c.exitCode,
		Image:       c.config.GetImage(),
		ImageRef:    c.imageID,
		ImageId:     c.imageID,
		Reason:      c.reason(),
		Labels:      c.config.GetLabels(),
		Annotations: c.config.GetAnnotations(),
		Mounts:      c.config.GetMounts(),
		LogPath:     c.logPath(),
		Resources:   &runtimeapi.ContainerResources{Linux: c.resources},
		User:        &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{}},
		StopSignal:  c.stopSignal(),
	}
	image, err := s.images.get(c.imageID)
	if err != nil {
		return st
	}
	if tags := image.GetRepoTags(); len(tags) > 0 {
		st.Image = &runtimeapi.ImageSpec{Image: tags[0]}
	}
	if digests := image.GetRepoDigests(); len(digests) > 0 {
		st.ImageRef = digests[0]
	}
	return st
}

func (c *container) reason() string {
	switch {
	case c.state != runtimeapi.ContainerState_CONTAINER_EXITED:
		return ""
	case c.exitCode == 0:
		return "Completed"
	default:
		return "Error"
	}
}

func (c *container) logPath() string {
	if c.config.GetLogPath() == "" {
		return ""
	}
	return filepath.Join(c.sandbox.config.GetLogDirectory(), c.config.GetLogPath())
}

func (c *container) stopSignal() runtimeapi.Signal {
	if signal := c.config.GetStopSignal(); signal != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		return signal
	}
	return runtimeapi.Signal_SIGNAL_SIGTERM
}

// UpdateContainerResources replaces the container's resources.
func (s *service) UpdateContainerResources(_ context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	c, err := s.state.containers.get(req.GetContainerId())
	if err != nil {
		return nil, fmt.Errorf("failed to find container: %w", err)
	}
	c.resources = req.GetLinux()
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

// ReopenContainerLog needs a running container.
func (s *service) ReopenContainerLog(_ context.Context, req *runtimeapi.ReopenContainerLogRequest) (*runtimeapi.ReopenContainerLogResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	c, err := s.state.containers.get(req.GetContainerId())
	if err != nil {
		return nil, fmt.Errorf("an error occurred when try to find container %q: %w", req.GetContainerId(), err)
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, errors.New("container is not running")
	}
	return &runtimeapi.ReopenContainerLogResponse{}, nil
}
