package fakeruntime

import (
	"context"
	"errors"
	"fmt"
	"slices"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox makes a ready sandbox. The request's messages are kept: they belong to this call alone.
func (s *service) RunPodSandbox(_ context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	o := s.options()
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.runSandbox(req.GetConfig(), req.GetRuntimeHandler(), o)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: b.id}, nil
}

func (s *state) runSandbox(config *runtimeapi.PodSandboxConfig, handler string, o Options) (*sandbox, error) {
	if config.GetMetadata() == nil {
		return nil, errors.New("sandbox config must include metadata")
	}
	b := &sandbox{id: newID(), config: config, handler: handler, mark: o.itemMark()}
	name := sandboxName(config.GetMetadata())
	if err := s.reserve(name, b.id); err != nil {
		return nil, fmt.Errorf("failed to reserve sandbox name %q: %w", name, err)
	}
	if !o.knows(handler) {
		delete(s.reserved, name)
		return nil, fmt.Errorf("unable to get OCI runtime for sandbox %q: no runtime for %q is configured", b.id, handler)
	}
	b.name = name
	s.addSandbox(b, runtimeapi.PodSandboxState_SANDBOX_READY)
	s.emit(b.id, b, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	s.emit(b.id, b, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	return b, nil
}

func (s *state) addSandbox(b *sandbox, state runtimeapi.PodSandboxState) {
	b.createdAt = s.now()
	if b.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE {
		s.addresses++
		b.ip = fmt.Sprintf("10.88.%d.%d", s.addresses>>8&0xff, s.addresses&0xff)
	}
	b.set(state)
	s.sandboxes.put(b.id, b)
}

// StopPodSandbox kills the containers and makes the sandbox not ready. An unknown id is a success.
func (s *service) StopPodSandbox(_ context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.sandboxes.get(req.GetPodSandboxId())
	switch {
	case errors.Is(err, errNotFound):
	case err != nil:
		return nil, fmt.Errorf("an error occurred when try to find sandbox %q: %w", req.GetPodSandboxId(), err)
	default:
		s.state.stopSandbox(b)
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// stopSandbox also takes its address away, as a network that is torn down.
func (s *state) stopSandbox(b *sandbox) {
	b.ip = ""
	for _, c := range b.containers {
		s.exit(c, exitKilled)
	}
	if b.state == runtimeapi.PodSandboxState_SANDBOX_READY {
		b.set(runtimeapi.PodSandboxState_SANDBOX_NOTREADY)
		s.emit(b.id, b, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	}
}

// RemovePodSandbox stops the sandbox and removes it with its containers. An unknown id is a success.
func (s *service) RemovePodSandbox(_ context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.sandboxes.get(req.GetPodSandboxId())
	switch {
	case errors.Is(err, errNotFound):
	case err != nil:
		return nil, fmt.Errorf("an error occurred when try to find sandbox %q: %w", req.GetPodSandboxId(), err)
	default:
		s.state.removeSandbox(b)
	}
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

func (s *state) removeSandbox(b *sandbox) {
	s.stopSandbox(b)
	for _, c := range slices.Clone(b.containers) {
		s.removeContainer(c)
	}
	s.emit(b.id, b, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	s.sandboxes.remove(b.id)
	delete(s.reserved, b.name)
}

// PodSandboxStatus fills info only when the caller wants it verbose.
func (s *service) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.sandboxes.get(req.GetPodSandboxId())
	if err != nil {
		return nil, fmt.Errorf("an error occurred when try to find sandbox: %w", err)
	}
	resp := &runtimeapi.PodSandboxStatusResponse{Status: b.status()}
	if req.GetVerbose() {
		resp.Info = map[string]string{"info": fmt.Sprintf(`{"runtimeHandler":%q}`, b.handler)}
	}
	return resp, nil
}

func (b *sandbox) status() *runtimeapi.PodSandboxStatus {
	return &runtimeapi.PodSandboxStatus{
		Id:        b.id,
		Metadata:  b.config.GetMetadata(),
		State:     b.state,
		CreatedAt: b.createdAt,
		Network:   &runtimeapi.PodSandboxNetworkStatus{Ip: b.ip},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{
			Options: b.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		}},
		Labels:         b.config.GetLabels(),
		Annotations:    b.config.GetAnnotations(),
		RuntimeHandler: b.handler,
	}
}

// PortForward gives a URL for a ready sandbox.
func (s *service) PortForward(_ context.Context, req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	base := s.options().StreamingURL
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.sandboxes.get(req.GetPodSandboxId())
	if err != nil {
		return nil, fmt.Errorf("failed to find sandbox %q: %w", req.GetPodSandboxId(), err)
	}
	if b.state != runtimeapi.PodSandboxState_SANDBOX_READY {
		return nil, errors.New("sandbox container is not running")
	}
	return &runtimeapi.PortForwardResponse{Url: streamingURL(base, "portforward")}, nil
}

// UpdatePodSandboxResources only looks the sandbox up; what was asked is in the journal.
func (s *service) UpdatePodSandboxResources(_ context.Context, req *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	if _, err := s.state.sandboxes.get(req.GetPodSandboxId()); err != nil {
		return nil, fmt.Errorf("failed to find sandbox: %w", err)
	}
	return &runtimeapi.UpdatePodSandboxResourcesResponse{}, nil
}
