package fakeruntime

import (
	"context"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ListPodSandbox returns the sandboxes that match the filter.
func (s *service) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	return &runtimeapi.ListPodSandboxResponse{Items: s.state.listSandboxes(req.GetFilter())}, nil
}

// StreamPodSandboxes sends the sandboxes that match the filter.
func (s *service) StreamPodSandboxes(req *runtimeapi.StreamPodSandboxesRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxesResponse]) error {
	items := s.state.listSandboxes(req.GetFilter())
	return sendBatches(out.Context(), items, s.options().StreamBatch, func(batch []*runtimeapi.PodSandbox) error {
		return out.Send(&runtimeapi.StreamPodSandboxesResponse{PodSandboxes: batch})
	})
}

func (s *state) listSandboxes(filter *runtimeapi.PodSandboxFilter) []*runtimeapi.PodSandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.sandboxes.resolve(filter.GetId())
	items := []*runtimeapi.PodSandbox{}
	for b := range s.sandboxes.all {
		if (id == "" || id == b.id) &&
			(filter.GetState() == nil || filter.GetState().GetState() == b.state) &&
			hasLabels(b.config.GetLabels(), filter.GetLabelSelector()) {
			items = append(items, b.item)
		}
	}
	return items
}

// ListContainers returns the containers that match the filter.
func (s *service) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: s.state.listContainers(req.GetFilter())}, nil
}

// StreamContainers sends the containers that match the filter.
func (s *service) StreamContainers(req *runtimeapi.StreamContainersRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainersResponse]) error {
	items := s.state.listContainers(req.GetFilter())
	return sendBatches(out.Context(), items, s.options().StreamBatch, func(batch []*runtimeapi.Container) error {
		return out.Send(&runtimeapi.StreamContainersResponse{Containers: batch})
	})
}

func (s *state) listContainers(filter *runtimeapi.ContainerFilter) []*runtimeapi.Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []*runtimeapi.Container{}
	for _, c := range s.selectContainers(filter) {
		items = append(items, c.item)
	}
	return items
}

// selectContainers also serves the statistics, whose filter is a ContainerFilter without a state.
func (s *state) selectContainers(filter *runtimeapi.ContainerFilter) []*container {
	id, pod := s.containers.resolve(filter.GetId()), s.sandboxes.resolve(filter.GetPodSandboxId())
	var selected []*container
	for c := range s.containers.all {
		if (id == "" || id == c.id) &&
			(pod == "" || pod == c.sandbox.id) &&
			(filter.GetState() == nil || filter.GetState().GetState() == c.state) &&
			hasLabels(c.config.GetLabels(), filter.GetLabelSelector()) {
			selected = append(selected, c)
		}
	}
	return selected
}

func hasLabels(labels, selector map[string]string) bool {
	for key, want := range selector {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}
