package fakeruntime

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CheckpointContainer needs a running container and writes nothing.
func (s *service) CheckpointContainer(_ context.Context, req *runtimeapi.CheckpointContainerRequest) (*runtimeapi.CheckpointContainerResponse, error) {
	if _, err := s.state.running(req.GetContainerId()); err != nil {
		return nil, fmt.Errorf("failed to checkpoint container %q: %w", req.GetContainerId(), err)
	}
	return &runtimeapi.CheckpointContainerResponse{}, nil
}

// CheckpointPod needs a known sandbox and writes nothing.
func (s *service) CheckpointPod(_ context.Context, req *runtimeapi.CheckpointPodRequest) (*runtimeapi.CheckpointPodResponse, error) {
	if !s.options().PodCheckpoints {
		return nil, unimplemented(runtimeapi.RuntimeService_CheckpointPod_FullMethodName)
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	if _, err := s.state.sandboxes.get(req.GetPodSandboxId()); err != nil {
		return nil, fmt.Errorf("failed to find sandbox %q: %w", req.GetPodSandboxId(), err)
	}
	return &runtimeapi.CheckpointPodResponse{}, nil
}

// RestorePod runs a new sandbox with the containers of the request, all running.
func (s *service) RestorePod(_ context.Context, req *runtimeapi.RestorePodRequest) (*runtimeapi.RestorePodResponse, error) {
	o := s.options()
	if !o.PodCheckpoints {
		return nil, unimplemented(runtimeapi.RuntimeService_RestorePod_FullMethodName)
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.runSandbox(req.GetConfig(), req.GetRuntimeHandler(), o)
	if err != nil {
		return nil, err
	}
	resp := &runtimeapi.RestorePodResponse{PodSandboxId: b.id}
	for _, config := range req.GetContainerConfigs() {
		c, err := s.state.createContainer(b, config, req.GetConfig(), o)
		if err != nil {
			s.state.removeSandbox(b)
			return nil, err
		}
		s.state.start(c)
		resp.RestoredContainers = append(resp.RestoredContainers, &runtimeapi.RestoredContainer{
			Name:        config.GetMetadata().GetName(),
			ContainerId: c.id,
		})
	}
	return resp, nil
}
