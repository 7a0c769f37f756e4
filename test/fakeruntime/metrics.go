package fakeruntime

import (
	"context"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const metricMemory = "container_memory_working_set_bytes"

// ListMetricDescriptors describes the one metric there is.
func (*service) ListMetricDescriptors(context.Context, *runtimeapi.ListMetricDescriptorsRequest) (*runtimeapi.ListMetricDescriptorsResponse, error) {
	return &runtimeapi.ListMetricDescriptorsResponse{Descriptors: []*runtimeapi.MetricDescriptor{{
		Name:      metricMemory,
		Help:      "Current working set in bytes.",
		LabelKeys: []string{"id", "name"},
	}}}, nil
}

// ListPodSandboxMetrics returns made-up metrics of all sandboxes and their containers.
func (s *service) ListPodSandboxMetrics(context.Context, *runtimeapi.ListPodSandboxMetricsRequest) (*runtimeapi.ListPodSandboxMetricsResponse, error) {
	return &runtimeapi.ListPodSandboxMetricsResponse{PodMetrics: s.state.metrics()}, nil
}

// StreamPodSandboxMetrics sends what ListPodSandboxMetrics returns.
func (s *service) StreamPodSandboxMetrics(_ *runtimeapi.StreamPodSandboxMetricsRequest, out grpc.ServerStreamingServer[runtimeapi.StreamPodSandboxMetricsResponse]) error {
	return sendBatches(out.Context(), s.state.metrics(), s.options().StreamBatch, func(batch []*runtimeapi.PodSandboxMetrics) error {
		return out.Send(&runtimeapi.StreamPodSandboxMetricsResponse{PodSandboxMetrics: batch})
	})
}

func (s *state) metrics() []*runtimeapi.PodSandboxMetrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	metrics := []*runtimeapi.PodSandboxMetrics{}
	for b := range s.sandboxes.all {
		m := &runtimeapi.PodSandboxMetrics{
			PodSandboxId: b.id,
			Metrics:      []*runtimeapi.Metric{memoryMetric(now, b.id, b.config.GetMetadata().GetName())},
		}
		for _, c := range b.containers {
			m.ContainerMetrics = append(m.ContainerMetrics, &runtimeapi.ContainerMetrics{
				ContainerId: c.id,
				Metrics:     []*runtimeapi.Metric{memoryMetric(now, c.id, c.config.GetMetadata().GetName())},
			})
		}
		metrics = append(metrics, m)
	}
	return metrics
}

func memoryMetric(now int64, id, name string) *runtimeapi.Metric {
	return &runtimeapi.Metric{
		Name:        metricMemory,
		Timestamp:   now,
		MetricType:  runtimeapi.MetricType_GAUGE,
		LabelValues: []string{id, name},
		Value:       &runtimeapi.UInt64Value{Value: 8 << 20},
	}
}
