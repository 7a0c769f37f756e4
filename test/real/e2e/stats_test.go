package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/cri-proxy/cri-proxy/test/real/rig"
)

// summary is the part of the kubelet's /stats/summary that the test reads.
type summary struct {
	Pods []struct {
		PodRef     struct{ Name, Namespace string }
		Containers []struct {
			Name   string
			CPU    struct{ UsageCoreNanoSeconds uint64 }
			Memory struct{ WorkingSetBytes uint64 }
		}
	}
}

// testStats: the kubelet knows what a container of each handler uses.
func testStats(ctx context.Context, t *testing.T, c *cluster) {
	s := newSpace(ctx, t, c)
	image := s.image(ctx, t, rig.Image{})
	for _, handler := range handlers() {
		s.create(ctx, t, s.pod(handler, handler, image))
	}
	s.ready(ctx, t, handlers()...)
	for _, handler := range handlers() {
		s.wait(ctx, t, func() error {
			text, err := s.Cluster.Kubelet.Get(ctx, "/stats/summary")
			if err != nil {
				return err
			}
			if err := s.measured(text, handler); err != nil {
				return err
			}
			// This is what a metrics server reads.
			text, err = s.Cluster.Kubelet.Get(ctx, "/metrics/resource")
			return errors.Join(err, contains(string(text), fmt.Sprintf(`container_memory_working_set_bytes{container="app",namespace=%q,pod=%q}`, s.name, handler)))
		})
	}
}

// measured says what is missing of a pod's numbers.
func (s *space) measured(text []byte, name string) error {
	var got summary
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	for _, pod := range got.Pods {
		if pod.PodRef.Name != name || pod.PodRef.Namespace != s.name || len(pod.Containers) != 1 {
			continue
		}
		container := pod.Containers[0]
		if container.Name == "app" && container.CPU.UsageCoreNanoSeconds > 0 && container.Memory.WorkingSetBytes > 0 {
			return nil
		}
		return fmt.Errorf("pod %s: %+v", name, container)
	}
	return fmt.Errorf("pod %s of %s is not in the summary of %d pods", name, s.name, len(got.Pods))
}
