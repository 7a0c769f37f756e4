package fakeruntime

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStats returns made-up numbers of a container.
func (s *service) ContainerStats(_ context.Context, req *runtimeapi.ContainerStatsRequest) (*runtimeapi.ContainerStatsResponse, error) {
	mountpoint := s.options().ImageMountpoint
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	c, err := s.state.containers.get(req.GetContainerId())
	if err != nil {
		return nil, fmt.Errorf("failed to find container: %w", err)
	}
	return &runtimeapi.ContainerStatsResponse{Stats: c.stats(s.state.now(), mountpoint)}, nil
}

// ListContainerStats returns made-up numbers of the running containers that match the filter.
func (s *service) ListContainerStats(_ context.Context, req *runtimeapi.ListContainerStatsRequest) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: s.listContainerStats(req.GetFilter())}, nil
}

// StreamContainerStats sends what ListContainerStats returns.
func (s *service) StreamContainerStats(req *runtimeapi.StreamContainerStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamContainerStatsResponse]) error {
	return sendBatches(out.Context(), s.listContainerStats(req.GetFilter()), s.options().StreamBatch, func(batch []*runtimeapi.ContainerStats) error {
		return out.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: batch})
	})
}

func (s *service) listContainerStats(filter *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	mountpoint := s.options().ImageMountpoint
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	selected := s.state.selectContainers(&runtimeapi.ContainerFilter{
		Id:            filter.GetId(),
		PodSandboxId:  filter.GetPodSandboxId(),
		LabelSelector: filter.GetLabelSelector(),
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	})
	stats := []*runtimeapi.ContainerStats{}
	for _, c := range selected {
		stats = append(stats, c.stats(s.state.now(), mountpoint))
	}
	return stats
}

func (c *container) stats(now int64, mountpoint string) *runtimeapi.ContainerStats {
	return &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id:          c.id,
			Metadata:    c.config.GetMetadata(),
			Labels:      c.config.GetLabels(),
			Annotations: c.config.GetAnnotations(),
		},
		Cpu:    cpuUsage(now),
		Memory: memoryUsage(now),
		WritableLayer: &runtimeapi.FilesystemUsage{
			Timestamp:  now,
			FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: mountpoint},
			UsedBytes:  &runtimeapi.UInt64Value{Value: 1 << 20},
			InodesUsed: &runtimeapi.UInt64Value{Value: 16},
		},
	}
}

func cpuUsage(now int64) *runtimeapi.CpuUsage {
	return &runtimeapi.CpuUsage{
		Timestamp:            now,
		UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: 1e9},
		UsageNanoCores:       &runtimeapi.UInt64Value{Value: 1e6},
	}
}

func memoryUsage(now int64) *runtimeapi.MemoryUsage {
	return &runtimeapi.MemoryUsage{
		Timestamp:       now,
		WorkingSetBytes: &runtimeapi.UInt64Value{Value: 8 << 20},
		UsageBytes:      &runtimeapi.UInt64Value{Value: 9 << 20},
		RssBytes:        &runtimeapi.UInt64Value{Value: 7 << 20},
	}
}

// PodSandboxStats returns made-up numbers of a sandbox and its running containers.
func (s *service) PodSandboxStats(_ context.Context, req *runtimeapi.PodSandboxStatsRequest) (*runtimeapi.PodSandboxStatsResponse, error) {
	mountpoint := s.options().ImageMountpoint
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	b, err := s.state.sandboxes.get(req.GetPodSandboxId())
	if err != nil {
		return nil, fmt.Errorf("an error occurred when trying to find sandbox %s: %w", req.GetPodSandboxId(), err)
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: b.stats(s.state.now(), mountpoint)}, nil
}

// ListPodSandboxStats returns made-up numbers of the ready sandboxes that match the filter.
func (s *service) ListPodSandboxStats(_ context.Context, req *runtimeapi.ListPodSandboxStatsRequest) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: s.listSandboxStats(req.GetFilter())}, nil
}

// StreamPodSandboxStats sends what ListPodSandboxStats returns.
func (s *service) StreamPodSandboxStats(req *runtimeapi.StreamPodSandboxStatsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxStatsResponse]) error {
	return sendBatches(out.Context(), s.listSandboxStats(req.GetFilter()), s.options().StreamBatch, func(batch []*runtimeapi.PodSandboxStats) error {
		return out.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: batch})
	})
}

func (s *service) listSandboxStats(filter *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	mountpoint := s.options().ImageMountpoint
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	id := s.state.sandboxes.resolve(filter.GetId())
	stats := []*runtimeapi.PodSandboxStats{}
	for b := range s.state.sandboxes.all {
		if (id == "" || id == b.id) &&
			b.state == runtimeapi.PodSandboxState_SANDBOX_READY &&
			hasLabels(b.config.GetLabels(), filter.GetLabelSelector()) {
			stats = append(stats, b.stats(s.state.now(), mountpoint))
		}
	}
	return stats
}

func (b *sandbox) stats(now int64, mountpoint string) *runtimeapi.PodSandboxStats {
	stats := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id:          b.id,
			Metadata:    b.config.GetMetadata(),
			Labels:      b.config.GetLabels(),
			Annotations: b.config.GetAnnotations(),
		},
		Linux: &runtimeapi.LinuxPodSandboxStats{
			Cpu:     cpuUsage(now),
			Memory:  memoryUsage(now),
			Process: &runtimeapi.ProcessUsage{Timestamp: now, ProcessCount: &runtimeapi.UInt64Value{Value: 2}},
		},
	}
	for _, c := range b.containers {
		if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING {
			stats.Linux.Containers = append(stats.Linux.Containers, c.stats(now, mountpoint))
		}
	}
	return stats
}
